//! The ledger under races and under death at every step.

use super::balance::{balance, put_back};
use super::*;
use std::cell::Cell;
use std::sync::Arc;
use std::vec::Vec;

struct JournalWords {
    total: AtomicU64,
    journals: Vec<[AtomicU64; 4]>,
}

impl JournalWords {
    fn new(journals: usize) -> Self {
        let journal = || std::array::from_fn(|_| AtomicU64::new(0));
        Self { total: AtomicU64::new(0), journals: (0..journals).map(|_| journal()).collect() }
    }

    fn held(&self) -> u64 {
        (0..).zip(&self.journals).map(|(index, _)| held(&self.journal(index).expect("a journal"))).sum()
    }
}

impl Journals for JournalWords {
    fn journal(&self, index: u32) -> Option<Journal<'_>> {
        let [amount, operation, held, reserving] = self.journals.get(usize::try_from(index).ok()?)?;
        Some(Journal { amount, operation, held, reserving })
    }

    fn serves(&self, _: u32) -> bool {
        true
    }
}

/// Dies at the n-th step.
struct DiesAt(Cell<u32>);

impl Interruption for DiesAt {
    fn continues(&self) -> bool {
        let left = self.0.get();
        self.0.set(left.wrapping_sub(1));
        left != 0
    }
}

#[cfg(not(loom))]
mod real {
    use super::*;
    use crate::promise::Promise;

    #[test]
    fn a_cap_is_reached_to_the_byte_and_never_passed() {
        let words = JournalWords::new(1);
        assert_eq!(take(&words, &words.total, 0, 60, Some(100)), Ok(60));
        assert_eq!(take(&words, &words.total, 0, 41, Some(100)), Err(Refused::Cap { used: 60 }));
        assert_eq!(take(&words, &words.total, 0, 40, Some(100)), Ok(100));
        assert_eq!(give(&words, &words.total, 0, 100), Ok(0));
        assert_eq!((used(&words.total), words.held()), (0, 0));
    }

    /// At every step of an operation: its journal is put back beside a total that knows nothing, and the owner goes on or not.
    #[test]
    fn a_total_that_was_lost_is_the_sum_of_the_journals_whatever_operation_was_under_way() {
        for amount in [70i64, -30] {
            for step in 0..4 {
                let words = JournalWords::new(2);
                take(&words, &words.total, 1, 1000, None).expect("room");
                take(&words, &words.total, 0, 50, None).expect("room");
                let died = apply(&words, &words.total, 0, amount, || None, &DiesAt(Cell::new(step)));
                let applied = used(&words.total) != 1050;
                assert!(died.is_err() == (step < 4) || applied);
                let total = words.total.load(Ordering::Relaxed);
                words.total.store(total & !mask(BYTES_BITS) | 7, Ordering::Relaxed);
                assert!(balance(&words, &words.total, 2));
                let after = if applied { 1050i64 + amount } else { 1050 };
                assert_eq!(used(&words.total).cast_signed(), after, "{amount}, step {step}");
            }
        }
    }

    #[test]
    fn what_is_put_back_is_held_and_can_be_given_back() {
        let words = JournalWords::new(2);
        put_back(&words, 0, 300).expect("a journal");
        put_back(&words, 1, 20).expect("a journal");
        assert!(balance(&words, &words.total, 2));
        assert_eq!((used(&words.total), words.held()), (320, 320));
        assert!(balance(&words, &words.total, 1), "of some of them");
        assert_eq!(used(&words.total), 300);
        assert!(balance(&words, &words.total, 2));
        assert_eq!(give(&words, &words.total, 0, 300), Ok(20));
        assert_eq!(give(&words, &words.total, 1, 20), Ok(0));
        assert_eq!(put_back(&words, 2, 1), Err(Refused::Broken));
    }

    /// The journals of [`JournalWords`] where journal 0 has gone on to another device.
    struct Elsewhere<'w>(&'w JournalWords);

    impl Journals for Elsewhere<'_> {
        fn journal(&self, index: u32) -> Option<Journal<'_>> {
            self.0.journal(index)
        }

        fn serves(&self, index: u32) -> bool {
            index != 0
        }
    }

    #[test]
    fn an_operation_on_another_device_is_not_taken_for_one_on_this() {
        let (here, words) = (AtomicU64::new(0), JournalWords::new(2));
        take(&words, &here, 0, 1, None).expect("room");
        reap(&words, &here, 0).expect("it is there");
        let there = &words.total;
        // Until the next operation's number agrees with the last one here in all bits that a total has.
        let last = words.journal(0).expect("a journal").operation.load(Ordering::Relaxed) >> 1;
        for _ in 1..1 << SEQUENCE_BITS {
            take(&words, there, 0, 1, None).expect("room");
        }
        assert!(apply(&words, there, 0, 100, || None, &DiesAt(Cell::new(1))).is_err());
        let pending = words.journal(0).expect("a journal").operation.load(Ordering::Relaxed);
        assert_eq!(pending, (last + (1 << SEQUENCE_BITS)) << 1);
        take(&Elsewhere(&words), &here, 1, 5, None).expect("room");
        assert_eq!(
            reap(&words, there, 0),
            Ok((1 << SEQUENCE_BITS) - 1),
            "what was never taken was given back"
        );
        assert_eq!((used(there), used(&here)), (0, 5));
    }

    #[test]
    fn a_reaper_leaves_what_it_is_told_to_and_no_more_than_there_is() {
        for (keep, kept) in [(0, 0), (3, 3), (10, 10), (11, 10)] {
            let words = JournalWords::new(2);
            take(&words, &words.total, 0, 10, None).expect("room");
            take(&words, &words.total, 1, 5, None).expect("room");
            let reaped = reap_but(&words, &words.total, 0, keep);
            assert_eq!(reaped, Ok(Reaped { given: 10 - kept, kept }));
            assert_eq!(used(&words.total), 5 + kept);
            assert_eq!(reap(&words, &words.total, 0), Ok(kept), "the rest, later");
        }
    }

    /// A journal goes to another device and comes back to a total that still names it from before.
    #[test]
    fn an_operation_elsewhere_is_not_taken_for_one_of_the_next_owner() {
        for (before, refused) in (0..20).flat_map(|before| [(before, false), (before, true)]) {
            let words = JournalWords::new(2);
            let (there, here) = (AtomicU64::new(0), &words.total);
            take(&words, here, 1, 5, None).expect("room");
            take(&words, here, 0, 1, None).expect("room");
            reap(&words, here, 0).expect("it is there");
            for _ in 0..before {
                take(&words, &there, 0, 1, None).expect("room");
            }
            if refused {
                give(&words, &there, 0, before).expect("it was taken");
                assert!(take(&words, &there, 0, 100, Some(50)).is_err());
            }
            reap(&words, &there, 0).expect("it is there");
            for step in [0, 1] {
                assert!(apply(&words, here, 0, 3, || None, &DiesAt(Cell::new(step))).is_err());
                reap(&words, here, 0).expect("it is there");
            }
            assert_eq!((used(&there), used(here)), (0, 5), "{before} operations, refused: {refused}");
        }
    }

    /// Threads that take pieces on the device while the budget lasts and on the host beyond it.
    #[test]
    fn bytes_on_the_device_never_pass_the_budget_nor_all_bytes_the_cap() {
        const CAP: u64 = 1000;
        const PHYSICAL: u64 = 300;
        let (words, spilled) = (Arc::new(JournalWords::new(4)), Arc::new(JournalWords::new(4)));
        let (all, on_device) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let threads: Vec<_> = (0..4u32)
            .map(|journal| {
                let (words, spilled) = (Arc::clone(&words), Arc::clone(&spilled));
                let (all, on_device) = (Arc::clone(&all), Arc::clone(&on_device));
                std::thread::spawn(move || {
                    let order = Ordering::SeqCst;
                    let mut spills = 0;
                    for round in 0..20_000u64 {
                        let bytes = 1 + (round * 37 + u64::from(journal) * 101) % 590;
                        let here = || Some(ceiling(Some(CAP), PHYSICAL, &spilled.total));
                        if take_below(&*words, &words.total, journal, bytes, here).is_ok() {
                            assert!(on_device.fetch_add(bytes, order) + bytes <= PHYSICAL);
                            assert!(all.fetch_add(bytes, order) + bytes <= CAP);
                            all.fetch_sub(bytes, order);
                            on_device.fetch_sub(bytes, order);
                        } else if take(&*words, &words.total, journal, bytes, Some(CAP)).is_ok() {
                            take(&*spilled, &spilled.total, journal, bytes, None).expect("no cap");
                            assert!(all.fetch_add(bytes, order) + bytes <= CAP);
                            all.fetch_sub(bytes, order);
                            give(&*spilled, &spilled.total, journal, bytes).expect("it was taken");
                            spills += 1;
                        } else {
                            continue;
                        }
                        give(&*words, &words.total, journal, bytes).expect("it was taken");
                    }
                    spills
                })
            })
            .collect();
        let spills: u32 = threads.into_iter().map(|thread| thread.join().expect("no assertion failed")).sum();
        assert!(spills > 0, "the budget was never short");
        assert_eq!((used(&words.total), used(&spilled.total)), (0, 0));
    }

    #[test]
    fn giving_more_than_the_journal_holds_gives_all_that_it_holds() {
        let promise = &Promise::to(&["HAMi#1181"]);
        let words = JournalWords::new(2);
        take(&words, &words.total, 0, 10, None).expect("room");
        take(&words, &words.total, 1, 5, None).expect("room");
        promise.asserts(|| assert_eq!(give(&words, &words.total, 1, 1000), Ok(10)));
        assert_eq!(words.held(), 10);
    }

    #[test]
    fn numbers_out_of_range_are_refused() {
        let words = JournalWords::new(1);
        for bytes in [1 << 46, u64::MAX >> 1, u64::MAX] {
            assert!(take(&words, &words.total, 0, bytes, None).is_err(), "{bytes} bytes");
        }
        assert_eq!(take(&words, &words.total, 9, 1, None), Err(Refused::Broken));
        assert_eq!(used(&words.total), 0);
    }

    #[test]
    fn racing_threads_never_pass_one_cap_and_leave_nothing_behind() {
        let promise = Arc::new(Promise::to(&["HAMi-core#273"]));
        const CAP: u64 = 1000;
        let words = Arc::new(JournalWords::new(8));
        let threads: Vec<_> = (0..8u32)
            .map(|journal| {
                let (words, promise) = (Arc::clone(&words), Arc::clone(&promise));
                std::thread::spawn(move || {
                    let mut refused = 0u32;
                    for round in 0..20_000u64 {
                        let bytes = 1 + (round * 7 + u64::from(journal) * 13) % 400;
                        match take(&*words, &words.total, journal, bytes, Some(CAP)) {
                            Ok(after) => {
                                promise.asserts(|| assert!(after <= CAP));
                                give(&*words, &words.total, journal, bytes).expect("a free");
                            }
                            Err(Refused::Cap { used }) => {
                                assert!(used + bytes > CAP, "{bytes} fit beside {used}");
                                refused += 1;
                            }
                            Err(Refused::Broken) => panic!("every journal exists"),
                        }
                    }
                    refused
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| {
            thread.join().expect("no thread fails");
        });
        assert_eq!((used(&words.total), words.held()), (0, 0));
    }

    /// Two journals alternate; the first dies at every possible step of every operation, at every possible moment of
    /// the other's progress; a cleaner that may itself die at every step, then a second cleaner, settle it.
    #[test]
    fn death_at_any_step_loses_no_byte_and_keeps_none() {
        let promise = &Promise::to(&["HAMi-core#86"]);
        for operations in 0..6u64 {
            for step in 0..6u32 {
                for follower in 0..3u32 {
                    for cleaner_step in 0..6u32 {
                        promise.asserts(|| death_at(operations, step, follower, cleaner_step));
                    }
                }
            }
        }
    }

    fn death_at(operations: u64, step: u32, follower: u32, cleaner_step: u32) {
        let words = JournalWords::new(3);
        take(&words, &words.total, 1, 1000, None).expect("room");
        for round in 0..operations {
            take(&words, &words.total, 0, 1 + round, None).expect("room");
        }
        let _ = apply(&words, &words.total, 0, 77, || None, &DiesAt(Cell::new(step)));
        for round in 0..follower {
            take(&words, &words.total, 1 + round % 2, 5, None).expect("room");
        }
        let _ = reap_until(&words, &words.total, 0, 0, &DiesAt(Cell::new(cleaner_step)));
        reap(&words, &words.total, 0).expect("the second cleaner");
        let expected = 1000 + 5 * u64::from(follower);
        let context = std::format!("ops {operations} step {step} follower {follower} cleaner {cleaner_step}");
        assert_eq!(used(&words.total), expected, "{context}");
        assert_eq!(words.held(), expected, "{context}");
        // The journal is as good as new for the next owner.
        take(&words, &words.total, 0, 9, Some(expected + 9)).expect("room");
        assert_eq!(give(&words, &words.total, 0, 9), Ok(expected), "{context}");
    }
}

/// Random histories, compared with plain counters.
#[cfg(not(loom))]
mod histories {
    use super::*;
    use crate::promise::Promise;
    use proptest::prelude::*;

    const CAP: u64 = 10_000;
    const JOURNALS: usize = 5;

    #[derive(Clone, Copy, Debug)]
    enum Action {
        Take(u64),
        Give(u64),
        /// Dies at this step of an operation on so many bytes.
        Die(i64, u32),
        /// A cleaner reaps the journal, and dies at this step.
        Clean(u32),
        /// The journal is given back, and serves the other device from now on.
        Move,
    }

    fn action() -> impl Strategy<Value = Action> {
        prop_oneof![
            4 => (0..CAP / 2).prop_map(Action::Take),
            3 => (0..CAP).prop_map(Action::Give),
            3 => (-4000..4000i64, 0..6u32).prop_map(|(amount, step)| Action::Die(amount, step)),
            1 => (0..8u32).prop_map(Action::Clean),
            1 => Just(Action::Move),
        ]
    }

    /// Two devices and journals that serve one at a time.
    struct Ledger {
        words: JournalWords,
        totals: [AtomicU64; 2],
        /// By journal: the device, what it holds, and whether its owner is dead.
        journals: [(usize, u64, bool); JOURNALS],
    }

    /// The ledger as one device sees it.
    struct OneDevice<'b>(&'b Ledger, usize);

    impl Journals for OneDevice<'_> {
        fn journal(&self, index: u32) -> Option<Journal<'_>> {
            self.0.words.journal(index)
        }

        fn serves(&self, index: u32) -> bool {
            self.0
                .journals
                .get(usize::try_from(index).expect("a small number"))
                .is_some_and(|(device, ..)| *device == self.1)
        }
    }

    impl Ledger {
        fn expected(&self, device: usize) -> u64 {
            self.journals.iter().filter(|(of, ..)| *of == device).map(|(_, held, _)| held).sum()
        }

        fn does(&mut self, at: usize, action: Action) -> Result<(), TestCaseError> {
            let (device, held, dead) = self.journals[at];
            let (journal, used_before) = (u32::try_from(at).expect("a small number"), self.expected(device));
            let (side, total) = (OneDevice(self, device), &self.totals[device]);
            if let Action::Clean(step) = action
                && dead
            {
                let _ = reap_until(&side, total, journal, 0, &DiesAt(Cell::new(step)));
                // It has given the bytes back or not, and the next one finds out which.
                let left = used(total) + held - used_before;
                prop_assert!([0, held].contains(&left), "{} of {}", left, held);
                self.journals[at].1 = left;
                return Ok(());
            }
            if dead || matches!(action, Action::Move) {
                prop_assert!(reap(&side, total, journal).is_ok());
                self.journals[at] =
                    (if matches!(action, Action::Move) { 1 - device } else { device }, 0, false);
                return Ok(());
            }
            match action {
                Action::Take(bytes) if used_before + bytes <= CAP => {
                    prop_assert_eq!(take(&side, total, journal, bytes, Some(CAP)), Ok(used_before + bytes));
                    self.journals[at].1 += bytes;
                }
                Action::Take(bytes) => {
                    let refused = Err(Refused::Cap { used: used_before });
                    prop_assert_eq!(take(&side, total, journal, bytes, Some(CAP)), refused);
                }
                Action::Give(bytes) => {
                    let given = bytes.min(held);
                    prop_assert_eq!(give(&side, total, journal, bytes), Ok(used_before - given));
                    self.journals[at].1 -= given;
                }
                Action::Die(amount, step) => {
                    let amount = amount.max(-held.cast_signed());
                    let _ = apply(&side, total, journal, amount, || Some(CAP), &DiesAt(Cell::new(step)));
                    let now = used(total) + held - used_before;
                    prop_assert!([held, held.saturating_add_signed(amount)].contains(&now), "{}", now);
                    self.journals[at] = (device, now, true);
                }
                Action::Clean(_) | Action::Move => {}
            }
            Ok(())
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(3000) })]

        #[test]
        fn any_history_of_takes_gives_deaths_and_moves_leaves_the_totals_exact(
            history in proptest::collection::vec((0..JOURNALS, action()), 1..120)
        ) {
            let promise = &Promise::to(&["HAMi-core#241"]);
            let totals = [AtomicU64::new(0), AtomicU64::new(0)];
            let mut ledger = Ledger { words: JournalWords::new(JOURNALS), totals, journals: [(0, 0, false); JOURNALS] };
            for (at, action) in history {
                ledger.does(at, action)?;
                for device in [0, 1] {
                    prop_assert_eq!(used(&ledger.totals[device]), ledger.expected(device), "device {}", device);
                }
            }
            for at in 0..JOURNALS {
                ledger.does(at, Action::Move)?;
            }
            let left = (used(&ledger.totals[0]), used(&ledger.totals[1]), ledger.words.held());
            promise.asserts(|| {
                prop_assert_eq!(left, (0, 0, 0));
                Ok(())
            })?;
        }
    }
}

/// `RUSTFLAGS="--cfg loom" cargo test -p gpuquota-quota --lib --release loom`: every interleaving of two owners,
/// one of which dies at a chosen step, and a cleaner that runs beside the other owner.
#[cfg(loom)]
mod loom_models {
    use super::*;

    fn model(step: u32, cap: u64) {
        loom::model(move || {
            let words = Arc::new(JournalWords::new(2));
            let dying = {
                let words = Arc::clone(&words);
                loom::thread::spawn(move || {
                    let _ = apply(&*words, &words.total, 0, 10, || Some(cap), &DiesAt(Cell::new(step)));
                    let _ = reap(&*words, &words.total, 0);
                })
            };
            let lived = take(&*words, &words.total, 1, 7, Some(cap));
            dying.join().expect("the cleaner ends");
            let expected = if lived.is_ok() { 7 } else { 0 };
            assert_eq!(used(&words.total), expected, "step {step}");
            assert_eq!(words.held(), expected, "step {step}");
        });
    }

    #[test]
    fn loom_death_at_any_step_beside_a_living_owner_is_settled_exactly() {
        // With room for both, so that each may overwrite the other's total, and without.
        (0..6).for_each(|step| [15, 20].into_iter().for_each(|cap| model(step, cap)));
    }

    #[test]
    fn loom_two_owners_never_pass_the_cap() {
        loom::model(|| {
            let words = Arc::new(JournalWords::new(2));
            let other = {
                let words = Arc::clone(&words);
                loom::thread::spawn(move || take(&*words, &words.total, 1, 9, Some(15)).is_ok())
            };
            let one = take(&*words, &words.total, 0, 10, Some(15)).is_ok();
            let two = other.join().expect("the other ends");
            assert!(one ^ two, "exactly one of 10 and 9 fits under 15");
            assert_eq!(used(&words.total), if one { 10 } else { 9 });
        });
    }
}
