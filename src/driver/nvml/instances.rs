//! Devices that are split (MIG): the instances of one, and what an instance is a part of.
//!
//! # Safety
//! This file may use `unsafe` because it calls NVML with pointers to its own locals.
#![allow(unsafe_code)]

use crate::driver::sys::nvml as sys;
use core::ffi::c_uint;
use sys::{nvmlDevice_t, nvmlReturn_t};

const SUCCESS: nvmlReturn_t = nvmlReturn_t::NVML_SUCCESS;

/// Instances that a device is asked for; no device has as many.
const MOST: c_uint = 16;
/// No instance: the device is not split.
pub const NONE: [c_uint; 2] = [c_uint::MAX; 2];

/// Whether a whole device is split.
pub fn is_split(device: nvmlDevice_t) -> bool {
    let (mut now, mut later) = (0, 0);
    let Some(ask) = sys::nvmlDeviceGetMigMode::REAL.get() else { return false };
    // SAFETY: writes to locals.
    unsafe { ask(device, &mut now, &mut later) == SUCCESS && now == 1 }
}

/// The device that an instance is a part of; `None` for whole devices.
pub fn whole_of(instance: nvmlDevice_t) -> Option<nvmlDevice_t> {
    let mut whole = core::ptr::null_mut();
    // SAFETY: writes to a local.
    let told =
        unsafe { sys::nvmlDeviceGetDeviceHandleFromMigDeviceHandle::REAL.get()?(instance, &mut whole) };
    (told == SUCCESS && !whole.is_null()).then_some(whole)
}

/// Calls `visit` with each instance of a split device.
pub fn each(whole: nvmlDevice_t, visit: &mut dyn FnMut(nvmlDevice_t)) {
    let Some(ask) = sys::nvmlDeviceGetMigDeviceHandleByIndex::REAL.get() else { return };
    for place in 0..MOST {
        let mut instance = core::ptr::null_mut();
        // SAFETY: writes to a local.
        if unsafe { ask(whole, place, &mut instance) } == SUCCESS {
            visit(instance);
        }
    }
}

/// The numbers of an instance, GPU instance and compute instance; [`NONE`] for whole devices.
pub fn numbers(device: nvmlDevice_t) -> [c_uint; 2] {
    let mut numbers = NONE;
    let [gpu, compute] = &mut numbers;
    // SAFETY: writes to locals.
    let told = unsafe {
        sys::nvmlDeviceGetGpuInstanceId::REAL.get().is_some_and(|ask| ask(device, gpu) == SUCCESS)
            && sys::nvmlDeviceGetComputeInstanceId::REAL
                .get()
                .is_some_and(|ask| ask(device, compute) == SUCCESS)
    };
    if told { numbers } else { NONE }
}
