//! Which device of the region is meant, and what is allowed on it?
//!
//! CUDA, NVML and the region each number devices in their own way; what they agree on is the UUID. [`Devices`] keeps
//! the translations of this process, and what the limits file says of each device.

mod handles;
mod record;

use crate::container::{Container, DeviceRef};
use crate::driver::sys::nvml::nvmlDevice_t;
use crate::driver::{cuda, nvml};
use crate::uuid::Uuid;
use core::sync::atomic::{AtomicU8, AtomicU64, Ordering::Acquire, Ordering::Relaxed, Ordering::Release};
use gpuquota_quota::limits::{CorePolicy, Source, Table};
use gpuquota_quota::share::Rate;
use gpuquota_region::layout::{self, DEVICE_READY};
use handles::Handles;
use record::register;

/// Devices as CUDA numbers them in one process.
const ORDINALS: usize = 64;

/// In `Devices::visible`: the device was given by its UUID.
const NAMED: u8 = u8::MAX;

/// What this process knows of devices. All-zero bytes: nothing.
pub struct Devices {
    /// Region index + 1 by CUDA ordinal.
    ordinals: [AtomicU8; ORDINALS],
    /// Index in the container + 1 by CUDA ordinal, where CUDA_VISIBLE_DEVICES reorders; 0 where it does not, [`NAMED`]
    /// where it says a UUID.
    visible: [AtomicU8; ORDINALS],
    /// Primary context by CUDA ordinal.
    primaries: [AtomicU64; ORDINALS],
    /// Region index + 1 by context.
    contexts: Handles,
    /// Region index + 1 by NVML handle.
    handles: Handles,
    /// What the limits file allows in all and on the device, bytes + 1, by region index; 0 where it says nothing.
    ceilings: [AtomicU64; layout::DEVICES],
    physical: [AtomicU64; layout::DEVICES],
    /// The same for its share of time, percent + 1.
    cores: [AtomicU64; layout::DEVICES],
}

/// The container and its devices, which bytes and time are counted by. All-zero bytes: nothing is known yet.
pub struct Scope {
    /// The container.
    pub container: Container,
    /// Its devices.
    pub devices: Devices,
}

/// What an NVML handle stands for.
#[derive(Clone, Copy)]
pub enum Target {
    /// One device of the region.
    One(DeviceRef),
    /// A device that is split: its instances are the region's devices, it is none.
    Split,
}

/// In `Devices::handles`: the device is split.
const SPLIT: u8 = 254;

/// Where a call acts: the calling thread's context and its device.
#[derive(Clone, Copy)]
pub struct Place {
    /// The context's handle.
    pub context: u64,
    /// Its device.
    pub device: DeviceRef,
}

impl Scope {
    /// Where the calling thread's calls act.
    #[inline]
    pub fn place(&self) -> Option<Place> {
        self.devices.place(&self.container)
    }

    /// The region's device of a CUDA device.
    pub fn of_ordinal(&self, ordinal: i32) -> Option<DeviceRef> {
        self.devices.of_ordinal(&self.container, ordinal)
    }
}

impl Devices {
    /// Reads CUDA_VISIBLE_DEVICES: ordinal n is then the n-th word, a number or the beginning of a UUID.
    pub fn read_visible(&self, value: Option<&[u8]>) {
        let Some(value) = value else { return };
        for (word, visible) in value.split(|byte| *byte == b',').zip(&self.visible) {
            let word = word.trim_ascii();
            let number = word.iter().try_fold(0u8, |number, byte| {
                let digit = byte.checked_sub(b'0').filter(|digit| *digit <= 9)?;
                number.checked_mul(10)?.checked_add(digit)
            });
            let place = match number.filter(|_| !word.is_empty()) {
                Some(number) => number.saturating_add(1),
                None if word.starts_with(b"GPU-") || word.starts_with(b"MIG-") => NAMED,
                // Here CUDA ends the list.
                None => return,
            };
            visible.store(place, Relaxed);
        }
    }

    /// Where the calling thread's calls act: without a context, or where the driver does not tell, on the first device.
    /// Most drivers refuse such a call, and one that does not is not to give what is not counted.
    #[inline]
    pub fn place(&self, container: &Container) -> Option<Place> {
        let context = cuda::current_context().unwrap_or(0);
        let device = match self.contexts.get(context) {
            Some(device) => device,
            None => self.learn_context(container, context)?,
        };
        Some(Place { context, device: container.device(device)? })
    }

    /// Where calls in a context act that need not be the calling thread's.
    pub fn place_of(&self, container: &Container, context: u64) -> Option<Place> {
        let device = match self.contexts.get(context) {
            Some(device) => device,
            None => cuda::within(context, || self.learn_context(container, context))?,
        };
        Some(Place { context, device: container.device(device)? })
    }

    #[cold]
    fn learn_context(&self, container: &Container, context: u64) -> Option<u8> {
        let device = self.of_ordinal(container, cuda::current_device())?;
        self.context_is_of(context, device);
        Some(device.index)
    }

    /// Remembers which device a context is of.
    pub fn context_is_of(&self, context: u64, device: DeviceRef) {
        self.contexts.put(context, device.index);
    }

    /// The region's device of a CUDA device.
    pub fn of_ordinal(&self, container: &Container, ordinal: i32) -> Option<DeviceRef> {
        let position = usize::try_from(ordinal).ok()?;
        let known = self.ordinals.get(position)?;
        let index = match known.load(Acquire).checked_sub(1) {
            Some(index) => index,
            None => {
                let index = self.meet(container, ordinal, position)?;
                known.store(index.wrapping_add(1), Release);
                index
            }
        };
        container.device(index)
    }

    /// A CUDA device that is met for the first time.
    #[cold]
    fn meet(&self, container: &Container, ordinal: i32, position: usize) -> Option<u8> {
        let mut uuid = Uuid::default();
        let told = cuda::uuid_of(ordinal, &mut uuid);
        let index = match self.visible.get(position)?.load(Relaxed) {
            // Only NVML knows; it is asked where a limit depends on it, because asking loads it. Beside an instance CUDA
            // shows no other device, so its ordinal says nothing either.
            visible
                if told && (visible == NAMED || uuid.is_instance()) && container.limits().go_by_index() =>
            {
                nvml::index_of(&uuid).unwrap_or(position as u32)
            }
            0 | NAMED => position as u32,
            number => u32::from(number).wrapping_sub(1),
        };
        if !told && !nvml::uuid_at(index, &mut uuid) {
            uuid.push_index(index);
        }
        self.register(container, &uuid, index, cuda::total_memory(ordinal).unwrap_or(0))
    }

    /// What an NVML handle stands for; its memory is `total` bytes, or 0 where that is not known.
    pub fn of_handle(&self, container: &Container, handle: nvmlDevice_t, total: u64) -> Option<Target> {
        let word = handle as u64;
        let found = match self.handles.get(word) {
            Some(found) => found,
            None => {
                let found = self.meet_handle(container, handle, total)?;
                self.handles.put(word, found);
                found
            }
        };
        if found == SPLIT { Some(Target::Split) } else { container.device(found).map(Target::One) }
    }

    /// An NVML handle that is met for the first time.
    #[cold]
    fn meet_handle(&self, container: &Container, handle: nvmlDevice_t, total: u64) -> Option<u8> {
        if nvml::instances::is_split(handle) {
            return Some(SPLIT);
        }
        let mut uuid = Uuid::default();
        if nvml::uuid_of(handle, &mut uuid) {
            return self.register(container, &uuid, nvml::index(handle).unwrap_or(0), total);
        }
        // A device that NVML gives no name: CUDA may have met it under one.
        let index = nvml::index(handle)?;
        let met = |device: &DeviceRef| device.record.state.load(Acquire) == DEVICE_READY;
        if let Some(device) = u8::try_from(index).ok().and_then(|index| container.device(index)).filter(met) {
            return Some(device.index);
        }
        uuid.push_index(index);
        self.register(container, &uuid, index, total)
    }

    fn register(&self, container: &Container, uuid: &Uuid, index: u32, total: u64) -> Option<u8> {
        let found = register(container, uuid, index, total)?;
        let limits = container.limits();
        for (table, ceilings) in [(&limits.memory, &self.ceilings), (&limits.physical, &self.physical)] {
            raise(ceilings, found, table, index, uuid);
        }
        if limits.policy != CorePolicy::BestEffort {
            raise(&self.cores, found, &limits.cores, index, uuid);
        }
        Some(found)
    }

    /// The cap on a device's memory. What the limits file says outranks the region, which the container's programs
    /// can write: the lower of both holds.
    #[inline]
    pub fn memory_cap(&self, device: DeviceRef) -> Option<u64> {
        lower(device.record.memory_limit.load(Relaxed), &self.ceilings, device.index)
    }

    /// The same for what may lie on the device, where memory may be oversubscribed.
    pub fn physical_cap(&self, device: DeviceRef) -> Option<u64> {
        lower(device.record.physical_limit.load(Relaxed), &self.physical, device.index)
    }

    /// The share of a device's time, if it is limited: what the limits file says outranks the region here too, and is
    /// not lent.
    #[inline]
    pub fn share(&self, container: &Container, device: DeviceRef) -> Option<Rate> {
        let limit = if container.borrows() { 0 } else { device.record.core_limit.load(Relaxed) };
        Rate::new(lower(limit.into(), &self.cores, device.index)? as u32)
    }

    /// Whether the limits file sets the share of a device.
    #[inline]
    pub fn has_ceiling(&self, device: DeviceRef) -> bool {
        self.cores.get(usize::from(device.index)).is_some_and(|ceiling| ceiling.load(Relaxed) != 0)
    }

    /// Whether tools see the container's slice of a device: it has a cap, and the cap binds.
    pub fn shows_slice(&self, container: &Container, device: DeviceRef) -> bool {
        !container.observes() && self.memory_cap(device).is_some()
    }

    /// Remembers the primary context of a device.
    pub fn primary_is(&self, ordinal: i32, context: u64) {
        if let Some(primary) = usize::try_from(ordinal).ok().and_then(|at| self.primaries.get(at)) {
            primary.store(context, Relaxed);
        }
    }

    /// The primary context of a device, if it was ever retained.
    pub fn primary(&self, ordinal: i32) -> Option<u64> {
        let primary = self.primaries.get(usize::try_from(ordinal).ok()?)?.load(Relaxed);
        (primary != 0).then_some(primary)
    }

    /// Forgets a context that is gone: its handle may come back for another device.
    pub fn forget_context(&self, context: u64) {
        self.contexts.forget(context);
    }
}

/// Notes what the limits file says of a device as its ceiling.
fn raise<T: Copy + Into<u64>>(ceilings: &[AtomicU64], found: u8, table: &Table<T>, index: u32, uuid: &Uuid) {
    let limit = table.lookup(index, uuid.text()).filter(|limit| limit.source == Source::File);
    if let Some((limit, ceiling)) = limit.zip(ceilings.get(usize::from(found))) {
        ceiling.store(limit.value.into().saturating_add(1), Relaxed);
    }
}

/// The lower of the region's limit and of the file's ceiling, as far as there are any.
#[inline(always)]
fn lower(shared: u64, ceilings: &[AtomicU64; layout::DEVICES], index: u8) -> Option<u64> {
    let ceiling = ceilings.get(usize::from(index))?.load(Relaxed).wrapping_sub(1);
    let lower = if shared == 0 { ceiling } else { ceiling.min(shared) };
    (lower != u64::MAX).then_some(lower)
}

#[cfg(test)]
mod tests;
