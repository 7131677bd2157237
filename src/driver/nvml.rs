//! Typed questions to NVML. No policy: the answers are NVML's.
//!
//! # Safety
//! This file may use `unsafe` because it calls NVML with pointers to its own locals.
#![allow(unsafe_code)]

pub mod instances;
pub mod pids;
pub mod process_memory;
mod records;
pub mod samples;

use super::loader::open;
use super::sys::{LIBNVML, nvml as sys};
use crate::uuid::Uuid;
use core::ffi::c_uint;
use core::sync::atomic::{AtomicU8, Ordering::Acquire, Ordering::Release};
use sys::{nvmlDevice_t, nvmlReturn_t};

const SUCCESS: nvmlReturn_t = nvmlReturn_t::NVML_SUCCESS;

/// Loads and initialises NVML for this library, once in a process. NVML counts its initialisations and this one is
/// never undone, so NVML stays usable when the program shuts it down.
fn initialise() -> bool {
    /// 0: not tried yet; 1: NVML is usable; 2: it is not.
    static STATE: AtomicU8 = AtomicU8::new(0);
    if STATE.load(Acquire) == 0 {
        open(LIBNVML.soname, libc::RTLD_LAZY | libc::RTLD_LOCAL);
        // SAFETY: takes no arguments.
        let usable = sys::nvmlInit_v2::REAL.get().is_some_and(|init| unsafe { init() } == SUCCESS);
        STATE.store(if usable { 1 } else { 2 }, Release);
    }
    STATE.load(Acquire) == 1
}

/// The handle of a device or an instance.
fn handle(uuid: &Uuid) -> Option<nvmlDevice_t> {
    let find = sys::nvmlDeviceGetHandleByUUID::REAL.get()?;
    let query = |uuid: &Uuid| {
        let mut device = core::ptr::null_mut();
        // SAFETY: writes a handle to a local; the text is a C string.
        (unsafe { find(uuid.as_c_str().as_ptr(), &mut device) } == SUCCESS).then_some(device)
    };
    // Not every CUDA distinguishes a MIG instance from a whole device.
    query(uuid).or_else(|| query(&uuid.as_mig()))
}

/// A device's index among the container's devices, in NVML's numbering.
pub fn index_of(uuid: &Uuid) -> Option<u32> {
    if initialise() { index(handle(uuid)?) } else { None }
}

/// The same by handle. An instance has an index only among the instances of its device, so it gets its device's index.
pub fn index(device: nvmlDevice_t) -> Option<u32> {
    let mut index = 0;
    let whole = instances::whole_of(device).unwrap_or(device);
    let Some(query) = sys::nvmlDeviceGetIndex::REAL.get() else {
        return (0..MAX_DEVICES).find(|index| handle_at(*index) == Some(whole));
    };
    // SAFETY: writes to a local.
    (unsafe { query(whole, &mut index) } == SUCCESS).then_some(index)
}

/// The search for a device by its index goes through so many; no machine has more.
const MAX_DEVICES: c_uint = 64;

/// The handle of a device by its index.
fn handle_at(index: c_uint) -> Option<nvmlDevice_t> {
    let mut device = core::ptr::null_mut();
    // SAFETY: writes a handle to a local.
    (unsafe { sys::nvmlDeviceGetHandleByIndex_v2::REAL.get()?(index, &mut device) } == SUCCESS)
        .then_some(device)
}

/// Writes a device's UUID; false if NVML does not give it.
pub fn uuid_of(device: nvmlDevice_t, uuid: &mut Uuid) -> bool {
    let Some(query) = sys::nvmlDeviceGetUUID::REAL.get() else { return false };
    let mut text = [0u8; 96];
    // SAFETY: writes to a local, whose length is passed along.
    let found = unsafe { query(device, text.as_mut_ptr().cast(), 96) } == SUCCESS;
    if found {
        uuid.push(text.split(|byte| *byte == 0).next().unwrap_or(&[]));
    }
    found
}

/// Writes the UUID of the device with this index, for a CUDA that gives none.
pub fn uuid_at(index: u32, uuid: &mut Uuid) -> bool {
    initialise() && handle_at(index).is_some_and(|device| uuid_of(device, uuid))
}
