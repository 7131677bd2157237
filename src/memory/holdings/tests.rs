//! The table of holdings against the standard library's, over long random histories.
//!
//! # Safety
//! These tests may use `unsafe` because all-zero bytes are an empty table.

use super::{Entry, FIRST_CAPACITY, Holding, Holdings, Key, Kind, MAX_SUMMED, SHARDS, Sums};
use proptest::prelude::*;
use std::boxed::Box;
use std::cell::Cell;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::vec;
use std::vec::Vec;

std::thread_local! {
    static READS: Cell<u64> = const { Cell::new(0) };
}

/// Counts a read of an entry.
pub fn count_read() {
    READS.set(READS.get().wrapping_add(1));
}

/// The entries that this thread reads in `action`.
fn reads(action: impl FnOnce()) -> u64 {
    let before = READS.get();
    action();
    READS.get().wrapping_sub(before)
}

/// An empty table.
pub fn empty() -> Box<Holdings> {
    // SAFETY: all-zero bytes are an empty table.
    unsafe { Box::new(core::mem::zeroed()) }
}

const KINDS: [Kind; 9] = [
    Kind::Memory,
    Kind::Array,
    Kind::Physical,
    Kind::Mapping,
    Kind::Pooled,
    Kind::Graph,
    Kind::External,
    Kind::Binding,
    Kind::Spilled,
];

/// The inverse of the multiplier of [`Key::hash`], by which a test makes keys for a hash.
fn inverse() -> u64 {
    let multiplier = Key(1).hash();
    (0..6).fold(multiplier, |inverse, _| {
        inverse.wrapping_mul(2u64.wrapping_sub(multiplier.wrapping_mul(inverse)))
    })
}

/// Keys that all belong to one shard, and there to the table's last entry, so that their runs wrap round its end.
fn colliding(count: usize) -> Vec<Key> {
    let home = (1u64 << 20) - 1;
    let keys = (0u64..).map(|low| Key((17 << 58 | home << 20 | low).wrapping_mul(inverse())));
    keys.filter(|key| (1..=9).contains(&key.kind()) && key.value() != 0).take(count).collect()
}

/// Keys like those of drivers: addresses and handles at equal distances.
fn regular(count: usize) -> Vec<Key> {
    let values = (0..count as u64).map(|index| 0x7f00_0000_0000 + index * 512);
    values.zip(KINDS.iter().cycle()).filter_map(|(value, kind)| Key::new(*kind, value)).collect()
}

/// An operation on a table.
#[derive(Clone, Debug)]
enum Step {
    Insert(usize, Holding),
    Remove(usize),
    Get(usize),
    ChangeReferences(usize, i64),
    RemoveOwned(Vec<usize>, u64),
    HeldOf(u8),
}

fn step() -> impl Strategy<Value = Step> {
    let key = || any::<prop::sample::Index>().prop_map(|index| index.index(1 << 20));
    let holding = (0u64..1 << 40, 0u8..4, 0u8..32, 0u64..6)
        .prop_map(|(bytes, device, journal, owner)| Holding { bytes, device, journal, owner });
    prop_oneof![
        120 => (key(), holding).prop_map(|(key, holding)| Step::Insert(key, holding)),
        50 => key().prop_map(Step::Remove),
        20 => key().prop_map(Step::Get),
        20 => (key(), -3i64..3).prop_map(|(key, by)| Step::ChangeReferences(key, by)),
        1 => (prop::collection::vec(0..9usize, 1..5), 0u64..6)
            .prop_map(|(kinds, owner)| Step::RemoveOwned(kinds, owner)),
        2 => (0u8..4).prop_map(Step::HeldOf),
    ]
}

/// The model of [`Holdings`].
type Model = HashMap<u64, Holding>;

fn padded(bytes: u64) -> u64 {
    bytes.next_multiple_of(4096)
}

/// Takes a step with both, which must agree.
fn take(table: &Holdings, model: &mut Model, keys: &[Key], step: &Step) {
    let key = |index: &usize| keys[index % keys.len()];
    match step {
        Step::Insert(at, holding) => {
            let before = table.insert(key(at), *holding).ok().expect("room");
            assert_eq!(before, model.insert(key(at).0, *holding));
        }
        Step::Remove(at) => assert_eq!(table.remove(key(at)), model.remove(&key(at).0)),
        Step::Get(at) => assert_eq!(table.get(key(at)), model.get(&key(at).0).copied()),
        Step::ChangeReferences(at, by) => {
            let expected = model.get_mut(&key(at).0).map(|holding| {
                holding.owner = holding.owner.saturating_add_signed(*by);
                *holding
            });
            if expected.is_some_and(|holding| holding.owner == 0) {
                model.remove(&key(at).0);
            }
            let changed = table.change(key(at), |holding| {
                holding.owner = holding.owner.saturating_add_signed(*by);
                holding.owner != 0
            });
            assert_eq!(changed, expected);
        }
        Step::RemoveOwned(kinds, owner) => {
            let kinds: Vec<Kind> = kinds.iter().map(|kind| KINDS[*kind]).collect();
            let mut gone = Vec::new();
            table.remove_owned(&kinds, *owner, |key, holding| gone.push((key.0, holding)));
            let is_meant = |key: u64, holding: &Holding| {
                holding.owner == *owner && kinds.iter().any(|kind| Key(key).is(*kind))
            };
            let mut expected: Vec<_> = model
                .iter()
                .map(|(key, holding)| (*key, *holding))
                .filter(|(key, holding)| is_meant(*key, holding))
                .collect();
            model.retain(|key, holding| !is_meant(*key, holding));
            gone.sort_by_key(|(key, _)| *key);
            expected.sort_by_key(|(key, _)| *key);
            assert_eq!(gone, expected);
        }
        Step::HeldOf(device) => {
            let held = model.iter().filter(|(key, _)| Key(**key).is_charged()).map(|(_, holding)| holding);
            let held = held.filter(|holding| holding.device == *device);
            let charged: u64 = held.map(|holding| holding.bytes).sum();
            assert_eq!(table.sums_of(*device, 0).map(|sums| sums.charged), Some(charged));
        }
    }
}

/// Checks that both tables hold the same.
fn compare(table: &Holdings, model: &Model, keys: &[Key]) {
    for key in keys {
        assert_eq!(table.get(*key), model.get(&key.0).copied());
    }
}

#[test]
fn a_long_history_leaves_the_holdings_of_a_map() {
    // Miri is slower by a factor of 10,000. The next test shows it the growth of a table.
    let (cases, length, few) = if cfg!(miri) { (1, 120, 8) } else { (48, 2000, 1) };
    // The table of one shard grows twice, and those of the others once.
    let mut keys = colliding(3 * FIRST_CAPACITY / 2 / few);
    keys.extend(regular(400 / few));
    let steps = prop::collection::vec(step(), length / 2..length);
    let config = ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() };
    let mut runner = prop::test_runner::TestRunner::new(config);
    let outcome = runner.run(&steps, |steps| {
        let (table, mut model) = (empty(), Model::new());
        steps.iter().for_each(|step| take(&table, &mut model, &keys, step));
        compare(&table, &model, &keys);
        Ok(())
    });
    outcome.expect("the table agrees with the map");
}

#[test]
fn colliding_keys_stay_distinct_while_their_table_grows() {
    let keys = colliding(if cfg!(miri) { 200 } else { 2 * FIRST_CAPACITY });
    let table = empty();
    let held = |index: usize| Holding { bytes: index as u64, device: 1, journal: 2, owner: 3 };
    for (index, key) in keys.iter().enumerate() {
        assert_eq!(table.insert(*key, held(index)).ok(), Some(None));
    }
    // Every third key is removed; the others stay.
    for (index, key) in keys.iter().enumerate().filter(|(index, _)| index % 3 == 0) {
        assert_eq!(table.remove(*key), Some(held(index)));
    }
    for (index, key) in keys.iter().enumerate() {
        assert_eq!(table.get(*key), Some(held(index)).filter(|_| index % 3 != 0));
    }
}

#[test]
fn a_kind_is_part_of_a_key_and_an_ambiguous_value_has_none() {
    let table = empty();
    for (bytes, kind) in (1..).zip(KINDS) {
        let key = Key::new(kind, 0x1000).expect("a key");
        assert!(key.is(kind) && key.value() == 0x1000);
        assert_eq!(table.insert(key, Holding { bytes, device: 0, journal: 0, owner: 1 }).ok(), Some(None));
    }
    let charged: u64 =
        (1..).zip(KINDS).filter(|(_, kind)| Key::CHARGED.contains(kind)).map(|(bytes, _)| bytes).sum();
    let on_host: u64 =
        (1..).zip(KINDS).filter(|(_, kind)| *kind == Kind::Spilled).map(|(bytes, _)| bytes).sum();
    let sums = Sums { charged, on_device: charged - on_host };
    assert_eq!(table.sums_of(0, 0), Some(sums));
    assert!(Key::new(Kind::Memory, 0).is_none() && Key::new(Kind::Memory, 1 << 60).is_none());
}

/// A table with `count` holdings of one context, and as many of another.
fn two_owners(count: usize) -> Box<Holdings> {
    let table = empty();
    for index in 0..2 * count as u64 {
        let key = Key::new(Kind::Memory, 0x7f00_0000_0000 + index * 512).expect("a key");
        let holding = Holding { bytes: index, device: 0, journal: 0, owner: index % 2 };
        assert!(table.insert(key, holding).is_ok());
    }
    table
}

#[test]
#[cfg_attr(miri, ignore = "many entries, no unsafe code that the others do not run")]
fn removal_of_a_context_s_holdings_is_linear_in_the_table() {
    let work = |count: usize| {
        let table = two_owners(count);
        let mut gone = 0;
        let work = reads(|| table.remove_owned(&[Kind::Memory], 1, |_, _| gone += 1));
        assert_eq!(gone, count);
        work
    };
    let (small, large) = (work(1 << 14), work(1 << 15));
    assert!(large < small * 5 / 2, "{small} entries were read of 2^14, {large} of 2^15");
    assert!(large < 20 << 15, "{large} entries were read to find 2^15");
}

#[test]
#[cfg_attr(miri, ignore = "many entries, no unsafe code that the others do not run")]
fn removal_is_linear_also_while_threads_insert() {
    const COUNT: usize = 1 << 14;
    const OTHERS: u64 = 1 << 10;
    let table = two_owners(COUNT);
    let (done, mut gone, mut work) = (AtomicBool::new(false), 0, 0);
    let key =
        |thread: u64, index: u64| Key::new(Kind::Memory, (thread + 1) << 40 | index << 9).expect("a key");
    std::thread::scope(|scope| {
        for thread in 0..3 {
            let (table, done) = (&table, &done);
            scope.spawn(move || {
                while !done.load(Relaxed) {
                    for index in 1..OTHERS {
                        let holding = Holding { bytes: index, device: 0, journal: 0, owner: 7 };
                        assert_eq!(table.insert(key(thread, index), holding).ok(), Some(None));
                    }
                    for index in 1..OTHERS {
                        assert!(table.remove(key(thread, index)).is_some_and(|held| held.bytes == index));
                    }
                }
            });
        }
        work = reads(|| table.remove_owned(&[Kind::Memory], 1, |_, _| gone += 1));
        done.store(true, Relaxed);
    });
    assert_eq!(gone, COUNT);
    assert!(work < 40 * COUNT as u64, "{work} entries were read to find {COUNT}");
    let left = (0..2 * COUNT as u64).filter(|index| {
        table.get(Key::new(Kind::Memory, 0x7f00_0000_0000 + index * 512).expect("a key")).is_some()
    });
    assert_eq!(left.count(), COUNT);
}

#[test]
#[cfg_attr(miri, ignore = "many entries, no unsafe code that the others do not run")]
fn a_large_table_is_not_summed() {
    let table = empty();
    let of_a_shard = regular(SHARDS * MAX_SUMMED * 2).into_iter().filter(|key| key.hash() >> 58 == 5);
    let mut keys = of_a_shard.filter(|key| key.is_charged()).take(MAX_SUMMED + 1);
    let holding = Holding { bytes: 1, device: 0, journal: 0, owner: 1 };
    for key in keys.by_ref().take(MAX_SUMMED) {
        assert!(table.insert(key, holding).is_ok());
    }
    assert_eq!(table.sums_of(0, 0).map(|sums| sums.charged), Some(MAX_SUMMED as u64));
    assert!(table.insert(keys.next().expect("one more"), holding).is_ok());
    assert_eq!(table.sums_of(0, 0), None);
}

#[test]
fn threads_of_one_process_do_not_disturb_each_other() {
    let table = empty();
    let (rounds, count) = if cfg!(miri) { (4, 4) } else { (2000, 20) };
    std::thread::scope(|scope| {
        for thread in 0..3u64 {
            let table = &table;
            scope.spawn(move || {
                let all = colliding(3 * count).into_iter();
                let keys: Vec<Key> = all.skip(thread as usize * count).take(count).collect();
                for round in 0..rounds {
                    let holding = Holding { bytes: round, device: 0, journal: 0, owner: thread };
                    for key in &keys {
                        assert_eq!(table.insert(*key, holding).ok(), Some(None));
                    }
                    for key in &keys {
                        assert_eq!(table.remove(*key), Some(holding));
                    }
                }
            });
        }
    });
    assert_eq!(table.sums_of(0, 0), Some(Sums::default()));
}

/// As if the thread had been lost amid a removal, which moves entries, and amid an insertion.
#[test]
fn a_table_that_was_left_half_changed_is_made_whole() {
    let holdings = empty();
    let keys: Vec<Key> = (1..=120).map(|at| Key::new(Kind::Memory, at << 12).expect("a key")).collect();
    let holding = |at: usize| Holding { bytes: at as u64, device: 0, journal: 0, owner: 7 };
    let shard = &holdings.shards[0];
    // SAFETY: no other thread is here.
    let table = unsafe { &mut *shard.table.get() };
    for (at, key) in keys.iter().enumerate() {
        assert!(matches!(table.insert(Entry::new(*key, holding(at))), Ok(None)));
    }
    let twice = (0..table.capacity).find(|at| table.read(*at).key == 0).expect("half of it is free");
    table.write(twice, Entry::new(keys[5], holding(5)));
    let gone = table.find(keys[9]).expect("it is there").0;
    table.write(gone, Entry::FREE);
    table.used = 3;
    table.repair();
    assert_eq!(table.used, 119);
    for (at, key) in keys.iter().enumerate() {
        assert_eq!(table.remove(*key), (at != 9).then(|| holding(at)), "{at}");
    }
    assert!(table.used == 0 && table.find(keys[5]).is_none());
}
