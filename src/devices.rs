//! Which device of the region does a call act on, and which limits hold there?
//!
//! CUDA, NVML and the region each number devices in their own way, and agree on the UUID. [`Devices`] keeps the
//! translations of this process, and the limits that the limits file sets for each device.

mod brought;
mod handles;
mod lost;
mod record;

use crate::container::{Container, DeviceRef};
use crate::driver::sys::nvml::nvmlDevice_t;
use crate::driver::{cuda, nvml};
use crate::uuid::Uuid;
use brought::bring;
use core::sync::atomic::{
    AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering::Acquire, Ordering::Relaxed, Ordering::Release,
};
use gpuquota_quota::limits::{CorePolicy, Source, Table};
use gpuquota_quota::share::Rate;
use gpuquota_quota::text::Line;
use gpuquota_region::layout::{self, DEVICE_READY};
use gpuquota_region::sys;
use handles::Handles;
use lost::Known;
use record::register;

/// Devices as CUDA numbers them in one process.
const ORDINALS: usize = 64;

/// In `Devices::visible`: CUDA_VISIBLE_DEVICES gives the device's UUID.
const BY_UUID: u8 = u8::MAX;

/// The devices that this process has met. All-zero bytes: none.
pub struct Devices {
    /// Region index + 1 by CUDA ordinal.
    ordinals: [AtomicU8; ORDINALS],
    /// Index in the container + 1 by CUDA ordinal, where CUDA_VISIBLE_DEVICES reorders; 0 where it does not, [`BY_UUID`]
    /// where it gives a UUID.
    visible: [AtomicU8; ORDINALS],
    /// Primary context by CUDA ordinal.
    primaries: [AtomicU64; ORDINALS],
    /// How often the program has retained it and not released it.
    primary_uses: [AtomicU32; ORDINALS],
    /// Region index + 1 by context.
    contexts: Handles,
    /// Region index + 1 by NVML handle.
    handles: Handles,
    /// The limits file's caps, bytes + 1, by region index; 0 where it sets none.
    memory_ceilings: [AtomicU64; layout::DEVICES],
    /// Its physical caps, in the same form.
    physical_ceilings: [AtomicU64; layout::DEVICES],
    /// Its shares, percent + 1, in the same form.
    share_ceilings: [AtomicU64; layout::DEVICES],
    /// Whether this process has said which of its limits do not hold.
    told: AtomicBool,
    /// What it knows of them, for the case that the contents of the region are lost.
    pub known: Known,
}

/// The container and its devices: bytes and GPU time are counted for these. All-zero bytes: a process before its start.
pub struct Scope {
    /// The container.
    pub container: Container,
    /// Its devices.
    pub devices: Devices,
}

/// The device or devices of the region that an NVML handle stands for.
#[derive(Clone, Copy)]
pub enum Target {
    /// One device of the region.
    One(DeviceRef),
    /// A split device: the region has its instances, and has no record of the device itself.
    Split,
}

/// In `Devices::handles`: the device is split.
const SPLIT: u8 = 254;

/// The context and the device on which a call acts.
#[derive(Clone, Copy)]
pub struct Place {
    /// The context's handle.
    pub context: u64,
    /// Its device.
    pub device: DeviceRef,
}

impl Scope {
    /// The current context of the calling thread and its device.
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
            let entry = match number.filter(|_| !word.is_empty()) {
                Some(number) => number.saturating_add(1),
                None if word.starts_with(b"GPU-") || word.starts_with(b"MIG-") => BY_UUID,
                // CUDA ignores the rest of the list too.
                None => return,
            };
            visible.store(entry, Relaxed);
        }
    }

    /// The current context of the calling thread and its device. Without a context this is the first device: most drivers
    /// refuse an allocation then, and one that does not must not give uncounted memory.
    #[inline]
    pub fn place(&self, container: &Container) -> Option<Place> {
        let context = cuda::current_context().unwrap_or(0);
        let device = match self.contexts.get(context) {
            Some(device) => device,
            None => self.identify_context(container, context)?,
        };
        Some(Place { context, device: container.device(device)? })
    }

    /// A context, which need not be current, and its device.
    pub fn place_of(&self, container: &Container, context: u64) -> Option<Place> {
        let device = match self.contexts.get(context) {
            Some(device) => device,
            None => cuda::within(context, || self.identify_context(container, context))?,
        };
        Some(Place { context, device: container.device(device)? })
    }

    #[cold]
    fn identify_context(&self, container: &Container, context: u64) -> Option<u8> {
        let device = self.of_ordinal(container, cuda::current_device())?;
        self.remember_context(context, device);
        Some(device.index)
    }

    /// Remembers the device of a context.
    pub fn remember_context(&self, context: u64, device: DeviceRef) {
        self.contexts.insert(context, device.index);
    }

    /// The region's device of a CUDA device.
    pub fn of_ordinal(&self, container: &Container, ordinal: i32) -> Option<DeviceRef> {
        let position = usize::try_from(ordinal).ok()?;
        let entry = self.ordinals.get(position)?;
        let index = match entry.load(Acquire).checked_sub(1) {
            Some(index) => index,
            None => {
                let index = self.identify_ordinal(container, ordinal, position)?;
                entry.store(index.wrapping_add(1), Release);
                index
            }
        };
        container.device(index)
    }

    /// CUDA's ordinal of a device that this process has met.
    pub fn ordinal_of(&self, device: u8) -> Option<i32> {
        let is_it = |entry: &AtomicU8| entry.load(Acquire) == device.wrapping_add(1);
        self.ordinals.iter().position(is_it).and_then(|ordinal| i32::try_from(ordinal).ok())
    }

    /// Finds the region's device of a CUDA device that this process meets for the first time.
    #[cold]
    fn identify_ordinal(&self, container: &Container, ordinal: i32, position: usize) -> Option<u8> {
        let mut uuid = Uuid::default();
        let has_uuid = cuda::uuid_of(ordinal, &mut uuid);
        let index = match self.visible.get(position)?.load(Relaxed) {
            // Only NVML knows the index of a device that was selected by its UUID, and of an instance, beside which CUDA
            // shows no other device. The query loads NVML, so it is made only where a limit depends on the index.
            visible
                if has_uuid
                    && (visible == BY_UUID || uuid.is_instance())
                    && container.limits().go_by_index() =>
            {
                nvml::index_of(&uuid).unwrap_or(position as u32)
            }
            0 | BY_UUID => position as u32,
            number => u32::from(number).wrapping_sub(1),
        };
        if !has_uuid && !nvml::uuid_at(index, &mut uuid) {
            uuid.push_index(index);
        }
        self.register(container, &uuid, index, cuda::total_memory(ordinal).unwrap_or(0))
    }

    /// The target of an NVML handle. `total`: bytes of the device, or 0 where the caller does not know them.
    pub fn of_handle(&self, container: &Container, handle: nvmlDevice_t, total: u64) -> Option<Target> {
        let word = handle as u64;
        let index = match self.handles.get(word) {
            Some(index) => index,
            None => {
                let index = self.identify_handle(container, handle, total)?;
                self.handles.insert(word, index);
                index
            }
        };
        if index == SPLIT { Some(Target::Split) } else { container.device(index).map(Target::One) }
    }

    /// Finds the region's device of an NVML handle that this process meets for the first time.
    #[cold]
    fn identify_handle(&self, container: &Container, handle: nvmlDevice_t, total: u64) -> Option<u8> {
        if nvml::instances::is_split(handle) {
            return Some(SPLIT);
        }
        let mut uuid = Uuid::default();
        if nvml::uuid_of(handle, &mut uuid) {
            return self.register(container, &uuid, nvml::index(handle).unwrap_or(0), total);
        }
        // NVML gives no UUID, and a call through CUDA may have registered the device under one.
        let index = nvml::index(handle)?;
        let is_ready = |device: &DeviceRef| device.record.state.load(Acquire) == DEVICE_READY;
        if let Some(device) =
            u8::try_from(index).ok().and_then(|index| container.device(index)).filter(is_ready)
        {
            return Some(device.index);
        }
        uuid.push_index(index);
        self.register(container, &uuid, index, total)
    }

    fn register(&self, container: &Container, uuid: &Uuid, index: u32, total: u64) -> Option<u8> {
        let position = register(container, uuid, total)?;
        let brought = bring(container, position, index, uuid);
        self.known.remember(container, position, brought);
        let limits = container.limits();
        for (table, ceilings) in
            [(&limits.memory, &self.memory_ceilings), (&limits.physical, &self.physical_ceilings)]
        {
            set_ceiling(ceilings, position, table, index, uuid, limits.composes);
        }
        if limits.policy != CorePolicy::BestEffort {
            set_ceiling(&self.share_ceilings, position, &limits.cores, index, uuid, limits.composes);
        }
        Some(position)
    }

    /// This process cannot be counted on devices whose place in the region is another's now: it gets no more memory there.
    #[cold]
    pub fn close(&self, devices: u32) {
        for (ceiling, index) in self.memory_ceilings.iter().zip(0u32..) {
            if devices.wrapping_shr(index) & 1 != 0 {
                ceiling.store(1, Relaxed);
            }
        }
    }

    /// The cap on a device's memory: the lower of the region's and the limits file's. The container's programs can write
    /// the region, and cannot write the file.
    #[inline]
    pub fn memory_cap(&self, device: DeviceRef) -> Option<u64> {
        effective_limit(device.record.memory_limit.load(Relaxed), &self.memory_ceilings, device.index)
    }

    /// The physical cap, where memory may be oversubscribed.
    pub fn physical_cap(&self, device: DeviceRef) -> Option<u64> {
        effective_limit(device.record.physical_limit.load(Relaxed), &self.physical_ceilings, device.index)
    }

    /// The share of a device's time, if it is limited. The lower of the region's and the limits file's holds here too, and
    /// lending suspends only the region's.
    #[inline]
    pub fn share(&self, container: &Container, device: DeviceRef) -> Option<Rate> {
        let limit = if container.borrows() { 0 } else { device.record.core_limit.load(Relaxed) };
        Rate::new(effective_limit(limit.into(), &self.share_ceilings, device.index)? as u32)
    }

    /// Whether the limits file sets the share of a device.
    #[inline]
    pub fn has_ceiling(&self, device: DeviceRef) -> bool {
        self.share_ceilings.get(usize::from(device.index)).is_some_and(|ceiling| ceiling.load(Relaxed) != 0)
    }

    /// Whether tools see the container's own work instead of the whole device's: it has a limit of memory or of time.
    pub fn shows_own_work(&self, container: &Container, device: DeviceRef) -> bool {
        let limit = device.record.core_limit.load(Relaxed);
        let share = || effective_limit(limit.into(), &self.share_ceilings, device.index);
        !container.observes()
            && (self.memory_cap(device).is_some()
                || share().is_some_and(|percent| Rate::new(percent as u32).is_some()))
    }

    /// Whether tools see the container's slice of a device: it has a cap, and the cap binds.
    pub fn shows_slice(&self, container: &Container, device: DeviceRef) -> bool {
        !container.observes() && self.memory_cap(device).is_some()
    }

    /// At the first cuInit of the process: writes a line on stderr if a limit that it asked for is not the one that holds.
    #[cold]
    pub fn tell_differences(&self, container: &Container) {
        if self.told.swap(true, Relaxed) || container.limits().quiet {
            return;
        }
        let _errno = sys::KeepErrno::new();
        let mut line = Line::default();
        let devices = (0..layout::DEVICES as u8).filter_map(|index| container.device(index));
        let mut ready = devices.filter(|device| device.record.state.load(Acquire) == DEVICE_READY);
        if ready.any(|device| brought::write_difference(container, device, &mut line)) {
            sys::write_stderr(line.end());
        }
    }

    /// Remembers the primary context of a device.
    pub fn remember_primary(&self, ordinal: i32, context: u64) {
        if let Some(primary) = usize::try_from(ordinal).ok().and_then(|at| self.primaries.get(at)) {
            primary.store(context, Relaxed);
        }
    }

    /// The program retains the primary context of a device.
    pub fn retain_primary(&self, ordinal: i32) {
        if let Some(uses) = self.primary_uses(ordinal) {
            uses.fetch_add(1, Relaxed);
        }
    }

    /// The program releases it. False if it has retained it more than once and not released it: then it certainly lives on.
    pub fn release_primary(&self, ordinal: i32) -> bool {
        let fewer = |uses: u32| uses.checked_sub(1);
        let before = self.primary_uses(ordinal).map(|uses| uses.fetch_update(Relaxed, Relaxed, fewer));
        !matches!(before, Some(Ok(2..)))
    }

    /// Nobody counts on it any more.
    pub fn reset_primary(&self, ordinal: i32) {
        if let Some(uses) = self.primary_uses(ordinal) {
            uses.store(0, Relaxed);
        }
    }

    fn primary_uses(&self, ordinal: i32) -> Option<&AtomicU32> {
        self.primary_uses.get(usize::try_from(ordinal).ok()?)
    }

    /// The primary contexts that this process has retained, with the ordinals of their devices.
    pub fn primaries(&self) -> impl Iterator<Item = (i32, u64)> + '_ {
        let known = self.primaries.iter().map(|context| context.load(Relaxed));
        (0..).zip(known).filter(|(_, context)| *context != 0)
    }

    /// The primary context of a device, if this process has ever retained it.
    pub fn primary(&self, ordinal: i32) -> Option<u64> {
        let primary = self.primaries.get(usize::try_from(ordinal).ok()?)?.load(Relaxed);
        (primary != 0).then_some(primary)
    }

    /// Forgets a context that may be destroyed, and answers its device: the driver may reuse its handle for another one.
    pub fn forget_context(&self, container: &Container, context: u64) -> Option<DeviceRef> {
        let device = self.contexts.get(context);
        self.contexts.remove(context);
        container.device(device?)
    }
}

/// Stores the limits file's limit for a device, if it has one, as the ceiling at `position` in the region. Where this process asks for
/// less than its user may have, the ceiling is that.
fn set_ceiling<T: Copy + Into<u64> + Ord>(
    ceilings: &[AtomicU64],
    position: u8,
    table: &Table<T>,
    index: u32,
    uuid: &Uuid,
    composes: bool,
) {
    let of = |source| table.lookup_of(source, index, uuid.text()).map(|entry| entry.value);
    let asked = of(Source::Own).filter(|_| composes);
    let limit = of(Source::File).into_iter().chain(asked).min();
    if let Some((limit, ceiling)) = limit.zip(ceilings.get(usize::from(position))) {
        ceiling.store(limit.into().saturating_add(1), Relaxed);
    }
}

/// The lower of the region's limit and the limits file's ceiling; `None` where neither is set.
#[inline(always)]
fn effective_limit(shared: u64, ceilings: &[AtomicU64; layout::DEVICES], index: u8) -> Option<u64> {
    let ceiling = ceilings.get(usize::from(index))?.load(Relaxed).wrapping_sub(1);
    let lower = if shared == 0 { ceiling } else { ceiling.min(shared) };
    (lower != u64::MAX).then_some(lower)
}

#[cfg(test)]
mod tests;
