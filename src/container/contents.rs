//! The contents of the region as this process saw them last.

use crate::lock::Lock;
use core::sync::atomic::{
    AtomicBool, AtomicU32, AtomicU64, Ordering::Acquire, Ordering::Relaxed, Ordering::Release,
};
use gpuquota_region::file::calm_word;
use gpuquota_region::layout::{DEVICES, SLOT_TAKEN};
use gpuquota_region::lost::Seen;
use gpuquota_region::{Region, sys};

/// In [`Contents::calm`]: launches always look closer. No region has this word.
const NEVER_CALM: u32 = 2;

/// The contents of the region as this process saw them last. All-zero bytes: never.
pub struct Contents {
    /// When they were made.
    pub(super) born_ns: AtomicU64,
    /// When they were last found whole, nanoseconds since 1970.
    pub(super) whole_at_ns: AtomicU64,
    generation: AtomicU64,
    /// The region's word that says that no launch is delayed.
    pub(super) calm: AtomicU32,
    /// The thread that restores them holds it.
    pub(super) restoring: Lock,
    /// Whether this process has written its line about a loss.
    pub(super) told: AtomicBool,
    /// Marks of this process in the region, which never become fewer ([`marks`]).
    pub(super) marks: AtomicU64,
}

/// How many operations and limits of the process in a slot the region knows, and whether the slot is this process's. A part of the
/// file may be gone, and the header still there.
pub(super) fn marks(region: &Region, at: usize) -> Option<u64> {
    let ours = region.ours();
    let (slot, journals) = (ours.slots.get(at)?, ours.journals.get(at)?);
    if slot.state.load(Acquire) != SLOT_TAKEN || slot.pid.load(Relaxed) != sys::pid() {
        return None;
    }
    let operations = journals.iter().map(|journal| journal.operation.load(Relaxed) >> 1);
    let limits = (0..DEVICES).filter(|device| region.asked_limits(at, *device).is_some()).count();
    Some(operations.fold(limits as u64, u64::wrapping_add))
}

impl Contents {
    /// What is remembered.
    pub(super) fn seen(&self) -> Seen {
        Seen {
            born_ns: self.born_ns.load(Relaxed),
            whole_at_ns: self.whole_at_ns.load(Relaxed),
            generation: self.generation.load(Relaxed),
        }
    }

    /// Remembers contents. `has_file_share`: launches are delayed whatever the region says.
    pub(super) fn see(&self, seen: Seen, has_file_share: bool) {
        let calm = if has_file_share { NEVER_CALM } else { calm_word(seen.born_ns) };
        self.calm.store(calm, Relaxed);
        self.whole_at_ns.store(seen.whole_at_ns, Relaxed);
        self.generation.store(seen.generation, Relaxed);
        self.born_ns.store(seen.born_ns, Release);
    }
}
