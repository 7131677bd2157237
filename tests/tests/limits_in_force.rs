//! The limits in force (`docs/limits.md`): whoever came first, whatever died, and what the operator said meanwhile.

use std::process::Command;

use gpuquota_promises::{
    Agent, GIB, MIB, Machine, OUT_OF_MEMORY, Outcome, Program, Promise, Setting, artifact,
};
use serde_json::Value;

fn holder(setting: &Setting<'_>) -> Program {
    let mut holder = setting.start("hold", &[]);
    holder.wait_for("pid");
    holder
}

fn total(holder: &mut Program) -> i64 {
    holder.ask("info", "total")
}

fn alloc(holder: &mut Program, bytes: i64) -> i64 {
    holder.ask(&format!("alloc {bytes}"), "rc")
}

fn device(quota: &Setting<'_>) -> Value {
    quota.inspect()["devices"][0].clone()
}

/// The value of a metric of the container's one device, as the agent exports it.
fn metric(quota: &Setting<'_>, name: &str) -> Option<f64> {
    let answer = Agent::start(quota.home()).metrics();
    let line = answer.lines().find(|line| line.starts_with(&format!("{name}{{")))?;
    line.rsplit(' ').next()?.parse().ok()
}

#[test]
fn a_process_is_held_to_the_limit_that_it_brings_whoever_came_first() {
    let promise = &Promise::to(&["HAMi#1641"]);
    for first in ["views", "views_first", "devices"] {
        let machine = Machine::new("H100");
        let quota = machine.quota().memory(2 * GIB);
        quota.without_limits().run(first, &[]).success();
        promise.asserts(|| {
            assert_eq!(quota.run("views", &[]).success().value("total"), 2 * GIB, "after {first}")
        });
        // And while one lives that has no limit.
        let mut unlimited = holder(&quota.without_limits());
        let mut limited = holder(&quota);
        assert_eq!((alloc(&mut limited, 3 * GIB), alloc(&mut limited, GIB)), (OUT_OF_MEMORY, 0));
        assert_eq!(alloc(&mut unlimited, GIB), OUT_OF_MEMORY, "it never lifts the limit of the other");
        assert!(machine.truth().device("physical_bytes") <= 2 * GIB + 4 * MIB);
    }
}

#[test]
fn variables_of_hami_bring_limits_as_ours_do() {
    let machine = Machine::new("H100");
    let quota = machine.quota();
    quota.run("views", &[]).success();
    let hami =
        quota.without_limits().with("CUDA_DEVICE_MEMORY_LIMIT_0", "2g").with("CUDA_DEVICE_SM_LIMIT", "30");
    assert_eq!(hami.run("views", &[]).success().value("total"), 2 * GIB);
    assert_eq!(
        (&device(&quota)["memory_limit"], &device(&quota)["core_limit"]),
        (&(2 * GIB).into(), &30.into())
    );
}

#[test]
fn the_newcomer_s_own_limits_hold_when_nobody_lives() {
    let promise = &Promise::to(&["HAMi-core#7"]);
    let machine = Machine::new("H100");
    let quota = machine.quota();
    let with = |memory: &str, physical: &str, cores: &str, request: &str| {
        let setting = quota.without_limits().memory(memory).with("GPUQUOTA_MEMORY_PHYSICAL", physical);
        let setting = setting.with("GPUQUOTA_CORES", cores).with("GPUQUOTA_CORES_REQUEST", request);
        let outcome = setting.run("views", &[]).success();
        assert!(!outcome.stderr.contains("holds"), "nothing differs: {outcome}");
        let device = device(&quota);
        let limits = ["memory_limit", "physical_limit", "core_limit"].map(|key| device[key].as_i64());
        (limits, device["lease"]["request_percent"].as_i64())
    };
    let limits = |memory, physical, cores| [memory * GIB, physical * GIB, cores].map(Some);
    assert_eq!(with("2GiB", "1GiB", "30", "10"), (limits(2, 1, 30), Some(10)));
    promise.asserts(|| assert_eq!(with("4GiB", "3GiB", "60", "20"), (limits(4, 3, 60), Some(20))));
    assert_eq!(with("3GiB", "2GiB", "40", "15"), (limits(3, 2, 40), Some(15)));
    // A process that was killed does not live either.
    let setting = quota.without_limits().memory("1GiB");
    let killed = holder(&setting);
    killed.kill();
    assert_eq!(quota.without_limits().memory("5GiB").run("views", &[]).success().value("total"), 5 * GIB);
    // Nor does one bring what it does not have: without limits there are none.
    assert_eq!(quota.run("views", &[]).success().value("total"), 80 * GIB);
}

#[test]
fn of_the_limits_of_living_processes_the_strictest_holds_as_long_as_its_process_lives() {
    let machine = Machine::new("H100");
    let quota = machine.quota();
    let [mut four, mut two] = ["4GiB", "2GiB"].map(|memory| holder(&quota.without_limits().memory(memory)));
    assert_eq!((total(&mut four), total(&mut two)), (2 * GIB, 2 * GIB));
    let mut three = holder(&quota.without_limits().memory("3GiB").cores(50));
    assert_eq!(total(&mut three), 2 * GIB);
    assert_eq!(device(&quota)["core_limit"], 50);
    two.kill();
    // The others' views follow within a second; an allocation at once, for nothing is refused before the dead are settled.
    assert_eq!((alloc(&mut four, 3 * GIB / 2), alloc(&mut four, 3 * GIB / 2)), (0, OUT_OF_MEMORY));
    assert_eq!((total(&mut four), total(&mut three)), (3 * GIB, 3 * GIB));
    three.finish().success();
    assert_eq!(alloc(&mut four, 3 * GIB / 2), 0);
    assert!(device(&quota)["core_limit"].is_null(), "{}", device(&quota));
}

#[test]
fn a_share_that_a_later_process_brings_binds_the_earlier_one_too() {
    let machine = Machine::new("H100");
    let quota = machine.quota();
    let mut unlimited = quota.start("launch_loop", &["busy_5ms", "told"]);
    unlimited.wait_for("ready");
    let _limited = holder(&quota.without_limits().cores(20));
    std::thread::sleep(std::time::Duration::from_millis(500));
    let busy = machine.busy_percent(0, std::time::Duration::from_secs(2));
    assert!(busy < 30.0, "{busy}");
}

#[test]
fn the_operator_s_limit_outranks_environments_until_it_is_reset() {
    let promise = &Promise::to(&["HAMi-core#7"]);
    let machine = Machine::new("H100");
    let quota = machine.quota().memory(2 * GIB).cores(30);
    let mut one = holder(&quota);
    quota.limit(&["--memory", "4GiB", "--cores", "60"]).success();
    assert_eq!(total(&mut one), 4 * GIB);
    // Later processes do not bring the old limit back, also when nobody lived meanwhile.
    let mut other = holder(&quota.without_limits().memory(GIB));
    promise.asserts(|| assert_eq!(total(&mut other), 4 * GIB));
    one.finish().success();
    other.finish().success();
    let outcome = quota.run("views", &[]).success();
    assert_eq!(outcome.value("total"), 4 * GIB);
    assert!(outcome.stderr.contains("the operator set it"), "{outcome}");
    let mut one = holder(&quota);
    quota.limit(&["--reset"]).success();
    assert_eq!((total(&mut one), &device(&quota)["core_limit"]), (2 * GIB, &30.into()));
    // A reset with other options: those hold instead.
    quota.limit(&["--memory", "3GiB", "--cores", "10"]).success();
    quota.limit(&["--reset", "--cores", "40"]).success();
    assert_eq!((total(&mut one), &device(&quota)["core_limit"]), (2 * GIB, &40.into()));
}

#[test]
fn a_process_that_gets_another_limit_than_it_asked_for_is_told_and_so_is_the_operator() {
    let machine = Machine::new("H100");
    let quota = machine.quota().memory(2 * GIB);
    let first = holder(&quota);
    let outcome = quota.without_limits().memory(4 * GIB).run("views", &[]).success();
    let told: Vec<_> = outcome.stderr.lines().collect();
    assert_eq!(told.len(), 1, "{outcome}");
    for word in ["4.0 GiB", "2.0 GiB", "process"] {
        assert!(told[0].contains(word), "{word}: {outcome}");
    }
    let events = quota.inspect()["events"].clone();
    let differs = |event: &&Value| event["event"] == "limit_differs";
    let event = events.as_array().into_iter().flatten().find(differs).expect("an event").clone();
    assert_eq!((&event["asked"], &event["limit"]), (&(4 * GIB).into(), &(2 * GIB).into()), "{event}");
    assert_eq!(device(&quota)["limit_conflicts"], 1);
    assert_eq!(metric(&quota, "gpuquota_container_limit_conflicts_total"), Some(1.0));
    let quiet = quota.without_limits().memory(4 * GIB).with("GPUQUOTA_LOG", "off");
    assert_eq!(quiet.run("views", &[]).success().stderr, "");
    drop(first);
}

#[test]
fn inspect_names_the_origin_of_each_limit() {
    let machine = Machine::new("H100");
    let quota = machine.quota().memory(2 * GIB).cores(30);
    let mut one = quota.start("hold", &[]);
    let pid = one.wait_for("pid");
    let inspect = || -> Outcome {
        let mut command = Command::new(artifact("gpuquota"));
        command.arg("inspect").arg(quota.region());
        Program::start(command).finish().success()
    };
    let shown = inspect().out;
    assert_eq!(shown.matches(&format!("by the environment of process {pid}")).count(), 2, "{shown}");
    quota.limit(&["--memory", "4GiB"]).success();
    let shown = inspect().out;
    assert!(shown.contains("4.00 GiB (by the operator (gpuquota limit))"), "{shown}");
    assert!(shown.contains(&format!("30% (by the environment of process {pid})")), "{shown}");
}

#[test]
fn run_with_a_region_applies_the_limits_that_it_was_given() {
    let machine = Machine::new("H100");
    let quota = machine.quota();
    let run = |memory: &str| {
        let mut command = machine.bare().command(artifact("gpuquota"), &[]);
        command.args(["run", "--memory", memory, "--region"]).arg(quota.region()).arg("--");
        command.arg(gpuquota_promises::program("views"));
        Program::start(command).finish().success()
    };
    for (memory, bytes) in [("2GiB", 2 * GIB), ("4GiB", 4 * GIB), ("3GiB", 3 * GIB)] {
        assert_eq!(run(memory).value("total"), bytes);
    }
    let _living = holder(&quota.without_limits().memory(2 * GIB));
    let outcome = run("4GiB");
    assert_eq!(outcome.value("total"), 2 * GIB);
    assert!(outcome.stderr.contains("4.0 GiB"), "it does not say why not: {outcome}");
}

#[test]
fn the_physical_budget_of_another_process_holds_for_this_one() {
    let machine = Machine::new("H100");
    let quota = machine.quota();
    let _budget = holder(&quota.without_limits().memory(4 * GIB).with("GPUQUOTA_MEMORY_PHYSICAL", "2GiB"));
    let mut other = holder(&quota);
    assert_eq!((alloc(&mut other, GIB / 2), alloc(&mut other, 2 * GIB)), (0, OUT_OF_MEMORY));
    assert!(machine.truth().device("physical_bytes") <= 2 * GIB + 4 * MIB);
}

#[test]
fn a_process_whose_idle_time_others_do_not_lend_is_told() {
    let machine = Machine::new("H100");
    let quota = machine.quota();
    let _fixed = holder(&quota.without_limits().cores(30).with("GPUQUOTA_POLICY", "fixed-share"));
    let outcome = quota.without_limits().cores(30).run("views", &[]).success();
    assert!(outcome.stderr.contains("fixed-share holds"), "{outcome}");
    assert_eq!(device(&quota)["lease"]["burst"], false);
}
