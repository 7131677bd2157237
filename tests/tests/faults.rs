//! Scripted faults: a machine file says which call fails, which one is slow, and when a device is lost.

use gpuquota_promises::{GIB, MIB, Machine, OUT_OF_MEMORY, Program, Scratch};
use std::time::{Duration, Instant};

/// `CUDA_ERROR_UNKNOWN`, which calls on a lost device answer.
const UNKNOWN: i64 = 999;
/// `CUDA_ERROR_ILLEGAL_ADDRESS`.
const ILLEGAL_ADDRESS: i64 = 700;
/// `NVML_ERROR_NOT_SUPPORTED`.
const NOT_SUPPORTED: i64 = 3;
/// `NVML_ERROR_GPU_IS_LOST`.
const GPU_IS_LOST: i64 = 15;

/// A machine of two devices with these faults.
fn machine(faults: &[&str]) -> Machine {
    let scratch = Scratch::new();
    let faults: String = faults.iter().map(|fault| format!("[[fault]]\n{fault}\n")).collect();
    let file = scratch.file("faulty.toml", format!("[[device]]\nlike = \"T4\"\ncount = 2\n{faults}"));
    Machine::new(file.to_str().expect("text"))
}

/// A program on the device of this number.
fn on(machine: &Machine, device: &str) -> Program {
    let mut program = machine.bare().start("faulty", &[device]);
    program.wait_for("pid");
    program
}

#[test]
fn the_call_of_a_number_fails_in_each_process_and_no_other_call_does() {
    let machine = machine(&["call = 'cuMemAlloc'\nnth = 3\nerror = 'CUDA_ERROR_OUT_OF_MEMORY'"]);
    for _ in 0..2 {
        let mut program = on(&machine, "0");
        let answers = [(); 5].map(|()| program.ask("alloc", "rc"));
        assert_eq!(answers, [0, 0, OUT_OF_MEMORY, 0, 0]);
    }
}

#[test]
fn an_allocation_that_the_device_refused_is_not_charged() {
    let machine = machine(&["call = 'cuMemAlloc'\nnth = 2\nerror = 'CUDA_ERROR_OUT_OF_MEMORY'"]);
    let quota = machine.quota().memory("4GiB");
    let mut program = quota.start("hold", &[]);
    assert_eq!(program.ask(&format!("alloc {GIB}"), "rc"), 0);
    let before = program.ask("info", "free");
    assert_eq!(program.ask(&format!("alloc {MIB}"), "rc"), OUT_OF_MEMORY);
    assert_eq!(program.ask("info", "free"), before);
    assert_eq!(program.ask("free", "rc"), 0);
    assert_eq!(program.ask("info", "free"), before + GIB);
    program.finish().success();
}

#[test]
fn a_slow_call_takes_as_long_as_the_script_says_and_then_does_its_work() {
    let machine = machine(&["call = 'cuCtxSynchronize'\nnth = 2\ndelay = '300ms'"]);
    let mut program = on(&machine, "0");
    assert_eq!(program.ask("sync", "rc"), 0);
    assert!(program.ask("sync", "took_ms") >= 300);
    assert_eq!(program.wait_for("rc"), 0);
}

#[test]
fn a_late_answer_comes_after_the_work_is_done() {
    let late = Duration::from_millis(700);
    let machine = machine(&["call = 'cuMemAlloc'\nlate = '700ms'"]);
    let mut program = on(&machine, "0");
    let begun = Instant::now();
    program.tell("alloc");
    while machine.truth().device("requested_bytes") != MIB {
        assert!(begun.elapsed() < late, "the answer is due, and nothing is done");
    }
    assert_eq!(program.wait_for("rc"), 0);
    assert!(begun.elapsed() >= late);
}

#[test]
fn a_fault_at_random_meets_some_calls_and_not_all() {
    let machine = machine(&["call = 'cuMemAlloc'\none_in = 4\nerror = 'CUDA_ERROR_OUT_OF_MEMORY'"]);
    let mut program = on(&machine, "0");
    let refused = (0..400).filter(|_| program.ask("alloc", "rc") == OUT_OF_MEMORY).count();
    assert!((50..150).contains(&refused), "{refused} of 400");
}

#[test]
fn a_sticky_error_is_the_answer_to_every_later_call_of_that_process_alone() {
    let machine =
        machine(&["call = 'cuCtxSynchronize'\nnth = 2\nerror = 'CUDA_ERROR_ILLEGAL_ADDRESS'\nsticky = true"]);
    let (mut hit, mut other) = (on(&machine, "0"), on(&machine, "0"));
    assert_eq!([(); 3].map(|()| hit.ask("sync", "rc")), [0, ILLEGAL_ADDRESS, ILLEGAL_ADDRESS]);
    assert_eq!(hit.ask("alloc", "rc"), ILLEGAL_ADDRESS);
    assert_eq!((other.ask("sync", "rc"), other.ask("alloc", "rc")), (0, 0));
}

#[test]
fn a_lost_device_is_lost_to_all_and_the_other_devices_go_on() {
    let machine = machine(&["call = 'cuCtxSynchronize'\nnth = 2\nlost = 0"]);
    let (mut first, mut peer, mut elsewhere) = (on(&machine, "0"), on(&machine, "0"), on(&machine, "1"));
    assert_eq!((first.ask("sync", "rc"), first.ask("card 0", "rc")), (0, 0));
    assert_eq!(first.ask("sync", "rc"), UNKNOWN);
    for program in [&mut first, &mut peer] {
        assert_eq!(program.ask("alloc", "rc"), UNKNOWN);
        assert_eq!((program.ask("card 0", "rc"), program.ask("card 1", "rc")), (GPU_IS_LOST, 0));
    }
    assert_eq!((elsewhere.ask("alloc", "rc"), elsewhere.ask("card 0", "rc")), (0, GPU_IS_LOST));
}

#[test]
fn a_function_of_nvml_is_taken_away() {
    let machine = machine(&["call = 'nvmlDeviceGetMemoryInfo'\nerror = 'NVML_ERROR_NOT_SUPPORTED'"]);
    let mut program = on(&machine, "0");
    assert_eq!(program.ask("card 0", "rc"), NOT_SUPPORTED);
    assert_eq!(program.ask("alloc", "rc"), 0);
}
