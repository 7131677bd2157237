//! Which other processes of the container have a slot: with none, work of others overlaps with nothing, and nobody is to be
//! reaped. The slots are looked through every tenth of a second, not at each question.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering::Acquire, Ordering::Relaxed};
use gpuquota_region::layout::{Ours, SLOT_TAKEN};

/// A look lasts so long.
const PAUSE_NS: u64 = 100_000_000;

/// What the last look has shown. All-zero bytes: there was none.
pub struct Peers {
    looked_at_ns: AtomicU64,
    /// Other processes with a slot, + 1.
    count: AtomicU32,
}

impl Peers {
    /// Whether there may be others: nobody has looked, or the last look found one.
    #[inline]
    pub fn may_be(&self) -> bool {
        self.count.load(Relaxed) != 1
    }

    /// Looks through the slots, unless the last look is recent; answers how many others than `own` are in use.
    pub fn count(&self, ours: &Ours, own: Option<usize>, now: u64) -> u32 {
        let last = self.looked_at_ns.load(Relaxed);
        if last == 0 || now.saturating_sub(last) > PAUSE_NS {
            self.looked_at_ns.store(now, Relaxed);
            let high = ours.header.slot_high.load(Acquire) as usize;
            let slots = ours.slots.iter().enumerate().take(high);
            let others =
                slots.filter(|(at, slot)| own != Some(*at) && slot.state.load(Acquire) == SLOT_TAKEN);
            self.count.store((others.count() as u32).wrapping_add(1), Relaxed);
        }
        self.count.load(Relaxed).saturating_sub(1)
    }
}
