//! The hooks of NVML: the container's slice, as its tools read it.
//!
//! # Safety
//! This file may use `unsafe` because it calls NVML with pointers to its own locals, and rewrites the records that
//! NVML has just written successfully.
#![allow(unsafe_code)]

pub mod activity;
pub mod private;
pub mod processes;
pub mod settings;
pub mod utilisation;

use super::{Missing, hooks};
use crate::devices::Target;
use crate::driver::nvml::instances;
use crate::driver::sys::nvml as sys;
use crate::process::{Process, Quota, quota};
use crate::view::{self, Slice};
use sys::{nvmlBAR1Memory_t, nvmlDevice_t, nvmlMemory_t, nvmlMemory_v2_t, nvmlReturn_t};

const SUCCESS: nvmlReturn_t = nvmlReturn_t::NVML_SUCCESS;

impl Missing for nvmlReturn_t {
    const MISSING: Self = Self::NVML_ERROR_FUNCTION_NOT_FOUND;
}

/// The target of an NVML handle. `total`: bytes of the device, or 0 where the caller does not know them.
fn target(process: &Process, device: nvmlDevice_t, total: u64) -> Option<Target> {
    process.scope.devices.of_handle(&process.scope.container, device, total)
}

/// The slice of a device, from NVML's figures for the whole device. For a split device: the sum of its instances' slices.
fn slice(device: nvmlDevice_t, total: u64, free: u64) -> Option<Slice> {
    let Quota::On(process) = quota() else { return None };
    match target(process, device, total)? {
        Target::One(device) => view::slice(process.memory(), device, total, free),
        Target::Split => sum_of_slices(device),
    }
}

fn sum_of_slices(whole: nvmlDevice_t) -> Option<Slice> {
    let mut sum = Some(Slice { total: 0, used: 0, free: 0 });
    instances::each(whole, &mut |instance| {
        let part = whole_of(instance).and_then(|[total, free]| slice(instance, total, free));
        sum = sum.zip(part).map(|(sum, part)| Slice {
            total: sum.total.saturating_add(part.total),
            used: sum.used.saturating_add(part.used),
            free: sum.free.saturating_add(part.free),
        });
    });
    sum.filter(|sum| sum.total > 0)
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

/// The window through which the host reaches the device's memory, no larger than the slice. How much of it is the
/// container's NVML does not say: at most what the container holds.
fn window(device: nvmlDevice_t, window: *mut nvmlBAR1Memory_t, answer: nvmlReturn_t) -> nvmlReturn_t {
    if answer == SUCCESS && !window.is_null() {
        // SAFETY: not null, and NVML has just written it.
        let window = unsafe { &mut *window };
        if let Some(slice) = whole_of(device).and_then(|[total, free]| slice(device, total, free)) {
            window.bar1Total = window.bar1Total.min(slice.total);
            window.bar1Used = window.bar1Used.min(slice.used).min(window.bar1Total);
            window.bar1Free = window.bar1Total.saturating_sub(window.bar1Used);
        }
    }
    answer
}

/// NVML's own figures for the memory of the whole device: total and free.
fn whole_of(device: nvmlDevice_t) -> Option<[u64; 2]> {
    let mut memory = nvmlMemory_t { total: 0, free: 0, used: 0 };
    // SAFETY: writes to a local.
    let answer = unsafe { sys::nvmlDeviceGetMemoryInfo::REAL.get()?(device, &mut memory) };
    (answer == SUCCESS).then_some([memory.total, memory.free])
}

hooks! { sys;
    nvmlDeviceGetBAR1MemoryInfo: fn(device: nvmlDevice_t, info: *mut nvmlBAR1Memory_t) -> nvmlReturn_t
        = |real| window(device, info, real());
    nvmlDeviceGetMemoryInfo, nvmlDeviceGetConfComputeProtectedMemoryUsage: fn(
        device: nvmlDevice_t, info: *mut nvmlMemory_t
    ) -> nvmlReturn_t
        = |real| memory(device, info, real());
    nvmlDeviceGetMemoryInfo_v2: fn(device: nvmlDevice_t, info: *mut nvmlMemory_v2_t) -> nvmlReturn_t
        = |real| memory_v2(device, info, real());
}
