//! Processes that hold the region and have not put back what they hold: its contents were lost, and they have made no call since.
//!
//! Their books cannot be had, so the driver's figures of these processes count instead. By so much the cap is lower for this
//! process, until they are back or have ended; each refusal looks again. Where the driver gives no figure, nothing of them
//! counts until then.

use crate::container::{Container, DeviceRef};
use crate::driver::nvml::process_memory;
use crate::uuid::Uuid;
use core::sync::atomic::{
    AtomicBool, AtomicU64, Ordering::AcqRel, Ordering::Acquire, Ordering::Relaxed, Ordering::Release,
};
use gpuquota_region::layout::{DEVICE_READY, DEVICES, SLOTS};
use gpuquota_region::sys::{self, KeepErrno};

/// Pause between two looks for the view.
const PAUSE_NS: u64 = 100_000_000;

/// What they hold. All-zero bytes: nobody has looked.
pub struct Absent {
    has_looked: AtomicBool,
    any: AtomicBool,
    looked_at_ns: AtomicU64,
    /// By device, bytes.
    held: [AtomicU64; DEVICES],
}

impl Absent {
    /// What they hold of a device, bytes.
    #[inline(always)]
    pub fn of(&self, device: DeviceRef) -> u64 {
        if self.any.load(Acquire) { self.sum(device) } else { 0 }
    }

    #[cold]
    #[inline(never)]
    fn sum(&self, device: DeviceRef) -> u64 {
        self.held.get(usize::from(device.index)).map_or(0, |held| held.load(Relaxed))
    }

    /// The same for the view: as of a tenth of a second ago.
    #[inline(always)]
    pub fn lately(&self, container: &Container, device: DeviceRef) -> u64 {
        if self.any.load(Acquire) { self.sum_lately(container, device) } else { 0 }
    }

    #[cold]
    #[inline(never)]
    fn sum_lately(&self, container: &Container, device: DeviceRef) -> u64 {
        if sys::monotonic_coarse_ns().saturating_sub(self.looked_at_ns.load(Relaxed)) > PAUSE_NS {
            self.look(container);
        }
        self.of(device)
    }

    /// The first time in a process: others may have been idle since the contents were lost.
    #[cold]
    pub fn look_once(&self, container: &Container) {
        if !self.has_looked.swap(true, AcqRel) {
            self.look(container);
        }
    }

    /// The same before a refusal: they may be back.
    pub fn look_again(&self, container: &Container) {
        if self.any.load(Acquire) {
            self.look(container);
        }
    }

    /// Finds those processes, and what the driver says of them.
    #[cold]
    #[inline(never)]
    pub fn look(&self, container: &Container) {
        let _errno = KeepErrno::new();
        let mut pids = [0u32; SLOTS];
        let mut places = pids.iter_mut();
        container.each_missing_pid(&mut |pid| {
            if let Some(place) = places.next() {
                *place = pid;
            }
        });
        let count = SLOTS.saturating_sub(places.len());
        let pids = pids.get(..count).unwrap_or_default();
        self.looked_at_ns.store(sys::monotonic_coarse_ns(), Relaxed);
        if pids.is_empty() && !self.any.load(Acquire) {
            return;
        }
        for (record, held) in container.ours().devices.iter().zip(&self.held) {
            let is_ready = !pids.is_empty() && record.state.load(Acquire) == DEVICE_READY;
            let bytes = is_ready.then(|| process_memory::of_processes(&Uuid::of(record), pids)).flatten();
            held.store(bytes.unwrap_or(0), Relaxed);
        }
        self.any.store(!pids.is_empty(), Release);
    }
}
