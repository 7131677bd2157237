//! Calls that take memory from an arena.

use super::{Arena, CUresult, Usage};
use crate::memory::tests::Bench;
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

/// The driver answers `held` and `used` of the test's pool, but for the questions that `is_mute` names by their number from 0.
fn take_with(
    pool: &Pool<'_>,
    arena: Arena,
    bytes: u64,
    is_mute: impl Fn(u32) -> bool,
    during: impl Fn(),
) -> Option<CUresult> {
    let questions = Cell::new(0);
    let usage = || {
        let number = questions.get();
        questions.set(number + 1);
        (!is_mute(number)).then(|| Usage { held: pool.held.get(), used: pool.used.get() })
    };
    let call = || {
        during();
        pool.used.set(pool.used.get() + bytes);
        pool.held.set(pool.held.get().max(pool.used.get()));
        SUCCESS
    };
    pool.bench.memory().take_from_arena_of(arena, usage, pool.bench.device(0), bytes, call, None)
}

#[test]
fn growth_without_a_figure_is_charged_until_a_later_figure_settles_it() {
    let bench = Bench::new(100 * MIB);
    let pool = Pool::new(&bench, 40 * MIB, 20 * MIB);
    assert_eq!(take_with(&pool, POOL, 30 * MIB, |number| number > 0, || {}), Some(SUCCESS));
    assert_eq!(bench.used(0), 70 * MIB, "the driver may have used nothing of what was unused");
    // On a device with less room the call counts on the 20 MiB that are unused of the charge, by the figures before it.
    assert_eq!(take_with(&pool, POOL, 40 * MIB, |number| number > 1, || {}), Some(SUCCESS));
    assert_eq!((pool.held.get(), bench.used(0)), (90 * MIB, 90 * MIB));
    assert_eq!(take_with(&pool, POOL, 5 * MIB, |_| false, || {}), Some(SUCCESS));
    assert_eq!((pool.held.get(), bench.used(0)), (95 * MIB, 95 * MIB));
}

/// Graphs take no turn, and pools get none after a long wait.
#[test]
fn two_calls_without_a_turn_do_not_count_on_the_same_unused_bytes() {
    const GRAPHS: Arena = Arena::Graphs(0);
    let bench = Bench::new(100 * MIB);
    let memory = bench.memory();
    let pool = Pool::new(&bench, 0, 0);
    assert!(memory.state.arenas.register(GRAPHS, 0));
    pool.held.set(100 * MIB);
    pool.used.set(60 * MIB);
    memory.state.arenas.update_charge_to(memory.books(), GRAPHS, || {
        Some(Usage { held: pool.held.get(), used: pool.used.get() })
    });
    let during = || {
        assert_eq!(
            take_with(&pool, GRAPHS, 11 * MIB, |_| false, || {}),
            Some(CUresult::OUT_OF_MEMORY),
            "the other has claimed 30 of 40"
        );
        assert_eq!(take_with(&pool, GRAPHS, 10 * MIB, |_| false, || {}), Some(SUCCESS));
    };
    assert_eq!(take_with(&pool, GRAPHS, 30 * MIB, |_| false, during), Some(SUCCESS));
    assert_eq!((pool.held.get(), bench.used(0)), (100 * MIB, 100 * MIB));
}

/// A trim during the call takes what the call counts on, and another thread wants it.
#[test]
fn what_a_call_counts_on_stays_charged_although_it_is_trimmed() {
    let bench = Bench::new(100 * MIB);
    let memory = bench.memory();
    let pool = Pool::new(&bench, 100 * MIB, 60 * MIB);
    let during = || {
        pool.held.set(60 * MIB);
        memory.state.arenas.update_charge_to(memory.books(), POOL, || {
            Some(Usage { held: pool.held.get(), used: pool.used.get() })
        });
        assert!(memory.reserve(bench.device(0), 11 * MIB).is_none());
        assert!(memory.reserve(bench.device(0), 10 * MIB).is_some(), "the call does not count on this");
    };
    assert_eq!(take_with(&pool, POOL, 30 * MIB, |_| false, during), Some(SUCCESS));
    assert_eq!((pool.held.get(), bench.used(0)), (90 * MIB, 100 * MIB));
}

/// Others made the arena grow during the call, and have charged it: that is no excess of this call.
#[test]
fn growth_that_others_have_charged_is_not_undone() {
    let bench = Bench::new(100 * MIB);
    let memory = bench.memory();
    let pool = Pool::new(&bench, 0, 0);
    let during = || {
        pool.held.set(40 * MIB);
        pool.used.set(40 * MIB);
        memory.state.arenas.update_charge_to(memory.books(), POOL, || {
            Some(Usage { held: pool.held.get(), used: pool.used.get() })
        });
    };
    assert_eq!(take_with(&pool, POOL, 60 * MIB, |_| false, during), Some(SUCCESS));
    assert_eq!((pool.held.get(), bench.used(0)), (100 * MIB, 100 * MIB));
}
