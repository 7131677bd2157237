//! Memory that another process made: it is charged once, to its maker while that lives, and then to the container of
//! whoever keeps it.

use std::time::{Duration, Instant};

use gpuquota_promises::{GIB, MIB, Machine, OUT_OF_MEMORY, Program, Promise, Setting};

const BLOCK: i64 = 2 * MIB;
/// What a context of the simulated H100 takes.
const CONTEXT: i64 = 512 * MIB;
const CAP: i64 = 4 * GIB;
/// The ways of sharing memory.
const WAYS: [&str; 3] = ["handle", "descriptor", "pool"];

/// A process that has imported a GiB from one that has another GiB for itself.
fn importer(quota: &Setting<'_>, way: &str) -> Program {
    let mut importer = quota.start("imports", &[way, &GIB.to_string()]);
    assert_eq!(importer.wait_for("imported"), GIB);
    importer
}

fn free_by(program: &mut Program) -> i64 {
    let free = program.ask("info", "free");
    program.wait_for("rc");
    free
}

#[test]
fn shared_memory_is_charged_once() {
    for way in WAYS {
        let machine = Machine::new("H100");
        let quota = machine.quota().memory(CAP);
        let mut importer = importer(&quota, way);
        assert_eq!(free_by(&mut importer), CAP - 2 * CONTEXT - 2 * GIB, "{way}");
        importer.finish().success();
    }
}

/// The importer makes no call, and what the exporter had for itself is free again.
#[test]
fn what_an_idle_importer_keeps_of_a_dead_exporter_stays_charged() {
    let promise = &Promise::to(&["nixl#1066"]);
    for way in WAYS {
        let machine = Machine::new("H100");
        let quota = machine.quota().memory(CAP);
        let mut importer = importer(&quota, way);
        assert_eq!(importer.ask("kill", "rc"), 0);
        let mut newcomer = quota.start("hold", &[]);
        newcomer.wait_for("pid");
        let rest = CAP - 2 * CONTEXT - GIB;
        let more = newcomer.ask(&format!("alloc {}", rest + BLOCK), "rc");
        promise.asserts(|| assert_eq!(more, OUT_OF_MEMORY, "{way}"));
        assert_eq!(newcomer.ask(&format!("alloc {rest}"), "rc"), 0, "{way}");
        assert_eq!(quota.inspect()["devices"][0]["used"], CAP, "{way}");
        assert!(machine.truth().device("physical_peak_bytes") <= CAP + BLOCK, "{way}");
        newcomer.finish().success();
        importer.finish().success();
        assert_eq!(quota.inspect()["devices"][0]["used"], 0, "{way}");
    }
}

/// What is kept of a pool is in no figure of a process (seen on an H200 with driver 580), and is given back with the pool.
#[test]
fn an_importer_is_charged_until_it_gives_the_memory_back() {
    for way in WAYS {
        let kept = GIB;
        let machine = Machine::new("H100");
        let quota = machine.quota().memory(CAP);
        let mut importer = importer(&quota, way);
        assert_eq!(importer.ask("kill", "rc"), 0);
        assert_eq!(machine.truth().device("physical_bytes"), CONTEXT + kept, "{way}");
        let rest = CAP - CONTEXT;
        assert_eq!(free_by(&mut importer), rest - kept, "{way}");
        assert_eq!(importer.ask(&format!("take {}", rest - kept + BLOCK), "rc"), OUT_OF_MEMORY, "{way}");
        assert_eq!(quota.inspect()["devices"][0]["used"], CONTEXT + kept, "{way}");
        importer.ask("give", "rc");
        if way == "pool" {
            assert_eq!(free_by(&mut importer), rest - kept, "the pool still has it");
            assert_eq!(importer.ask("destroy", "rc"), 0);
        }
        assert_eq!(machine.truth().device("physical_bytes"), CONTEXT, "{way}");
        assert_eq!(free_by(&mut importer), rest, "{way}");
        assert_eq!(importer.ask(&format!("take {rest}"), "rc"), 0, "{way}");
        importer.finish().success();
    }
}

/// The importer of the living one's memory makes the first call after the death.
#[test]
fn what_a_living_process_shares_is_not_charged_again_when_another_one_dies() {
    for (living, dead) in WAYS.into_iter().flat_map(|living| WAYS.map(|dead| (living, dead))) {
        let machine = Machine::new("H100");
        let quota = machine.quota().memory(3 * CAP);
        let mut beside = importer(&quota, living);
        let mut importer = importer(&quota, dead);
        assert_eq!(importer.ask("kill", "rc"), 0);
        let all = 2 * CONTEXT + 2 * GIB + CONTEXT + GIB;
        let until = Instant::now() + Duration::from_secs(3);
        // The view looks for the dead now and then.
        while [free_by(&mut beside), free_by(&mut importer)] != [3 * CAP - all; 2] {
            let seen = [free_by(&mut beside), free_by(&mut importer)];
            assert!(Instant::now() < until, "{living} lives, {dead} is dead: {seen:?}");
        }
        assert_eq!(machine.truth().device("physical_bytes"), all, "{living} lives, {dead} is dead");
        importer.finish().success();
        let alone = 3 * CAP - 2 * CONTEXT - 2 * GIB;
        // Of two pools nothing tells which was the dead one's: whoever made the first call pays as long as it has its own.
        while (living, dead) != ("pool", "pool") && free_by(&mut beside) != alone {
            assert!(Instant::now() < until, "{living} lives, {dead} is dead: {}", free_by(&mut beside));
        }
        beside.finish().success();
        assert_eq!(quota.inspect()["devices"][0]["used"], 0, "{living} lives, {dead} is dead");
    }
}

/// A tenant that passes memory on from process to process.
#[test]
fn what_generations_of_exporters_left_is_all_charged() {
    let machine = Machine::new("H100");
    let quota = machine.quota().memory(12 * GIB);
    let mut importers: Vec<Program> = (1..=3)
        .map(|_| {
            let mut importer = importer(&quota, "descriptor");
            assert_eq!(importer.ask("kill", "rc"), 0);
            importer
        })
        .collect();
    let all = 3 * (CONTEXT + GIB);
    for importer in &mut importers {
        assert_eq!(free_by(importer), 12 * GIB - all);
    }
    assert_eq!(quota.inspect()["devices"][0]["used"], all);
    assert_eq!(machine.truth().device("physical_bytes"), all);
}
