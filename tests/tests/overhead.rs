//! Overhead: the library charges the driver's own figure for it, and nothing where the driver gives none.

use gpuquota_promises::{GIB, MIB, Machine, OUT_OF_MEMORY, Outcome, Program, Promise};

const CAP: i64 = 2 * GIB;

/// `overhead` on the driver that is not ours: a context of 300 MiB, code of 50 MiB.
fn run(variables: &[(&str, &str)]) -> Outcome {
    let machine = Machine::with_driver("bound");
    let mut quota = machine.quota().memory(CAP);
    for (name, value) in variables {
        quota = quota.with(name, *value);
    }
    quota.run("overhead", &[]).success()
}

#[test]
fn contexts_and_code_are_charged_while_they_live() {
    let promise = &Promise::to(&["HAMi-core#79"]);
    let outcome = run(&[("OTHER_CONTEXT_MIB", "300"), ("OTHER_CODE_MIB", "50")]);
    let (context, code) = (300 * MIB, 50 * MIB);
    let left = [CAP - context, CAP - context - code, CAP - context - code - 8, CAP - context, CAP - context];
    promise.asserts(|| assert_eq!(outcome.values("left"), left, "{outcome}"));
}

#[test]
fn a_context_that_costs_nothing_is_charged_nothing() {
    let outcome = run(&[("OTHER_CODE_MIB", "50")]);
    assert_eq!(outcome.values("left"), [CAP, CAP - 50 * MIB, CAP - 50 * MIB - 8, CAP, CAP], "{outcome}");
    assert_eq!(run(&[]).values("left"), [CAP, CAP, CAP - 8, CAP, CAP]);
}

/// The driver says only afterwards what code takes. What is more than fits is unloaded, and the load refused.
#[test]
fn code_that_does_not_fit_is_refused() {
    for (code, loads) in [("600", 2), ("50", 34), ("1800", 0)] {
        let machine = Machine::with_driver("bound");
        let quota = machine.quota().memory(CAP).with("OTHER_CONTEXT_MIB", "300").with("OTHER_CODE_MIB", code);
        let outcome = quota.run("code", &[]).success();
        let loaded = loads.min(16);
        assert_eq!(outcome.value("loaded"), loaded, "{code}: {outcome}");
        let bytes = code.parse::<i64>().expect("a number") * MIB;
        assert_eq!(outcome.value("left"), CAP - 300 * MIB - loaded * bytes, "{code}: {outcome}");
        if loads < 16 {
            assert_eq!(outcome.value("refused"), OUT_OF_MEMORY, "{code}: {outcome}");
        }
        if loaded != 0 {
            assert_eq!(outcome.value("again"), 0, "what was unloaded makes room");
        }
        assert_eq!(
            (outcome.value("over"), outcome.value("small")),
            (OUT_OF_MEMORY, OUT_OF_MEMORY),
            "{outcome}"
        );
    }
}

const STACK: i64 = 0;
const PRINTF: i64 = 1;
const HEAP: i64 = 2;
const PENDING: i64 = 4;

fn set(program: &mut Program, limit: i64, value: i64) -> (i64, i64) {
    let rc = program.ask(&format!("set {limit} {value}"), "rc");
    (rc, program.wait_for("value"))
}

/// A limit says how much the driver may take; what it takes later is counted then.
#[test]
fn stacks_and_heaps_that_cannot_fit_are_refused_and_the_limit_stays() {
    let machine = Machine::new("H100");
    let quota = machine.quota().memory(CAP);
    let mut program = quota.start("heaps", &[]);
    // 270,336 threads can be on the device.
    assert_eq!(set(&mut program, STACK, 4096), (0, 4096));
    assert_eq!(set(&mut program, STACK, 65_536), (OUT_OF_MEMORY, 4096));
    assert_eq!(set(&mut program, STACK, 1024), (0, 1024));
    for limit in [HEAP, PRINTF] {
        assert_eq!(set(&mut program, limit, GIB), (0, GIB), "{limit}");
        assert_eq!(set(&mut program, limit, 4 * GIB), (OUT_OF_MEMORY, GIB), "{limit}");
        assert_eq!(set(&mut program, limit, MIB), (0, MIB), "{limit}");
    }
    let free = program.ask("info", "free");
    assert_eq!(program.ask(&format!("alloc {}", free - 16 * MIB), "rc"), 0);
    assert_eq!(set(&mut program, HEAP, 64 * MIB), (OUT_OF_MEMORY, MIB), "no room is left");
    assert_eq!(set(&mut program, HEAP, 8 * MIB), (0, 8 * MIB));
    assert_eq!(program.ask("info", "free"), 16 * MIB, "what is only allowed is not charged");
    program.finish().success();

    let mut free = machine.quota().start("heaps", &[]);
    assert_eq!(set(&mut free, STACK, 65_536), (0, 65_536), "without a cap");
    free.finish().success();
}

/// Of other limits only the driver knows what they take: it is measured, and undone where it is more than fits.
#[test]
fn a_limit_that_turns_out_to_take_more_than_fits_is_set_back() {
    let machine = Machine::with_driver("bound");
    let quota = machine.quota().memory(CAP).with("OTHER_CONTEXT_MIB", "300");
    let mut program = quota.start("heaps", &[]);
    assert_eq!(set(&mut program, PENDING, 1024), (0, 1024));
    assert_eq!(program.ask("info", "free"), CAP - 300 * MIB - GIB);
    assert_eq!(set(&mut program, PENDING, 2048), (OUT_OF_MEMORY, 1024));
    assert_eq!(program.ask("info", "free"), CAP - 300 * MIB - GIB);
    assert_eq!(set(&mut program, PENDING, 0), (0, 0));
    assert_eq!(program.ask("info", "free"), CAP - 300 * MIB);
    program.finish().success();
}

/// Drivers of some branches do not give a container the figures of its processes.
#[test]
fn a_figure_that_the_driver_does_not_give_is_never_guessed() {
    for figure in ["zero", "unknown", "nobody"] {
        let outcome =
            run(&[("OTHER_CONTEXT_MIB", "300"), ("OTHER_CODE_MIB", "50"), ("OTHER_FIGURE", figure)]);
        assert_eq!(outcome.values("left"), [CAP, CAP, CAP - 8, CAP, CAP], "{figure}: {outcome}");
    }
}

/// A context that takes nothing, or whose figure the driver does not give, holds up nobody: a real one takes 0.2 s to make.
#[test]
fn a_process_that_makes_a_context_of_unknown_cost_refuses_nothing_to_others() {
    for (context, figure) in [("0", "own"), ("300", "zero"), ("300", "unknown"), ("300", "nobody")] {
        let machine = Machine::with_driver("bound");
        let quota = machine.quota().memory(CAP).with("OTHER_FIGURE", figure);
        let quota = quota.with("OTHER_CONTEXT_MIB", context);
        let mut holder = quota.start("hold", &[]);
        holder.wait_for("pid");
        let slow = quota.with("OTHER_CONTEXT_MS", "500");
        let mut newcomer = slow.start("hold", &[]);
        newcomer.wait_for("makes_context");
        assert_eq!(holder.ask(&format!("alloc {CAP}"), "rc"), 0, "{context} {figure}");
        newcomer.wait_for("pid");
        assert_eq!(newcomer.ask("alloc 1", "rc"), OUT_OF_MEMORY, "{context} {figure}");
        for one in [holder, newcomer] {
            one.finish().success();
        }
    }
}

/// The books equal the simulated device's own figures for contexts, by process and in HAMi's fields.
#[test]
fn the_books_show_contexts_with_the_device_s_own_figures() {
    let promise = &Promise::to(&["HAMi-core#79"]);
    let machine = Machine::new("H100");
    let quota = machine.quota().memory(8 * GIB);
    // A neighbour comes and goes meanwhile: nothing of it is charged to us.
    let mut neighbour = machine.bare().start("hold", &[]);
    let mut first = quota.start("hold", &[]);
    first.wait_for("pid");
    assert_eq!(neighbour.ask(&format!("alloc {GIB}"), "rc"), 0);
    let mut second = quota.start("hold", &[]);
    assert_eq!(first.ask(&format!("alloc {}", 64 * MIB), "rc"), 0);
    assert_eq!(second.ask("info", "total"), 8 * GIB);
    let seen = quota.inspect();
    let processes = seen["processes"].as_array().expect("a list");
    let truth = machine.truth();
    let contexts = processes.iter().map(|process| &process["devices"][0]["context_bytes"]);
    let context = truth.device("context_bytes") / 3;
    assert!(context > 0);
    promise.asserts(|| assert_eq!(contexts.collect::<Vec<_>>(), [context, context], "{seen:#}"));
    assert_eq!(seen["devices"][0]["used"], 64 * MIB + 2 * context, "{seen:#}");
    let used = |slot: usize| hami_used(&quota.region(), slot);
    assert_eq!((used(0), used(1)), ([context, 0, 64 * MIB, context + 64 * MIB], [context, 0, 0, context]));
}

/// {context, module, data, total} of device 0 in a slot of HAMi's region.
fn hami_used(region: &std::path::Path, slot: usize) -> [i64; 4] {
    let bytes = std::fs::read(region).expect("the region");
    let at = 1856 + slot * 1960 + 8;
    let word =
        |index: usize| i64::from_le_bytes(bytes[at + 8 * index..][..8].try_into().expect("eight bytes"));
    [word(0), word(1), word(2), word(4)]
}
