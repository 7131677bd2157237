//! Real, unmodified CUDA runtimes: a fatbin made by nvcc, launched by `<<<>>>`, on the simulator and under
//! the quota.

use gpuquota_promises::{GIB, Machine, Outcome};

#[track_caller]
fn ran(outcome: Outcome) -> Outcome {
    let outcome = outcome.success();
    assert_eq!(outcome.value("copied"), 1, "{outcome}");
    assert_eq!(outcome.value("graph"), 1, "{outcome}");
    assert!(outcome.value("launches") > 0, "{outcome}");
    assert!(
        outcome.value("elapsed_us") >= 5_000 * outcome.value("launches"),
        "kernels take no time: {outcome}"
    );
    outcome
}

#[track_caller]
fn runs_with_and_without(name: &str) {
    let machine = Machine::new("H100");
    ran(machine.bare().run(name, &[]));
    let kernels = machine.truth().device("kernels");
    let under = ran(machine.quota().memory("2GiB").cores(50).run(name, &[]));
    assert_eq!(under.value("total"), 2 * GIB, "the properties show another card than the quota: {under}");
    // One more than the loop's: the captured graph has one.
    assert_eq!(
        machine.truth().device("kernels") - kernels,
        under.value("launches") + 1,
        "a launch was lost or doubled"
    );
}

#[test]
fn cudart_13() {
    runs_with_and_without("kernels_13");
}

#[test]
fn cudart_13_static() {
    runs_with_and_without("kernels_13_static");
}

#[test]
fn cudart_12() {
    runs_with_and_without("kernels_12");
}

#[test]
fn cudart_12_static() {
    runs_with_and_without("kernels_12_static");
}

#[test]
fn cudart_11() {
    runs_with_and_without("kernels_11");
}
