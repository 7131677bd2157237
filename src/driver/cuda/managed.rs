//! Memory of the host that the device reaches, and memory that never was the program's.
//!
//! # Safety
//! This file may use `unsafe` because it calls the driver with its own locals and with memory that the driver has just given.
#![allow(unsafe_code)]

use super::{CUdevice, CUdeviceptr, CUresult, current_device, sys};

/// Takes memory of the host that the device reaches, and hands its address to `write`.
#[cold]
pub fn allocate_on_host(bytes: u64, write: impl FnOnce(u64) -> bool) -> CUresult {
    let Some(allocate) = sys::cuMemAllocManaged::REAL.get() else { return CUresult::OUT_OF_MEMORY };
    let mut memory = 0;
    // SAFETY: writes an address to a local.
    let answer = unsafe { allocate(&mut memory, bytes as usize, sys::CU_MEM_ATTACH_GLOBAL) };
    if !answer.is_success() {
        return answer;
    }
    if prefer_host(memory, bytes as usize, current_device()) && write(memory) {
        return answer;
    }
    take_back(memory);
    CUresult::OUT_OF_MEMORY
}

/// `CU_DEVICE_CPU`: the host, where a device is asked for.
const CPU: CUdevice = -1;

/// Sends managed memory to the host and lets the device reach it there. False where the device cannot: it would have to
/// hold all of it while a kernel runs.
fn prefer_host(memory: CUdeviceptr, bytes: usize, ordinal: CUdevice) -> bool {
    let (Some(ask), Some(advise)) = (sys::cuDeviceGetAttribute::REAL.get(), sys::cuMemAdvise::REAL.get())
    else {
        return false;
    };
    let mut concurrent = 0;
    // SAFETY: writes an integer to a local; the range is one that the driver has just given.
    unsafe {
        ask(&mut concurrent, sys::CU_DEVICE_ATTRIBUTE_CONCURRENT_MANAGED_ACCESS, ordinal).is_success()
            && concurrent != 0
            && advise(memory, bytes, sys::CU_MEM_ADVISE_SET_PREFERRED_LOCATION, CPU).is_success()
            && advise(memory, bytes, sys::CU_MEM_ADVISE_SET_ACCESSED_BY, ordinal).is_success()
    }
}

/// Gives memory back that never was the program's.
pub fn take_back(memory: CUdeviceptr) {
    if let Some(free) = sys::cuMemFree_v2::REAL.get() {
        // SAFETY: the driver has just given it, and nobody else was told.
        unsafe { free(memory) };
    }
}
