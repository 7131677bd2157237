//! Faults without luck: a program that takes device memory of every kind is killed, or refused, at its first step, its second,
//! and so on, until it comes through. A step is a store into the region, or a call of the driver. After each run the books
//! agree with the device.

use std::time::{Duration, Instant};

use gpuquota_promises::{GIB, MIB, Machine, Outcome, Program, Scratch, Setting, program};

const CAP: i64 = 4 * GIB;
/// More steps than any run has; a run that never comes through is a failure.
const MOST: u64 = 3000;

/// A machine of one device with this fault in the program `steps`.
fn machine(fault: &str) -> Machine {
    let scratch = Scratch::new();
    let text = format!("[[device]]\nlike = 'H100'\n[[fault]]\nprogram = 'steps'\n{fault}\n");
    let file = scratch.file("steps.toml", text);
    Machine::new(file.to_str().expect("text"))
}

/// A program of the same container that lives on, and the bytes that it can have when it is alone.
struct Survivor {
    program: Program,
    room: i64,
}

impl Survivor {
    fn start(quota: &Setting<'_>) -> Self {
        let mut program = quota.start("hold", &[]);
        program.wait_for("pid");
        assert_eq!(program.ask(&format!("alloc {}", 64 * MIB), "rc"), 0);
        let room = program.ask("info", "free");
        Self { program, room }
    }

    /// It can have everything again, so the dead program has left no byte behind; and it can have no more.
    #[track_caller]
    fn can_have_all(&mut self, after: &str) {
        let Self { program, room } = self;
        assert_eq!(program.ask(&format!("alloc {room}"), "rc"), 0, "bytes are lost, {after}");
        assert_eq!(program.ask(&format!("alloc {}", 2 * MIB), "rc"), 2, "bytes are given twice, {after}");
        assert_eq!(program.ask("free", "rc"), 0);
    }
}

/// Runs `steps` to its end, or until something kills it. True if it came through.
fn came_through(quota: &Setting<'_>) -> bool {
    let outcome = quota.run("steps", &[]);
    outcome.status.success() && has(&outcome, "stores")
}

fn has(outcome: &Outcome, key: &str) -> bool {
    outcome.said().iter().any(|(said, _)| said == key)
}

/// Calls `at` with 1, 2, ... until it answers that the program came through; answers that number.
fn each_step(mut at: impl FnMut(u64) -> bool) -> u64 {
    (1..MOST).find(|step| at(*step)).expect("it comes through at some step")
}

/// The container's books, and what the device itself has given to it.
fn books_and_device(quota: &Setting<'_>, machine: &Machine) -> (i64, i64) {
    let books = quota.inspect()["devices"][0]["used"].as_i64().unwrap_or(0);
    (books, machine.truth().device("physical_bytes"))
}

/// They agree, at the latest when the program has looked at its memory for a second. They never say too little.
#[track_caller]
fn books_agree(quota: &Setting<'_>, machine: &Machine, program: &mut Program, when: &str) {
    let until = Instant::now() + Duration::from_secs(1);
    loop {
        let (books, device) = books_and_device(quota, machine);
        assert!(books >= device, "the books say {books}, the device {device}, {when}");
        if books == device {
            return;
        }
        assert!(Instant::now() < until, "the books still say {books}, the device {device}, {when}");
        std::thread::sleep(Duration::from_millis(110));
        program.ask("look", "looked");
    }
}

#[test]
fn a_process_that_dies_before_any_store_into_the_region_leaves_the_books_right() {
    let machine = Machine::new("H100");
    let quota = machine.quota().memory(CAP);
    let mut survivor = Survivor::start(&quota);
    let steps = each_step(|step| {
        let killed = quota.without_limits().memory(CAP).preloading(program("stepper.so"), true);
        let through = came_through(&killed.with("KILL_AT_STORE", step.to_string()));
        survivor.can_have_all(&format!("killed before store {step}"));
        through
    });
    assert!(steps > 300, "only {steps} stores");
    assert!(machine.truth().device("physical_peak_bytes") <= CAP + 2 * MIB);
}

#[test]
fn a_process_that_dies_before_any_store_of_its_start_leaves_a_region_that_works() {
    let machine = Machine::new("H100");
    let steps = each_step(|step| {
        let quota = machine.quota().memory(CAP);
        let killed = quota.without_limits().memory(CAP).preloading(program("stepper.so"), true);
        let dying = killed.with("KILL_AT_STORE", step.to_string()).run("hold", &[]);
        let through = dying.status.success();
        let mut next = quota.start("hold", &[]);
        next.wait_for("pid");
        assert_eq!(next.ask("info", "total"), CAP, "killed before store {step}");
        let room = next.ask("info", "free");
        assert_eq!(next.ask(&format!("alloc {room}"), "rc"), 0, "killed before store {step}");
        let (books, device) = books_and_device(&quota, &machine);
        assert_eq!(books, device, "killed before store {step}");
        through
    });
    assert!(steps > 50, "only {steps} stores");
}

/// Runs `steps` with a call that fails, and compares the books while the program holds its memory, and when it has given it
/// back.
fn with_a_failing_call(step: u64) {
    let machine = machine(&format!("call = 'cu*'\nnth = {step}\nerror = 'CUDA_ERROR_OUT_OF_MEMORY'"));
    let quota = machine.quota().memory(CAP);
    let mut survivor = Survivor::start(&quota);
    let mut program = quota.start("steps", &[]);
    for (key, when) in [("held", "all is held"), ("given", "all is given back")] {
        program.wait_for(key);
        books_agree(&quota, &machine, &mut program, &format!("call {step} has failed, {when}"));
        program.tell("on");
    }
    program.finish();
    survivor.can_have_all(&format!("call {step} has failed"));
}

#[test]
fn a_process_that_dies_before_any_call_of_the_driver_and_one_whose_call_fails_leave_the_books_right() {
    let steps = each_step(|step| {
        let machine = machine(&format!("call = 'cu*'\nnth = {step}\nkill = true"));
        let quota = machine.quota().memory(CAP);
        let mut survivor = Survivor::start(&quota);
        let through = came_through(&quota);
        survivor.can_have_all(&format!("killed before call {step}"));
        if !through {
            with_a_failing_call(step);
        }
        through
    });
    assert!(steps > 40, "only {steps} calls");
}
