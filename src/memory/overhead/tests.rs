//! The overhead: its arithmetic, and the costs of contexts.

use super::due;
use super::{CONTEXTS, Measured, Overhead, split};
use crate::memory::tests::Bench;
use core::sync::atomic::Ordering::Acquire;

const MIB: u64 = 1 << 20;

#[test]
fn charges_are_not_overhead() {
    assert_eq!(Measured::new(500 * MIB, 150 * MIB), Measured { beyond: 350 * MIB, missing: 0 });
    assert_eq!(Measured::new(0, 0), Measured { beyond: 0, missing: 0 });
    assert_eq!(Measured::new(100 * MIB, 102 * MIB), Measured { beyond: 0, missing: 2 * MIB });
    assert_eq!(Measured::new(u64::MAX, u64::MAX), Measured { beyond: 0, missing: 0 });
}

#[test]
fn contexts_are_charged_their_cost_and_code_the_rest() {
    let split = |beyond, missing, floor, managed| split(Measured { beyond, missing }, floor, managed);
    for managed in [false, true] {
        assert_eq!(split(350 * MIB, 0, 300 * MIB, managed), (300 * MIB, 50 * MIB));
        assert_eq!(split(300 * MIB, 0, 300 * MIB, managed), (300 * MIB, 0));
        assert_eq!(split(10 * MIB, 0, 0, managed), (0, 10 * MIB));
    }
    // Managed memory may not be on the device yet; else the driver takes less than the blocks that it names.
    assert_eq!(split(10 * MIB, 0, 300 * MIB, true), (300 * MIB, 0));
    assert_eq!(split(10 * MIB, 0, 300 * MIB, false), (10 * MIB, 0));
    assert_eq!(split(0, 10 * MIB, 300 * MIB, false), (0, 0));
}

fn floor(overhead: &Overhead, device: u8) -> u64 {
    overhead.of(device).expect("a device").floor.load(Acquire)
}

#[test]
fn a_destroyed_context_lowers_the_floor_by_its_cost() {
    let bench = Bench::new(0);
    let memory = bench.memory();
    let overhead = &memory.state.overhead;
    overhead.remember_context(0, 0xa0, 300 * MIB, 0);
    overhead.remember_context(0, 0xb0, 7, 0);
    overhead.remember_context(1, 0xc0, 5 * MIB, 0);
    assert_eq!((floor(overhead, 0), floor(overhead, 1)), (300 * MIB + 7, 5 * MIB));
    overhead.forget_context(memory.charges(), 0xa0);
    assert_eq!((floor(overhead, 0), floor(overhead, 1)), (7, 5 * MIB));
    // A second removal and an unknown context change nothing.
    overhead.forget_context(memory.charges(), 0xa0);
    overhead.forget_context(memory.charges(), 0xd0);
    assert_eq!((floor(overhead, 0), floor(overhead, 1)), (7, 5 * MIB));
    overhead.forget_context(memory.charges(), 0xb0);
    overhead.forget_context(memory.charges(), 0xc0);
    assert_eq!((floor(overhead, 0), floor(overhead, 1)), (0, 0));
}

#[test]
fn a_context_beyond_the_table_does_not_raise_the_floor() {
    let bench = Bench::new(0);
    let memory = bench.memory();
    let contexts = 1..=CONTEXTS as u64;
    contexts.clone().for_each(|context| memory.state.overhead.remember_context(0, context, MIB, 0));
    memory.state.overhead.remember_context(0, 1000, MIB, 0);
    assert_eq!(floor(&memory.state.overhead, 0), CONTEXTS as u64 * MIB);
    contexts.for_each(|context| memory.state.overhead.forget_context(memory.charges(), context));
    assert_eq!(floor(&memory.state.overhead, 0), 0);
}

/// The driver gives no figure here, so the measurement is in vain.
#[test]
fn a_measurement_stays_due_where_there_were_small_arrays() {
    let bench = Bench::new(100 * MIB);
    let (memory, device) = (bench.memory(), bench.device(0));
    let overhead = &memory.state.overhead;
    let due = &memory.books().accounts.due;
    due.add(0, due::CALL | due::ARENAS);
    overhead.measure_now(memory.charges(), device);
    assert_eq!((due.reasons(0), due.reasons(1)), (0, 0));
    overhead.small_array_was_made(memory.books(), 0);
    overhead.measure_now(memory.charges(), device);
    assert_eq!(due.reasons(0), due::SMALL_ARRAYS);
    assert_eq!(overhead.of(0).expect("a device").small_arrays.load(Acquire), 1, "it waits for a figure");
}
