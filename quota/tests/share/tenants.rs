//! Tenants who write what they like into their own regions, beside two containers at 30 : 70.

use gpuquota_quota::share::client::Demand;

use crate::case::percent;
use crate::program::{Lengths, saturating};
use crate::world::{Host, Lie, MS, SECOND, START, Ways, World, world};

/// Work without an end.
fn endless(_: u64) -> Demand {
    Demand {
        weight: 100,
        in_flight_ns: u64::MAX,
        until_ns: u64::MAX,
        asked_at_ns: u64::MAX,
        ..Demand::default()
    }
}

/// A launch that has waited since a time to come.
fn asks_in_future(_: u64) -> Demand {
    Demand { weight: 100, asked_at_ns: u64::MAX, ..Demand::default() }
}

/// A launch that always waits.
fn always_asks(now: u64) -> Demand {
    Demand { weight: 100, asked_at_ns: now, ..Demand::default() }
}

/// That, and work that should have been over a moment ago.
fn always_late(now: u64) -> Demand {
    Demand { in_flight_ns: 1, until_ns: now - MS / 2, ..always_asks(now) }
}

/// That, with work of which nobody can say when it is over.
fn uncertain(now: u64) -> Demand {
    Demand { in_flight_ns: MS, uncertainty_ns: u64::MAX, until_ns: now - SECOND, ..always_asks(now) }
}

/// All of it, and work without an end.
fn everything(now: u64) -> Demand {
    Demand { in_flight_ns: u64::MAX, uncertainty_ns: u64::MAX, until_ns: u64::MAX, ..always_asks(now) }
}

/// Charges that jump to and fro by more than a word can hold.
fn wild(now: u64) -> Demand {
    let total_ns = if now & 1 == 0 { u64::MAX / 2 + 1 } else { 0 };
    Demand { total_ns, percent: Some(u32::MAX), budget_ns: i64::MIN, ..everything(now) }
}

const LIES: [(&str, Lie); 6] = [
    ("endless", endless),
    ("asks in the future", asks_in_future),
    ("always asks", always_asks),
    ("always late", always_late),
    ("uncertain", uncertain),
    ("everything", everything),
];

/// What containers with these shares have from the third second on, in percent.
fn have(ways: Ways, shares: [u32; 2], length: u64, prepare: impl FnOnce(&mut World<'_>)) -> [f64; 2] {
    world(Host::CALM, 3, |world| {
        for cores in shares {
            let container = world.container(cores);
            world.process(container, [saturating(Lengths::Around(length))]);
        }
        prepare(world);
        world.agent(ways);
        let (from, to) = (START + 2 * SECOND, START + 22 * SECOND);
        world.run(to);
        [0, 1].map(|at| percent(world.gpu.used(at, from, to), to - from))
    })
}

#[test]
fn whoever_is_charged_nothing_takes_nothing_of_its_neighbours_shares() {
    for (what, lie) in LIES {
        for tenants in [1, 32, 200] {
            for length in [MS / 5, 3 * MS] {
                for ways in Ways::ALL {
                    let seen = have(ways, [30, 70], length, |world| world.lie(tenants, lie));
                    let kept = (seen[0] - 30.0).abs() <= 2.0 && (seen[1] - 70.0).abs() <= 2.0;
                    assert!(
                        kept,
                        "{ways:?}, {tenants} tenants, {what}, beside kernels of {length} ns: {seen:.2?}"
                    );
                }
            }
        }
    }
}

/// Who forges charges as well is taken for a container that works: it has the part of its weight, and no more.
#[test]
fn forged_charges_are_worth_a_weight_and_no_more() {
    let forges = |now: u64| Demand { total_ns: now, ..everything(now) };
    for (lie, ways) in Ways::with([forges, wild]) {
        let seen = have(ways, [30, 70], MS, |world| world.lie(1, lie));
        let kept = seen[0] >= 13.0 && seen[1] >= 33.0;
        assert!(kept, "{ways:?}, of 30 and 70 beside 100: {seen:.2?}");
    }
}

/// A container that comes while others lie is tried like all who come, and gets what is its own at once.
#[test]
fn a_container_that_comes_amid_lies_has_its_share() {
    world(Host::CALM, 5, |world| {
        let (early, late) = (world.container(30), world.container(70));
        world.containers.iter_mut().for_each(|container| container.may_burst = true);
        world.process(early, [saturating(Lengths::Fixed(MS))]);
        world.lie(32, everything);
        world.agent(Ways::Both);
        let comes = START + 10 * SECOND;
        world.run(comes);
        world.process(late, [saturating(Lengths::Fixed(MS))]);
        let (from, to) = (comes + SECOND, comes + 6 * SECOND);
        world.run(to);
        let seen = [early, late].map(|at| percent(world.gpu.used(at, from, to), to - from));
        assert!((seen[0] - 30.0).abs() <= 2.0 && (seen[1] - 70.0).abs() <= 2.0, "{seen:.2?}");
    });
}

/// A container that was taken for one that lies, because its host did not let it run, is believed again when it is charged.
#[test]
fn whoever_works_again_is_believed_again() {
    world(Host::CALM, 6, |world| {
        let (early, late) = (world.container(50), world.container(50));
        world.process(early, [saturating(Lengths::Fixed(MS))]);
        world.agent(Ways::Both);
        let comes = START + 3 * SECOND;
        for now in (START..comes).step_by(2 * MS as usize) {
            world.containers[late].asks_in_vain(now);
            world.run(now + 2 * MS);
        }
        world.process(late, [saturating(Lengths::Fixed(MS))]);
        let (from, to) = (comes + 2 * SECOND, comes + 4 * SECOND);
        world.run(to);
        let seen = percent(world.gpu.used(late, from, to), to - from);
        assert!((seen - 50.0).abs() <= 2.0, "{seen:.2}");
    });
}
