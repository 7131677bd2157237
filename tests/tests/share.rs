//! The share is time: the tests that watch a clock, the device's own, and that may try twice.

use std::thread;
use std::time::Duration;

use gpuquota_promises::{Host, Judge, Machine, Promise, on_each, twice, used_by, watch};

/// The programs of a container on a judge, and how they launch. A second program of it launches kernels that fill the device.
#[derive(Debug)]
struct Case<'a> {
    judge: Judge,
    count: usize,
    arguments: &'a [&'a str],
}

impl Case<'_> {
    /// Under a share of 30% they keep the device as busy as that.
    fn is_thirty(&self) -> Result<(), String> {
        let attempt = || {
            let machine = self.judge.machine(Host::Usual);
            let quota = machine.quota().cores(30);
            let programs = (0..self.count).map(|_| quota.start("launch_loop", self.arguments)).collect();
            let seen = watch(&machine, 0, programs, 4);
            let kept = (seen.busy - 30.0).abs() <= 1.0;
            (seen, kept)
        };
        twice(attempt).map_err(|seen| format!("{self:?} at 30%: {seen}"))
    }
}

/// Several such cases, five at once, each on these judges.
#[track_caller]
fn are_thirty(judges: &[Judge], cases: &[(usize, &[&str])]) {
    let on = |judge: &Judge| {
        let judge = *judge;
        cases.iter().map(move |(count, arguments)| Case { judge, count: *count, arguments })
    };
    let all: Vec<Case> = judges.iter().flat_map(on).collect();
    for some in all.chunks(5) {
        let failed: Vec<_> = thread::scope(|scope| {
            let all: Vec<_> = some.iter().map(|one| scope.spawn(|| one.is_thirty())).collect();
            all.into_iter().filter_map(|one| one.join().expect("no panic").err()).collect()
        });
        assert!(failed.is_empty(), "{failed:#?}");
    }
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
        "all",
    ];
    let arguments = ways.map(|way| ["work_5ms", "told", way]);
    let cases = arguments.each_ref().map(|one| (1, &one[..]));
    // On the simulator the oldest calls pass no parameters, so kernels that they launch write nothing down.
    let old = ["old", "grid", "grid_async"].map(|way| ["work_5ms", "told", way]);
    let old = old.each_ref().map(|one| (1, &one[..]));
    promise.asserts(|| {
        are_thirty(&Judge::ALONE, &cases);
        are_thirty(&[Judge::Interleaving], &old);
    });
}

#[test]
fn kernels_of_any_length_are_held_to_the_share() {
    let promise = &Promise::to(&["HAMi-core#76", "HAMi-core#274"]);
    promise.asserts(|| {
        are_thirty(
            &Judge::ALONE,
            &[
                (1, &["work_50us", "told", "plain", "50"]),
                (1, &["work_1ms", "told", "graph"]),
                (1, &["work_40ms", "told", "plain", "1"]),
            ],
        )
    });
}

/// A program on the simulated card with a real one's latencies is within so many points of 30%.
#[track_caller]
fn is_thirty_within(host: Host, kernel: &str, ahead: &str, points: f64) {
    let attempt = || {
        let machine = Judge::Simulator.machine(host);
        let quota = machine.quota().cores(30);
        let seen = watch(&machine, 0, vec![quota.start("launch_loop", &[kernel, "told", "plain", ahead])], 3);
        let kept = (seen.busy - 30.0).abs() <= points;
        (seen, kept)
    };
    twice(attempt).unwrap_or_else(|seen| panic!("{kernel}, {ahead} ahead: {seen}"));
}

/// By the device's own count kernels alone are busy, not the gaps between them. So the time that launches, events and the
/// front end of a real card take must not count as theirs. It does a little, because events are not exact, and more for
/// shorter kernels. The program waits for each kernel, or launches ahead.
#[test]
fn time_that_a_card_takes_beside_its_kernels_is_not_charged() {
    for (kernel, points) in [("work_200us", 1.0), ("work_50us", 1.0), ("work_20us", 2.0), ("work_10us", 3.0)]
    {
        for ahead in ["1", "50"] {
            is_thirty_within(Host::Usual, kernel, ahead, points);
        }
    }
}

#[test]
fn time_that_the_host_takes_to_launch_is_not_charged() {
    is_thirty_within(Host::SlowToLaunch, "work_200us", "1", 1.5);
}

#[test]
fn processes_and_streams_share_one_share() {
    are_thirty(
        &Judge::ALL,
        &[(2, &["work_5ms", "told", "plain", "4", "132"]), (1, &["work_500us", "told", "plain", "-3"])],
    );
    // On the simulator kernels do not see that they are stopped, so those of several streams do not know how long they ran.
    let both = [(2, &["work_2ms", "told", "plain", "-2", "132"][..])];
    are_thirty(&[Judge::Interleaving, Judge::Slicing], &both);
}

#[test]
fn a_launch_on_several_devices_waits_for_the_share_of_each() {
    let promise = &Promise::to(&["HAMi-core#142"]);
    let machine = Machine::new("2xH100");
    // The smaller share delays both devices, because one call launches on both.
    let quota = machine.quota().with("GPUQUOTA_CORES", "0=60,1=30");
    let mut program = quota.start("launch_loop", &["busy_5ms", "told", "all"]);
    program.wait_for("ready");
    thread::sleep(Duration::from_secs(1));
    let seen = machine.busy_percent(1, Duration::from_secs(4));
    program.finish().success();
    promise
        .asserts(|| assert!((seen - 30.0).abs() <= 3.0, "the second device was busy {seen:.1}% of the time"));
    for device in 0..2 {
        let launches = &quota.inspect()["devices"][device]["launches"];
        assert!(launches.as_i64() > Some(0), "{launches} launches on device {device}");
    }
}

#[test]
fn without_a_quota_the_device_is_busy_throughout() {
    let attempt = |judge: Judge| {
        let machine = judge.machine(Host::Usual);
        let seen =
            watch(&machine, 0, vec![machine.bare().start("launch_loop", &["work_5ms", "told"])], 4).busy;
        (seen, seen > 80.0)
    };
    on_each(&Judge::ALONE, attempt).expect("the program keeps the device busy by itself");
}

#[test]
fn code_that_is_loaded_at_the_first_launch_is_not_charged() {
    for judge in Judge::ALONE {
        let machine = judge.machine(Host::LoadsLate);
        let quota = machine.quota().cores(50);
        let used = used_by(&machine, quota.start("launch_loop", &["work_5ms", "1", "plain", "1"]));
        let charged = quota.inspect()["devices"][0]["gpu_time_ns"].as_i64().expect("a number");
        assert!((charged - used).abs() < 60_000_000, "{judge:?}: charged {charged} ns, used {used}");
    }
}

/// In each mode, while launches of this and another thread wait and are measured.
#[test]
fn a_capture_ends_as_it_does_without_the_library() {
    for (judge, mode) in Judge::ALONE.into_iter().flat_map(|judge| ["0", "1", "2"].map(|mode| (judge, mode)))
    {
        let machine = judge.machine(Host::Usual);
        let bare = machine.bare().run("capture_share", &[mode]).success();
        let quota = machine.quota().cores(60);
        let held = quota.run("capture_share", &[mode]).success();
        for key in ["end", "nodes", "replayed"] {
            assert_eq!(bare.value(key), held.value(key), "{judge:?}, mode {mode}: {held}");
        }
        assert_eq!(held.value("nodes"), 20, "{held}");
        let device = &quota.inspect()["devices"][0];
        assert!(
            device["waits"].as_i64() > Some(0),
            "{judge:?}, mode {mode}: nothing waited beside the capture: {device}"
        );
    }
}

#[test]
fn only_kernels_are_delayed() {
    for judge in Judge::ALONE {
        let machine = judge.machine(Host::Usual);
        let outcome = machine.quota().cores(20).run("never_delayed", &[]).success();
        assert_eq!(outcome.value("launched_before"), 0, "{judge:?}: {outcome}");
        assert_eq!((outcome.value("called"), outcome.value("copied")), (50, 50), "{judge:?}: {outcome}");
    }
}
