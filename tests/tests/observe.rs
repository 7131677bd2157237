//! `GPUQUOTA_MODE=observe`: the library refuses nothing and delays nothing, and counts the requests and launches that it would
//! have refused or delayed.

use gpuquota_promises::{GIB, Machine};

const CAP: i64 = 2 * GIB;

#[test]
fn a_request_over_the_cap_is_granted_and_counted() {
    let machine = Machine::new("H100");
    let quota = machine.quota().memory(CAP).with("GPUQUOTA_MODE", "observe");
    let mut holder = quota.start("hold", &[]);
    assert_eq!(holder.ask(&format!("alloc {GIB}"), "rc"), 0);
    assert_eq!(quota.inspect()["devices"][0]["would_deny"], 0);
    assert_eq!(holder.ask(&format!("alloc {}", 2 * GIB), "rc"), 0);
    let device = &quota.inspect()["devices"][0];
    assert_eq!((&device["would_deny"], &device["denied"]), (&1.into(), &0.into()), "{device}");
    let truth = machine.truth();
    assert_eq!(device["used"], 3 * GIB + truth.device("context_bytes"), "{device}");
    assert_eq!(truth.device("requested_bytes"), 3 * GIB);
    holder.finish().success();
}

#[test]
fn a_launch_over_the_share_goes_and_is_counted() {
    let machine = Machine::new("H100");
    let quota = machine.quota().cores(10).with("GPUQUOTA_MODE", "observe");
    let mut program = quota.start("launch_loop", &["busy_5ms", "0.5", "plain"]);
    program.wait_for("ready");
    let launches = program.wait_for("launches");
    program.finish().success();
    let device = &quota.inspect()["devices"][0];
    assert_eq!(device["launches"], launches, "{device}");
    assert_eq!((&device["waits"], &device["waited_ns"]), (&0.into(), &0.into()), "{device}");
    assert!(device["would_wait"].as_i64().is_some_and(|waits| waits > launches / 2), "{device}");
    let busy = machine.truth().device("busy_ns");
    assert_eq!(busy, 5_000_000 * launches, "it was slowed down, or a launch was lost");
}
