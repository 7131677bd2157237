//! How the streams of a process overlap.
//!
//! Overlapping time is charged once, so it must be known which launches overlap. To measure every launch for that takes as
//! long as short kernels themselves, and makes the program launch more slowly, so that less overlaps. So launches are
//! charged what they should add to the union by their predicted lengths (`share::lanes`), and bursts of launches, each of which
//! is measured, tell how much of the overlap that was predicted there is indeed. That part depends on the kernels and the
//! device, not on the pace of the launches: all where there is room for all of them, none where each fills the device. A ratio of
//! what they add and what they should add would be another one at each pace.

use crate::sync::{AtomicU64, Ordering};

/// Launches of a burst.
const BURST: u64 = 32;
/// The first of them, beside which launches may run that were not measured.
const FIRST: u64 = 8;
/// From one burst to the next, GPU time by predictions.
const EVERY_NS: u64 = 24_000_000;
/// Launches that should overlap less than this part of theirs teach nothing,
const LITTLE: u64 = 2;
/// and of each this part is taken to overlap.
const TAKEN: u64 = 16;
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
    /// It is one of a burst, and should overlap so much: how much it does is learned.
    Burst(u64),
}

/// What is known of the overlap. All-zero bytes: nothing.
#[derive(Default)]
pub struct Overlap {
    /// Launches left in the burst.
    left: AtomicU64,
    /// GPU time since the last burst, by predictions.
    since_ns: AtomicU64,
    /// How much late launches of bursts should have overlapped, and how much they have.
    expected_ns: AtomicU64,
    overlapped_ns: AtomicU64,
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

    /// A measured launch was submitted that covers others and should overlap so much. Of two threads at the same moment one may
    /// be lost.
    pub(super) fn next(&self, covered_ns: u64, overlaps_ns: u64) -> Phase {
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
        if left > BURST.saturating_sub(FIRST) { Phase::First } else { Phase::Burst(overlaps_ns) }
    }

    /// A launch of a burst that should take `predicted_ns` should have overlapped `expected_ns` of it, and has overlapped
    /// `overlapped_ns`. Of one that should hardly overlap, small errors decide how much it does; where there are only such ones,
    /// all of what should overlap is taken to do so.
    pub(super) fn learn(&self, predicted_ns: u64, expected_ns: u64, overlapped_ns: u64) {
        let taken_ns = predicted_ns / TAKEN;
        let (expected_ns, overlapped_ns) =
            if expected_ns < predicted_ns / LITTLE { (0, 0) } else { (expected_ns, overlapped_ns) };
        for (sum, ns) in [(&self.expected_ns, expected_ns), (&self.overlapped_ns, overlapped_ns)] {
            let before = sum.load(Ordering::Relaxed);
            let now = before.saturating_sub(before >> WEIGHT).saturating_add(ns).saturating_add(taken_ns);
            sum.store(now, Ordering::Relaxed);
        }
    }

    /// How much a launch overlaps that should overlap `expected_ns`.
    #[inline]
    pub(super) fn scale(&self, expected_ns: u64) -> u64 {
        let (expected, overlapped) =
            (self.expected_ns.load(Ordering::Relaxed), self.overlapped_ns.load(Ordering::Relaxed));
        expected_ns.saturating_mul(overlapped).checked_div(expected).unwrap_or(expected_ns)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn the_launches_after_the_first_of_a_burst_teach_how_much_all_overlap() {
        let overlap = Overlap::default();
        assert_eq!(overlap.scale(1_000), 1_000, "nothing is known");
        overlap.begin_burst();
        let phases: std::vec::Vec<_> = (0..=BURST).map(|_| overlap.next(10_000, 4_000)).collect();
        let count = |phase| phases.iter().filter(|one| **one == phase).map(|_| 1).sum::<u64>();
        assert_eq!(count(Phase::First), FIRST);
        assert_eq!(count(Phase::Burst(4_000)), BURST - FIRST);
        assert_eq!(count(Phase::Between), 1);
        (0..1_000).for_each(|_| overlap.learn(10_000, 8_000, 4_000));
        assert!((500..550).contains(&overlap.scale(1_000)), "{}", overlap.scale(1_000));
        (0..10_000).for_each(|_| overlap.learn(10_000, 2_000, 0));
        assert_eq!(overlap.scale(1_000), 1_000, "of launches that hardly overlap");
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
