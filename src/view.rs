//! The container's slice as its tools shall see it: the same numbers through every door.

use crate::container::DeviceRef;
use crate::memory::Memory;
use core::sync::atomic::Ordering::Relaxed;
use gpuquota_quota::ledger;

/// A device's memory as the container sees it, bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Slice {
    /// What there is: the smaller of the device and the cap; the cap where memory is oversubscribed.
    pub total: u64,
    /// What is in use by the container.
    pub used: u64,
    /// What is left of it; never more than the device itself has left, unless the host stands in.
    pub free: u64,
}

/// The slice of a device, from what the driver says of the whole; `None` where there is no cap to show.
#[inline(always)]
pub fn slice(memory: Memory<'_>, device: DeviceRef, real_total: u64, real_free: u64) -> Option<Slice> {
    let container = &memory.scope.container;
    if device.record.memory_total.load(Relaxed) == 0 {
        device.record.memory_total.store(real_total, Relaxed);
    }
    if container.observes() {
        return None;
    }
    let cap = memory.scope.devices.memory_cap(device)?;
    container.reap_sometimes();
    memory.state.overhead.measure_for_view(memory.books(), device);
    memory.state.arenas.update_stale(memory.books());
    let used = ledger::used(&device.record.used);
    // Where the host stands in, the device's own memory is no bound.
    let bound = |bytes: u64| if container.spills() { u64::MAX } else { bytes };
    let total = cap.min(bound(real_total));
    let free = total.saturating_sub(used).min(bound(real_free));
    Some(Slice { total, used: used.min(total), free })
}

/// The total alone.
pub fn total(memory: Memory<'_>, device: DeviceRef, real_total: u64) -> u64 {
    slice(memory, device, real_total, real_total).map_or(real_total, |slice| slice.total)
}
