//! Which device of the region is meant?
//!
//! CUDA, NVML and the region each number devices in their own way; what they agree on is the UUID. This room keeps
//! the translations of this process, and registers a device in the region when the container first meets it.

use crate::hook::{cuda, nvml};
use crate::process::Process;
use core::ffi::CStr;
use core::sync::atomic::{
    AtomicU8, AtomicU64, Ordering::AcqRel, Ordering::Acquire, Ordering::Relaxed, Ordering::Release,
};
use gpuquota_quota::limits::{CorePolicy, Source, Table};
use gpuquota_quota::share::Rate;
use gpuquota_region::Region;
use gpuquota_region::layout::{self, DEVICE_CLAIMED, DEVICE_FREE, DEVICE_READY, Device};
use gpuquota_region::{lock, sys};

/// Devices as CUDA numbers them in one process.
const ORDINALS: usize = 64;
/// Contexts and NVML handles remembered; more are asked for anew each time.
const REMEMBERED: usize = 64;

/// The handle of no context; free places of a [`Remembered`] have it too.
const NO_CONTEXT: u64 = 0;

/// In `Known::visible`: the device was given by its UUID.
const NAMED: u8 = u8::MAX;

/// What this process knows of devices. All-zero bytes: nothing.
pub struct Known {
    /// Region index + 1 by CUDA ordinal.
    ordinals: [AtomicU8; ORDINALS],
    /// Index in the container + 1 by CUDA ordinal, where CUDA_VISIBLE_DEVICES reorders; 0 where it does not, [`NAMED`]
    /// where it says a UUID.
    visible: [AtomicU8; ORDINALS],
    /// Primary context by CUDA ordinal.
    primaries: [AtomicU64; ORDINALS],
    /// Region index + 1 by context.
    contexts: Remembered,
    /// Region index + 1 by NVML handle.
    handles: Remembered,
    /// What the limits file allows in all and on the device, bytes + 1, by region index; 0 where it says nothing.
    ceilings: [AtomicU64; layout::DEVICES],
    physical: [AtomicU64; layout::DEVICES],
    /// The same for its share of time, percent + 1.
    cores: [AtomicU64; layout::DEVICES],
}

/// A small table from a handle to a region index, without locks.
struct Remembered {
    keys: [AtomicU64; REMEMBERED],
    values: [AtomicU8; REMEMBERED],
}

impl Remembered {
    #[inline]
    fn get(&self, key: u64) -> Option<u8> {
        let mut pairs = self.keys.iter().zip(&self.values);
        let (_, value) = pairs.find(|(found, _)| found.load(Acquire) == key)?;
        value.load(Relaxed).checked_sub(1)
    }

    fn put(&self, key: u64, index: u8) {
        for (found, value) in self.keys.iter().zip(&self.values) {
            if found.load(Relaxed) == 0
                && value.compare_exchange(0, index.wrapping_add(1), AcqRel, Relaxed).is_ok()
            {
                found.store(key, Release);
                return;
            }
        }
    }

    fn forget(&self, key: u64) {
        for (found, value) in self.keys.iter().zip(&self.values) {
            if found.compare_exchange(key, 0, AcqRel, Relaxed).is_ok() {
                value.store(0, Release);
            }
        }
    }
}

/// What an NVML handle stands for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Meant {
    /// The device of this region index.
    One(u8),
    /// A device that is split: its instances are the region's devices, it is none.
    Split,
}

/// What NVML tells of a handle that is met for the first time.
pub enum Told {
    /// A device's index and its memory in bytes, 0 where it is not known.
    Device(u32, u64),
    /// The same of one that has no UUID.
    Nameless(u32, u64),
    /// A split one.
    Split,
}

/// In `Known::handles`: the device is split.
const SPLIT: u8 = 254;

/// Where a call acts: the calling thread's context and its device.
#[derive(Clone, Copy)]
pub struct Place {
    /// The context's handle.
    pub context: u64,
    /// Region index of its device.
    pub device: u8,
}

impl Known {
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
    pub fn place(&self, process: &Process) -> Option<Place> {
        let context = cuda::current_context().unwrap_or(NO_CONTEXT);
        let device = match self.contexts.get(context) {
            Some(device) if context != NO_CONTEXT => device,
            _ => self.learn_context(process, context)?,
        };
        Some(Place { context, device })
    }

    /// Where calls in a context act that need not be the calling thread's.
    pub fn place_of(&self, process: &Process, context: u64) -> Option<Place> {
        let device = match self.contexts.get(context) {
            Some(device) => device,
            None => cuda::within(context, || self.learn_context(process, context))?,
        };
        Some(Place { context, device })
    }

    #[cold]
    fn learn_context(&self, process: &Process, context: u64) -> Option<u8> {
        let index = self.of_ordinal(process, cuda::current_device())?;
        self.is_of(context, index);
        Some(index)
    }

    /// Remembers which device a context is of.
    pub fn is_of(&self, context: u64, device: u8) {
        if context != NO_CONTEXT && self.contexts.get(context).is_none() {
            self.contexts.put(context, device);
        }
    }

    /// Region index of a CUDA device.
    pub fn of_ordinal(&self, process: &Process, ordinal: i32) -> Option<u8> {
        let position = usize::try_from(ordinal).ok()?;
        let known = self.ordinals.get(position)?;
        if let Some(index) = known.load(Acquire).checked_sub(1) {
            return Some(index);
        }
        let mut uuid = Uuid::default();
        let told = cuda::uuid_of(ordinal, &mut uuid);
        let index = match self.visible.get(position)?.load(Relaxed) {
            // Only NVML knows; it is asked where a limit depends on it, because asking loads it. Beside an instance CUDA
            // shows no other device, so its ordinal says nothing either.
            visible if told && (visible == NAMED || uuid.is_instance()) && process.limits().go_by_index() => {
                nvml::index_of(&uuid).unwrap_or(position as u32)
            }
            0 | NAMED => position as u32,
            number => u32::from(number).wrapping_sub(1),
        };
        if !told && !nvml::uuid_at(index, &mut uuid) {
            uuid.push_index(index);
        }
        let found = self.register(process, &uuid, index, cuda::total_memory(ordinal).unwrap_or(0))?;
        known.store(found.wrapping_add(1), Release);
        Some(found)
    }

    /// What an NVML handle stands for; `describe` tells its UUID and the rest.
    pub fn of_handle(
        &self,
        process: &Process,
        handle: u64,
        describe: impl FnOnce(&mut Uuid) -> Option<Told>,
    ) -> Option<Meant> {
        let found = match self.handles.get(handle) {
            Some(found) => found,
            None => {
                let mut uuid = Uuid::default();
                let found = match describe(&mut uuid)? {
                    Told::Device(index, total) => self.register(process, &uuid, index, total)?,
                    Told::Nameless(index, total) => self.nameless(process, uuid, index, total)?,
                    Told::Split => SPLIT,
                };
                self.handles.put(handle, found);
                found
            }
        };
        Some(if found == SPLIT { Meant::Split } else { Meant::One(found) })
    }

    /// A device that NVML gives no name: CUDA may have met it under one.
    fn nameless(&self, process: &Process, mut uuid: Uuid, index: u32, total: u64) -> Option<u8> {
        let region = process.region()?;
        let met = |device: &&Device| device.state.load(Acquire) == DEVICE_READY;
        if region.ours().devices.get(index as usize).filter(met).is_some() {
            return Some(index as u8);
        }
        uuid.push_index(index);
        self.register(process, &uuid, index, total)
    }

    fn register(&self, process: &Process, uuid: &Uuid, index: u32, total: u64) -> Option<u8> {
        let found = register(process, uuid, index, total)?;
        let limits = process.limits();
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
    pub fn memory_cap(&self, index: u8, device: &Device) -> Option<u64> {
        lower(device.memory_limit.load(Relaxed), &self.ceilings, index)
    }

    /// The same for what may lie on the device, where memory may be oversubscribed.
    pub fn physical_cap(&self, index: u8, device: &Device) -> Option<u64> {
        lower(device.physical_limit.load(Relaxed), &self.physical, index)
    }

    /// The share of a device's time, if it is limited: what the limits file says outranks the region here too, and is
    /// not lent.
    #[inline]
    pub fn share(&self, process: &Process, index: u8, device: &Device) -> Option<Rate> {
        let limit = if process.borrows() { 0 } else { device.core_limit.load(Relaxed) };
        Rate::new(lower(limit.into(), &self.cores, index)? as u32)
    }

    /// Remembers the primary context of a device.
    pub fn is_primary(&self, ordinal: i32, context: u64) {
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
#[inline]
fn lower(shared: u64, ceilings: &[AtomicU64], index: u8) -> Option<u64> {
    let shared = Some(shared).filter(|limit| *limit != 0);
    let ceiling = ceilings.get(usize::from(index))?;
    match (shared, ceiling.load(Relaxed).checked_sub(1)) {
        (Some(shared), Some(ceiling)) => Some(shared.min(ceiling)),
        (shared, ceiling) => shared.or(ceiling),
    }
}

/// A UUID's text while it is built, zero-padded.
pub struct Uuid {
    bytes: [u8; layout::UUID_BYTES],
    length: usize,
}

impl Default for Uuid {
    fn default() -> Self {
        Self { bytes: [0; layout::UUID_BYTES], length: 0 }
    }
}

impl Uuid {
    /// Appends text; what does not fit is left off.
    pub fn push(&mut self, text: &[u8]) {
        for (to, from) in self.bytes.iter_mut().skip(self.length).zip(text) {
            *to = *from;
            self.length = self.length.saturating_add(1);
        }
    }

    /// Appends what stands for a UUID where the driver tells none.
    fn push_index(&mut self, index: u32) {
        self.push(b"CUDA-ordinal-");
        self.push(&[b'0'.wrapping_add((index / 10) as u8), b'0'.wrapping_add((index % 10) as u8)]);
    }

    /// Appends 16 bytes the way NVML writes them: 8-4-4-4-12 hexadecimal digits.
    pub fn push_groups(&mut self, bytes: &[u8]) {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        for (position, byte) in bytes.iter().enumerate() {
            if matches!(position, 4 | 6 | 8 | 10) {
                self.push(b"-");
            }
            for half in [byte >> 4, byte & 15] {
                self.push(DIGITS.get(usize::from(half)).map_or(b"", core::slice::from_ref));
            }
        }
    }

    fn text(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or(&[])
    }

    /// A record's text.
    pub fn of(device: &Device) -> Self {
        let mut uuid = Self::default();
        for word in &device.uuid {
            let word = word.load(Relaxed).to_le_bytes();
            uuid.push(word.split(|byte| *byte == 0).next().unwrap_or(&[]));
        }
        uuid
    }

    /// Whether it is known to be a MIG instance's.
    pub fn is_instance(&self) -> bool {
        self.text().starts_with(b"MIG-")
    }

    /// The same number as that of a MIG instance.
    pub fn as_mig(&self) -> Self {
        let mut uuid = Self::default();
        uuid.push(b"MIG");
        uuid.push(self.text().get(3..).unwrap_or(&[]));
        uuid
    }

    /// The text for C.
    pub fn as_c_str(&self) -> &CStr {
        CStr::from_bytes_until_nul(&self.bytes).unwrap_or_default()
    }

    fn words(&self) -> impl Iterator<Item = u64> + '_ {
        self.bytes
            .chunks_exact(8)
            .map(|word| word.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte)))
    }

    /// Whether a record is this device's. Not every CUDA tells a MIG instance from a whole device, NVML does: the four
    /// bytes before the number, `GPU-` or `MIG-`, do not count.
    fn is(&self, device: &Device) -> bool {
        let number = |(at, word): (usize, u64)| if at == 0 { word >> 32 } else { word };
        let stored = device.uuid.iter().map(|word| word.load(Relaxed)).enumerate().map(number);
        stored.eq(self.words().enumerate().map(number))
    }
}

/// The region's record of a device, made now if the container meets it for the first time.
#[cold]
fn register(process: &Process, uuid: &Uuid, index: u32, total: u64) -> Option<u8> {
    let _errno = sys::KeepErrno::new();
    let region = process.region()?;
    let devices = &region.ours().devices;
    loop {
        if let Some(found) = position(region, uuid) {
            return Some(found);
        }
        let own = devices.iter().position(|device| {
            device.state.compare_exchange(DEVICE_FREE, DEVICE_CLAIMED, AcqRel, Relaxed).is_ok()
        })?;
        let device = devices.get(own)?;
        device.claimed_by.store(sys::pid(), Relaxed);
        device.uuid.iter().zip(uuid.words()).for_each(|(stored, own)| stored.store(own, Relaxed));
        // Of two processes that register the same device at once, the one with the lower record wins.
        let mut other = false;
        for earlier in devices.iter().take(own) {
            wait_while_claimed(earlier);
            other |= earlier.state.load(Acquire) == DEVICE_READY && uuid.is(earlier);
        }
        if other {
            device.state.store(DEVICE_FREE, Release);
            continue;
        }
        let limits = process.limits();
        let cores = limits.cores_for(index, uuid.text()).map_or(0, u32::from);
        let memory = limits.memory_for(index, uuid.text()).unwrap_or(0);
        device.memory_total.store(total, Relaxed);
        region.limit_memory(own, memory);
        let physical = limits.physical_for(index, uuid.text()).unwrap_or(0);
        device.physical_limit.store(physical, Relaxed);
        region.limit_cores(own, cores);
        device.state.store(DEVICE_READY, Release);
        show(region, own, uuid);
    }
}

fn position(region: &Region, uuid: &Uuid) -> Option<u8> {
    let is = |device: &Device| device.state.load(Acquire) == DEVICE_READY && uuid.is(device);
    region.ours().devices.iter().position(is).map(|found| found as u8)
}

/// Waits for a process that is writing a record: it takes microseconds, unless the process died in between.
fn wait_while_claimed(device: &Device) {
    let deadline = sys::monotonic_ns().wrapping_add(100_000_000);
    while device.state.load(Acquire) == DEVICE_CLAIMED {
        let now = sys::monotonic_ns();
        if now > deadline && lock::process_stat(device.claimed_by.load(Relaxed)).is_none() {
            let _ = device.state.compare_exchange(DEVICE_CLAIMED, DEVICE_FREE, AcqRel, Relaxed);
            return;
        }
        sys::sleep_until(now.wrapping_add(50_000));
    }
}

/// HAMi's view of a device.
fn show(region: &Region, index: usize, uuid: &Uuid) {
    let view = region.hami();
    let Some(words) = view.uuids.get(index) else { return };
    words.iter().zip(uuid.words()).for_each(|(stored, own)| stored.store(own, Relaxed));
    view.device_num.fetch_max((index as u64).wrapping_add(1), AcqRel);
}
