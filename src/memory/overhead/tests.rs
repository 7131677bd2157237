//! The overhead: its arithmetic, and the costs of contexts.

use super::{CONTEXTS, Overhead, beyond_requests, split};
use crate::memory::tests::Bench;
use core::sync::atomic::Ordering::Acquire;

const MIB: u64 = 1 << 20;

#[test]
fn requests_and_arenas_are_not_overhead() {
    assert_eq!(beyond_requests(500 * MIB, 100 * MIB, 50 * MIB), 350 * MIB);
    assert_eq!(beyond_requests(500 * MIB, 0, 0), 500 * MIB);
    assert_eq!(beyond_requests(0, 0, 0), 0);
}

#[test]
fn a_figure_below_the_requests_leaves_no_overhead() {
    // Managed memory may not be on the device yet, and blocks may be smaller than their maximum.
    assert_eq!(beyond_requests(100 * MIB, 102 * MIB, 0), 0);
    assert_eq!(beyond_requests(100 * MIB, 60 * MIB, 60 * MIB), 0);
    assert_eq!(beyond_requests(u64::MAX, u64::MAX, u64::MAX), 0);
    assert_eq!(beyond_requests(1, 0, u64::MAX), 0);
}

#[test]
fn contexts_are_charged_their_cost_and_code_the_rest() {
    assert_eq!(split(350 * MIB, 300 * MIB), (300 * MIB, 50 * MIB));
    assert_eq!(split(300 * MIB, 300 * MIB), (300 * MIB, 0));
    // The figure is below the contexts' cost where requested memory is not on the device yet.
    assert_eq!(split(10 * MIB, 300 * MIB), (300 * MIB, 0));
    assert_eq!(split(10 * MIB, 0), (0, 10 * MIB));
}

fn floor(overhead: &Overhead, device: u8) -> u64 {
    overhead.of(device).expect("a device").floor.load(Acquire)
}

#[test]
fn a_destroyed_context_lowers_the_floor_by_its_cost() {
    let bench = Bench::new(0);
    let memory = bench.memory();
    let overhead = &memory.state.overhead;
    overhead.remember_context(0, 0xa0, 300 * MIB);
    overhead.remember_context(0, 0xb0, 7);
    overhead.remember_context(1, 0xc0, 5 * MIB);
    assert_eq!((floor(overhead, 0), floor(overhead, 1)), (300 * MIB + 7, 5 * MIB));
    overhead.forget_context(memory.books(), 0xa0);
    assert_eq!((floor(overhead, 0), floor(overhead, 1)), (7, 5 * MIB));
    // A second removal and an unknown context change nothing.
    overhead.forget_context(memory.books(), 0xa0);
    overhead.forget_context(memory.books(), 0xd0);
    assert_eq!((floor(overhead, 0), floor(overhead, 1)), (7, 5 * MIB));
    overhead.forget_context(memory.books(), 0xb0);
    overhead.forget_context(memory.books(), 0xc0);
    assert_eq!((floor(overhead, 0), floor(overhead, 1)), (0, 0));
}

#[test]
fn a_context_beyond_the_table_does_not_raise_the_floor() {
    let bench = Bench::new(0);
    let memory = bench.memory();
    let contexts = 1..=CONTEXTS as u64;
    contexts.clone().for_each(|context| memory.state.overhead.remember_context(0, context, MIB));
    memory.state.overhead.remember_context(0, 1000, MIB);
    assert_eq!(floor(&memory.state.overhead, 0), CONTEXTS as u64 * MIB);
    contexts.for_each(|context| memory.state.overhead.forget_context(memory.books(), context));
    assert_eq!(floor(&memory.state.overhead, 0), 0);
}
