//! The ledger under races and under death at every step.

use super::*;
use std::cell::Cell;
use std::sync::Arc;
use std::vec::Vec;

struct Words {
    total: AtomicU64,
    lanes: Vec<[AtomicU64; 4]>,
}

impl Words {
    fn new(lanes: usize) -> Self {
        let lane = || std::array::from_fn(|_| AtomicU64::new(0));
        Self { total: AtomicU64::new(0), lanes: (0..lanes).map(|_| lane()).collect() }
    }

    fn held(&self) -> u64 {
        (0..self.lanes.len()).map(|lane| held(&self.lane(lane as u32).expect("a lane"))).sum()
    }
}

impl Book for Words {
    fn lane(&self, index: u32) -> Option<Lane<'_>> {
        let [amount, operation, held, reserving] = self.lanes.get(index as usize)?;
        Some(Lane { amount, operation, held, reserving })
    }

    fn serves(&self, _: u32) -> bool {
        true
    }
}

/// Dies at the n-th step.
struct DiesAt(Cell<u32>);

impl Fate for DiesAt {
    fn lives(&self) -> bool {
        let left = self.0.get();
        self.0.set(left.wrapping_sub(1));
        left != 0
    }
}

#[cfg(not(loom))]
mod real {
    use super::*;

    #[test]
    fn a_cap_is_reached_to_the_byte_and_never_passed() {
        let words = Words::new(1);
        assert_eq!(take(&words, &words.total, 0, 60, Some(100)), Ok(60));
        assert_eq!(take(&words, &words.total, 0, 41, Some(100)), Err(Refused::Cap { used: 60 }));
        assert_eq!(take(&words, &words.total, 0, 40, Some(100)), Ok(100));
        assert_eq!(give(&words, &words.total, 0, 100), Ok(0));
        assert_eq!((used(&words.total), words.held()), (0, 0));
    }

    /// The lanes of [`Words`] where lane 0 has gone on to another device.
    struct Elsewhere<'w>(&'w Words);

    impl Book for Elsewhere<'_> {
        fn lane(&self, index: u32) -> Option<Lane<'_>> {
            self.0.lane(index)
        }

        fn serves(&self, index: u32) -> bool {
            index != 0
        }
    }

    #[test]
    fn an_operation_of_another_device_is_not_taken_for_one_of_this() {
        let (here, words) = (AtomicU64::new(0), Words::new(2));
        take(&words, &here, 0, 1, None).expect("room");
        settle_dead(&words, &here, 0).expect("it is there");
        let there = &words.total;
        // Until the next operation's number agrees with the last one here in all bits that a total has.
        let last = words.lane(0).expect("a lane").operation.load(Ordering::Relaxed) >> 1;
        for _ in 1..1 << TURN_BITS {
            take(&words, there, 0, 1, None).expect("room");
        }
        assert!(apply(&words, there, 0, 100, || None, &DiesAt(Cell::new(1))).is_err());
        let pending = words.lane(0).expect("a lane").operation.load(Ordering::Relaxed);
        assert_eq!(pending, (last + (1 << TURN_BITS)) << 1);
        take(&Elsewhere(&words), &here, 1, 5, None).expect("room");
        assert_eq!(
            settle_dead(&words, there, 0),
            Ok((1 << TURN_BITS) - 1),
            "what was never taken was given back"
        );
        assert_eq!((used(there), used(&here)), (0, 5));
    }

    /// A lane goes to another device and comes back to a total that still names it from before.
    #[test]
    fn what_a_lane_did_elsewhere_is_not_taken_for_an_operation_of_the_next_owner() {
        for (before, refused) in (0..20).flat_map(|before| [(before, false), (before, true)]) {
            let words = Words::new(2);
            let (there, here) = (AtomicU64::new(0), &words.total);
            take(&words, here, 1, 5, None).expect("room");
            take(&words, here, 0, 1, None).expect("room");
            settle_dead(&words, here, 0).expect("it is there");
            for _ in 0..before {
                take(&words, &there, 0, 1, None).expect("room");
            }
            if refused {
                give(&words, &there, 0, before).expect("it was taken");
                assert!(take(&words, &there, 0, 100, Some(50)).is_err());
            }
            settle_dead(&words, &there, 0).expect("it is there");
            for step in [0, 1] {
                assert!(apply(&words, here, 0, 3, || None, &DiesAt(Cell::new(step))).is_err());
                settle_dead(&words, here, 0).expect("it is there");
            }
            assert_eq!((used(&there), used(here)), (0, 5), "{before} operations, refused: {refused}");
        }
    }

    /// Threads that take pieces on the device while the budget lasts and on the host beyond it.
    #[test]
    fn what_lies_on_the_device_never_passes_the_budget_nor_all_of_it_the_cap() {
        const CAP: u64 = 1000;
        const PHYSICAL: u64 = 300;
        let (words, spilled) = (Arc::new(Words::new(4)), Arc::new(Words::new(4)));
        let (all, on_device) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let threads: Vec<_> = (0..4u32)
            .map(|lane| {
                let (words, spilled) = (Arc::clone(&words), Arc::clone(&spilled));
                let (all, on_device) = (Arc::clone(&all), Arc::clone(&on_device));
                std::thread::spawn(move || {
                    let order = Ordering::SeqCst;
                    let mut spills = 0;
                    for round in 0..20_000u64 {
                        let bytes = 1 + (round * 37 + u64::from(lane) * 101) % 590;
                        let here = || Some(ceiling(Some(CAP), PHYSICAL, &spilled.total));
                        if take_below(&*words, &words.total, lane, bytes, here).is_ok() {
                            assert!(on_device.fetch_add(bytes, order) + bytes <= PHYSICAL);
                            assert!(all.fetch_add(bytes, order) + bytes <= CAP);
                            all.fetch_sub(bytes, order);
                            on_device.fetch_sub(bytes, order);
                        } else if take(&*words, &words.total, lane, bytes, Some(CAP)).is_ok() {
                            take(&*spilled, &spilled.total, lane, bytes, None).expect("no cap");
                            assert!(all.fetch_add(bytes, order) + bytes <= CAP);
                            all.fetch_sub(bytes, order);
                            give(&*spilled, &spilled.total, lane, bytes).expect("it was taken");
                            spills += 1;
                        } else {
                            continue;
                        }
                        give(&*words, &words.total, lane, bytes).expect("it was taken");
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
    fn giving_more_than_the_lane_holds_gives_what_it_holds() {
        let words = Words::new(2);
        take(&words, &words.total, 0, 10, None).expect("room");
        take(&words, &words.total, 1, 5, None).expect("room");
        assert_eq!(give(&words, &words.total, 1, 1000), Ok(10));
        assert_eq!(words.held(), 10);
    }

    #[test]
    fn numbers_beyond_counting_are_refused() {
        let words = Words::new(1);
        for bytes in [1 << 46, u64::MAX >> 1, u64::MAX] {
            assert!(take(&words, &words.total, 0, bytes, None).is_err(), "{bytes} bytes");
        }
        assert_eq!(take(&words, &words.total, 9, 1, None), Err(Refused::Broken));
        assert_eq!(used(&words.total), 0);
    }

    #[test]
    fn racing_threads_never_pass_one_cap_and_leave_nothing_behind() {
        const CAP: u64 = 1000;
        let words = Arc::new(Words::new(8));
        let threads: Vec<_> = (0..8u32)
            .map(|lane| {
                let words = Arc::clone(&words);
                std::thread::spawn(move || {
                    let mut refused = 0u32;
                    for turn in 0..20_000u64 {
                        let bytes = 1 + (turn * 7 + u64::from(lane) * 13) % 400;
                        match take(&*words, &words.total, lane, bytes, Some(CAP)) {
                            Ok(after) => {
                                assert!(after <= CAP);
                                give(&*words, &words.total, lane, bytes).expect("a free");
                            }
                            Err(Refused::Cap { used }) => {
                                assert!(used + bytes > CAP, "{bytes} fit beside {used}");
                                refused += 1;
                            }
                            Err(Refused::Broken) => panic!("the book is whole"),
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

    /// Two lanes take turns; the first dies at every possible step of every operation, at every possible moment of
    /// the other's progress; a cleaner that may itself die at every step, then a second cleaner, settle it.
    #[test]
    fn death_at_any_step_loses_no_byte_and_keeps_none() {
        for operations in 0..6u64 {
            for step in 0..6u32 {
                for follower in 0..3u64 {
                    for cleaner_step in 0..6u32 {
                        death_at(operations, step, follower, cleaner_step);
                    }
                }
            }
        }
    }

    fn death_at(operations: u64, step: u32, follower: u64, cleaner_step: u32) {
        let words = Words::new(3);
        take(&words, &words.total, 1, 1000, None).expect("room");
        for turn in 0..operations {
            take(&words, &words.total, 0, 1 + turn, None).expect("room");
        }
        let _ = apply(&words, &words.total, 0, 77, || None, &DiesAt(Cell::new(step)));
        for turn in 0..follower {
            take(&words, &words.total, 1 + (turn % 2) as u32, 5, None).expect("room");
        }
        let _ = settle(&words, &words.total, 0, &DiesAt(Cell::new(cleaner_step)));
        settle_dead(&words, &words.total, 0).expect("the second cleaner");
        let expected = 1000 + 5 * follower;
        let context = std::format!("ops {operations} step {step} follower {follower} cleaner {cleaner_step}");
        assert_eq!(used(&words.total), expected, "{context}");
        assert_eq!(words.held(), expected, "{context}");
        // The lane is as good as new for the next owner.
        take(&words, &words.total, 0, 9, Some(expected + 9)).expect("room");
        assert_eq!(give(&words, &words.total, 0, 9), Ok(expected), "{context}");
    }
}

/// Histories that nobody thought of, held against books that are kept the plain way.
#[cfg(not(loom))]
mod histories {
    use super::*;
    use proptest::prelude::*;

    const CAP: u64 = 10_000;
    const LANES: usize = 5;

    #[derive(Clone, Copy, Debug)]
    enum Deed {
        Take(u64),
        Give(u64),
        /// Dies at this step of an operation on so many bytes.
        Die(i64, u32),
        /// Somebody cleans the lane up, dying at this step.
        Clean(u32),
        /// The lane is given back, and serves the other device from now on.
        Move,
    }

    fn deed() -> impl Strategy<Value = Deed> {
        prop_oneof![
            4 => (0..CAP / 2).prop_map(Deed::Take),
            3 => (0..CAP).prop_map(Deed::Give),
            3 => (-4000..4000i64, 0..6u32).prop_map(|(amount, step)| Deed::Die(amount, step)),
            1 => (0..8u32).prop_map(Deed::Clean),
            1 => Just(Deed::Move),
        ]
    }

    /// Two devices and lanes that serve one at a time.
    struct Books {
        words: Words,
        totals: [AtomicU64; 2],
        /// By lane: the device, what it holds, and whether its owner is dead.
        lanes: [(usize, u64, bool); LANES],
    }

    /// The books, seen from one device.
    struct Side<'b>(&'b Books, usize);

    impl Book for Side<'_> {
        fn lane(&self, index: u32) -> Option<Lane<'_>> {
            self.0.words.lane(index)
        }

        fn serves(&self, index: u32) -> bool {
            self.0.lanes.get(index as usize).is_some_and(|(device, ..)| *device == self.1)
        }
    }

    impl Books {
        fn expected(&self, device: usize) -> u64 {
            self.lanes.iter().filter(|(of, ..)| *of == device).map(|(_, held, _)| held).sum()
        }

        fn does(&mut self, at: usize, deed: Deed) -> Result<(), TestCaseError> {
            let (device, held, dead) = self.lanes[at];
            let (lane, used_before) = (at as u32, self.expected(device));
            let (side, total) = (Side(self, device), &self.totals[device]);
            if let Deed::Clean(step) = deed
                && dead
            {
                let _ = settle(&side, total, lane, &DiesAt(Cell::new(step)));
                // It has given the bytes back or not, and the next one finds out which.
                let left = used(total) + held - used_before;
                prop_assert!([0, held].contains(&left), "{} of {}", left, held);
                self.lanes[at].1 = left;
                return Ok(());
            }
            if dead || matches!(deed, Deed::Move) {
                prop_assert!(settle_dead(&side, total, lane).is_ok());
                self.lanes[at] = (if matches!(deed, Deed::Move) { 1 - device } else { device }, 0, false);
                return Ok(());
            }
            match deed {
                Deed::Take(bytes) if used_before + bytes <= CAP => {
                    prop_assert_eq!(take(&side, total, lane, bytes, Some(CAP)), Ok(used_before + bytes));
                    self.lanes[at].1 += bytes;
                }
                Deed::Take(bytes) => {
                    let refused = Err(Refused::Cap { used: used_before });
                    prop_assert_eq!(take(&side, total, lane, bytes, Some(CAP)), refused);
                }
                Deed::Give(bytes) => {
                    let given = bytes.min(held);
                    prop_assert_eq!(give(&side, total, lane, bytes), Ok(used_before - given));
                    self.lanes[at].1 -= given;
                }
                Deed::Die(amount, step) => {
                    let amount = amount.max(-(held as i64));
                    let _ = apply(&side, total, lane, amount, || Some(CAP), &DiesAt(Cell::new(step)));
                    let now = used(total) + held - used_before;
                    prop_assert!([held, held.saturating_add_signed(amount)].contains(&now), "{}", now);
                    self.lanes[at] = (device, now, true);
                }
                Deed::Clean(_) | Deed::Move => {}
            }
            Ok(())
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(3000) })]

        #[test]
        fn any_history_of_takes_gives_deaths_and_moves_leaves_the_books_exact(
            history in proptest::collection::vec((0..LANES, deed()), 1..120)
        ) {
            let totals = [AtomicU64::new(0), AtomicU64::new(0)];
            let mut books = Books { words: Words::new(LANES), totals, lanes: [(0, 0, false); LANES] };
            for (at, deed) in history {
                books.does(at, deed)?;
                for device in [0, 1] {
                    prop_assert_eq!(used(&books.totals[device]), books.expected(device), "device {}", device);
                }
            }
            for at in 0..LANES {
                books.does(at, Deed::Move)?;
            }
            prop_assert_eq!((used(&books.totals[0]), used(&books.totals[1]), books.words.held()), (0, 0, 0));
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
            let words = Arc::new(Words::new(2));
            let dying = {
                let words = Arc::clone(&words);
                loom::thread::spawn(move || {
                    let _ = apply(&*words, &words.total, 0, 10, || Some(cap), &DiesAt(Cell::new(step)));
                    let _ = settle_dead(&*words, &words.total, 0);
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
            let words = Arc::new(Words::new(2));
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
