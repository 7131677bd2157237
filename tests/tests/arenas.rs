//! Arenas: pools and graphs are charged for the memory that they keep, and are trimmed before a refusal.

use gpuquota_promises::{GIB, MIB, Machine, OUT_OF_MEMORY, Program, Promise, Scratch};

/// The program does it, and the driver agrees.
#[track_caller]
fn done(program: &mut Program, line: &str) {
    assert_eq!(program.ask(line, "rc"), 0, "{line}");
}

/// Bytes left of a slice of 4 GiB.
fn left(program: &mut Program) -> i64 {
    program.ask("info", "free")
}

#[test]
fn a_pool_is_charged_for_all_bytes_that_it_holds() {
    let promise = &Promise::to(&["HAMi-core#93"]);
    let machine = Machine::new("H100");
    let quota = machine.quota().memory(4 * GIB);
    let mut program = quota.start("pools", &[]);
    let all = left(&mut program);
    done(&mut program, "keep");
    done(&mut program, &format!("take {GIB}"));
    assert_eq!(left(&mut program), all - GIB);
    done(&mut program, "give");
    done(&mut program, "sync");
    promise.asserts(|| {
        assert_eq!(left(&mut program), all - GIB, "the pool keeps it, and the device has it no more")
    });
    let truth = machine.truth();
    assert_eq!(truth.device("physical_bytes") - truth.device("context_bytes"), GIB);
    let seen = quota.inspect();
    assert_eq!(seen["processes"][0]["devices"][0]["pool_bytes"], GIB, "{seen:#}");
}

/// A pool may give out its own memory again although nothing is left of the slice.
#[test]
fn a_pool_serves_from_its_own_bytes_also_when_the_slice_is_full() {
    let machine = Machine::new("H100");
    let quota = machine.quota().memory(4 * GIB);
    let mut program = quota.start("pools", &[]);
    done(&mut program, "keep");
    done(&mut program, &format!("take {GIB}"));
    done(&mut program, "give");
    let rest = left(&mut program);
    done(&mut program, &format!("plain {rest}"));
    assert_eq!(left(&mut program), 0);
    done(&mut program, &format!("take {GIB}"));
    assert_eq!(program.ask("take 1", "rc"), OUT_OF_MEMORY);
    let truth = machine.truth();
    assert!(truth.device("physical_peak_bytes") <= 4 * GIB);
}

/// As the driver does on a full card.
#[test]
fn pools_are_trimmed_before_a_refusal() {
    let promise = &Promise::to(&["HAMi#1003"]);
    let machine = Machine::new("H100");
    let quota = machine.quota().memory(4 * GIB);
    let mut program = quota.start("pools", &[]);
    let all = left(&mut program);
    done(&mut program, "keep");
    done(&mut program, &format!("take {}", 2 * GIB));
    done(&mut program, "give");
    done(&mut program, "sync");
    done(&mut program, &format!("plain {all}"));
    assert_eq!(left(&mut program), 0);
    promise.asserts(|| assert_eq!(quota.inspect()["devices"][0]["denied"], 0));
    assert_eq!(program.ask(&format!("take {MIB}"), "rc"), OUT_OF_MEMORY);
    let truth = machine.truth();
    assert_eq!(truth.device("requested_peak_bytes"), all.max(2 * GIB));
}

/// A pool without a threshold gives back at a synchronization; the next process need not wait for our next call.
#[test]
fn another_process_gets_the_bytes_that_a_pool_gave_back() {
    let machine = Machine::new("H100");
    let quota = machine.quota().memory(4 * GIB);
    let (mut one, mut other) = (quota.start("pools", &[]), quota.start("pools", &[]));
    one.wait_for("pid");
    let all = left(&mut other);
    done(&mut one, &format!("take {}", 2 * GIB));
    assert_eq!(other.ask(&format!("plain {all}"), "rc"), OUT_OF_MEMORY);
    done(&mut one, "give");
    done(&mut one, "sync");
    done(&mut other, &format!("plain {all}"));
}

#[test]
fn an_allocation_outlives_its_pool_and_stays_charged() {
    let machine = Machine::new("H100");
    let quota = machine.quota().memory(4 * GIB);
    let mut program = quota.start("pools", &[]);
    let all = left(&mut program);
    done(&mut program, "create");
    done(&mut program, "keep");
    for _ in 0..3 {
        done(&mut program, &format!("take {}", 256 * MIB));
    }
    done(&mut program, "give");
    assert_eq!(left(&mut program), all - 768 * MIB);
    done(&mut program, "destroy");
    assert_eq!(left(&mut program), all - 512 * MIB);
    for held in [256 * MIB, 0] {
        done(&mut program, "give");
        assert_eq!(left(&mut program), all - held);
    }
    assert_eq!(machine.truth().device("requested_bytes"), 0);
}

#[test]
fn graphs_are_charged_for_their_memory_until_they_are_trimmed() {
    let promise = &Promise::to(&["HAMi-core#93"]);
    let machine = Machine::new("H100");
    let quota = machine.quota().memory(4 * GIB);
    let mut program = quota.start("pools", &[]);
    let all = left(&mut program);
    done(&mut program, &format!("graph {GIB}"));
    assert_eq!(left(&mut program), all, "it has not been launched");
    for _ in 0..3 {
        done(&mut program, "launch");
        assert_eq!(left(&mut program), all - GIB);
    }
    done(&mut program, "sync");
    done(&mut program, "end");
    promise.asserts(|| assert_eq!(left(&mut program), all - GIB, "the device keeps it for the next graph"));
    let seen = quota.inspect();
    assert_eq!(seen["processes"][0]["devices"][0]["graph_bytes"], GIB, "{seen:#}");
    done(&mut program, "trim");
    assert_eq!(left(&mut program), all);
}

/// The memory that a graph has mapped serves its next launch, also where nothing can be trimmed, as while it runs.
#[test]
fn a_graph_is_launched_again_in_the_memory_that_it_has() {
    let scratch = Scratch::new();
    let text = "[[device]]\nlike = \"H100\"\n[[fault]]\ncall = \"cuDeviceGraphMemTrim\"\nerror = \"CUDA_ERROR_UNKNOWN\"\n";
    let machine = Machine::new(scratch.file("untrimmed.toml", text).to_str().expect("text"));
    let quota = machine.quota().memory(4 * GIB);
    let mut program = quota.start("pools", &[]);
    program.wait_for("pid");
    done(&mut program, &format!("graph {}", 2 * GIB));
    for _ in 0..3 {
        done(&mut program, "launch");
        done(&mut program, "sync");
    }
    program.finish().success();
    let device = &quota.inspect()["devices"][0];
    assert_eq!(device["denied"], 0, "{device}");
}

#[test]
fn a_graph_that_would_pass_the_cap_is_refused() {
    let machine = Machine::new("H100");
    let quota = machine.quota().memory(4 * GIB);
    let mut program = quota.start("pools", &[]);
    let all = left(&mut program);
    done(&mut program, &format!("graph {}", 3 * GIB));
    done(&mut program, &format!("plain {GIB}"));
    let launched = program.ask("launch", "rc");
    assert_eq!(launched, OUT_OF_MEMORY, "{all} were left");
    assert_eq!(machine.truth().device("requested_peak_bytes"), GIB);
    done(&mut program, "drop");
    // Its memory stays for the next launch, which needs no more.
    for _ in 0..2 {
        done(&mut program, "launch");
        done(&mut program, "sync");
    }
    // A trim of its unused memory makes room for others.
    done(&mut program, &format!("plain {all}"));
}

/// A machine of one device with small contexts, and these faults.
fn machine_with(faults: &str) -> Machine {
    let scratch = Scratch::new();
    let text = format!("[[device]]\nlike = 'H100'\ncontext = '32MiB'\n{faults}");
    Machine::new(scratch.file("faulty.toml", text).to_str().expect("text"))
}

/// By how much the device was above the cap: at most, and when all is done.
struct Overshoot {
    peak: i64,
    at_rest: i64,
}

/// Eight processes of four threads each race for 1 GiB, by two pools and by plain memory, in pieces of at most half a block.
fn race(faults: &str) -> Overshoot {
    let machine = machine_with(faults);
    let quota = machine.quota().memory(GIB);
    let arguments = ["4", "1500", &(BLOCK / 2).to_string(), "64"];
    let mut all: Vec<_> = (0..PROCESSES).map(|_| quota.start("pool_race", &arguments)).collect();
    all.iter_mut().for_each(|one| _ = one.wait_for("ready"));
    all.iter_mut().for_each(|one| one.tell("go"));
    let refusals: i64 = all.iter_mut().map(|one| one.wait_for("refusals")).sum();
    assert!(refusals > 0, "nobody was refused: this was no race");
    let truth = machine.truth();
    let over = |field| truth.device(field) - GIB;
    let overshoot = Overshoot { peak: over("physical_peak_bytes"), at_rest: over("physical_bytes") };
    all.iter_mut().for_each(|one| one.tell("end"));
    all.into_iter().for_each(|one| _ = one.finish().success());
    overshoot
}

/// The processes that race.
const PROCESSES: i64 = 8;
/// The driver gives memory in such blocks.
const BLOCK: i64 = 2 * MIB;

/// A thread that was preempted gets the figure of a pool late.
const LATE: &str = "[[fault]]\ncall = 'cuMemPoolGetAttribute'\none_in = 3\nlate = '200us'\n";
/// The query itself is slow.
const SLOW: &str = "[[fault]]\ncall = 'cuMemPoolGetAttribute'\nnth = 40\ndelay = '3ms'\n";
/// The driver has no figure for some questions.
const NONE: &str =
    "[[fault]]\ncall = 'cuMemPoolGetAttribute'\none_in = 5\nerror = 'CUDA_ERROR_INVALID_VALUE'\n";

/// Threads and processes race for what is left. What a pool has left may not serve a request that it seems to cover; then the pool
/// opens a block all the same, and the allocation is undone. So does a plain allocation, and one thread of a process at a time
/// does either. So by the device's own count the cap holds but for one block of each process, for the time of a call.
#[test]
fn pools_that_race_do_not_pass_the_cap() {
    for faults in ["", LATE, SLOW, NONE] {
        let Overshoot { peak, at_rest } = race(faults);
        assert!(peak <= PROCESSES * BLOCK, "{peak} bytes over, {faults}");
        assert!(at_rest <= 0, "{at_rest} bytes over at rest, {faults}");
    }
}
