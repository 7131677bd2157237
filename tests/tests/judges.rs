//! The judges themselves: the driver that keeps time (`drivers/timed.h`) does what it says, and figures on which two readings
//! differ are refused.

use std::thread;
use std::time::{Duration, Instant};

use gpuquota_promises::{Host, Judge, Machine, Program, Readings, twice, used_by, watch};

const SLICES: (&str, &str) = ("TIMED_MODE", "slices");

/// However late the host is, and however often a kernel is stopped.
#[test]
fn kernels_take_exactly_as_long_as_they_are_told() {
    for mode in [SLICES, ("TIMED_MODE", "mps")] {
        let machine = Machine::timed(&[mode]);
        let start = |kernel: &str, blocks| {
            machine.bare().start("launch_loop", &[kernel, "0.5", "plain", "20", blocks])
        };
        let other = start("work_3ms", "132");
        used_by(&machine, start("work_50us", "132"));
        used_by(&machine, other);
        let stepped = machine.bare().run("stamps", &["steps", "20", "100000"]).success();
        assert_eq!((stepped.value("stamps"), stepped.value("wrong")), (21, 0), "{mode:?}: {stepped}");
        // Two events and the gap behind one of them.
        assert!(stepped.value("off_ns") <= 2500, "{mode:?}: {stepped}");
        let graphs = machine.bare().run("stamps", &["graph", "10", "30000"]).success();
        let told = ["sum_ns", "set_ns", "next_ns", "set_in_graph_ns"].map(|key| graphs.value(key));
        assert_eq!(told, [900_000, 60_000, 30_000, 90_000], "{mode:?}: {graphs}");
    }
}

/// Two programs that always have work.
fn together(machine: &Machine, blocks: &str) -> (f64, f64) {
    let arguments = ["work_5ms", "told", "plain", "8", blocks];
    let programs = [0, 1].map(|_| machine.bare().start("launch_loop", &arguments)).into();
    let used = watch(machine, 0, programs, 2);
    (used.means.iter().sum(), used.busy)
}

#[test]
fn a_device_that_slices_runs_one_process_at_a_time_and_loses_time_at_each_switch() {
    let attempt = || {
        let (sum, busy) = together(&Machine::timed(&[SLICES]), "1");
        // A slice of 2091 us, a switch of 152.6 us.
        (sum, (sum - busy).abs() < 0.1 && (sum - 93.2).abs() < 1.0)
    };
    twice(attempt).expect("2091 of 2243.6 us");
}

#[test]
fn a_device_that_does_not_slice_runs_at_once_what_fits() {
    let attempt = || {
        let [small, whole] = ["1", "132"].map(|blocks| together(&Machine::timed(&[]), blocks));
        let kept = small.0 > 180.0 && small.1 < 100.01 && (whole.0 - whole.1).abs() < 0.1 && whole.1 > 95.0;
        ((small, whole), kept)
    };
    twice(attempt).expect("both all the time, or one after the other");
}

#[test]
fn a_killed_process_takes_its_work_along() {
    let machine = Machine::timed(&[]);
    let mut program = machine.bare().start("launch_loop", &["work_300ms", "60", "plain", "20"]);
    program.wait_for("ready");
    thread::sleep(Duration::from_millis(200));
    program.kill();
    let until = Instant::now() + Duration::from_secs(1);
    let mut before = machine.truth().device("busy_ns");
    loop {
        thread::sleep(Duration::from_millis(50));
        let now = machine.truth().device("busy_ns");
        if now == before {
            return;
        }
        assert!(Instant::now() < until, "its kernels go on");
        before = now;
    }
}

/// A program answers for another one.
#[test]
#[should_panic(expected = "as its kernels wrote")]
fn readings_that_differ_are_refused() {
    let machine = Judge::Simulator.machine(Host::Usual);
    let start = |arguments: &[&str]| -> (Program, i64) {
        let mut program = machine.bare().start("launch_loop", arguments);
        let pid = program.wait_for("ready");
        (program, pid)
    };
    let (one, _) = start(&["work_1ms", "told", "plain", "1"]);
    let (_two, pid) = start(&["work_5ms", "told", "plain", "4"]);
    let mut readings = Readings::of(&machine);
    readings.have(&[pid], Duration::from_millis(500));
    readings.agree(one, pid);
}

#[test]
#[should_panic(expected = "read in one way alone")]
fn a_reading_that_nobody_confirms_is_refused() {
    let machine = Judge::Interleaving.machine(Host::Usual);
    let mut program = machine.bare().start("launch_loop", &["work_1ms", "told"]);
    let pid = program.wait_for("ready");
    Readings::of(&machine).have(&[pid], Duration::from_millis(100));
}
