//! `GPUQUOTA_MODE=observe` watches before it bites: nothing is refused and nothing waits, and what would have been is
//! counted.

use gpuquota_promises::{GIB, Machine};

const CAP: i64 = 2 * GIB;

#[test]
fn what_would_be_refused_is_given_and_counted() {
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
