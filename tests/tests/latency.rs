//! What calls, front ends and switches between processes take on the simulated device: as long as on a card, where the machine
//! is not ideal. Figures without another source are those of an H200 with driver 580.159.04, 2026-11-27.

use std::time::Duration;

use gpuquota_promises::{Machine, Program, Scratch, twice};

/// A figure is right within a twentieth.
fn near(seen: f64, wanted: f64) -> bool {
    (seen - wanted).abs() <= wanted / 20.0
}

/// Starts `launch_loop` for a minute, and answers once it launches.
fn looping(machine: &Machine, arguments: &[&str]) -> Program {
    let mut program = machine.bare().start("launch_loop", arguments);
    program.wait_for("ready");
    program
}

/// How busy the device is with these loops, in percent of its time, and the kernels that it ends in a second.
fn busy(machine: &Machine, loops: &[&[&str]]) -> (f64, f64) {
    let running: Vec<_> = loops.iter().map(|arguments| looping(machine, arguments)).collect();
    let before = machine.truth();
    std::thread::sleep(Duration::from_secs(1));
    let after = machine.truth();
    for program in running {
        program.kill();
    }
    let passed = (after.clock_ns() - before.clock_ns()) as f64;
    let of_it = |key| (after.device(key) - before.device(key)) as f64 / passed;
    (100.0 * of_it("busy_ns"), 1e9 * of_it("kernels"))
}

const WAITS: &[&str] = &["step_50us", "60", "plain", "1"];
const AHEAD: &[&str] = &["step_50us", "60", "plain", "400"];

#[test]
fn two_processes_that_wait_for_each_kernel_pay_a_switch_for_each() {
    let machine = Machine::of_the_field("H200", &[]);
    twice(|| {
        let seen = busy(&machine, &[WAITS, WAITS]);
        (seen, near(seen.0, 100.0 * 50.0 / 187.0) && near(seen.1, 1e6 / 187.0))
    })
    .expect("a kernel of 50 us every 187 us");
}

#[test]
fn processes_that_always_have_work_take_turns_and_lose_a_switch_for_each() {
    for count in [2, 3] {
        let machine = Machine::of_the_field("H200", &[]);
        twice(|| {
            let (busy, _) = busy(&machine, &vec![AHEAD; count]);
            // The gap between two kernels is lost as well.
            (busy, near(busy, 100.0 * 2091.0 / (2091.0 + 152.6) * 50.0 / 51.3))
        })
        .expect("a slice of 2.091 ms and a switch of 0.153 ms");
    }
}

/// A kernel in progress is stopped and goes on later, so its begin and its end lie as far apart as the others' slices.
#[test]
fn a_long_kernel_is_stopped_for_the_slices_of_the_others_and_the_switches() {
    for count in [1, 2, 3] {
        let (machine, _file) = with_stamps();
        twice(|| {
            let start = |_| machine.bare().start("stamps", &["many", "1", "200000000"]);
            let mut all: Vec<_> = (0..count).map(start).collect();
            for one in &mut all {
                one.wait_for("ready");
            }
            all.iter_mut().for_each(|one| one.tell("go"));
            let all: Vec<_> = all.into_iter().map(|one| one.finish().success().value("sum_ns")).collect();
            let round = if count == 1 { 2091.0 } else { f64::from(count) * (2091.0 + 152.6) };
            let right = all.iter().all(|ns| near(*ns as f64, 200e6 * round / 2091.0));
            (all, right)
        })
        .expect("so long from its begin to its end");
    }
}

#[test]
fn a_process_keeps_its_slice_while_it_has_work_queued() {
    let machine = Machine::of_the_field("H200", &[]);
    let _busy = looping(&machine, AHEAD);
    twice(|| {
        let launches = machine.bare().run("launch_loop", &["step_10us", "1", "plain", "1"]).success().value("launches");
        (launches, near(launches as f64, 1e6 / (2091.0 + 152.6 + 10.0 + 137.0)))
    })
    .expect("a kernel of 10 us every 2.39 ms");
}

#[test]
fn alone_a_process_pays_for_no_switch() {
    let machine = Machine::of_the_field("H200", &[]);
    twice(|| {
        let (waiting, ahead) = (busy(&machine, &[WAITS]).0, busy(&machine, &[AHEAD]).0);
        // 8.6 us from the end of a kernel to the next begin where the host waits, 1.3 us where it is ahead.
        ((waiting, ahead), near(waiting, 100.0 * 50.0 / 58.6) && near(ahead, 100.0 * 50.0 / 51.3))
    })
    .expect("a gap of 8.6 us and one of 1.3 us");
}

/// A machine like a card, whose kernels write down when they ran, and the folder of its file.
fn with_stamps() -> (Machine, Scratch) {
    let scratch = Scratch::new();
    let file = "
        [[device]]
        like = \"H200\"
        [[kernel]]
        pattern = \"work_*\"
        duration = \"1ns\"
        argument = 0
        stamps = 1
    ";
    let file = scratch.file("stamps.toml", file);
    (Machine::of_the_field(file.to_str().expect("text"), &[]), scratch)
}
