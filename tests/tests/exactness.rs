//! The cap is exact: by the device's own count no use passes it by more than a block for each process, and no request that
//! fits is refused.

use gpuquota_promises::{GIB, MIB, Machine, OUT_OF_MEMORY, Program, Promise, Setting};
use serde_json::Value;

const CAP: i64 = 8 * GIB;
/// The device gives its memory out in blocks.
const BLOCK: i64 = 2 * MIB;

/// What the device has given beyond contexts.
fn given(machine: &Machine) -> i64 {
    let truth = machine.truth();
    truth.device("physical_bytes") - truth.device("context_bytes")
}

/// Eight processes of four threads race. Answers them at rest, where each still holds a few pieces, and the bytes that were
/// free before: the cap, less the charge of contexts.
fn race(setting: &Setting<'_>, rounds: u32) -> (Vec<Program>, i64) {
    let arguments = ["4".to_owned(), (256 * MIB).to_string(), rounds.to_string()];
    let arguments = arguments.each_ref().map(String::as_str);
    let mut all: Vec<_> = (0..8).map(|_| setting.start("race_for_last_bytes", &arguments)).collect();
    all.iter_mut().for_each(|one| _ = one.wait_for("ready"));
    let free = all[0].ask("info", "free");
    all.iter_mut().for_each(|one| one.tell("go"));
    all.iter_mut().for_each(|one| _ = one.wait_for("rest"));
    (all, free)
}

#[test]
fn eight_processes_of_four_threads_cannot_pass_one_cap() {
    let promise = &Promise::to(&["HAMi-core#273"]);
    let machine = Machine::new("H100");
    let quota = machine.quota().memory(CAP);
    let (mut all, cap) = race(&quota, 3000);
    let peak = machine.truth().device("physical_peak_bytes");
    promise.asserts(|| assert!(peak <= CAP + 8 * BLOCK, "{} bytes over", peak - CAP));

    // At rest all free bytes can be allocated, to the byte; an earlier refusal would have been wrong.
    let free = all[0].ask("info", "free");
    assert!(free > 0);
    assert_eq!(all[1].ask(&format!("alloc {free}"), "rc"), 0, "{free} bytes are free and were refused");
    assert_eq!(all[2].ask("alloc 1", "rc"), OUT_OF_MEMORY);
    assert_eq!(given(&machine), cap);

    let refusals: i64 = all.into_iter().map(|one| one.finish().success().value("refusals")).sum();
    assert!(refusals > 0, "nobody was refused: this was no race for the last bytes");
    assert_eq!(machine.truth().device("requested_bytes"), 0);
}

#[test]
fn the_same_race_passes_the_cap_where_there_is_none() {
    let machine = Machine::new("H100");
    // Without a cap no request is refused and none waits, so the processes need more rounds until all race at once.
    race(&machine.bare(), 100_000).0.into_iter().for_each(|one| _ = one.finish().success());
    assert!(machine.truth().device("requested_peak_bytes") > CAP);
}

#[test]
fn a_cap_can_be_filled_to_the_last_byte() {
    let promise = &Promise::to(&["HAMi#1003"]);
    let machine = Machine::new("H100");
    let bare = machine.bare().run("alloc_until_refused", &[]).success();
    assert!(bare.value("held") > 2 * GIB);

    let quota = machine.quota().memory("2GiB");
    let mut program = quota.start("alloc_until_refused", &["67108864", "hold"]);
    let free = program.wait_for("free");
    let held = program.wait_for("held");
    assert_eq!(program.wait_for("refusal"), OUT_OF_MEMORY);
    assert_eq!(program.wait_for("free"), 0);
    promise.asserts(|| assert_eq!(held, free, "not everything that was free could be had"));
    assert_eq!(machine.truth().device("requested_bytes"), held);
    program.tell("end");
    program.finish().success();
}

#[test]
fn bytes_of_a_killed_holder_go_to_the_next_at_once() {
    let machine = Machine::new("H100");
    let quota = machine.quota().memory("4GiB");
    let mut first = quota.start("hold", &[]);
    let mut next = quota.start("hold", &[]);
    let most = format!("alloc {}", 5 * GIB / 2);
    assert_eq!(first.ask(&most, "rc"), 0);
    assert_eq!(next.ask(&most, "rc"), OUT_OF_MEMORY);
    first.kill();
    assert_eq!(next.ask(&most, "rc"), 0);
    next.finish().success();
}

#[test]
fn a_storm_of_kills_leaks_nothing() {
    let promise = &Promise::to(&["HAMi-core#86"]);
    let machine = Machine::new("H100");
    let quota = machine.quota().memory(CAP);
    let mut witness = quota.start("hold", &[]);
    let free = witness.ask("info", "free");
    for round in 0..12_u64 {
        let mut all: Vec<_> =
            (0..4).map(|_| quota.start("race_for_last_bytes", &["2", "268435456", "100000000"])).collect();
        all.iter_mut().for_each(|one| _ = one.wait_for("ready"));
        all.iter_mut().for_each(|one| one.tell("go"));
        std::thread::sleep(std::time::Duration::from_micros(5_000 + 1_700 * round));
        all.into_iter().for_each(|one| _ = one.kill());
    }
    let most = free - CAP / 1024;
    promise.asserts(|| {
        assert_eq!(witness.ask(&format!("alloc {most}"), "rc"), 0, "what the dead held was not given back")
    });
    assert_eq!(witness.ask(&format!("alloc {}", free - most), "rc"), 0);
    assert_eq!(witness.ask("alloc 1", "rc"), OUT_OF_MEMORY, "more was given back than was held");
    assert_eq!(machine.truth().device("requested_bytes"), free);
    witness.finish().success();
}

#[test]
fn every_free_reaches_the_driver_also_of_unknown_pointers() {
    let promise = &Promise::to(&["HAMi-core#55"]);
    let machine = Machine::new("H100");
    let bare = machine.bare().run("free_unknown", &[]).success();
    let quota = machine.quota().memory("2GiB").run("free_unknown", &[]).success();
    for key in ["null", "nowhere", "first", "second", "async_nowhere"] {
        promise.asserts(|| assert_eq!(quota.value(key), bare.value(key), "{key}"));
    }
    assert_ne!(bare.value("nowhere"), 0, "the driver knows what was never allocated");
    let free = quota.values("free");
    assert_eq!(free[0], free[1], "somebody's account changed: {quota}");
}

#[test]
fn every_kind_of_memory_is_charged_once_and_given_back() {
    let promise = &Promise::to(&["HAMi-core#93"]);
    let machine = Machine::new("H100");
    let quota = machine.quota().memory("2GiB");
    for kind in ["plain", "managed", "pitch", "array", "array3d", "mipmap", "vmm", "async"] {
        let outcome = quota.run("kinds", &[kind]).success();
        let taken = if kind == "pitch" { outcome.values("taken")[0] } else { 64 * MIB };
        promise.asserts(|| assert_eq!(outcome.value("charged"), taken, "{kind}"));
        promise.asserts(|| assert_eq!(outcome.value("returned"), taken, "{kind}"));
        // Managed memory may be larger than the cap, as it may be larger than a card.
        let over = if kind == "managed" { 0 } else { OUT_OF_MEMORY };
        assert_eq!(outcome.value("over"), over, "{kind}");
    }
    assert!(machine.truth().device("requested_peak_bytes") < 128 * MIB);
}

#[test]
fn the_driver_itself_refuses_none_of_these_kinds() {
    let machine = Machine::new("H100");
    for kind in ["plain", "pitch", "array", "array3d", "mipmap", "vmm", "async"] {
        let outcome = machine.bare().run("kinds", &[kind]).success();
        assert!(outcome.value("charged") >= 64 * MIB, "{kind}: {outcome}");
    }
}

#[test]
fn a_released_handle_is_charged_while_it_is_mapped() {
    let promise = &Promise::to(&["HAMi-core#187"]);
    let machine = Machine::new("H100");
    let free = machine.quota().memory("2GiB").run("vmm_mapped", &[]).success().values("free");
    promise.asserts(|| assert_eq!(free[0] - free[1], 64 * MIB));
    assert_eq!(free[2], free[0]);
}

/// What allocations of the programs have taken, by the books. Small arrays are measured together with code.
fn charged(setting: &Setting<'_>) -> i64 {
    let seen = setting.inspect();
    let processes = seen["processes"].as_array().expect("a list");
    let devices = processes.iter().filter_map(|process| process["devices"].as_array()).flatten();
    let of = |device: &Value| ["data_bytes", "module_bytes"].map(|kind| device[kind].as_i64().unwrap_or(0));
    devices.map(|device| of(device).iter().sum::<i64>()).sum()
}

/// Several processes of several threads use every kind of memory, and some are killed at any instruction. At rest the books
/// equal the device's count to the byte, no use has passed the cap, and all free bytes can be allocated.
#[test]
fn a_storm_over_all_kinds_ends_with_the_device_s_truth() {
    let promise = &Promise::to(&["HAMi-core#241"]);
    let machine = Machine::new("H100");
    let quota = machine.quota().memory(CAP);
    let mut witness = quota.start("hold", &[]);
    witness.wait_for("pid");
    for round in 0..6_i64 {
        let seed = |process: i64| (10 * round + process).to_string();
        let mut all: Vec<_> = (0..4).map(|one| quota.start("storm", &["3", &seed(one)])).collect();
        all.iter_mut().for_each(|one| _ = one.wait_for("free"));
        all.iter_mut().for_each(|one| one.tell("go"));
        all.iter_mut().for_each(|one| _ = one.wait_for("ready"));
        for delay in [3, 11] {
            std::thread::sleep(std::time::Duration::from_millis(delay + 7 * round as u64));
            all.pop().map(Program::kill).expect("there are four");
        }
        let refusals: i64 = all.iter_mut().map(|one| one.ask("rest", "refusals")).sum();
        // The first process that requests memory reaps the dead.
        witness.ask("info", "free");
        promise.asserts(|| assert_eq!(charged(&quota), given(&machine), "round {round}"));
        assert!(refusals > 0, "nobody was refused: the storm was a breeze");
        let free = witness.ask("info", "free");
        if free > 0 {
            assert_eq!(witness.ask(&format!("alloc {free}"), "rc"), 0, "{free} bytes are free");
            assert_eq!(witness.ask("free", "rc"), 0);
        }
        all.iter_mut().for_each(|one| _ = one.ask("free", "free"));
        assert_eq!(charged(&quota), 0);
        assert_eq!(given(&machine), 0);
        all.into_iter().for_each(|one| _ = one.finish().success());
    }
    let peak = machine.truth().device("physical_peak_bytes");
    assert!(peak <= CAP + 5 * BLOCK, "{} bytes over", peak - CAP);
    witness.finish().success();
}
