//! The steps round a call: admission, commit and roll back.

use super::{CUresult, Decision};
use crate::driver::cuda::arenas::{Arena, Usage};
use crate::memory::tests::{Bench, memory_at};
use core::cell::Cell;
use core::sync::atomic::Ordering::Relaxed;

const MIB: u64 = 1 << 20;
const SUCCESS: CUresult = CUresult::CUDA_SUCCESS;
const FAILURE: CUresult = CUresult::CUDA_ERROR_INVALID_VALUE;

/// A pool whose driver is a test.
struct Pool<'b> {
    bench: &'b Bench,
    held: Cell<u64>,
    used: Cell<u64>,
    calls: Cell<u32>,
    undone: Cell<u32>,
}

const POOL: Arena = Arena::Pool(0x1000);

impl<'b> Pool<'b> {
    fn new(bench: &'b Bench, held: u64, used: u64) -> Self {
        let memory = bench.memory();
        assert!(memory.state.arenas.register(POOL, 0));
        memory.state.arenas.update_charge_to(memory.books(), POOL, || Some(Usage { held, used }));
        let (held, used) = (Cell::new(held), Cell::new(used));
        Self { bench, held, used, calls: Cell::new(0), undone: Cell::new(0) }
    }

    /// Takes `bytes`, for which the driver makes the pool grow by `by`.
    fn take(&self, bytes: u64, by: u64, answer: CUresult, may_undo: bool) -> Option<CUresult> {
        let grow = || {
            self.calls.set(self.calls.get() + 1);
            if answer.is_success() {
                self.held.set(self.held.get() + by);
                self.used.set(self.used.get() + bytes);
            }
            answer
        };
        let undo = || {
            self.undone.set(self.undone.get() + 1);
            self.held.set(self.held.get() - by);
            self.used.set(self.used.get() - bytes);
        };
        let usage = || Some(Usage { held: self.held.get(), used: self.used.get() });
        let undo: Option<&dyn Fn()> = if may_undo { Some(&undo) } else { None };
        self.bench.memory().take_from_arena_of(POOL, usage, self.bench.device(0), bytes, grow, undo)
    }
}

#[test]
fn an_arena_that_does_not_grow_needs_no_room() {
    let bench = Bench::new(100 * MIB);
    let pool = Pool::new(&bench, 100 * MIB, 60 * MIB);
    assert_eq!(pool.take(40 * MIB, 0, SUCCESS, true), Some(SUCCESS));
    assert_eq!(bench.used(0), 100 * MIB);
    // A byte more would make it grow.
    assert_eq!(pool.take(1, 2 * MIB, SUCCESS, true), Some(CUresult::OUT_OF_MEMORY));
    assert_eq!((pool.calls.get(), bench.used(0)), (1, 100 * MIB));
}

#[test]
fn an_arena_is_charged_its_growth() {
    let bench = Bench::new(100 * MIB);
    let pool = Pool::new(&bench, 0, 0);
    assert_eq!(pool.take(10 * MIB, 32 * MIB, SUCCESS, true), Some(SUCCESS));
    assert_eq!((bench.used(0), bench.memory().state.arenas.charge_of(POOL)), (32 * MIB, 32 * MIB));
    assert_eq!((pool.calls.get(), pool.undone.get()), (1, 0));
}

#[test]
fn growth_that_does_not_fit_is_refused_before_the_driver_is_called() {
    let bench = Bench::new(100 * MIB);
    let pool = Pool::new(&bench, 60 * MIB, 60 * MIB);
    assert_eq!(pool.take(41 * MIB, 41 * MIB, SUCCESS, true), Some(CUresult::OUT_OF_MEMORY));
    assert_eq!((pool.calls.get(), bench.used(0)), (0, 60 * MIB));
    assert_eq!(bench.device(0).record.denied.load(Relaxed), 1);
    assert_eq!(pool.take(40 * MIB, 40 * MIB, SUCCESS, true), Some(SUCCESS));
    assert_eq!(bench.used(0), 100 * MIB);
}

#[test]
fn growth_that_does_not_fit_after_the_call_is_undone() {
    let bench = Bench::new(100 * MIB);
    let pool = Pool::new(&bench, 0, 0);
    assert_eq!(pool.take(10 * MIB, 200 * MIB, SUCCESS, true), Some(CUresult::OUT_OF_MEMORY));
    assert_eq!((pool.undone.get(), bench.used(0), bench.memory().state.arenas.charge_of(POOL)), (1, 0, 0));
}

#[test]
fn unexpected_growth_that_fits_is_kept() {
    let bench = Bench::new(300 * MIB);
    let pool = Pool::new(&bench, 0, 0);
    assert_eq!(pool.take(10 * MIB, 200 * MIB, SUCCESS, true), Some(SUCCESS));
    assert_eq!((pool.undone.get(), bench.used(0)), (0, 200 * MIB));
}

#[test]
fn growth_that_cannot_be_undone_is_charged() {
    let bench = Bench::new(100 * MIB);
    let pool = Pool::new(&bench, 0, 0);
    assert_eq!(pool.take(10 * MIB, 200 * MIB, SUCCESS, false), Some(SUCCESS));
    assert_eq!(bench.used(0), 200 * MIB);
}

#[test]
fn a_call_that_fails_leaves_nothing_charged() {
    let bench = Bench::new(100 * MIB);
    let pool = Pool::new(&bench, 10 * MIB, 10 * MIB);
    assert_eq!(pool.take(20 * MIB, 20 * MIB, FAILURE, true), Some(FAILURE));
    assert_eq!((pool.undone.get(), bench.used(0)), (0, 10 * MIB));
}

#[test]
fn no_call_is_made_where_the_driver_does_not_say_what_an_arena_holds() {
    let bench = Bench::new(100 * MIB);
    let called = Cell::new(false);
    let call = || {
        called.set(true);
        SUCCESS
    };
    let answer = bench.memory().take_from_arena_of(POOL, || None, bench.device(0), MIB, call, None);
    assert!(answer.is_none() && !called.get() && bench.used(0) == 0);
}

#[test]
fn an_allocation_is_charged_until_it_is_freed() {
    let bench = Bench::new(10 * MIB);
    let memory = bench.memory();
    let Decision::Granted(grant) = memory.admit(bench.device(0), 10 * MIB) else { panic!("it fits") };
    assert_eq!(grant.call(|| SUCCESS), SUCCESS);
    grant.commit(Some(memory_at(0x1000)), 1);
    assert_eq!((bench.used(0), bench.shown_bytes(0)), (10 * MIB, [10 * MIB, 0, 0, 10 * MIB]));
    assert!(matches!(memory.admit(bench.device(0), 1), Decision::Refused));
    // A free that fails changes nothing.
    assert_eq!(memory.free(Some(memory_at(0x1000)), || FAILURE), FAILURE);
    assert_eq!(bench.used(0), 10 * MIB);
    assert_eq!(memory.free(Some(memory_at(0x1000)), || SUCCESS), SUCCESS);
    assert_eq!((bench.used(0), bench.shown_bytes(0)), (0, [0; 4]));
    // A free of an unknown address changes nothing either.
    assert_eq!(memory.free(Some(memory_at(0x1000)), || SUCCESS), SUCCESS);
    assert_eq!(bench.used(0), 0);
}

#[test]
fn the_memory_of_a_context_is_freed_with_it() {
    let bench = Bench::new(100 * MIB);
    let memory = bench.memory();
    for (address, context) in (1..=20).zip([7, 8].into_iter().cycle()) {
        let Decision::Granted(grant) = memory.admit(bench.device(0), MIB) else { panic!("it fits") };
        grant.commit(Some(memory_at(address << 20)), context);
    }
    memory.context_was_destroyed(7);
    assert_eq!((bench.used(0), bench.shown_bytes(0)), (10 * MIB, [10 * MIB, 0, 0, 10 * MIB]));
    memory.context_was_destroyed(8);
    assert_eq!(bench.used(0), 0);
}
