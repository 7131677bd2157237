//! The charges of arenas.

use crate::driver::cuda::arenas::Arena;
use crate::memory::tests::Bench;
use core::cell::Cell;
use gpuquota_quota::arena::Usage;

const MIB: u64 = 1 << 20;

fn usage(held: u64, used: u64) -> Option<Usage> {
    Some(Usage { held, used })
}

/// The answer to an older question comes late: others have made the arena grow since, and have told.
#[test]
fn a_late_answer_does_not_overwrite_a_newer_one() {
    let bench = Bench::new(0);
    let memory = bench.memory();
    let (arenas, books) = (&memory.state.arenas, memory.books());
    let pool = Arena::Pool(0x1000);
    assert!(arenas.register(pool, 0));
    let first = Cell::new(true);
    arenas.update_charge_to(books, pool, || {
        if first.replace(false) {
            arenas.update_charge_to(books, pool, || usage(50 * MIB, 0));
            return usage(10 * MIB, 0);
        }
        usage(50 * MIB, 0)
    });
    assert_eq!((bench.used(0), arenas.charge_of(pool)), (50 * MIB, 50 * MIB));
}

#[test]
fn arenas_are_charged_the_bytes_that_the_driver_says_they_hold() {
    let bench = Bench::new(0);
    let memory = bench.memory();
    let (arenas, books) = (&memory.state.arenas, memory.books());
    let (pool, other, graphs) = (Arena::Pool(0x1000), Arena::Pool(0x2000), Arena::Graphs(0));
    let far = Arena::Pool(0x3000);
    assert!(!arenas.any());
    for (arena, device) in [(pool, 0), (other, 0), (graphs, 0), (far, 1)] {
        assert!(arenas.register(arena, device) && arenas.register(arena, device));
    }
    let charge = |arena, held| arenas.update_charge_to(books, arena, || usage(held, 0));
    for (arena, held) in [(pool, 10 * MIB), (other, 5 * MIB), (graphs, 3 * MIB), (far, 7 * MIB)] {
        charge(arena, held);
    }
    assert_eq!((bench.used(0), bench.used(1)), (18 * MIB, 7 * MIB));
    assert_eq!(books.accounts.journals.arena_bytes(0), 18 * MIB);
    charge(pool, 2 * MIB);
    assert_eq!((bench.used(0), arenas.charge_of(pool)), (10 * MIB, 2 * MIB));
    // Where the driver gives no figure the charge stays.
    arenas.update_charge_to(books, other, || None);
    assert_eq!(bench.used(0), 10 * MIB);
    // An arena that is not registered is not charged.
    charge(Arena::Pool(0x9000), MIB);
    assert_eq!(bench.used(0), 10 * MIB);
    // While a call may destroy a pool its charge stays, and a new pool may have its handle.
    let (device, charged) = arenas.set_aside(books, other).expect("it is registered");
    assert_eq!((arenas.charge_of(other), arenas.device_of(other)), (0, None));
    assert!(arenas.register(other, 0));
    charge(other, MIB);
    assert_eq!(bench.used(0), 11 * MIB);
    arenas.forget_aside(books, device, charged);
    assert_eq!(bench.used(0), 6 * MIB);
    for pool in [pool, other, far] {
        let (device, charged) = arenas.set_aside(books, pool).expect("it is registered");
        arenas.forget_aside(books, device, charged);
    }
    charge(graphs, 0);
    assert_eq!((bench.used(0), bench.used(1)), (0, 0));
}

#[test]
fn a_full_table_registers_no_arena_until_one_is_removed() {
    let bench = Bench::new(0);
    let memory = bench.memory();
    let pools = (1..=super::ARENAS as u64).map(|index| Arena::Pool(index * 16));
    assert!(pools.into_iter().all(|pool| memory.state.arenas.register(pool, 0)));
    assert!(!memory.state.arenas.register(Arena::Graphs(0), 0) && !memory.state.arenas.any_graphs());
    assert!(memory.state.arenas.set_aside(memory.books(), Arena::Pool(32)).is_some());
    assert!(memory.state.arenas.register(Arena::Graphs(0), 0) && memory.state.arenas.any_graphs());
}
