//! Devices that are split (MIG): the instances of a device, and the device of an instance.
//!
//! # Safety
//! This file may use `unsafe` because it calls NVML with pointers to its own locals.
#![allow(unsafe_code)]

use crate::driver::sys::nvml as sys;
use core::ffi::c_uint;
use sys::{nvmlDevice_t, nvmlReturn_t};

const SUCCESS: nvmlReturn_t = nvmlReturn_t::NVML_SUCCESS;

/// The search for instances of a device tries so many indices; no device has more.
const MAX_INSTANCES: c_uint = 16;
/// The numbers of a device that is no instance.
pub const NONE: [c_uint; 2] = [c_uint::MAX; 2];

/// Whether a whole device is split.
pub fn is_split(device: nvmlDevice_t) -> bool {
    let (mut current, mut pending) = (0, 0);
    let Some(query) = sys::nvmlDeviceGetMigMode::REAL.get() else { return false };
    // SAFETY: writes to locals.
    unsafe { query(device, &mut current, &mut pending) == SUCCESS && current == 1 }
}

/// The whole device of an instance; `None` for whole devices.
pub fn whole_of(instance: nvmlDevice_t) -> Option<nvmlDevice_t> {
    let mut whole = core::ptr::null_mut();
    // SAFETY: writes to a local.
    let answer =
        unsafe { sys::nvmlDeviceGetDeviceHandleFromMigDeviceHandle::REAL.get()?(instance, &mut whole) };
    (answer == SUCCESS && !whole.is_null()).then_some(whole)
}

/// Calls `visit` with each instance of a split device.
pub fn each(whole: nvmlDevice_t, visit: &mut dyn FnMut(nvmlDevice_t)) {
    let Some(query) = sys::nvmlDeviceGetMigDeviceHandleByIndex::REAL.get() else { return };
    for index in 0..MAX_INSTANCES {
        let mut instance = core::ptr::null_mut();
        // SAFETY: writes to a local.
        if unsafe { query(whole, index, &mut instance) } == SUCCESS {
            visit(instance);
        }
    }
}

/// The numbers of an instance: that of its GPU instance and that of its compute instance; [`NONE`] for whole devices.
pub fn numbers(device: nvmlDevice_t) -> [c_uint; 2] {
    let mut numbers = NONE;
    let [gpu, compute] = &mut numbers;
    // SAFETY: writes to locals.
    let found = unsafe {
        sys::nvmlDeviceGetGpuInstanceId::REAL.get().is_some_and(|query| query(device, gpu) == SUCCESS)
            && sys::nvmlDeviceGetComputeInstanceId::REAL
                .get()
                .is_some_and(|query| query(device, compute) == SUCCESS)
    };
    if found { numbers } else { NONE }
}
