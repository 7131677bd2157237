//! Which part of what launches took they have added to the time that a process had the device.
//!
//! Kernels that run at the same time count once. While a container has the device to itself the events tell how much each launch
//! adds (`share::completion`); beside others they do not, and a launch is charged the part that launches have added before.

use crate::sync::{AtomicU64, Ordering};

/// After so much GPU time, what came before counts half.
const REMEMBERED_NS: u64 = 4_000_000_000;
/// Fractions in which the part is counted, as a shift.
const PART_BITS: u32 = 16;

/// What launches have taken and added. All-zero bytes: nothing.
#[derive(Default)]
pub struct Union {
    taken_ns: AtomicU64,
    added_ns: AtomicU64,
}

impl Union {
    /// Launches took so long, and have added so much. Of two threads at the same moment one may be lost.
    pub(super) fn learn(&self, taken_ns: u64, added_ns: u64) {
        let is_much = self.taken_ns.load(Ordering::Relaxed) > REMEMBERED_NS;
        for (sum, ns) in [(&self.taken_ns, taken_ns), (&self.added_ns, added_ns)] {
            let before = sum.load(Ordering::Relaxed);
            let kept = if is_much { before / 2 } else { before };
            sum.store(kept.saturating_add(ns), Ordering::Relaxed);
        }
    }

    /// How much a launch adds that takes so long.
    pub(super) fn added(&self, taken_ns: u64) -> u64 {
        let (taken, added) = (self.taken_ns.load(Ordering::Relaxed), self.added_ns.load(Ordering::Relaxed));
        let whole = 1 << PART_BITS;
        let part = added.saturating_mul(whole).checked_div(taken).unwrap_or(whole).min(whole);
        taken_ns.saturating_mul(part) >> PART_BITS
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_launch_adds_the_part_that_launches_have_added_before() {
        let union = Union::default();
        assert_eq!(union.added(1_000), 1_000, "nothing is known");
        (0..300).for_each(|_| union.learn(1_000_000, 250_000));
        assert_eq!(union.added(1_000), 250);
        (0..30_000).for_each(|_| union.learn(1_000_000, 1_000_000));
        assert!(union.added(1_000) >= 990, "{}", union.added(1_000));
    }
}
