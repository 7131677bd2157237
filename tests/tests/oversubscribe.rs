//! Memory beyond the device's own comes from the host: exactly the requested bytes, and none of them from the device.

use gpuquota_promises::{GIB, MIB, Machine, OUT_OF_MEMORY, Promise, Setting};

const CAP: i64 = 20 * GIB;
const PHYSICAL: i64 = 4 * GIB;

fn budget(machine: &Machine) -> Setting<'_> {
    machine.quota().memory(CAP).with("GPUQUOTA_MEMORY_PHYSICAL", PHYSICAL.to_string())
}

fn device(quota: &Setting<'_>, key: &str) -> i64 {
    quota.inspect()["devices"][0][key].as_i64().expect("a number")
}

#[test]
fn beyond_the_budget_memory_lies_on_the_host() {
    let machine = Machine::new("H100");
    let quota = budget(&machine);
    let mut program = quota.start("hold", &[]);
    let free = program.ask("info", "free");
    assert_eq!(program.wait_for("total"), CAP);
    let alloc = |gib: i64| format!("alloc {}", gib * GIB);
    assert_eq!(program.ask(&alloc(3), "rc"), 0);
    assert_eq!((machine.truth().device("requested_bytes"), device(&quota, "spilled")), (3 * GIB, 0));
    assert_eq!(program.ask(&alloc(8), "rc"), 0);
    assert_eq!((machine.truth().device("requested_bytes"), device(&quota, "spilled")), (3 * GIB, 8 * GIB));
    assert_eq!(program.ask("info", "free"), free - 11 * GIB, "the cap counts both");
    assert_eq!(program.ask(&format!("alloc {}", free - 11 * GIB + 1), "rc"), OUT_OF_MEMORY);
    assert_eq!(program.ask("free", "rc"), 0);
    assert_eq!((device(&quota, "spilled"), device(&quota, "spills")), (0, 1));
    assert_eq!(program.ask("free", "rc"), 0);
    assert_eq!(program.ask("info", "free"), free);
    // An allocation that fits on the device lies there again.
    assert_eq!(program.ask(&alloc(3), "rc"), 0);
    assert_eq!(machine.truth().device("requested_bytes"), 3 * GIB);
    program.finish().success();
}

#[test]
fn the_whole_cap_can_be_had_in_one_piece() {
    let promise = &Promise::to(&["HAMi-core#69"]);
    let machine = Machine::new("H100");
    let quota = budget(&machine);
    let mut program = quota.start("hold", &[]);
    let free = program.ask("info", "free");
    promise.asserts(|| assert_eq!(program.ask(&format!("alloc {free}"), "rc"), 0));
    assert_eq!(machine.truth().device("requested_bytes"), 0);
    program.finish().success();
}

#[test]
fn every_kind_that_can_lie_on_the_host_does() {
    let machine = Machine::new("H100");
    let whole = machine.quota().memory(CAP);
    let context = CAP - whole.start("hold", &[]).ask("info", "free");
    // Beside the context a row fits, and 64 MiB do not.
    let quota =
        machine.quota().memory(CAP).with("GPUQUOTA_MEMORY_PHYSICAL", (context + 32 * MIB).to_string());
    for kind in ["plain", "managed", "pitch"] {
        let outcome = quota.run("kinds", &[kind]).success();
        assert!(outcome.value("charged") >= 64 * MIB - 64 * 1024, "{kind}: {outcome}");
        assert_eq!(outcome.value("charged"), outcome.value("returned"), "{kind}: {outcome}");
        assert_eq!(outcome.value("over"), OUT_OF_MEMORY, "{kind}: {outcome}");
    }
    assert_eq!(device(&quota, "spills"), 3);
    assert_eq!((device(&quota, "spilled"), device(&quota, "denied")), (0, 3));
    for kind in ["array", "array3d", "mipmap", "vmm", "async"] {
        let outcome = quota.run("kinds", &[kind]);
        assert_eq!(outcome.value("rc"), OUT_OF_MEMORY, "{kind} has no place on the host: {outcome}");
    }
}

#[test]
fn racing_processes_keep_the_budget() {
    let machine = Machine::new("H100");
    let quota = budget(&machine);
    let piece = (256 * MIB).to_string();
    let mut all: Vec<_> = (0..4).map(|_| quota.start("race_for_last_bytes", &["4", &piece, "600"])).collect();
    all.iter_mut().for_each(|one| _ = one.wait_for("ready"));
    all.iter_mut().for_each(|one| one.tell("go"));
    all.pop().expect("four").kill();
    all.iter_mut().for_each(|one| _ = one.wait_for("rest"));
    assert!(device(&quota, "spills") > 0, "nothing was sent to the host");
    all[0].ask("info", "free");
    let (used, spilled) = (device(&quota, "used"), device(&quota, "spilled"));
    assert!(used - spilled <= PHYSICAL, "{} bytes over the budget", used - spilled - PHYSICAL);
    let seen = quota.inspect();
    let asked: i64 = seen["processes"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|process| process["devices"][0]["data_bytes"].as_i64())
        .sum();
    let truth = machine.truth();
    assert_eq!(asked - spilled, truth.device("physical_bytes") - truth.device("context_bytes"));
    all.into_iter().for_each(|one| _ = one.finish().success());
    let mut last = quota.start("hold", &[]);
    last.ask("info", "free");
    assert_eq!(device(&quota, "spilled"), 0, "what the dead had on the host was not given back");
}

#[test]
fn hami_s_switch_helps_where_the_device_itself_is_full() {
    let promise = &Promise::to(&["HAMi-core#69"]);
    let machine = Machine::new("H100");
    let mut neighbour = machine.bare().start("hold", &[]);
    assert_eq!(neighbour.ask(&format!("alloc {}", 72 * GIB), "rc"), 0);
    let more = format!("alloc {}", 10 * GIB);

    let quota = machine.quota().memory(40 * GIB);
    let mut without = quota.start("hold", &[]);
    assert_eq!(without.ask(&more, "rc"), OUT_OF_MEMORY);
    drop(without);
    for switch in ["CUDA_OVERSUBSCRIBE", "GPUQUOTA_OVERSUBSCRIBE"] {
        let quota = machine.quota().with("CUDA_DEVICE_MEMORY_LIMIT", "100g").with(switch, "true");
        let mut program = quota.start("hold", &[]);
        promise.asserts(|| assert_eq!(program.ask(&more, "rc"), 0, "{switch}"));
        assert_eq!(program.ask("info", "total"), 100 * GIB, "{switch}: more than the device has");
        assert_eq!(device(&quota, "spilled"), 10 * GIB, "{switch}");
        assert_eq!(machine.truth().device("requested_bytes"), 72 * GIB);
        program.finish().success();
    }
}
