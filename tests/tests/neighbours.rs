//! Containers beside each other on one device, with the node's agent: by leases each has its share, and no time is wasted.

use std::thread;
use std::time::Duration;

use gpuquota_promises::{Agent, Host, Judge, Program, Promise, Readings, Setting, on_each, twice};

/// What processes have of the device in three seconds.
const WATCHED: Duration = Duration::from_secs(3);

/// Until the agent has found new regions, which it looks for every two seconds.
const FOUND: Duration = Duration::from_secs(4);

fn running(container: &Setting<'_>) -> (Program, i64) {
    let mut program = container.start("launch_loop", &["work_5ms", "told", "plain", "4", "132"]);
    let pid = program.wait_for("ready");
    (program, pid)
}

fn agent_of(containers: &[&Setting<'_>]) -> Agent {
    Agent::of(&containers.iter().map(|one| one.home()).collect::<Vec<_>>())
}

/// The use, in percent, of two containers at 30% and 70% of a device that each could use up alone: with an agent, and after
/// it has stopped.
fn beside_each_other(judge: Judge) -> [Vec<f64>; 2] {
    let machine = judge.machine(Host::Usual);
    let mut readings = Readings::of(&machine);
    let containers = [30, 70].map(|cores| machine.quota().cores(cores));
    let agent = agent_of(&containers.each_ref());
    let programs = containers.each_ref().map(|one| running(one));
    let pids = programs.each_ref().map(|(_, pid)| *pid);
    thread::sleep(FOUND);
    let with = readings.have(&pids, WATCHED);
    agent.stop();
    thread::sleep(Duration::from_secs(2));
    let without = readings.have(&pids, WATCHED);
    programs.into_iter().for_each(|(one, pid)| readings.agree(one, pid));
    [with, without]
}

#[test]
fn beside_others_each_container_has_its_share_as_long_as_the_agent_lives_and_never_more_without_it() {
    let promise = &Promise::to(&["HAMi-core#76"]);
    let attempt = |judge: Judge| {
        let seen @ [with, without] = &beside_each_other(judge);
        let kept = (with[0] - 30.0).abs() < 3.0 && (with[1] - 70.0).abs() < 3.0;
        (seen.clone(), kept && without[0] < 31.5 && without[1] < 71.5)
    };
    promise.asserts(|| on_each(&Judge::ALL, attempt).expect("30 : 70, then not more than that"));
}

/// Containers and the agent report which container has the device, and which ones wait for it.
#[test]
fn waits_of_containers_for_each_other_are_reported() {
    let attempt = |judge: Judge| {
        let machine = judge.machine(Host::Usual);
        let containers = [50, 50].map(|cores| machine.quota().cores(cores));
        let agent = agent_of(&containers.each_ref());
        let programs = containers.each_ref().map(|one| running(one));
        thread::sleep(Duration::from_secs(7));
        let half_a_second = 500_000_000;
        let reported = containers.iter().all(|container| {
            let lease = &container.inspect()["devices"][0]["lease"];
            ["held_ns", "waited_ns"].iter().all(|key| lease[key].as_i64() > Some(half_a_second))
        });
        let metrics = agent.metrics();
        let seconds_of = |name: &str| {
            let name = format!("gpuquota_container_{name}{{");
            let lines = metrics.lines().filter(|line| line.starts_with(&name));
            let values = lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
            values.filter(|seconds| *seconds > 0.5).count()
        };
        let seen = ["turn_wait_seconds_total", "held_while_wanted_seconds_total"].map(seconds_of);
        programs.into_iter().for_each(|(one, _)| _ = one.finish().success());
        ((reported, seen), reported && seen == [2, 2])
    };
    on_each(&Judge::ALL, attempt).expect("both containers held the device, and waited for it");
}

/// The use of a container of 30% beside an idle one, beside one of 70%, and after that one has ended.
fn beside_one_that_comes_and_goes(judge: Judge, policy: &str) -> [f64; 3] {
    let machine = judge.machine(Host::Usual);
    let mut readings = Readings::of(&machine);
    let containers = [30, 70].map(|cores| machine.quota().cores(cores).with("GPUQUOTA_POLICY", policy));
    let _agent = agent_of(&containers.each_ref());
    // Both have started, and one of them is idle.
    let mut idle = containers[1].start("hold", &[]);
    assert_eq!(idle.ask("alloc 1048576", "rc"), 0);
    let (own, pid) = running(&containers[0]);
    thread::sleep(FOUND);
    let mut own_use = || readings.have(&[pid], WATCHED)[0];
    let alone = own_use();
    let (other, _) = running(&containers[1]);
    thread::sleep(FOUND);
    let beside = own_use();
    other.finish().success();
    thread::sleep(FOUND);
    let again = own_use();
    readings.agree(own, pid);
    idle.finish().success();
    [alone, beside, again]
}

#[test]
fn idle_time_is_lent_and_given_back_under_burst_share_alone() {
    let attempt = |judge: Judge| {
        let lent = beside_one_that_comes_and_goes(judge, "burst-share");
        let kept = lent[0] > 90.0 && (lent[1] - 30.0).abs() < 3.0 && lent[2] > 90.0;
        (lent, kept)
    };
    on_each(&Judge::ALL, attempt).expect("all of it while nobody else wants it, and else 30%");
    let attempt = |judge: Judge| {
        let capped = beside_one_that_comes_and_goes(judge, "fixed-share");
        (capped, capped.iter().all(|seen| (seen - 30.0).abs() < 3.0))
    };
    on_each(&Judge::ALL, attempt).expect("30% at any time");
}

/// What two containers at 50 : 50 have together that wait for each kernel of 0.1 ms, on a device that fills the gaps of one
/// with the kernels of the other.
fn that_wait(flags: &[&str]) -> Vec<f64> {
    let machine = Judge::Interleaving.machine(Host::Usual);
    let mut readings = Readings::of(&machine);
    let containers = [50, 50].map(|cores| machine.quota().cores(cores));
    let homes = containers.each_ref().map(|one| one.home());
    let _agent = Agent::with(&homes, flags);
    let mut programs = containers
        .each_ref()
        .map(|one| one.start("launch_loop", &["work_100us", "told", "plain", "1", "132"]));
    let pids = programs.each_mut().map(|one| one.wait_for("ready"));
    // Turns come first; then the other way is tried.
    thread::sleep(FOUND + Duration::from_secs(4));
    let have = readings.have(&pids, WATCHED);
    programs.into_iter().zip(pids).for_each(|(one, pid)| readings.agree(one, pid));
    have
}

#[test]
fn containers_that_wait_for_their_kernels_fill_each_others_gaps() {
    let attempt = || {
        let (turns, beside) = (that_wait(&["--turns"]), that_wait(&[]));
        let sum = |have: &[f64]| have.iter().sum::<f64>();
        let kept = sum(&beside) > 1.05 * sum(&turns) && (beside[0] - beside[1]).abs() < 5.0;
        ((turns, beside), kept)
    };
    twice(attempt).expect("more than by turns, in equal parts");
}

#[test]
fn a_request_below_the_limit_is_guaranteed_and_the_limit_is_a_cap() {
    let attempt = |judge: Judge| {
        let machine = judge.machine(Host::Usual);
        let mut readings = Readings::of(&machine);
        let own = machine.quota().cores(60).with("GPUQUOTA_CORES_REQUEST", "20%");
        let other = machine.quota().cores(80).with("GPUQUOTA_CORES_REQUEST", "80%");
        let _agent = agent_of(&[&own, &other]);
        let (one, pid) = running(&own);
        thread::sleep(FOUND);
        let alone = readings.have(&[pid], WATCHED)[0];
        let (two, others) = running(&other);
        thread::sleep(FOUND);
        let beside = readings.have(&[pid, others], WATCHED);
        readings.agree(two, others);
        readings.agree(one, pid);
        let kept =
            (alone - 60.0).abs() < 3.0 && (beside[0] - 20.0).abs() < 3.0 && (beside[1] - 80.0).abs() < 3.0;
        ((alone, beside), kept)
    };
    on_each(&Judge::ALL, attempt).expect("60% alone; 20 : 80 beside the other");
}

/// Containers without a share get leases too; otherwise they would take time from those with a share.
#[test]
fn a_neighbour_without_a_share_takes_nothing_of_one() {
    let attempt = |judge: Judge| {
        let machine = judge.machine(Host::Usual);
        let mut readings = Readings::of(&machine);
        let (own, other) = (machine.quota().cores(40), machine.quota().memory("40GiB"));
        let _agent = agent_of(&[&own, &other]);
        let programs = [&own, &other].map(|one| running(one));
        thread::sleep(FOUND);
        let seen = readings.have(&programs.each_ref().map(|(_, pid)| *pid), WATCHED);
        programs.into_iter().for_each(|(one, pid)| readings.agree(one, pid));
        let kept = (seen[0] - 40.0).abs() < 3.0 && (seen[1] - 60.0).abs() < 3.0;
        (seen, kept)
    };
    on_each(&Judge::ALL, attempt).expect("40 : 60");
}
