//! Policies and priorities, as HAMi's monitor feeds them back: its words hold while it lives, and expire.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use gpuquota_promises::{Host, Judge, Program, Promise, Readings, Setting, on_each};

/// `utilization_switch` and `recent_kernel` of HAMi's region 1.2.
const SWITCH: u64 = 2_008_900;
const RECENT: u64 = 2_008_904;

/// A monitor's round, as HAMi's does it: it counts launches down, or blocks, or lifts a block.
struct Monitor(File);

impl Monitor {
    fn of(quota: &Setting<'_>) -> Self {
        Self(File::options().read(true).write(true).open(quota.region()).expect("programs have made it"))
    }

    fn recent(&self) -> i32 {
        let mut bytes = [0; 4];
        self.0.read_exact_at(&mut bytes, RECENT).expect("it is that long");
        i32::from_le_bytes(bytes)
    }

    fn write(&self, at: u64, value: i32) {
        self.0.write_all_at(&value.to_le_bytes(), at).expect("it is that long");
    }

    fn round(&self, blocks: bool, throttles: bool) {
        match self.recent() {
            _ if blocks => self.write(RECENT, -1),
            recent if recent != 0 => self.write(RECENT, (recent - 1).max(0)),
            _ => {}
        }
        self.write(SWITCH, throttles.into());
    }
}

fn running(quota: &Setting<'_>) -> (Program, i64) {
    let mut program = quota.start("launch_loop", &["work_5ms", "told"]);
    let pid = program.wait_for("ready");
    thread::sleep(Duration::from_millis(500));
    (program, pid)
}

/// How busy the device is while a monitor lends idle time, and long after the monitor has ended.
fn lent(judge: Judge, policy: &str) -> (f64, f64) {
    let machine = judge.machine(Host::Usual);
    let mut readings = Readings::of(&machine);
    let quota = machine.quota().cores(30).with("GPUQUOTA_POLICY", policy);
    let (program, pid) = running(&quota);
    let monitor = Monitor::of(&quota);
    let over = AtomicBool::new(false);
    let with = thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Relaxed) {
                monitor.round(false, false);
                thread::sleep(Duration::from_millis(100));
            }
        });
        thread::sleep(Duration::from_millis(500));
        let with = readings.have(&[pid], Duration::from_secs(2))[0];
        over.store(true, Relaxed);
        with
    });
    thread::sleep(Duration::from_millis(15_500));
    let without = readings.have(&[pid], Duration::from_millis(1500))[0];
    readings.agree(program, pid);
    (with, without)
}

#[test]
fn a_burst_share_borrows_idle_time_that_a_living_monitor_lends_and_a_fixed_share_does_not() {
    let attempt = |judge: Judge| {
        let [burst, fixed] = thread::scope(|scope| {
            ["burst-share", "fixed-share"]
                .map(|policy| scope.spawn(move || lent(judge, policy)))
                .map(|one| one.join().expect("no panic"))
        });
        let is_thirty = |seen: f64| (seen - 30.0).abs() < 5.0;
        let kept = burst.0 > 60.0 && is_thirty(burst.1) && is_thirty(fixed.0) && is_thirty(fixed.1);
        ((burst, fixed), kept)
    };
    on_each(&Judge::ALONE, attempt).expect("(much, 30) with and without the monitor, and (30, 30)");
}

/// With a share, with all of the device as one, and without any.
#[test]
fn a_block_for_a_higher_priority_holds_while_its_author_renews_it_and_no_longer() {
    let promise = &Promise::to(&["HAMi#132"]);
    let limits = [Some(50), Some(100), None];
    thread::scope(|scope| {
        for (judge, cores) in Judge::ALONE.iter().flat_map(|judge| limits.map(|cores| (*judge, cores))) {
            scope.spawn(move || {
                let machine = judge.machine(Host::Usual);
                let quota = machine.quota().memory("40GiB");
                let quota = match cores {
                    Some(cores) => quota.cores(cores),
                    None => quota,
                };
                let kernels = || machine.truth().device("kernels");
                let (mut program, _) = running(&quota);
                let monitor = Monitor::of(&quota);
                monitor.round(true, true);
                thread::sleep(Duration::from_millis(200));
                let blocked_at = kernels();
                for _ in 0..10 {
                    monitor.round(true, true);
                    thread::sleep(Duration::from_millis(100));
                }
                promise.asserts(|| {
                    assert_eq!(
                        kernels(),
                        blocked_at,
                        "{judge:?} at {cores:?}%: it launched while it was blocked"
                    )
                });
                monitor.round(false, true);
                thread::sleep(Duration::from_millis(500));
                assert!(kernels() > blocked_at, "{judge:?} at {cores:?}%: the block was lifted");
                // The monitor blocks once, and never renews the block.
                monitor.round(true, true);
                let said = Instant::now();
                thread::sleep(Duration::from_millis(200));
                let before = kernels();
                while kernels() == before {
                    promise.asserts(|| {
                        assert!(
                            said.elapsed() < Duration::from_secs(18),
                            "{judge:?} at {cores:?}%: blocked for ever"
                        )
                    });
                    thread::sleep(Duration::from_millis(50));
                }
                assert!(
                    said.elapsed() > Duration::from_secs(10),
                    "{judge:?} at {cores:?}%: {:?}",
                    said.elapsed()
                );
                assert!(program.ask("end", "launches") > 0);
                program.finish().success();
                let device = &quota.inspect()["devices"][0];
                assert!(device["waited_ns"].as_i64() > Some(10_000_000_000), "{device}");
            });
        }
    });
}

#[test]
fn best_effort_has_no_share() {
    let attempt = |judge: Judge| {
        let machine = judge.machine(Host::Usual);
        let mut readings = Readings::of(&machine);
        let quota = machine.quota().cores(10).with("GPU_CORE_UTILIZATION_POLICY", "disable");
        let (program, pid) = running(&quota);
        let seen = readings.have(&[pid], Duration::from_secs(2))[0];
        readings.agree(program, pid);
        (seen, seen > 60.0)
    };
    on_each(&Judge::ALONE, attempt).expect("much more than its share");
}
