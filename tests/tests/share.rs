//! The share is time: the one test that watches a clock, the device's own, and the one that may try twice.

use std::time::Duration;

use gpuquota_promises::{Machine, Setting};

/// How busy `count` programs keep the device, in percent, over ten seconds after a second of settling in.
fn busy_percent(machine: &Machine, setting: &Setting<'_>, count: usize, kernel: &str, way: &str) -> f64 {
    let mut all: Vec<_> = (0..count).map(|_| setting.start("launch_loop", &[kernel, "12", way])).collect();
    all.iter_mut().for_each(|one| _ = one.wait_for("ready"));
    std::thread::sleep(Duration::from_secs(1));
    let before = machine.truth();
    std::thread::sleep(Duration::from_secs(10));
    let after = machine.truth();
    all.into_iter().for_each(|one| assert!(one.finish().success().value("launches") > 0));
    let busy = after.device("busy_ns") - before.device("busy_ns");
    100.0 * busy as f64 / (after.clock_ns() - before.clock_ns()) as f64
}

#[track_caller]
fn share_is_thirty(count: usize, kernel: &str, way: &str) {
    let mut seen = Vec::new();
    for _ in 0..2 {
        let machine = Machine::new("H100");
        let quota = machine.quota().cores(30);
        seen.push(busy_percent(&machine, &quota, count, kernel, way));
        if (seen[seen.len() - 1] - 30.0).abs() <= 3.0 {
            return;
        }
    }
    panic!(
        "{count} programs launching {kernel} ({way}) at 30% kept the device busy {seen:.1?} percent of the time"
    );
}

#[test]
fn one_program_keeps_the_device_busy_as_long_as_its_share() {
    share_is_thirty(1, "busy_5ms", "plain");
}

#[test]
fn two_programs_share_one_share() {
    share_is_thirty(2, "busy_5ms", "plain");
}

#[test]
fn short_kernels_and_graphs_are_charged_alike() {
    share_is_thirty(1, "busy_1ms", "graph");
}

#[test]
fn without_a_quota_the_device_is_busy_throughout() {
    let machine = Machine::new("H100");
    let busy = busy_percent(&machine, &machine.bare(), 1, "busy_5ms", "plain");
    assert!(busy > 80.0, "{busy:.1}%: the program does not keep the device busy by itself");
}
