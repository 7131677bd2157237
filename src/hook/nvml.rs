//! NVML: the container's memory as its tools read it.
//!
//! # Safety
//! This room may use `unsafe` because it calls NVML with pointers to its own locals, and rewrites the records that
//! NVML has just written successfully.
#![allow(unsafe_code)]

pub mod activity;
pub mod figure;
mod instances;
pub mod private;
pub mod processes;
pub mod settings;

use super::{Missing, calls, hooks};
use crate::device::{Meant, Told, Uuid};
use crate::driver::{Entry, Library, open, sys::nvml as sys};
use crate::process::{Process, Quota, quota};
use crate::report::{self, Memory};
use core::ffi::{c_char, c_uint};
use core::sync::atomic::{AtomicU8, Ordering::Acquire, Ordering::Release};
use sys::{nvmlDevice_t, nvmlMemory_t, nvmlMemory_v2_t, nvmlReturn_t};

/// NVML.
pub static LIBNVML: Library = Library::new(
    c"libnvidia-ml.so.1",
    "libnvidia-ml.so",
    &[c"nvmlInit_v2", c"nvmlDeviceGetMemoryInfo"],
    TABLES,
);

static TABLES: &[&[Entry]] =
    &[TABLE, processes::TABLE, activity::TABLE, settings::TABLE, private::TABLE, CALLED, instances::CALLED];

const SUCCESS: nvmlReturn_t = nvmlReturn_t::NVML_SUCCESS;

impl Missing for nvmlReturn_t {
    const MISSING: Self = Self::NVML_ERROR_FUNCTION_NOT_FOUND;
}

calls! { super::LIBNVML, sys;
    nvmlDeviceGetUUID: fn(nvmlDevice_t, *mut c_char, c_uint) -> nvmlReturn_t;
    nvmlDeviceGetIndex: fn(nvmlDevice_t, *mut c_uint) -> nvmlReturn_t;
    nvmlInit_v2: fn() -> nvmlReturn_t;
    nvmlSystemGetDriverVersion: fn(*mut c_char, c_uint) -> nvmlReturn_t;
    nvmlDeviceGetHandleByUUID: fn(*const c_char, *mut nvmlDevice_t) -> nvmlReturn_t;
    nvmlDeviceGetHandleByIndex_v2: fn(c_uint, *mut nvmlDevice_t) -> nvmlReturn_t;
}

/// Loads and initialises NVML for ourselves, once in a process. NVML counts how often it was initialised; ours is
/// never undone, so whoever shuts it down for himself does not shut it down for us.
fn initialise() -> bool {
    /// 0: not tried yet; 1: done; 2: there is none.
    static DONE: AtomicU8 = AtomicU8::new(0);
    if DONE.load(Acquire) == 0 {
        open(LIBNVML.soname, libc::RTLD_LAZY | libc::RTLD_LOCAL);
        // SAFETY: takes no arguments.
        let done = nvmlInit_v2::REAL.get().is_some_and(|init| unsafe { init() } == SUCCESS);
        DONE.store(if done { 1 } else { 2 }, Release);
    }
    DONE.load(Acquire) == 1
}

/// The handle of a device or an instance.
fn handle(uuid: &Uuid) -> Option<nvmlDevice_t> {
    let find = nvmlDeviceGetHandleByUUID::REAL.get()?;
    let ask = |uuid: &Uuid| {
        let mut device = core::ptr::null_mut();
        // SAFETY: writes a handle to a local; the text is a C string.
        (unsafe { find(uuid.as_c_str().as_ptr(), &mut device) } == SUCCESS).then_some(device)
    };
    // Not every CUDA tells a MIG instance from a whole device.
    ask(uuid).or_else(|| ask(&uuid.as_mig()))
}

/// A device's index among the container's, as NVML counts them.
pub fn index_of(uuid: &Uuid) -> Option<u32> {
    if initialise() { index(handle(uuid)?) } else { None }
}

/// The same by handle. An instance has no index among devices, only one among its siblings: it goes by its device's.
fn index(device: nvmlDevice_t) -> Option<u32> {
    let mut index = 0;
    let whole = instances::whole_of(device).unwrap_or(device);
    let Some(ask) = nvmlDeviceGetIndex::REAL.get() else {
        return (0..MOST).find(|index| handle_at(*index) == Some(whole));
    };
    // SAFETY: writes to a local.
    (unsafe { ask(whole, &mut index) } == SUCCESS).then_some(index)
}

/// Devices that are looked through; no machine has as many.
const MOST: c_uint = 64;

/// The handle of a device by its index.
fn handle_at(index: c_uint) -> Option<nvmlDevice_t> {
    let mut device = core::ptr::null_mut();
    // SAFETY: writes a handle to a local.
    (unsafe { nvmlDeviceGetHandleByIndex_v2::REAL.get()?(index, &mut device) } == SUCCESS).then_some(device)
}

/// Writes a device's UUID; false if NVML does not tell.
fn uuid_of(device: nvmlDevice_t, uuid: &mut Uuid) -> bool {
    let Some(ask) = nvmlDeviceGetUUID::REAL.get() else { return false };
    let mut text = [0u8; 96];
    // SAFETY: writes to a local, whose length is passed along.
    let told = unsafe { ask(device, text.as_mut_ptr().cast(), 96) } == SUCCESS;
    if told {
        uuid.push(text.split(|byte| *byte == 0).next().unwrap_or(&[]));
    }
    told
}

/// Writes the UUID of the device with this index, for a CUDA that tells none.
pub fn uuid_at(index: u32, uuid: &mut Uuid) -> bool {
    initialise() && handle_at(index).is_some_and(|device| uuid_of(device, uuid))
}

/// UUID text and index of a device of `total` bytes.
fn describe(device: nvmlDevice_t, uuid: &mut Uuid, total: u64) -> Option<Told> {
    if instances::is_split(device) {
        return Some(Told::Split);
    }
    if uuid_of(device, uuid) {
        return Some(Told::Device(index(device).unwrap_or(0), total));
    }
    Some(Told::Nameless(index(device)?, total))
}

/// What an NVML handle stands for; its memory is `total` bytes, or 0 where that is not known.
fn meant(process: &Process, device: nvmlDevice_t, total: u64) -> Option<Meant> {
    process.known.of_handle(process, device as u64, |uuid| describe(device, uuid, total))
}

/// The slice of a device, from what NVML said of the whole: of a split one the slices of its instances together.
fn slice(device: nvmlDevice_t, total: u64, free: u64) -> Option<Memory> {
    let Quota::On(process) = quota() else { return None };
    match meant(process, device, total)? {
        Meant::One(index) => report::memory(process, index, total, free),
        Meant::Split => slices(device),
    }
}

fn slices(whole: nvmlDevice_t) -> Option<Memory> {
    let ask = nvmlDeviceGetMemoryInfo::REAL.get()?;
    let mut all = Some(Memory { total: 0, used: 0, free: 0 });
    instances::each(whole, &mut |instance| {
        let mut memory = nvmlMemory_t { total: 0, free: 0, used: 0 };
        // SAFETY: writes to a local.
        let told = unsafe { ask(instance, &mut memory) } == SUCCESS;
        let part = if told { slice(instance, memory.total, memory.free) } else { None };
        all = all.zip(part).map(|(all, part)| Memory {
            total: all.total.saturating_add(part.total),
            used: all.used.saturating_add(part.used),
            free: all.free.saturating_add(part.free),
        });
    });
    all.filter(|all| all.total > 0)
}

fn memory(device: nvmlDevice_t, memory: *mut nvmlMemory_t, answer: nvmlReturn_t) -> nvmlReturn_t {
    if answer == SUCCESS && !memory.is_null() {
        // SAFETY: not null, and NVML has just written it.
        let memory = unsafe { &mut *memory };
        if let Some(slice) = slice(device, memory.total, memory.free) {
            memory.total = slice.total;
            memory.used = slice.total.saturating_sub(slice.free);
            memory.free = slice.free;
        }
    }
    answer
}

fn memory_v2(device: nvmlDevice_t, memory: *mut nvmlMemory_v2_t, answer: nvmlReturn_t) -> nvmlReturn_t {
    if answer == SUCCESS && !memory.is_null() {
        // SAFETY: not null, and NVML has just written it.
        let memory = unsafe { &mut *memory };
        if let Some(slice) = slice(device, memory.total, memory.free) {
            memory.total = slice.total;
            memory.reserved = 0;
            memory.used = slice.total.saturating_sub(slice.free);
            memory.free = slice.free;
        }
    }
    answer
}

hooks! { super::LIBNVML, sys;
    nvmlDeviceGetMemoryInfo, nvmlDeviceGetConfComputeProtectedMemoryUsage: fn(
        device: nvmlDevice_t, info: *mut nvmlMemory_t
    ) -> nvmlReturn_t
        = |real| memory(device, info, real());
    nvmlDeviceGetMemoryInfo_v2: fn(device: nvmlDevice_t, info: *mut nvmlMemory_v2_t) -> nvmlReturn_t
        = |real| memory_v2(device, info, real());
}
