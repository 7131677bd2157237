//! NVML: the container's memory as its tools read it.
//!
//! # Safety
//! This room may use `unsafe` because it calls NVML with pointers to its own locals, and rewrites the records that
//! NVML has just written successfully.
#![allow(unsafe_code)]

pub mod activity;
pub mod figure;
pub mod private;
pub mod processes;
pub mod settings;

use super::{Missing, calls, hooks};
use crate::device::Uuid;
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
    &[TABLE, processes::TABLE, activity::TABLE, settings::TABLE, private::TABLE, CALLED];

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

/// A device's index among the container's, as NVML counts them.
pub fn index_of(uuid: &Uuid) -> Option<u32> {
    if !initialise() {
        return None;
    }
    let (find, ask) = (nvmlDeviceGetHandleByUUID::REAL.get()?, nvmlDeviceGetIndex::REAL.get()?);
    let (mut device, mut index) = (core::ptr::null_mut(), 0);
    // SAFETY: writes to locals; the text is a C string.
    let found = unsafe {
        find(uuid.as_c_str().as_ptr(), &mut device) == SUCCESS && ask(device, &mut index) == SUCCESS
    };
    found.then_some(index)
}

/// UUID text and index of a device.
fn describe(device: nvmlDevice_t, uuid: &mut Uuid) -> Option<u32> {
    let mut text = [0u8; 96];
    let mut index = 0;
    // SAFETY: writes to locals, whose length is passed along.
    unsafe {
        if nvmlDeviceGetUUID::REAL.get()?(device, text.as_mut_ptr().cast(), 96) != SUCCESS {
            return None;
        }
        // MIG devices have no index of their own; they count as the first.
        if nvmlDeviceGetIndex::REAL.get()?(device, &mut index) != SUCCESS {
            index = 0;
        }
    }
    uuid.push(text.split(|byte| *byte == 0).next().unwrap_or(&[]));
    Some(index)
}

/// Region index of an NVML device whose memory is `total` bytes, or 0 where that is not known.
fn device_index(process: &Process, device: nvmlDevice_t, total: u64) -> Option<u8> {
    let describe = |uuid: &mut Uuid| describe(device, uuid).map(|index| (index, total));
    process.known.of_handle(process, device as u64, describe)
}

/// The slice of a device, from what NVML said of the whole.
fn slice(device: nvmlDevice_t, total: u64, free: u64) -> Option<Memory> {
    let Quota::On(process) = quota() else { return None };
    report::memory(process, device_index(process, device, total)?, total, free)
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
