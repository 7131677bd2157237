//! Tenants that attack their neighbours through their own regions (`attacks/tenant.py`): two containers at 30 : 70 of a device
//! keep their shares within two points, and the agent its time.

use std::fs::{self, File};
use std::mem::offset_of;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use gpuquota_promises::{
    Agent, Host, Judge, Machine, Program, Readings, Scratch, Setting, artifact, on_each,
};
use gpuquota_region::layout::LeaseRecord;
use gpuquota_region::snapshot::lease_offset;
use gpuquota_region::sys::monotonic_ns;

/// Until the agent has found new regions.
const FOUND: Duration = Duration::from_secs(3);
/// So old the agent's last word counts for nothing.
const GONE: Duration = Duration::from_millis(50);
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

/// An attack, and how often.
type Attack = (&'static str, u32);

/// What neighbours at 30 : 70 have, in percent, before all attacks and beside each.
fn beside(judge: Judge, attacks: &[Attack]) -> Vec<Vec<f64>> {
    let machine = judge.machine(Host::Usual);
    let mut readings = Readings::of(&machine);
    let containers = [30, 70].map(|cores| machine.quota().cores(cores));
    let hostile = Scratch::new();
    let agent = Agent::of(&[containers[0].home(), containers[1].home(), hostile.path()]);
    let programs = containers.each_ref().map(|one| running(one));
    thread::sleep(FOUND);
    let pids = programs.each_ref().map(|(_, pid)| *pid);
    let mut seen = vec![readings.have(&pids, WATCHED)];
    for (what, number) in attacks {
        let attacker = attack(&machine, what, &containers[0].region(), hostile.path(), *number);
        thread::sleep(FOUND);
        seen.push(readings.have(&pids, WATCHED));
        drop(attacker);
    }
    drop(agent);
    programs.into_iter().for_each(|(one, pid)| readings.agree(one, pid));
    seen
}

#[track_caller]
fn keeps_its_neighbours_shares(attacks: &[Attack]) {
    let attempt = |judge: Judge| {
        let seen = beside(judge, attacks);
        let (before, during) = seen.split_first().expect("a first reading");
        // What a busy host takes from both before and beside is not the tenant's doing.
        let keeps = |beside: &[f64], at: usize, share: f64| {
            (beside[at] - share).abs() <= 2.0 || (beside[at] - before[at]).abs() <= 2.0
        };
        let kept = during.iter().all(|beside| keeps(beside, 0, 30.0) && keeps(beside, 1, 70.0));
        (seen, kept)
    };
    on_each(&[Judge::ALL[0]], attempt).expect("30 : 70, within two points");
}

#[test]
fn a_container_that_does_nothing_takes_nothing_of_the_neighbours_shares() {
    keeps_its_neighbours_shares(&[("nothing", 1)]);
}

#[test]
fn a_request_from_the_future_takes_nothing_of_the_neighbours_shares() {
    keeps_its_neighbours_shares(&[("future", 32)]);
}

#[test]
fn work_without_end_takes_nothing_of_the_neighbours_shares() {
    keeps_its_neighbours_shares(&[("endless", 32)]);
}

#[test]
fn regions_that_always_ask_or_invent_devices_take_nothing_of_the_neighbours_shares() {
    keeps_its_neighbours_shares(&[("asks", 16), ("uuids", 30)]);
}

#[test]
fn a_file_lease_stops_nobodys_leases() {
    keeps_its_neighbours_shares(&[("lease", 3)]);
}

#[test]
fn a_busy_file_stops_nobodys_leases() {
    keeps_its_neighbours_shares(&[("busy", 1)]);
}

#[test]
fn regions_that_come_and_go_take_nothing_of_the_neighbours_shares() {
    keeps_its_neighbours_shares(&[("comes_and_goes", 3)]);
}

#[test]
fn a_region_without_its_page_takes_nothing_of_the_neighbours_shares() {
    keeps_its_neighbours_shares(&[("page", 2)]);
}

/// How old the agent's last word to a container is.
fn age_of_its_word(container: &Setting<'_>) -> Duration {
    let at = lease_offset(0).expect("a device") + offset_of!(LeaseRecord, renewed_at_ns);
    let mut word = [0; 8];
    let region = File::open(container.region()).expect("a region");
    region.read_exact_at(&mut word, at as u64).expect("its header");
    Duration::from_nanos(monotonic_ns().saturating_sub(u64::from_le_bytes(word)))
}

/// In how many of ten windows of 100 ms each of the processes has run kernels.
fn windows_at_work(machine: &Machine, pids: &[i64]) -> usize {
    let busy = || {
        let truth = machine.truth();
        pids.iter().map(|pid| truth.busy_ns_of(&[*pid])).collect::<Vec<_>>()
    };
    let mut before = busy();
    let at_work = |_: &usize| {
        thread::sleep(Duration::from_millis(100));
        let now = busy();
        let all = now.iter().zip(&before).all(|(now, before)| now > before);
        before = now;
        all
    };
    (0..10).filter(at_work).count()
}

#[test]
fn an_agent_that_is_killed_stopped_or_replaced_under_load_holds_nobody_up() {
    let machine = Machine::new("H100");
    let containers = [30, 70].map(|cores| machine.quota().cores(cores));
    let folders = [containers[0].home(), containers[1].home()];
    let mut agent = Agent::of(&folders);
    let programs = containers.each_ref().map(|one| running(one));
    let pids = programs.each_ref().map(|(_, pid)| *pid);
    let is_back = || containers.iter().all(|one| age_of_its_word(one) < GONE);
    let wait_until_back = |longest: Duration| {
        let begun = Instant::now();
        while !is_back() {
            assert!(begun.elapsed() < longest, "no leases after {longest:?}");
            thread::sleep(Duration::from_millis(5));
        }
    };
    wait_until_back(FOUND);
    // Another file of the same program is a new version to everybody else.
    let scratch = Scratch::new();
    let newer = scratch.path().join("gpuquota");
    fs::copy(artifact("gpuquota"), &newer).expect("a copy");
    let on_their_own = |what: &str| {
        // From then on its last word counts for nothing, and each container keeps its own share.
        thread::sleep(GONE);
        let at_work = windows_at_work(&machine, &pids);
        // A busy host may leave a program without a processor for as long as a window.
        assert!(at_work >= 9, "{what}: all were at work in {at_work} of 10 windows");
    };
    agent.stop();
    on_their_own("stopped");
    agent.go_on();
    wait_until_back(Duration::from_secs(1));
    drop(agent);
    on_their_own("killed");
    agent = Agent::of(&folders);
    wait_until_back(Duration::from_secs(1));
    agent.end();
    agent = Agent::by(&newer, &folders);
    wait_until_back(Duration::from_secs(1));
    assert!(windows_at_work(&machine, &pids) >= 9, "replaced");
    drop(agent);
}
