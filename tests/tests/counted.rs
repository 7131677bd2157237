//! GPU time of containers without a share, judged by the simulated device's own count.

use gpuquota_promises::{GIB, Machine, Scratch, Setting};

fn gpu_time(quota: &Setting<'_>) -> Option<i64> {
    quota.inspect()["devices"][0]["gpu_time_ns"].as_i64()
}

/// What a process does last is not seen: a sample of the simulated driver is 167 ms long, and the library asks every 100 ms.
const LAST_NS: i64 = 270_000_000;

/// Loads, and what the machine is like besides.
#[rustfmt::skip]
const LOADS: [(&str, &[&str], &str); 6] = [
    ("kernels that are waited for", &["busy_200us", "6", "plain", "1"], ""),
    ("many short kernels", &["busy_10us", "6", "plain", "100"], ""),
    ("long kernels", &["busy_700ms", "6", "plain", "1"], ""),
    ("graphs", &["busy_5ms", "6", "graph", "4"], ""),
    ("half of the time", &["busy_5ms", "6", "plain", "1"], "[[fault]]\ncall = \"cuLaunchKernel\"\ndelay = \"5ms\"\n"),
    ("now and then", &["busy_100ms", "6", "plain", "1"], "[[fault]]\ncall = \"cuLaunchKernel\"\ndelay = \"300ms\"\n"),
];

#[test]
fn gpu_time_is_known_without_a_share() {
    std::thread::scope(|scope| {
        for (number, (what, arguments, more)) in LOADS.into_iter().enumerate() {
            scope.spawn(move || {
                let scratch = Scratch::new();
                let text = format!("[[device]]\nlike = \"H100\"\n{more}");
                let machine = Machine::new(scratch.file("machine.toml", text).to_str().expect("text"));
                // With a cap, and with no limit at all.
                let quota = machine.quota();
                let quota = if number % 2 == 0 { quota.memory(4 * GIB) } else { quota };
                quota.run("launch_loop", arguments).success();
                let used = machine.truth().device("busy_ns");
                let known = gpu_time(&quota).expect("it is known");
                let off = (known - used) as f64 / used as f64;
                println!("{what}: {known} of {used} ns, off by {:.1}%", off * 100.0);
                // What the program does last is not seen.
                let allowed = (used / 20).max(LAST_NS);
                assert!((known - used).abs() <= allowed, "{what}: {known} of {used} ns");
            });
        }
    });
}

/// Two processes of a container, one after the other and beside each other.
#[test]
fn gpu_time_is_that_of_all_processes() {
    let machine = Machine::new("H100");
    let quota = machine.quota().memory(8 * GIB);
    let arguments = ["busy_1ms", "4", "plain", "4"];
    let both: Vec<_> = (0..2).map(|_| quota.start("launch_loop", &arguments)).collect();
    both.into_iter().for_each(|one| _ = one.finish().success());
    quota.run("launch_loop", &arguments).success();
    let (used, known) = (machine.truth().device("busy_ns"), gpu_time(&quota).expect("it is known"));
    assert!((known - used).abs() <= (used / 20).max(3 * LAST_NS), "{known} of {used} ns");
}

#[test]
fn gpu_time_that_nobody_measures_is_absent_and_not_zero() {
    let scratch = Scratch::new();
    for (profile, more) in [("vgpu", "nvml = \"vgpu\"\n"), ("MIG", "")] {
        let device = if profile == "MIG" { "mig = [\"3g.40gb\"]\n" } else { "" };
        let text = format!("{more}[[device]]\nlike = \"H100\"\n{device}");
        let machine = Machine::new(scratch.file("machine.toml", text).to_str().expect("text"));
        let quota = machine.quota().memory(4 * GIB);
        quota.run("launch_loop", &["busy_5ms", "0.5", "plain"]).success();
        assert!(machine.truth().clock_ns() > 0);
        let seen = quota.inspect();
        assert!(seen["devices"][0]["gpu_time_ns"].is_null(), "{profile}: {seen:#}");
        // Under a share it is measured, whatever NVML tells.
        let quota = machine.quota().cores(50);
        quota.run("launch_loop", &["busy_5ms", "0.5", "plain"]).success();
        assert!(gpu_time(&quota).is_some_and(|time| time > 100_000_000), "{profile}");
    }
}
