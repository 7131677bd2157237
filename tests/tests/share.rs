//! The share is time: the tests that watch a clock, the device's own, and that may try twice.

use std::path::Path;
use std::thread;
use std::time::Duration;

use gpuquota_promises::{Machine, Program, Promise, Scratch, twice};

/// How busy programs keep a device, in percent, over some seconds after a first one to warm up.
fn percent(machine: &Machine, device: usize, mut programs: Vec<Program>, seconds: u64) -> f64 {
    programs.iter_mut().for_each(|one| _ = one.wait_for("ready"));
    thread::sleep(Duration::from_secs(1));
    let percent = machine.busy_percent(device, Duration::from_secs(seconds));
    programs.into_iter().for_each(|one| assert!(one.finish().success().value("launches") > 0));
    percent
}

/// `count` programs under a share of 30% keep the device as busy as that.
fn is_thirty(count: usize, arguments: &[&str]) -> Result<(), String> {
    let attempt = || {
        let machine = Machine::new("H100");
        let quota = machine.quota().cores(30);
        let programs = (0..count).map(|_| quota.start("launch_loop", arguments)).collect();
        let seen = percent(&machine, 0, programs, 4);
        (seen, (seen - 30.0).abs() <= 3.0)
    };
    twice(attempt).map_err(|seen| format!("{count} programs with {arguments:?} at 30%: busy {seen} percent"))
}

/// Several such cases at once.
#[track_caller]
fn are_thirty(cases: &[(usize, &[&str])]) {
    let failed: Vec<_> = thread::scope(|scope| {
        let all: Vec<_> =
            cases.iter().map(|(count, arguments)| scope.spawn(|| is_thirty(*count, arguments))).collect();
        all.into_iter().filter_map(|one| one.join().expect("no panic").err()).collect()
    });
    assert!(failed.is_empty(), "{failed:#?}");
}

#[test]
fn every_way_to_launch_is_held_to_the_share() {
    let promise = &Promise::to(&["HAMi#1445"]);
    let ways = [
        "plain",
        "plain_ptsz",
        "thread",
        "ex",
        "ex_ptsz",
        "cooperative",
        "cooperative_ptsz",
        "graph",
        "graph_ptsz",
        "old",
        "grid",
        "grid_async",
        "all",
    ];
    let arguments = ways.map(|way| ["busy_5ms", "6", way]);
    for some in arguments.chunks(5) {
        promise.asserts(|| are_thirty(&some.iter().map(|one| (1, &one[..])).collect::<Vec<_>>()));
    }
}

#[test]
fn kernels_of_any_length_are_held_to_the_share() {
    let promise = &Promise::to(&["HAMi-core#76", "HAMi-core#274"]);
    promise.asserts(|| {
        are_thirty(&[
            (1, &["busy_50us", "6", "plain", "50"]),
            (1, &["busy_1ms", "6", "graph"]),
            (1, &["busy_40ms", "6", "plain", "1"]),
        ])
    });
}

/// By the device's own count kernels alone are busy, not the gaps between them. So the time that launches, events and the
/// front end of a real card take must not count as theirs. It does a little, because events are not exact, and more for
/// shorter kernels.
#[test]
fn time_that_a_card_takes_beside_its_kernels_is_not_charged() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../cuda-shim/machines/h200-latency.toml");
    let cases = [("busy_200us", 1.0), ("busy_50us", 1.0), ("busy_20us", 2.0), ("busy_10us", 3.0)];
    let mut failed = Vec::new();
    for (kernel, within) in cases {
        // The program waits for each kernel, or launches ahead.
        for ahead in ["1", "50"] {
            let attempt = || {
                let machine = Machine::new(file.to_str().expect("text"));
                let arguments = [kernel, "3.5", "plain", ahead];
                let quota = machine.quota().cores(30);
                let seen = percent(&machine, 0, vec![quota.start("launch_loop", &arguments)], 2);
                (seen, (seen - 30.0).abs() <= within)
            };
            failed.extend(twice(attempt).err().map(|seen| format!("{kernel}, {ahead} ahead: {seen}")));
        }
    }
    assert!(failed.is_empty(), "not 30 percent: {failed:#?}");
}

#[test]
fn processes_and_streams_share_one_share() {
    are_thirty(&[
        (2, &["busy_5ms", "6"]),
        (1, &["busy_500us", "6", "plain", "-3"]),
        (2, &["busy_2ms", "6", "plain", "-2"]),
    ]);
}

#[test]
fn a_launch_on_several_devices_waits_for_the_share_of_each() {
    let promise = &Promise::to(&["HAMi-core#142"]);
    let machine = Machine::new("2xH100");
    // The smaller share delays both devices, because one call launches on both.
    let quota = machine.quota().with("GPUQUOTA_CORES", "0=60,1=30");
    let programs = vec![quota.start("launch_loop", &["busy_5ms", "6", "all"])];
    let seen = percent(&machine, 1, programs, 4);
    promise
        .asserts(|| assert!((seen - 30.0).abs() <= 3.0, "the second device was busy {seen:.1}% of the time"));
    for device in 0..2 {
        let launches = &quota.inspect()["devices"][device]["launches"];
        assert!(launches.as_i64() > Some(0), "{launches} launches on device {device}");
    }
}

#[test]
fn without_a_quota_the_device_is_busy_throughout() {
    let machine = Machine::new("H100");
    let programs = vec![machine.bare().start("launch_loop", &["busy_5ms", "6"])];
    let seen = percent(&machine, 0, programs, 4);
    assert!(seen > 80.0, "{seen:.1}%: the program does not keep the device busy by itself");
}

/// An H100 on which launches take the host this long.
fn slow_to_launch(fault: &str) -> Machine {
    let scratch = Scratch::new();
    let text = format!("[[device]]\nlike = \"H100\"\n[[fault]]\ncall = \"cuLaunchKernel\"\n{fault}\n");
    Machine::new(scratch.file("slow.toml", text).to_str().expect("text"))
}

#[test]
fn time_that_the_host_takes_to_launch_is_not_charged() {
    let attempt = || {
        let machine = slow_to_launch("delay = \"60us\"");
        let arguments = ["busy_200us", "6", "plain", "1"];
        let seen = percent(&machine, 0, vec![machine.quota().cores(30).start("launch_loop", &arguments)], 4);
        (seen, (seen - 30.0).abs() <= 1.5)
    };
    twice(attempt).expect("30 percent of the device's time");
}

#[test]
fn code_that_is_loaded_at_the_first_launch_is_not_charged() {
    let machine = slow_to_launch("nth = 1\ndelay = \"400ms\"");
    let quota = machine.quota().cores(50);
    quota.run("launch_loop", &["busy_5ms", "1", "plain", "1"]).success();
    let charged = quota.inspect()["devices"][0]["gpu_time_ns"].as_i64().expect("a number");
    let used = machine.truth().device("busy_ns");
    assert!((charged - used).abs() < 60_000_000, "charged {charged} ns, used {used}");
}

/// In each mode, while launches of this and another thread wait and are measured.
#[test]
fn a_capture_ends_as_it_does_without_the_library() {
    let machine = Machine::new("H100");
    for mode in ["0", "1", "2"] {
        let bare = machine.bare().run("capture_share", &[mode]).success();
        let quota = machine.quota().cores(60);
        let held = quota.run("capture_share", &[mode]).success();
        for key in ["end", "nodes", "replayed"] {
            assert_eq!(bare.value(key), held.value(key), "mode {mode}: {held}");
        }
        assert_eq!(held.value("nodes"), 20, "{held}");
        let device = &quota.inspect()["devices"][0];
        assert!(
            device["waits"].as_i64() > Some(0),
            "mode {mode}: nothing waited beside the capture: {device}"
        );
    }
}

#[test]
fn only_kernels_are_delayed() {
    let machine = Machine::new("H100");
    let outcome = machine.quota().cores(20).run("never_delayed", &[]).success();
    assert_eq!(outcome.value("launched_before"), 0, "{outcome}");
    assert_eq!((outcome.value("called"), outcome.value("copied")), (50, 50), "{outcome}");
}
