//! Which other processes of the container have a slot: with none, work of others overlaps with nothing, and nobody is to be
//! reaped. The slots are looked through every tenth of a second, not at each question.

use super::Container;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering::Acquire, Ordering::Relaxed};
use gpuquota_region::layout::SLOT_TAKEN;

/// A look lasts so long.
const PAUSE_NS: u64 = 100_000_000;

/// What the last look has shown. All-zero bytes: there was none.
pub struct Peers {
    looked_at_ns: AtomicU64,
    /// Other processes with a slot, + 1.
    count: AtomicU32,
}

impl Container {
    /// Whether other processes may be at work: a slot beside the first has been in use, and the last look found one in use.
    #[inline]
    pub fn may_have_peers(&self) -> bool {
        self.peers.count.load(Relaxed) != 1
    }

    /// Looks through the slots, unless the last look is recent; answers how many others have one.
    pub fn count_peers(&self, now: u64) -> u32 {
        let last = self.peers.looked_at_ns.load(Relaxed);
        if last == 0 || now.saturating_sub(last) > PAUSE_NS {
            self.peers.looked_at_ns.store(now, Relaxed);
            let (own, high) = (self.claimed_slot(), self.header().slot_high.load(Acquire) as usize);
            let slots = self.ours().slots.iter().enumerate().take(high);
            let others = slots
                .filter(|(index, slot)| own != Some(*index) && slot.state.load(Acquire) == SLOT_TAKEN)
                .count();
            self.peers.count.store((others as u32).wrapping_add(1), Relaxed);
        }
        self.peers.count.load(Relaxed).saturating_sub(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gpuquota_quota::limits::Limits;
    use gpuquota_region::layout::SLOT_FREE;

    #[test]
    fn a_process_that_has_gone_is_a_peer_no_longer() {
        let container = Container::of_test(Limits::default());
        assert!(container.may_have_peers(), "nobody has looked");
        assert_eq!((container.count_peers(1_000), container.may_have_peers()), (0, false));
        let other = &container.ours().slots[3];
        other.state.store(SLOT_TAKEN, Relaxed);
        container.header().slot_high.store(4, Relaxed);
        assert_eq!(container.count_peers(2_000), 0, "the last look was a moment ago");
        assert_eq!((container.count_peers(2 * PAUSE_NS), container.may_have_peers()), (1, true));
        other.state.store(SLOT_FREE, Relaxed);
        assert_eq!(
            (container.count_peers(4 * PAUSE_NS), container.may_have_peers()),
            (0, false),
            "slot_high stays"
        );
    }
}
