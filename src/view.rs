//! The view: the container's slice of a device, with the same numbers for every call that shows memory, and its own work
//! ([`activity`]).

pub mod activity;

use crate::container::DeviceRef;
use crate::memory::Memory;
use core::sync::atomic::Ordering::Relaxed;
use gpuquota_quota::ledger;

/// The container's slice of a device's memory, bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Slice {
    /// Its size: the smaller of the device and the cap; the cap where memory may be oversubscribed.
    pub total: u64,
    /// The container's use of it.
    pub used: u64,
    /// The rest. Never more than the device itself has left, unless memory may be oversubscribed.
    pub free: u64,
}

/// The slice of a device, from the driver's figures for the whole device; `None` where no cap applies.
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
    // First the charges of pools and graphs, because what is beyond all charges counts as overhead.
    memory.state.arenas.update_stale(memory.books());
    memory.state.overhead.measure_for_view(memory.charges(), device);
    let used = ledger::used(&device.record.used)
        .saturating_add(memory.books().accounts.absent.lately(container, device));
    // Memory may lie on the host, so the device's own memory is no bound.
    let bound = |bytes: u64| if container.spills() { u64::MAX } else { bytes };
    let total = cap.min(bound(real_total));
    let free = total.saturating_sub(used).min(bound(real_free));
    Some(Slice { total, used: used.min(total), free })
}

/// The total of the slice; the device's own where no cap applies.
pub fn total(memory: Memory<'_>, device: DeviceRef, real_total: u64) -> u64 {
    slice(memory, device, real_total, real_total).map_or(real_total, |slice| slice.total)
}
