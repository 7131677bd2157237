//! The container's slice as its tools shall see it: the same numbers through every door.

use crate::process::Process;
use core::sync::atomic::Ordering::Relaxed;
use gpuquota_quota::ledger;

/// A device's memory as the container sees it, bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// What there is: the smaller of the device and the cap; the cap where memory is oversubscribed.
    pub total: u64,
    /// What is in use by the container.
    pub used: u64,
    /// What is left of it; never more than the device itself has left, unless the host stands in.
    pub free: u64,
}

/// The slice of a device, from what the driver says of the whole; `None` where there is no cap to show.
pub fn memory(process: &Process, index: u8, real_total: u64, real_free: u64) -> Option<Memory> {
    let device = process.region()?.ours().devices.get(usize::from(index))?;
    if device.memory_total.load(Relaxed) == 0 {
        device.memory_total.store(real_total, Relaxed);
    }
    if process.observes() {
        return None;
    }
    let cap = process.known.memory_cap(index, device)?;
    process.reap_sometimes();
    process.settle_when_looked_at(index);
    process.settle_stale_keepers();
    let used = ledger::used(&device.used);
    // Where the host stands in, the device's own memory is no bound.
    let bound = |bytes: u64| if process.spills() { u64::MAX } else { bytes };
    let total = cap.min(bound(real_total));
    let free = total.saturating_sub(used).min(bound(real_free));
    Some(Memory { total, used: used.min(total), free })
}

/// The total alone.
pub fn total(process: &Process, index: u8, real_total: u64) -> u64 {
    memory(process, index, real_total, real_total).map_or(real_total, |memory| memory.total)
}
