//! A request that does not fit: the library reports the holders, and waits or kills only where the operator asked for it.

use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::time::{Duration, Instant};

use gpuquota_promises::{GIB, MIB, Machine, OUT_OF_MEMORY, Program, Promise, Setting, artifact};
use serde_json::Value;

/// So large that the memory of contexts does not matter.
const CAP: i64 = 20 * GIB;
/// A request that does not fit beside the bytes of others.
const TOO_MUCH: i64 = 10 * GIB;

/// A program that holds this many bytes, and its pid.
fn holder(quota: &Setting<'_>, bytes: i64) -> (Program, i64) {
    let mut program = quota.start("hold", &[]);
    let pid = program.wait_for("pid");
    assert_eq!(program.ask(&format!("alloc {bytes}"), "rc"), 0);
    (program, pid)
}

fn events(quota: &Setting<'_>, what: &str) -> Vec<Value> {
    let all = quota.inspect()["events"].as_array().expect("a list").clone();
    all.into_iter().filter(|event| event["event"] == what).collect()
}

#[test]
fn the_first_refusal_is_explained_and_all_are_recorded() {
    let machine = Machine::new("H100");
    let quota = machine.quota().memory(CAP);
    let (large, large_pid) = holder(&quota, 12 * GIB);
    let (small, small_pid) = holder(&quota, GIB);
    let mut refused = quota.start("hold", &[]);
    let pid = refused.wait_for("pid");
    for _ in 0..3 {
        assert_eq!(refused.ask(&format!("alloc {TOO_MUCH}"), "rc"), OUT_OF_MEMORY);
    }
    let outcome = refused.finish().success();
    assert_eq!(outcome.stderr.lines().count(), 1, "{outcome}");
    for part in [
        format!("process {pid} was refused 10.0 GiB on GPU-"),
        "of the container's 20.0 GiB".to_owned(),
        format!(" by process {large_pid}, "),
        format!(" by process {small_pid}"),
    ] {
        assert!(outcome.stderr.contains(&part), "{part}: {outcome}");
    }
    let denied = events(&quota, "denied");
    assert_eq!(denied.len(), 3);
    assert_eq!((&denied[0]["pid"], &denied[0]["requested"]), (&pid.into(), &TOO_MUCH.into()));
    assert_eq!(denied[0]["limit"], CAP);
    // Named once in a second, the largest first.
    let holders: Vec<_> = events(&quota, "holder").iter().map(|event| event["holder"].clone()).collect();
    assert_eq!(holders[..2], [large_pid, small_pid].map(Value::from));
    let mut inspect = Command::new(artifact("gpuquota"));
    let told = inspect.arg("inspect").arg(quota.region()).arg("--events").output().expect("it runs");
    let told = String::from_utf8_lossy(&told.stdout).into_owned();
    assert_eq!(told.matches("was refused 10.00 GiB: ").count(), 3, "{told}");
    assert!(told.contains(&format!("by process {large_pid}, most of it allocations")), "{told}");
    drop((large, small));
}

#[test]
fn a_process_with_the_log_off_writes_nothing() {
    let promise = &Promise::to(&["HAMi-core#245"]);
    let machine = Machine::new("H100");
    let quota = machine.quota().memory(CAP).with("GPUQUOTA_LOG", "off");
    let outcome = quota.run("alloc_until_refused", &[]).success();
    assert_eq!(outcome.value("refusal"), OUT_OF_MEMORY);
    promise.asserts(|| assert_eq!(outcome.stderr, "", "{outcome}"));
    let wrong = machine.quota().with("CUDA_DEVICE_MEMORY_LIMIT", "0").with("GPUQUOTA_LOG", "off");
    assert_eq!(wrong.run("views", &[]).success().stderr, "");
}

#[test]
fn a_request_waits_for_a_sibling_as_long_as_the_operator_allows() {
    let machine = Machine::new("H100");
    let patient = machine.quota().memory(CAP).with("GPUQUOTA_MEMORY_WAIT", "30s");
    let (mut sibling, _) = holder(&patient, 15 * GIB);
    let mut waiting = patient.start("hold", &[]);
    waiting.wait_for("pid");
    waiting.tell(&format!("alloc {TOO_MUCH}"));
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(events(&patient, "denied").len(), 0, "it was not patient");
    assert_eq!(sibling.ask("free", "rc"), 0);
    assert_eq!(waiting.wait_for("rc"), 0);

    let hasty = machine.quota().memory(CAP).with("GPUQUOTA_MEMORY_WAIT", "50ms");
    let (sibling, _) = holder(&hasty, 15 * GIB);
    let mut waiting = hasty.start("hold", &[]);
    waiting.wait_for("pid");
    assert_eq!(waiting.ask(&format!("alloc {TOO_MUCH}"), "rc"), OUT_OF_MEMORY);
    drop(sibling);
}

#[test]
fn no_request_waits_where_no_other_process_holds_memory() {
    let machine = Machine::new("H100");
    let quota = machine.quota().memory(CAP).with("GPUQUOTA_MEMORY_WAIT", "60s");
    let started = Instant::now();
    let (mut alone, _) = holder(&quota, 15 * GIB);
    assert_eq!(alone.ask(&format!("alloc {TOO_MUCH}"), "rc"), OUT_OF_MEMORY);
    assert!(started.elapsed() < Duration::from_secs(30), "it waited for itself");
}

/// A holder with a priority, which its own environment sets.
fn of_priority(quota: &Setting<'_>, priority: &str, bytes: i64) -> Program {
    let program = gpuquota_promises::program("hold");
    let name = format!("CUDA_TASK_PRIORITY={priority}");
    let mut program = Program::start(quota.command("env", &[&name, program.to_str().expect("text")]));
    program.wait_for("pid");
    assert_eq!(program.ask(&format!("alloc {bytes}"), "rc"), 0);
    program
}

#[test]
fn a_process_of_lower_priority_is_ended_to_make_room() {
    let machine = Machine::new("H100");
    for switch in ["ACTIVE_OOM_KILLER", "GPUQUOTA_OOM_KILL"] {
        let quota = machine.quota().memory(CAP).with(switch, "true");
        let (low, small) = (of_priority(&quota, "2", 9 * GIB), of_priority(&quota, "2", GIB));
        let middle = of_priority(&quota, "1", 5 * GIB);
        let mut high = of_priority(&quota, "0", GIB);
        assert_eq!(high.ask(&format!("alloc {TOO_MUCH}"), "rc"), 0);
        assert_eq!(low.finish().status.signal(), Some(9), "{switch}: the lowest and largest");
        let [killed] = &events(&quota, "killed")[..] else { panic!("{switch}: one is enough") };
        assert_eq!(killed["priority"], 2);
        for spared in [small, middle] {
            spared.finish().success();
        }
        let line = high.finish().success().stderr;
        assert!(line.contains("of lower priority was ended"), "{line}");
    }
}

#[test]
fn no_process_is_ended_in_vain_or_without_permission() {
    let machine = Machine::new("H100");
    let refused = |quota: &Setting<'_>, others: Vec<Program>, priority: &str| {
        let mut asking = of_priority(quota, priority, MIB);
        assert_eq!(asking.ask(&format!("alloc {TOO_MUCH}"), "rc"), OUT_OF_MEMORY);
        for other in others {
            other.finish().success();
        }
    };
    let quota = || machine.quota().memory(CAP);
    let off = quota();
    refused(&off, vec![of_priority(&off, "5", 15 * GIB)], "0");
    let on = quota().with("GPUQUOTA_OOM_KILL", "true");
    // Of its own priority, and of a higher one.
    refused(&on, vec![of_priority(&on, "1", 15 * GIB)], "1");
    refused(&on, vec![of_priority(&on, "0", 15 * GIB)], "1");
    // The bytes of lower priority are not enough.
    let others = vec![of_priority(&on, "0", 14 * GIB), of_priority(&on, "2", GIB)];
    refused(&on, others, "1");
    assert_eq!(events(&on, "killed").len(), 0);
}

#[test]
fn refusals_are_told_by_their_reason() {
    let machine = Machine::new("H100");
    let refused = |quota: Setting<'_>, bytes: i64| {
        let mut program = quota.start("hold", &[]);
        program.wait_for("pid");
        assert_eq!(program.ask(&format!("alloc {bytes}"), "rc"), OUT_OF_MEMORY);
        drop(program);
        let device = &quota.inspect()["devices"][0];
        let by = device["denied_by"].as_object().expect("reasons").clone();
        let counted = by.into_iter().filter(|(_, count)| *count != 0);
        let counted: Vec<_> = counted.map(|(reason, count)| (reason, count.as_i64())).collect();
        (device["denied"].as_i64(), counted)
    };
    let one = |reason: &str| vec![(reason.to_owned(), Some(1))];
    assert_eq!(refused(machine.quota().memory(CAP), 2 * CAP), (Some(1), one("memory_limit")));
    // More than there is, which the limits allow.
    assert_eq!(refused(machine.quota().memory(200 * GIB), 100 * GIB), (Some(0), one("driver")));

    // An array can lie on the device alone, where it does not fit beside the context.
    let context = CAP - machine.quota().memory(CAP).start("hold", &[]).ask("info", "free");
    let physical = (context + 32 * MIB).to_string();
    let small = machine.quota().memory(CAP).with("GPUQUOTA_MEMORY_PHYSICAL", physical);
    assert_eq!(small.run("kinds", &["array"]).value("rc"), OUT_OF_MEMORY);
    assert_eq!(small.inspect()["devices"][0]["denied_by"]["physical_limit"], 1);

    // A context that is known to take more than there is left.
    let known = machine.quota().memory(GIB);
    let (first, _) = holder(&known, GIB - context - 64 * MIB);
    let outcome = known.run("hold", &[]);
    assert_ne!(outcome.status.code(), Some(0), "{outcome} {:#}", known.inspect()["devices"][0]);
    let device = &known.inspect()["devices"][0];
    assert_eq!(device["denied_by"]["context"], 1, "{outcome} {device:#}");
    drop(first);
}
