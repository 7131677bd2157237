//! Tenants that attack their neighbours through their own regions (`attacks/tenant.py`): two containers at 30 : 70 of a device
//! keep their shares within two points, and the agent its time.

use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use gpuquota_promises::{Agent, Host, Judge, Machine, Program, Readings, Scratch, Setting, on_each};

/// Until the agent has found new regions.
const FOUND: Duration = Duration::from_secs(3);
/// How long the neighbours are watched.
const WATCHED: Duration = Duration::from_secs(5);

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("attacks/tenant.py")
}

fn running(container: &Setting<'_>) -> (Program, i64) {
    let mut program = container.start("launch_loop", &["work_1ms", "told", "plain", "4", "132"]);
    let pid = program.wait_for("ready");
    (program, pid)
}

fn attack(machine: &Machine, what: &str, victim: &Path, root: &Path, number: u32) -> Program {
    let [script, victim, root] =
        [&script(), victim, root].map(|path| path.to_str().expect("plain").to_owned());
    let number = number.to_string();
    let command = machine
        .bare()
        .command("nice", &["-n", "19", "python3", "-B", &script, what, &victim, &root, &number]);
    let mut program = Program::start(command);
    program.wait_for("ready");
    program
}

/// What neighbours at 30 : 70 have, in percent, before an attack and beside it.
fn beside(judge: Judge, what: &str, number: u32) -> [Vec<f64>; 2] {
    let machine = judge.machine(Host::Usual);
    let mut readings = Readings::of(&machine);
    let containers = [30, 70].map(|cores| machine.quota().cores(cores));
    let hostile = Scratch::new();
    let agent = Agent::of(&[containers[0].home(), containers[1].home(), hostile.path()]);
    let programs = containers.each_ref().map(|one| running(one));
    thread::sleep(FOUND);
    let pids = programs.each_ref().map(|(_, pid)| *pid);
    let before = readings.have(&pids, WATCHED);
    let attacker = attack(&machine, what, &containers[0].region(), hostile.path(), number);
    thread::sleep(FOUND);
    let seen = readings.have(&pids, WATCHED);
    drop(attacker);
    drop(agent);
    programs.into_iter().for_each(|(one, pid)| readings.agree(one, pid));
    [before, seen]
}

#[track_caller]
fn keeps_its_neighbours_shares(what: &str, number: u32) {
    let attempt = |judge: Judge| {
        let seen @ [before, beside] = &beside(judge, what, number);
        // What a busy host takes from both before and beside is not the tenant's doing.
        let keeps = |at: usize, share: f64| {
            (beside[at] - share).abs() <= 2.0 || (beside[at] - before[at]).abs() <= 2.0
        };
        (seen.clone(), keeps(0, 30.0) && keeps(1, 70.0))
    };
    on_each(&[Judge::ALL[0]], attempt).expect("30 : 70, within two points");
}

#[test]
fn a_container_that_does_nothing_takes_nothing_of_the_neighbours_shares() {
    keeps_its_neighbours_shares("nothing", 1);
}

#[test]
fn a_request_from_the_future_takes_nothing_of_the_neighbours_shares() {
    keeps_its_neighbours_shares("future", 32);
}

#[test]
fn work_without_end_takes_nothing_of_the_neighbours_shares() {
    keeps_its_neighbours_shares("endless", 32);
}

#[test]
fn regions_that_always_ask_take_nothing_of_the_neighbours_shares() {
    keeps_its_neighbours_shares("asks", 16);
}

#[test]
fn a_file_lease_stops_nobodys_leases() {
    keeps_its_neighbours_shares("lease", 3);
}

#[test]
fn a_busy_file_stops_nobodys_leases() {
    keeps_its_neighbours_shares("busy", 1);
}

#[test]
fn regions_that_come_and_go_take_nothing_of_the_neighbours_shares() {
    keeps_its_neighbours_shares("comes_and_goes", 3);
}

#[test]
fn a_region_without_its_page_takes_nothing_of_the_neighbours_shares() {
    keeps_its_neighbours_shares("page", 2);
}
