//! Host memory that the device can reach, and frees of memory that the program has not seen.
//!
//! # Safety
//! This file may use `unsafe` because it calls the driver with its own locals and with memory that the driver has just given.
#![allow(unsafe_code)]

use super::{CUdevice, CUdeviceptr, CUresult, current_device, sys};

/// Allocates host memory that the device can reach, and passes its address to `write`. Frees it if `write` answers false.
#[cold]
pub fn allocate_on_host(bytes: u64, write: impl FnOnce(u64) -> bool) -> CUresult {
    let Some(allocate) = sys::cuMemAllocManaged::REAL.get() else { return CUresult::OUT_OF_MEMORY };
    if !reaches_host_memory(current_device()) {
        return CUresult::OUT_OF_MEMORY;
    }
    let mut memory = 0;
    // Memory that is attached to the host begins there. A device that reaches it at any time needs no other attachment.
    // SAFETY: writes an address to a local.
    let answer = unsafe { allocate(&mut memory, bytes as usize, sys::CU_MEM_ATTACH_HOST) };
    if !answer.is_success() {
        return answer;
    }
    if prefer_host(memory, bytes as usize, current_device()) && write(memory) {
        return answer;
    }
    free_unseen(memory);
    CUresult::OUT_OF_MEMORY
}

/// `CU_DEVICE_CPU`: the host, as the argument for a device.
const CPU: CUdevice = -1;

/// Whether a device reaches managed memory that lies on the host. Another device would have to hold all of it while a kernel
/// runs.
fn reaches_host_memory(ordinal: CUdevice) -> bool {
    let Some(query) = sys::cuDeviceGetAttribute::REAL.get() else { return false };
    let (attribute, mut concurrent) = (sys::CU_DEVICE_ATTRIBUTE_CONCURRENT_MANAGED_ACCESS, 0);
    // SAFETY: writes an integer to a local.
    unsafe { query(&mut concurrent, attribute, ordinal) }.is_success() && concurrent != 0
}

/// Places managed memory on the host and lets the device reach it there. False if the driver refuses.
fn prefer_host(memory: CUdeviceptr, bytes: usize, ordinal: CUdevice) -> bool {
    let Some(advise) = sys::cuMemAdvise::REAL.get() else { return false };
    // SAFETY: the range is one that the driver has just given.
    unsafe {
        advise(memory, bytes, sys::CU_MEM_ADVISE_SET_PREFERRED_LOCATION, CPU).is_success()
            && advise(memory, bytes, sys::CU_MEM_ADVISE_SET_ACCESSED_BY, ordinal).is_success()
    }
}

/// Whether the driver has an allocation that begins at an address; false where it does not say.
pub fn is_allocated(address: CUdeviceptr) -> bool {
    range_of(address).is_some_and(|(base, _)| base == address)
}

/// The bytes of the allocation of an address.
pub fn bytes_of(address: CUdeviceptr) -> Option<u64> {
    range_of(address).map(|(_, bytes)| bytes as u64)
}

/// Where the allocation of an address begins, and its bytes.
fn range_of(address: CUdeviceptr) -> Option<(CUdeviceptr, usize)> {
    let (mut base, mut bytes) = (0, 0);
    // SAFETY: writes two integers to locals; an address that is none of the driver's is an error.
    let query = |query: sys::cuMemGetAddressRange_v2::F| unsafe { query(&mut base, &mut bytes, address) };
    let answer = sys::cuMemGetAddressRange_v2::REAL.get().map(query)?;
    answer.is_success().then_some((base, bytes))
}

/// The address at which the allocation of an address begins.
pub fn base_of(address: CUdeviceptr) -> Option<CUdeviceptr> {
    let mut base: CUdeviceptr = 0;
    let attribute = sys::CU_POINTER_ATTRIBUTE_RANGE_START_ADDR;
    // SAFETY: writes an address to a local; for an address that is none of the driver's it answers with an error.
    let answer =
        unsafe { sys::cuPointerGetAttribute::REAL.get()?((&raw mut base).cast(), attribute, address) };
    answer.is_success().then_some(base)
}

/// Frees memory that the driver has given and the program has not seen.
pub fn free_unseen(memory: CUdeviceptr) {
    if let Some(free) = sys::cuMemFree_v2::REAL.get() {
        // SAFETY: the driver has just given it, and no other code has its address.
        unsafe { free(memory) };
    }
}
