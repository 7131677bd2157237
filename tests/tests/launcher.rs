//! `gpuquota` starts any command under a quota and does nothing else to it. It shows the region's figures, which must equal
//! the device's.

use std::process::Command;

use gpuquota_promises::{
    Agent, GIB, MIB, Machine, OUT_OF_MEMORY, Program, Promise, Setting, artifact, program,
};

/// A command under `gpuquota run`, on a machine.
fn under<'a>(setting: &Setting<'_>, options: &[&'a str], command: &[&'a str]) -> Program {
    let arguments: Vec<_> = ["run"].iter().chain(options).chain(&["--"]).chain(command).copied().collect();
    Program::start(setting.command(artifact("gpuquota"), &arguments))
}

#[test]
fn the_quota_reaches_the_command() {
    let machine = Machine::new("H100");
    let path = program("alloc_until_refused");
    let outcome =
        under(&machine.bare(), &["--memory", "2GiB"], &[path.to_str().expect("text")]).finish().success();
    assert_eq!(outcome.values("total"), [2 * GIB, 2 * GIB], "{outcome}");
    assert_eq!(outcome.value("refusal"), OUT_OF_MEMORY);
    assert!(machine.truth().device("requested_peak_bytes") <= 2 * GIB);
}

#[test]
fn two_quotas_on_one_machine_are_two() {
    let machine = Machine::new("H100");
    let path = program("hold");
    let path = path.to_str().expect("text");
    let mut one = under(&machine.bare(), &["--memory", "2GiB"], &[path]);
    let mut other = under(&machine.bare(), &["--memory", "3GiB"], &[path]);
    assert_eq!(one.ask("info", "total"), 2 * GIB);
    assert_eq!(other.ask("info", "total"), 3 * GIB);
    assert_eq!(one.ask(&format!("alloc {GIB}"), "rc"), 0);
    assert_eq!(other.ask(&format!("alloc {}", 2 * GIB), "rc"), 0);
}

#[test]
fn status_and_signals_are_the_command_s() {
    let machine = Machine::new("H100");
    let run = |script: &str| under(&machine.bare(), &["--memory", "2GiB"], &["sh", "-c", script]).finish();
    assert_eq!(run("exit 42").status.code(), Some(42));
    assert_eq!(run("kill -KILL $$").status.to_string(), "signal: 9 (SIGKILL)");
    assert_eq!(run("kill -TERM $$").status.to_string(), "signal: 15 (SIGTERM)");
    let outcome = run("echo out; echo err >&2");
    assert_eq!((outcome.out.as_str(), outcome.stderr.as_str()), ("out\n", "err\n"));
}

#[test]
fn a_command_that_does_not_exist_is_reported() {
    let machine = Machine::new("H100");
    let outcome = under(&machine.bare(), &["--memory", "2GiB"], &["/nowhere/train"]).finish();
    assert_eq!(outcome.status.code(), Some(127), "{outcome}");
    assert!(outcome.stderr.contains("/nowhere/train"), "{outcome}");
}

/// Off the simulator; where a real driver is installed there is nothing to say.
#[test]
fn without_a_driver_it_says_so_and_starts_the_command_all_the_same() {
    let bare = Program::start(Command::new(program("no_driver"))).finish();
    let mut command = Command::new(artifact("gpuquota"));
    command.args(["run", "--memory", "2GiB", "--", "sh", "-c", "exit 3"]);
    let outcome = Program::start(command).finish();
    assert_eq!(outcome.status.code(), Some(3), "{outcome}");
    if bare.value("driver") == 0 {
        assert!(outcome.stderr.contains("driver"), "{outcome}");
    }
}

#[test]
fn inspect_shows_the_device_s_own_figures() {
    let machine = Machine::new("H100");
    let quota = machine.quota().memory(2 * GIB).cores(50);
    let mut holder = quota.start("hold", &[]);
    let pid = holder.wait_for("pid");
    assert_eq!(holder.ask(&format!("alloc {}", 512 * MIB), "rc"), 0);
    assert_eq!(holder.ask(&format!("alloc {}", 2 * GIB), "rc"), OUT_OF_MEMORY);

    let seen = quota.inspect();
    let device = &seen["devices"][0];
    let truth = machine.truth();
    let requested = truth.device("requested_bytes");
    let with_context = requested + truth.device("context_bytes");
    let used = device["used"].as_i64().expect("a number of bytes");
    assert!(used == requested || used == with_context, "the device knows of {requested} bytes: {seen:#}");
    assert_eq!(device["memory_limit"], 2 * GIB, "{seen:#}");
    assert_eq!(device["peak"], used, "{seen:#}");
    assert_eq!(device["denied"], 1, "{seen:#}");
    assert_eq!(device["core_limit"], 50, "{seen:#}");
    let process = seen["processes"].as_array().and_then(|all| all.iter().find(|one| one["pid"] == pid));
    assert_eq!(process.expect("the holder is listed")["devices"][0]["bytes"], used, "{seen:#}");
    holder.finish().success();
}

#[test]
fn the_agent_serves_the_figures_that_inspect_shows() {
    let machine = Machine::new("H100");
    let quota = machine.quota().memory(2 * GIB);
    let mut holder = quota.start("hold", &[]);
    assert_eq!(holder.ask(&format!("alloc {}", 512 * MIB), "rc"), 0);

    let answer = Agent::start(quota.home()).metrics();
    let used = quota.inspect()["devices"][0]["used"].to_string();
    let line = answer.lines().find(|line| line.starts_with("gpuquota_container_memory_used_bytes{"));
    let line = line.unwrap_or_else(|| panic!("no metric of used memory:\n{answer}"));
    assert_eq!(line.split_whitespace().last(), Some(used.as_str()), "{line}");
    let kinds = answer.lines().filter(|line| line.starts_with("gpuquota_container_memory_held_bytes{"));
    let held = kinds.filter_map(|line| line.split_whitespace().last()?.parse::<u64>().ok());
    assert_eq!(held.sum::<u64>().to_string(), used, "by kind:\n{answer}");
    assert!(
        answer.lines().any(|line| line.ends_with(&format!("kind=\"allocations\"}} {}", 512 * MIB))),
        "{answer}"
    );
    holder.finish().success();
}

/// The usual recipe for another allocator replaces LD_PRELOAD, and the library with it.
#[test]
fn a_process_that_lost_the_library_is_told() {
    let promise = &Promise::to(&["alnair#45"]);
    let machine = Machine::new("H100");
    let holder = program("hold");
    let holder = holder.to_str().expect("text");
    for recipe in [&["-u", "LD_PRELOAD"][..], &["LD_PRELOAD="]] {
        let command: Vec<_> = ["env"].iter().chain(recipe).chain(&[holder]).copied().collect();
        let mut lost = under(&machine.bare(), &["--memory", "2GiB"], &command);
        lost.wait_for("pid");
        std::thread::sleep(std::time::Duration::from_millis(1200));
        let outcome = lost.finish();
        let lines: Vec<_> =
            outcome.stderr.lines().filter(|line| line.starts_with("gpuquota: process")).collect();
        promise.asserts(|| assert_eq!(lines.len(), 1, "{recipe:?}: {outcome}"));
        assert!(lines[0].contains("without libgpuquota.so"), "{outcome}");
    }
}

/// Who keeps the library, or has nothing to do with CUDA, is not told.
#[test]
fn who_keeps_the_library_or_needs_none_is_not_told() {
    let machine = Machine::new("H100");
    let holder = program("hold");
    let mut kept = under(&machine.bare(), &["--memory", "2GiB"], &[holder.to_str().expect("text")]);
    kept.wait_for("pid");
    std::thread::sleep(std::time::Duration::from_millis(1200));
    assert_eq!(kept.finish().stderr, "");
    for command in [["env", "-i", "sleep", "1"], ["env", "LD_PRELOAD=", "sleep", "1"]] {
        assert_eq!(under(&machine.bare(), &["--memory", "2GiB"], &command).finish().success().stderr, "");
    }
}
