//! Managed memory. As on a card of the cap's size it may be larger than the cap: what does not fit lies on the host, where the
//! device reaches it, and it stays there. So calls that would move it to the device do nothing: they are hints.
//!
//! # Safety
//! This file may use `unsafe` because it reads and writes the out-parameter as the driver does, and reads the caller's lists.
#![allow(unsafe_code)]

use super::memory::{Site, allocate_or_spill};
use crate::driver::cuda::{CUdevice, CUdeviceptr, CUresult, CUstream, managed};
use crate::driver::sys::cuda as sys;
use crate::hook::hooks;
use crate::process::{Quota, quota};
use core::ffi::{c_uint, c_ulonglong};

fn allocate(pointer: *mut CUdeviceptr, bytes: u64, call: impl Fn() -> CUresult) -> CUresult {
    if pointer.is_null() || bytes == 0 {
        return call();
    }
    let (memory, place) = match Site::here() {
        Site::Charged(memory, place) => (memory, place),
        Site::Free => return call(),
        Site::Closed => return CUresult::OUT_OF_MEMORY,
    };
    memory.state.overhead.managed_memory_was_made();
    if memory.scope.container.spills() {
        return allocate_or_spill(memory, place, pointer, bytes, &call);
    }
    // SAFETY: not null, and where the driver writes.
    let write = |address| unsafe { *pointer = address };
    let on_host = || {
        managed::allocate_on_host(bytes, |address| {
            write(address);
            true
        })
    };
    // SAFETY: not null, and read only after the driver or we have written to it.
    memory.allocate_managed(place, bytes, call, on_host, || unsafe { *pointer })
}

/// Whether memory at an address was placed on the host by the library.
fn is_kept_on_host(address: CUdeviceptr) -> bool {
    let Quota::On(process) = quota() else { return false };
    process.memory().is_kept_on_host(address, managed::base_of)
}

/// Passes a hint on memory at an address, unless the library keeps that on the host and the hint would move it.
fn hint(address: CUdeviceptr, moves: bool, call: impl FnOnce() -> CUresult) -> CUresult {
    if moves && is_kept_on_host(address) { CUresult::CUDA_SUCCESS } else { call() }
}

/// The same for a list of addresses.
fn hints(addresses: *const CUdeviceptr, count: usize, call: impl FnOnce() -> CUresult) -> CUresult {
    let Quota::On(process) = quota() else { return call() };
    if addresses.is_null() || !process.memory().books().accounts.holdings.has_spilled() {
        return call();
    }
    // SAFETY: not null, and the caller passes a list of this length to the driver, which reads it too.
    let mut all = (0..count).map(|at| unsafe { *addresses.wrapping_add(at) });
    if all.any(is_kept_on_host) { CUresult::CUDA_SUCCESS } else { call() }
}

/// The host, as a device's number.
const CPU: CUdevice = -1;

/// Whether an advice may bring pages to the device: all but that the device reaches them where they are.
fn advice_moves(advice: sys::CUmem_advise) -> bool {
    advice != sys::CU_MEM_ADVISE_SET_ACCESSED_BY
}

fn is_device(location: sys::CUmemLocation) -> bool {
    location.type_ == sys::CU_MEM_LOCATION_TYPE_DEVICE
}

hooks! { sys;
    cuMemAllocManaged: fn(dptr: *mut CUdeviceptr, bytes: usize, flags: c_uint) -> CUresult
        = |real| allocate(dptr, bytes as u64, real);
    cuMemAdvise: fn(
        address: CUdeviceptr, bytes: usize, advice: sys::CUmem_advise, device: CUdevice
    ) -> CUresult = |real| hint(address, advice_moves(advice), real);
    cuMemAdvise_v2: fn(
        address: CUdeviceptr, bytes: usize, advice: sys::CUmem_advise, location: sys::CUmemLocation
    ) -> CUresult = |real| hint(address, advice_moves(advice), real);
    cuMemPrefetchAsync, cuMemPrefetchAsync_ptsz: fn(
        address: CUdeviceptr, bytes: usize, device: CUdevice, stream: CUstream
    ) -> CUresult = |real| hint(address, device != CPU, real);
    cuMemPrefetchAsync_v2, cuMemPrefetchAsync_v2_ptsz: fn(
        address: CUdeviceptr, bytes: usize, location: sys::CUmemLocation, flags: c_uint, stream: CUstream
    ) -> CUresult = |real| hint(address, is_device(location), real);
    cuMemPrefetchBatchAsync, cuMemPrefetchBatchAsync_ptsz: fn(
        addresses: *mut CUdeviceptr, sizes: *mut usize, count: usize, locations: *mut sys::CUmemLocation,
        indices: *mut usize, location_count: usize, flags: c_ulonglong, stream: CUstream
    ) -> CUresult = |real| hints(addresses, count, real);
    cuMemDiscardAndPrefetchBatchAsync, cuMemDiscardAndPrefetchBatchAsync_ptsz: fn(
        addresses: *mut CUdeviceptr, sizes: *mut usize, count: usize, locations: *mut sys::CUmemLocation,
        indices: *mut usize, location_count: usize, flags: c_ulonglong, stream: CUstream
    ) -> CUresult = |real| hints(addresses, count, real);
}
