//! What this process knows of the region's devices, for the case that the contents of the region are lost.
//!
//! All processes of a container know a device by its index in the region. So whoever finds the contents lost puts back every
//! device that it has seen, at the same index.

use super::record::put_back_record;
use crate::container::Container;
use crate::uuid::Uuid;
use core::sync::atomic::{
    AtomicU32, AtomicU64, Ordering::AcqRel, Ordering::Acquire, Ordering::Relaxed, Ordering::Release,
};
use gpuquota_region::layout::{DEVICE_READY, DEVICES, UUID_BYTES};
use gpuquota_region::limits::AskedLimits;

/// The devices of the region that this process has seen. All-zero bytes: none.
pub struct Known {
    devices: [KnownDevice; DEVICES],
    /// Those on which this process works, one bit for each.
    used: AtomicU32,
}

struct KnownDevice {
    uuid: [AtomicU64; UUID_BYTES / 8],
    total: AtomicU64,
    context_bytes: AtomicU64,
    /// The limits that this process brought, as in the region.
    brought: [AtomicU64; 2],
}

const _: () = assert!(DEVICES <= 32);

impl Known {
    /// Remembers all devices of the region, and that this process works on one of them, for which it brought these limits.
    #[cold]
    pub fn remember(&self, container: &Container, index: u8, brought: Option<AskedLimits>) {
        let records = container.ours().devices.iter();
        for (device, known) in records.zip(&self.devices) {
            if device.state.load(Acquire) == DEVICE_READY {
                let uuid = Uuid::of(device);
                known.uuid.iter().zip(uuid.words()).for_each(|(known, word)| known.store(word, Relaxed));
                known.total.store(device.memory_total.load(Relaxed), Relaxed);
                known.context_bytes.fetch_max(device.context_bytes.load(Relaxed), Relaxed);
            }
        }
        if let Some((known, words)) =
            self.devices.get(usize::from(index)).zip(brought.map(|limits| limits.words()))
        {
            known.brought.iter().zip(words).for_each(|(known, word)| known.store(word, Release));
        }
        self.used.fetch_or(1u32.wrapping_shl(u32::from(index)), AcqRel);
    }

    /// Remembers what a context takes on a device.
    pub fn remember_context_bytes(&self, index: u8, bytes: u64) {
        if let Some(known) = self.devices.get(usize::from(index)) {
            known.context_bytes.fetch_max(bytes, Relaxed);
        }
    }

    /// The limits that this process brought for a device.
    pub fn brought(&self, index: u8) -> Option<AskedLimits> {
        let [memory, physical] = &self.devices.get(usize::from(index))?.brought;
        AskedLimits::of_words([memory.load(Acquire), physical.load(Acquire)])
    }

    /// Puts the devices back. Answers those on which this process works and whose index has become another one's, one bit for each:
    /// a newcomer has met that one first.
    #[cold]
    pub fn put_back(&self, container: &Container) -> u32 {
        let (region, mut taken) = (container.region(), 0u32);
        for (known, index) in self.devices.iter().zip(0u8..) {
            let mut uuid = Uuid::default();
            for word in &known.uuid {
                let word = word.load(Relaxed).to_le_bytes();
                uuid.push(word.split(|byte| *byte == 0).next().unwrap_or(&[]));
            }
            if uuid.text().is_empty() {
                continue;
            }
            let total = known.total.load(Relaxed);
            if !put_back_record(&region, index, &uuid, total) {
                taken |= 1u32.wrapping_shl(u32::from(index));
            } else if let Some(device) = container.device(index) {
                device.record.context_bytes.fetch_max(known.context_bytes.load(Relaxed), Relaxed);
            }
        }
        taken & self.used.load(Acquire)
    }

    /// Puts back the limits that this process brought.
    #[cold]
    pub fn put_back_limits(&self, container: &Container) {
        let Some(slot) = container.claimed_slot() else { return };
        for index in 0..DEVICES as u8 {
            if let Some(limits) = self.brought(index) {
                container.region().ask_limits(slot, usize::from(index), Some(limits));
            }
        }
        container.region().settle_all_limits();
    }
}
