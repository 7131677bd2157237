//! What the device itself has given to a container never passes its cap by more than one block for each process.

use gpuquota_promises::{GIB, MIB, Machine, OUT_OF_MEMORY, Program, Promise, Scratch, Setting};

/// The device gives its memory out in blocks.
const BLOCK: i64 = 2 * MIB;
/// What a context of the simulated H100 takes.
const CONTEXT: i64 = 512 * MIB;

/// The most that the device has ever given.
#[track_caller]
fn never_above(machine: &Machine, cap: i64, processes: i64) {
    let peak = machine.truth().device("physical_peak_bytes");
    assert!(peak <= cap + processes * BLOCK, "{} bytes above {cap}", peak - cap);
}

/// Starts processes that make a context at the same time. Answers those that got one, and how many were refused.
fn contexts<'q>(quota: &Setting<'q>, count: usize) -> (Vec<Program>, usize) {
    let mut all: Vec<_> = (0..count).map(|_| quota.start("contexts", &[])).collect();
    let answers: Vec<i64> = all.iter_mut().map(|one| one.wait_for("rc")).collect();
    assert!(answers.iter().all(|rc| [0, OUT_OF_MEMORY].contains(rc)), "{answers:?}");
    let refused = answers.iter().filter(|rc| **rc != 0).count();
    let kept = all.into_iter().zip(answers).filter(|(_, rc)| *rc == 0).map(|(one, _)| one);
    (kept.collect(), refused)
}

#[test]
fn sizes_just_above_a_mebibyte_are_charged_as_the_device_gives_them() {
    let promise = &Promise::to(&["HAMi#1408"]);
    let machine = Machine::new("H100");
    let cap = 2600 * MIB;
    let quota = machine.quota().memory(cap);
    let mut program = quota.start("alloc_until_refused", &[&(MIB + 4096).to_string(), "hold"]);
    assert_eq!(program.wait_for("refusal"), OUT_OF_MEMORY);
    let given = machine.truth().device("physical_bytes");
    promise.asserts(|| assert_eq!(given, cap, "a card of that size could give it all"));
    never_above(&machine, cap, 1);
    program.tell("end");
    program.finish().success();
}

#[test]
fn small_sizes_fill_the_last_block_of_the_cap() {
    let machine = Machine::new("H100");
    let cap = CONTEXT + 64 * MIB;
    for bytes in [4096, 300_000, MIB] {
        let quota = machine.quota().memory(cap);
        let mut program = quota.start("alloc_until_refused", &[&bytes.to_string(), "hold"]);
        let held = program.wait_for("held");
        assert_eq!(program.wait_for("refusal"), OUT_OF_MEMORY);
        assert_eq!(program.wait_for("free"), 0, "{bytes}");
        assert_eq!(machine.truth().device("physical_bytes"), cap, "{bytes}");
        // The blocks are as full as the device fills them.
        assert!(held > 52 * MIB, "{bytes}: {held}");
        program.tell("end");
        program.finish().success();
    }
    never_above(&machine, cap, 1);
}

#[test]
fn contexts_that_do_not_fit_are_refused_before_they_are_made() {
    let promise = &Promise::to(&["HAMi#1408"]);
    let machine = Machine::new("H100");
    let quota = machine.quota().memory(GIB);
    let (kept, refused) = contexts(&quota, 8);
    promise.asserts(|| {
        assert_eq!((kept.len(), refused), (2, 6), "two contexts fit into 1 GiB, and were to be had")
    });
    never_above(&machine, GIB, 0);
    assert_eq!(quota.inspect()["devices"][0]["used"], 2 * CONTEXT);
    drop(kept);
    // What the dead had is there again.
    let (kept, refused) = contexts(&quota, 2);
    assert_eq!((kept.len(), refused), (2, 0));
    never_above(&machine, GIB, 0);
}

#[test]
fn a_second_context_of_a_process_is_refused_too() {
    let machine = Machine::new("H100");
    let quota = machine.quota().memory(3 * CONTEXT - 1);
    let outcome = quota.run("contexts", &["4"]).success();
    assert_eq!(outcome.values("rc"), [0, 0, OUT_OF_MEMORY, OUT_OF_MEMORY], "{outcome}");
    never_above(&machine, 3 * CONTEXT - 1, 0);
    // What contexts had is there again once they are destroyed.
    assert_eq!(outcome.value("again"), 0, "{outcome}");
}

#[test]
fn a_context_that_is_larger_than_the_cap_is_not_kept() {
    let machine = Machine::new("H100");
    let quota = machine.quota().memory(64 * MIB);
    assert_eq!(quota.run("contexts", &[]).value("rc"), OUT_OF_MEMORY);
    assert_eq!(machine.truth().device("physical_bytes"), 0);
    assert_eq!(quota.inspect()["devices"][0]["used"], 0);
}

/// A card on which NVML counts some megabytes of each context to no process, as on an H200.
fn unlisted(scratch: &Scratch, more: &str) -> Machine {
    let text = format!("[[device]]\nlike = \"H100\"\nunlisted = \"5832704B\"\n{more}");
    Machine::new(scratch.file("unlisted.toml", text).to_str().expect("text"))
}

#[test]
fn what_nvml_counts_to_no_process_is_charged() {
    let scratch = Scratch::new();
    let machine = unlisted(&scratch, "");
    let quota = machine.quota().memory(2 * GIB);
    let used = || quota.inspect()["devices"][0]["used"].as_i64().expect("a number");
    let physical = || machine.truth().device("physical_bytes");
    // The first context of the container, and those of which it is known what one takes.
    let mut programs: Vec<_> = (0..3).map(|_| quota.start("hold", &[])).collect();
    for program in &mut programs {
        program.wait_for("pid");
    }
    assert_eq!(physical(), 3 * (CONTEXT + 5_832_704));
    assert_eq!(used(), physical(), "to the byte");
    // Until the cap is full.
    while programs[0].ask(&format!("alloc {}", 2 * MIB), "rc") == 0 {}
    never_above(&machine, 2 * GIB, 0);
    assert!(physical() > 2 * GIB - BLOCK, "and all of it is given");
    let of_three = physical();
    programs.pop().expect("the third").finish();
    assert_eq!(used(), physical());
    assert_eq!(physical(), of_three - CONTEXT - 5_832_704);
    programs.into_iter().for_each(|program| _ = program.finish());
    // Several contexts of a process, made and destroyed.
    let outcome = quota.run("contexts", &["4"]).success();
    assert_eq!(outcome.values("rc"), [0, 0, 0, OUT_OF_MEMORY], "{outcome}");
    never_above(&machine, 2 * GIB, 0);
    assert_eq!((used(), physical()), (0, 0));
}

/// What others do while a context is made is no part of it.
#[test]
fn a_neighbour_that_comes_and_grows_beside_a_new_context_is_not_charged_with_it() {
    let scratch = Scratch::new();
    let slow = "[[fault]]\ncall = \"cuDevicePrimaryCtxRetain\"\ndelay = \"400ms\"\nprogram = \"contexts\"\n";
    let machine = unlisted(&scratch, slow);
    let (quota, other) = (machine.quota().memory(4 * GIB), machine.bare());
    let mut neighbour = other.start("hold", &[]);
    neighbour.wait_for("pid");
    for _ in 0..2 {
        let mut program = quota.start("contexts", &["1"]);
        assert_eq!(neighbour.ask(&format!("alloc {}", 16 * MIB), "rc"), 0);
        let second = other.start("hold", &[]);
        assert_eq!(program.wait_for("rc"), 0);
        let seen = quota.inspect();
        let used = seen["devices"][0]["used"].as_i64().expect("a number");
        assert!([CONTEXT, CONTEXT + 5_832_704].contains(&used), "{seen:#}");
        program.finish();
        second.finish();
    }
}

/// As on a card of that size: it succeeds, and what does not fit lies on the host.
#[test]
fn managed_memory_may_be_larger_than_the_cap() {
    let promise = &Promise::to(&["llama.cpp#16197"]);
    let machine = Machine::new("H100");
    let quota = machine.quota().memory(2 * GIB);
    let mut program = quota.start("managed", &[]);
    let free = program.wait_for("free");
    for _ in 0..3 {
        promise.asserts(|| assert_eq!(program.ask(&format!("take {}", 4 * GIB), "rc"), 0));
    }
    assert_eq!(program.ask(&format!("take {GIB}"), "rc"), 0, "this one fits");
    assert_eq!(machine.truth().device("physical_bytes"), CONTEXT + GIB);
    // A program cannot move to the device what does not fit there.
    assert_eq!(program.ask("prefetch", "rc"), 0);
    assert_eq!(machine.truth().device("physical_bytes"), CONTEXT + GIB);
    never_above(&machine, 2 * GIB, 0);
    for _ in 0..4 {
        assert_eq!(program.ask("give", "rc"), 0);
    }
    assert_eq!(program.ask("info", "free"), free);
    program.finish().success();
}

#[test]
fn many_small_arrays_are_charged_what_the_device_gives_for_them() {
    let machine = Machine::new("H100");
    let quota = machine.quota().memory(GIB);
    let outcome = quota.run("small_arrays", &["2000"]).success();
    assert_eq!(outcome.value("rc"), 0, "2000 arrays of 16 KiB take 32 MiB: {outcome}");
    let (before, with, after) =
        (outcome.values("free")[0], outcome.values("free")[1], outcome.values("free")[2]);
    assert!(before - with <= 34 * MIB, "{outcome}");
    assert_eq!(before, after, "{outcome}");
    never_above(&machine, GIB, 1);
}
