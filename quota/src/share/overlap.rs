//! How the streams of a process overlap.
//!
//! Overlapping time is charged once, so it must be known which launches overlap. To measure every launch for that takes as
//! long as short kernels themselves, and makes the program launch more slowly, so that less overlaps. So launches are
//! charged what they should add to the union by their predicted lengths (`share::in_flight`), and bursts of launches,
//! each of which is measured, tell how much more or less they add indeed.

use crate::sync::{AtomicU64, Ordering};

/// Launches of a burst.
const BURST: u64 = 32;
/// The first of them, beside which launches may run that were not measured.
const FIRST: u64 = 8;
/// From one burst to the next, GPU time by predictions.
const EVERY_NS: u64 = 24_000_000;
/// The weight of one launch, as a shift.
const WEIGHT: u32 = 9;

/// Which part a measured launch has in what is learned of the overlap.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Phase {
    /// None: it is charged what it adds to the union.
    #[default]
    Single,
    /// Launches run beside it that are not measured: it stays charged as predicted.
    Between,
    /// It is one of the first of a burst: the same, but it counts for what the others add.
    First,
    /// It is one of a burst, and should add so much to the union: what it adds is learned.
    Burst(u64),
}

/// What is known of the overlap. All-zero bytes: nothing.
#[derive(Default)]
pub struct Overlap {
    /// Launches left in the burst.
    left: AtomicU64,
    /// GPU time since the last burst, by predictions.
    since_ns: AtomicU64,
    /// What late launches of bursts should have added to the union, and what they have added.
    expected_ns: AtomicU64,
    added_ns: AtomicU64,
}

impl Overlap {
    /// Whether all launches are measured.
    #[inline]
    pub(super) fn is_burst(&self) -> bool {
        self.left.load(Ordering::Relaxed) != 0
    }

    pub(super) fn begin_burst(&self) {
        self.left.store(BURST, Ordering::Relaxed);
        self.since_ns.store(0, Ordering::Relaxed);
    }

    /// A measured launch was submitted that covers others and should add so much to the union. Of two threads at the same
    /// moment one may be lost.
    pub(super) fn next(&self, covered_ns: u64, adds_ns: u64) -> Phase {
        let left = self.left.load(Ordering::Relaxed);
        if left == 0 {
            let since = self.since_ns.load(Ordering::Relaxed).saturating_add(covered_ns);
            self.since_ns.store(since, Ordering::Relaxed);
            if since >= EVERY_NS {
                self.begin_burst();
            }
            return Phase::Between;
        }
        self.left.store(left.saturating_sub(1), Ordering::Relaxed);
        if left > BURST.saturating_sub(FIRST) { Phase::First } else { Phase::Burst(adds_ns) }
    }

    /// A launch of a burst should have added `expected_ns` to the union, and added `added_ns`.
    pub(super) fn learn(&self, expected_ns: u64, added_ns: u64) {
        for (sum, ns) in [(&self.expected_ns, expected_ns), (&self.added_ns, added_ns)] {
            let before = sum.load(Ordering::Relaxed);
            sum.store(before.saturating_sub(before >> WEIGHT).saturating_add(ns), Ordering::Relaxed);
        }
    }

    /// What a launch adds to the union that should add `expected_ns`.
    pub(super) fn scale(&self, expected_ns: u64) -> u64 {
        let (expected, added) =
            (self.expected_ns.load(Ordering::Relaxed), self.added_ns.load(Ordering::Relaxed));
        expected_ns.saturating_mul(added).checked_div(expected).unwrap_or(expected_ns)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn the_launches_after_the_first_of_a_burst_teach_what_all_add() {
        let overlap = Overlap::default();
        assert_eq!(overlap.scale(1_000), 1_000, "nothing is known");
        overlap.begin_burst();
        let phases: std::vec::Vec<_> = (0..=BURST).map(|_| overlap.next(10_000, 4_000)).collect();
        let count = |phase| phases.iter().filter(|one| **one == phase).map(|_| 1).sum::<u64>();
        assert_eq!(count(Phase::First), FIRST);
        assert_eq!(count(Phase::Burst(4_000)), BURST - FIRST);
        assert_eq!(count(Phase::Between), 1);
        (0..100).for_each(|_| overlap.learn(4_000, 6_000));
        assert!(overlap.scale(1_000).abs_diff(1_500) < 5, "{}", overlap.scale(1_000));
    }

    #[test]
    fn the_next_burst_begins_after_so_much_predicted_time() {
        let overlap = Overlap::default();
        assert_eq!(overlap.next(EVERY_NS / 2, 0), Phase::Between);
        assert!(!overlap.is_burst());
        assert_eq!(overlap.next(EVERY_NS / 2, 0), Phase::Between);
        assert!(overlap.is_burst());
    }
}
