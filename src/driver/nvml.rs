//! Typed questions to NVML. No policy: the answers are NVML's.
//!
//! # Safety
//! This file may use `unsafe` because it calls NVML with pointers to its own locals.
#![allow(unsafe_code)]

pub mod instances;
pub mod process_memory;

use super::loader::open;
use super::sys::{LIBNVML, nvml as sys};
use crate::uuid::Uuid;
use core::ffi::c_uint;
use core::sync::atomic::{AtomicU8, Ordering::Acquire, Ordering::Release};
use sys::{nvmlDevice_t, nvmlReturn_t};

const SUCCESS: nvmlReturn_t = nvmlReturn_t::NVML_SUCCESS;

/// Loads and initialises NVML for ourselves, once in a process. NVML counts how often it was initialised; ours is
/// never undone, so whoever shuts it down for himself does not shut it down for us.
fn initialise() -> bool {
    /// 0: not tried yet; 1: done; 2: there is none.
    static DONE: AtomicU8 = AtomicU8::new(0);
    if DONE.load(Acquire) == 0 {
        open(LIBNVML.soname, libc::RTLD_LAZY | libc::RTLD_LOCAL);
        // SAFETY: takes no arguments.
        let done = sys::nvmlInit_v2::REAL.get().is_some_and(|init| unsafe { init() } == SUCCESS);
        DONE.store(if done { 1 } else { 2 }, Release);
    }
    DONE.load(Acquire) == 1
}

/// The handle of a device or an instance.
fn handle(uuid: &Uuid) -> Option<nvmlDevice_t> {
    let find = sys::nvmlDeviceGetHandleByUUID::REAL.get()?;
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
pub fn index(device: nvmlDevice_t) -> Option<u32> {
    let mut index = 0;
    let whole = instances::whole_of(device).unwrap_or(device);
    let Some(ask) = sys::nvmlDeviceGetIndex::REAL.get() else {
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
    (unsafe { sys::nvmlDeviceGetHandleByIndex_v2::REAL.get()?(index, &mut device) } == SUCCESS)
        .then_some(device)
}

/// Writes a device's UUID; false if NVML does not tell.
pub fn uuid_of(device: nvmlDevice_t, uuid: &mut Uuid) -> bool {
    let Some(ask) = sys::nvmlDeviceGetUUID::REAL.get() else { return false };
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
