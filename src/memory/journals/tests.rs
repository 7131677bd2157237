//! The journal that a thread gets, and the sums of all journals.

use super::{DATA_JOURNALS, ProcessJournals};
use crate::memory::books::Placement;
use crate::memory::tests::{Bench, memory_at};
use core::sync::atomic::Ordering::Acquire;
use gpuquota_region::layout::{
    self, KIND_CONTEXT, KIND_DATA, KIND_GRAPH, KIND_MODULE, KIND_POOL, KIND_SPILLED,
};
use std::sync::mpsc;
use std::time::Duration;
use std::vec::Vec;

const MIB: u64 = 1 << 20;
/// The number of a process's journals.
const ALL: u8 = 32;

/// The journal that a thread gets now, and releases at once.
fn next(bench: &Bench, journals: &ProcessJournals, device: u8) -> Option<u8> {
    journals.lock_free_from(&bench.scope.container, device, 0).map(|open| open.journal)
}

#[test]
fn a_thread_gets_the_first_journal_that_is_not_busy() {
    let bench = Bench::new(0);
    let journals = &bench.memory().books().accounts.journals;
    assert_eq!((next(&bench, journals, 0), next(&bench, journals, 0)), (Some(0), Some(0)));
    let first = journals.lock_free_from(&bench.scope.container, 0, 0).expect("a journal");
    let second = journals.lock_free_from(&bench.scope.container, 0, 0).expect("a journal");
    let third = journals.lock_free_from(&bench.scope.container, 0, 0).expect("a journal");
    assert_eq!((first.journal, second.journal, third.journal), (0, 1, 2));
    drop(second);
    assert_eq!(next(&bench, journals, 0), Some(1));
}

#[test]
fn beyond_four_at_a_time_a_thread_waits_for_the_first() {
    let bench = Bench::new(0);
    let journals = &bench.memory().books().accounts.journals;
    let mut held: Vec<_> =
        (0..DATA_JOURNALS).filter_map(|_| journals.lock_free_from(&bench.scope.container, 0, 0)).collect();
    let numbers: Vec<u8> = held.iter().map(|open| open.journal).collect();
    assert_eq!(numbers, [0, 1, 2, 3]);
    let (tell, told) = mpsc::channel();
    std::thread::scope(|scope| {
        scope.spawn(|| tell.send(next(&bench, journals, 0)).expect("somebody listens"));
        assert!(told.recv_timeout(Duration::from_millis(50)).is_err(), "it waits");
        drop(held.remove(0));
        assert_eq!(told.recv_timeout(Duration::from_secs(10)), Ok(Some(0)));
    });
}

#[test]
fn a_journal_serves_one_device_and_one_kind() {
    let bench = Bench::new(0);
    let (memory, slot) = (bench.memory(), bench.scope.container.slot().expect("a slot"));
    let journals = &memory.books().accounts.journals;
    assert_eq!((next(&bench, journals, 0), next(&bench, journals, 3)), (Some(0), Some(1)));
    assert!(journals.set_charge(&bench.scope.container, bench.device(3), KIND_MODULE, 5));
    assert!(journals.change_spilled(&bench.scope.container, 0, 9, true));
    let serves = |journal: usize| {
        (slot.journal_device[journal].load(Acquire), slot.journal_kind[journal].load(Acquire))
    };
    assert_eq!((serves(0), serves(1)), ((1, KIND_DATA), (4, KIND_DATA)));
    assert_eq!((serves(2), serves(3)), ((4, KIND_MODULE), (1, KIND_SPILLED)));
    assert_eq!(serves(4).0, 0);
}

#[test]
fn without_a_free_journal_the_kinds_of_a_device_share_one() {
    let bench = Bench::new(0);
    let (books, container) = (bench.memory().books(), &bench.scope.container);
    let journals = &books.accounts.journals;
    let device = bench.device(0);
    // One for each of 31 devices, and the last one for the contexts of the first.
    for (index, expected) in (0..ALL - 1).zip(0..) {
        assert_eq!(next(&bench, journals, index), Some(expected));
    }
    assert!(books.try_reserve(device, 100, Placement::Device).is_ok());
    assert!(journals.set_charge(container, device, KIND_CONTEXT, 50));
    // No journal is left for code and pools. They share the first one of requested bytes, and do not count as requested.
    assert!(journals.set_charge(container, device, KIND_MODULE, 7));
    assert!(journals.set_charge(container, device, KIND_POOL, 9));
    assert_eq!((journals.requested_bytes(container, 0), bench.used(0)), (Some(100), 166));
    assert!(journals.set_charge(container, device, KIND_POOL, 2));
    assert_eq!((journals.requested_bytes(container, 0), bench.used(0)), (Some(100), 159));
    assert_eq!((journals.other_bytes(0, KIND_MODULE), journals.arena_bytes(0)), (7, 2));
    assert_eq!(bench.shown_bytes(0), [102, 50, 7, 159]);
    // Bytes on the host have another total, so they cannot share a journal; nor can a further device.
    assert!(!journals.change_spilled(container, 0, 1, true));
    assert_eq!(next(&bench, journals, ALL - 1), None);
    // No second journal opens while the first is busy: the thread waits for it.
    let held = journals.lock_free_from(container, 5, 0).expect("a journal");
    std::thread::scope(|scope| {
        let other = scope.spawn(|| next(&bench, journals, 5));
        std::thread::sleep(Duration::from_millis(20));
        let journal = held.journal;
        drop(held);
        assert_eq!(other.join().expect("the thread"), Some(journal));
    });
}

#[test]
fn threads_that_open_a_journal_at_once_lose_none() {
    for _ in 0..20 {
        let bench = Bench::new(0);
        let journals = &bench.memory().books().accounts.journals;
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for device in 0..3 {
                        assert!(next(&bench, journals, device).is_some());
                    }
                });
            }
        });
        let slot = bench.scope.container.slot().expect("a slot");
        let opened = journals.opened.iter().flatten().filter(|journal| journal.load(Acquire) != 0).count();
        let claimed = slot.journal_device.iter().filter(|device| device.load(Acquire) != 0).count();
        assert_eq!(opened, claimed, "each journal of the slot is one that this process uses");
    }
}

#[test]
fn the_second_of_two_threads_uses_the_journal_of_the_first_and_claims_none() {
    let bench = Bench::new(0);
    let journals = &bench.memory().books().accounts.journals;
    let serving = &journals.opened[0][0];
    assert_eq!(next(&bench, journals, 0), Some(0));
    // The second thread has read the entry before the first one wrote it.
    assert_eq!(journals.open(&bench.scope.container, 0, KIND_DATA, serving), Some(0));
    let slot = bench.scope.container.slot().expect("a slot");
    let claimed = slot.journal_device.iter().filter(|device| device.load(Acquire) != 0).count();
    assert_eq!(claimed, 1);
}

#[test]
fn an_upper_bound_is_taken_back() {
    let bench = Bench::new(0);
    let journals = &bench.memory().books().accounts.journals;
    journals.add_reserving(&bench.scope.container, 3, 500);
    journals.add_reserving(&bench.scope.container, 3, 20);
    let slot = bench.scope.container.slot_index().expect("a slot");
    let reserving = || bench.scope.container.ours().journals[slot][3].reserving.load(Acquire);
    assert_eq!(reserving(), 520);
    journals.add_reserving(&bench.scope.container, 3, -520);
    assert_eq!(reserving(), 0);
}

#[test]
fn a_charge_passes_a_cap_that_requests_may_not() {
    let bench = Bench::new(100);
    let books = bench.memory().books();
    assert!(books.accounts.journals.set_charge(&bench.scope.container, bench.device(0), KIND_CONTEXT, 150));
    assert_eq!(bench.used(0), 150);
    assert!(books.try_reserve(bench.device(0), 1, Placement::Device).is_err());
    assert_eq!(bench.device(0).record.peak.load(Acquire), 150);
    assert!(books.accounts.journals.set_charge(&bench.scope.container, bench.device(0), KIND_CONTEXT, 0));
    assert!(books.try_reserve(bench.device(0), 100, Placement::Device).is_ok());
}

/// The work of one thread: allocations and frees of its own, and charges of a kind that no other thread sets.
fn work(bench: &Bench, thread: u64, kind: u8, rounds: u64) {
    let books = bench.memory().books();
    let mut random = thread;
    let mut held: Vec<u64> = Vec::new();
    for round in 1..=rounds {
        // Knuth's generator: the same numbers in every run.
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let (number, device) = (random >> 32, bench.device(u8::from(round % 3 == 0)));
        let bytes = number >> 8 & (4 * MIB - 1);
        match number % 8 {
            0..4 => {
                let address = thread << 40 | round << 9;
                if let Ok(reservation) = books.try_reserve(device, bytes, Placement::Device) {
                    books.record_holding(Some(memory_at(address)), reservation.holding(1));
                    held.push(address);
                }
            }
            4..7 if !held.is_empty() => {
                let key = memory_at(held.swap_remove(bytes as usize % held.len()));
                books.release(key, books.accounts.holdings.remove(key).expect("what this thread holds"));
            }
            _ => assert!(books.accounts.journals.set_charge(&bench.scope.container, device, kind, bytes)),
        }
    }
}

#[test]
fn hamis_view_is_the_sum_of_all_charges() {
    let bench = Bench::new(1 << 40);
    std::thread::scope(|scope| {
        for (thread, kind) in (1..).zip([KIND_CONTEXT, KIND_MODULE, KIND_POOL, KIND_GRAPH]) {
            let bench = &bench;
            scope.spawn(move || work(bench, thread, kind, 5000));
        }
    });
    let books = bench.memory().books();
    for device in [0, 1] {
        let of_kind = |kind| books.accounts.journals.other_bytes(device, kind);
        let held = books.sums_of(device).expect("not too many").charged;
        assert!(held > 0);
        assert_eq!(books.accounts.journals.requested_bytes(&bench.scope.container, device), Some(held));
        let data = held + books.accounts.journals.arena_bytes(device);
        let all = data + of_kind(KIND_CONTEXT) + of_kind(KIND_MODULE);
        assert_eq!(bench.shown_bytes(device), [data, of_kind(KIND_CONTEXT), of_kind(KIND_MODULE), all]);
        assert_eq!(bench.used(device), all);
        // It also is the sum of this process's journals.
        let (slot, at) = (
            bench.scope.container.slot().expect("a slot"),
            bench.scope.container.slot_index().expect("a slot"),
        );
        let words = slot.journal_device.iter().zip(&bench.scope.container.ours().journals[at]);
        let own = words.filter(|(serves, _)| serves.load(Acquire) == device + 1);
        let sum: u64 = own.map(|(_, words)| layout::held_bytes(words.held.load(Acquire))).sum();
        assert_eq!(sum, all);
    }
    assert_eq!(bench.scope.container.header().fallbacks.load(Acquire), 0);
}

#[test]
fn threads_that_prefer_different_journals_do_not_meet_and_both_count() {
    let bench = Bench::new(0);
    let (books, container) = (bench.memory().books(), &bench.scope.container);
    let journals = &books.accounts.journals;
    let device = bench.device(0);
    for preferred in [2, 0, 3] {
        let open = journals.lock_free_from(container, 0, preferred).expect("a journal");
        open.take(container, device, 10, || None).expect("room");
    }
    let numbers: Vec<_> = [2, 0, 3]
        .map(|preferred| journals.lock_free_from(container, 0, preferred).map(|open| open.journal))
        .into();
    assert_eq!(numbers.iter().collect::<std::collections::BTreeSet<_>>().len(), 3, "{numbers:?}");
    assert_eq!((journals.requested_bytes(container, 0), bench.used(0)), (Some(30), 30));
}
