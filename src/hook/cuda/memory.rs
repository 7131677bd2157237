//! Device memory by address: allocations that are charged, and their frees.
//!
//! # Safety
//! This room may use `unsafe` because it reads the out-parameters that the driver has just written successfully, and
//! calls the driver with its own locals and with memory that it has just given.
#![allow(unsafe_code)]

use super::{CUdevice, CUdeviceptr, CUresult, cuDeviceGetAttribute, cuMemAdvise, current_device, hooks, sys};
use crate::account::Verdict;
use crate::device::Place;
use crate::holdings::{Key, Kind};
use crate::process::{Process, Quota, quota};
use core::ffi::c_uint;

/// An allocation in the calling thread's context: `charged` says how, where there is a quota.
#[inline(always)]
pub(super) fn allocation(
    call: impl Fn() -> CUresult,
    charged: impl FnOnce(&Process, Place) -> CUresult,
) -> CUresult {
    match quota() {
        Quota::On(process) => match process.known.place(process) {
            Some(place) => charged(process, place),
            // A device that the region has no room for.
            None => call(),
        },
        Quota::Off => call(),
        Quota::Closed => CUresult::CUDA_ERROR_OUT_OF_MEMORY,
    }
}

/// An allocation of `bytes` whose address the driver writes to `pointer`: 64 bits of it, or 32 in the first driver API.
#[inline(always)]
pub(super) fn allocate<T: Copy + Into<u64> + TryFrom<u64>>(
    pointer: *mut T,
    bytes: u64,
    call: impl Fn() -> CUresult,
) -> CUresult {
    if pointer.is_null() || bytes == 0 {
        return call();
    }
    allocation(&call, |process, place| {
        // SAFETY: not null, and the driver has just written to it.
        let given = || unsafe { *pointer }.into();
        if process.spills() {
            // SAFETY: as above.
            let write = |address| T::try_from(address).map(|address| unsafe { *pointer = address }).is_ok();
            let spill = || spilled(bytes, write);
            return process.allocate_or_spill(place.device, bytes, &call, spill, || (given(), place.context));
        }
        process.allocate(place.device, bytes, &call, || (Key::new(Kind::Memory, given()), place.context))
    })
}

/// Asks the host for memory that the device reaches, and hands its address to `write`.
#[cold]
pub(super) fn spilled(bytes: u64, write: impl FnOnce(u64) -> bool) -> CUresult {
    const REFUSED: CUresult = CUresult::CUDA_ERROR_OUT_OF_MEMORY;
    let Some(allocate) = cuMemAllocManaged::REAL.get() else { return REFUSED };
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
    REFUSED
}

/// `CU_DEVICE_CPU`: the host, where a device is asked for.
const CPU: CUdevice = -1;

/// Sends managed memory to the host and lets the device reach it there. False where the device cannot: it would have to
/// hold all of it while a kernel runs.
fn prefer_host(memory: CUdeviceptr, bytes: usize, ordinal: CUdevice) -> bool {
    let (Some(ask), Some(advise)) = (cuDeviceGetAttribute::REAL.get(), cuMemAdvise::REAL.get()) else {
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

/// The end of what has a handle.
pub(super) fn release(kind: Kind, handle: u64, call: impl FnOnce() -> CUresult) -> CUresult {
    match quota() {
        Quota::On(process) => process.free(Key::new(kind, handle), call),
        Quota::Off | Quota::Closed => call(),
    }
}

/// Gives memory back that never was the program's.
pub(super) fn take_back(memory: CUdeviceptr) {
    if let Some(free) = cuMemFree_v2::REAL.get() {
        // SAFETY: the driver has just given it, and nobody else was told.
        unsafe { free(memory) };
    }
}

/// A free by address.
#[inline(always)]
fn free(pointer: u64, call: impl FnOnce() -> CUresult) -> CUresult {
    match quota() {
        Quota::On(process) => process.free_any(pointer, call),
        Quota::Off | Quota::Closed => call(),
    }
}

hooks! { super::super::LIBCUDA, sys;
    cuMemAlloc: fn(dptr: *mut c_uint, bytes: c_uint) -> CUresult = |real| allocate(dptr, bytes.into(), real);
    cuMemAlloc_v2: fn(dptr: *mut CUdeviceptr, bytes: usize) -> CUresult
        = |real| allocate(dptr, bytes as u64, real);
    cuMemAllocManaged: fn(dptr: *mut CUdeviceptr, bytes: usize, flags: c_uint) -> CUresult
        = |real| allocate(dptr, bytes as u64, real);
    cuMemFree: fn(dptr: c_uint) -> CUresult = |real| free(u64::from(dptr), real);
    cuMemFree_v2: fn(dptr: CUdeviceptr) -> CUresult = |real| free(dptr, real);
}
