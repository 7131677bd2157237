//! The virtual memory API: physical memory lives until its last handle and its last mapping are gone.
//!
//! # Safety
//! This room may use `unsafe` because it reads the caller's property record and the out-parameters that the driver
//! has just written successfully.
#![allow(unsafe_code)]

use super::{CUdeviceptr, CUresult, hooks, sys};
use crate::account::Verdict;
use crate::holdings::{Holding, Key, Kind};
use crate::process::{Process, Quota, quota};
use core::ffi::c_ulonglong;

type Handle = sys::CUmemGenericAllocationHandle;

/// Memory of a device; `None` for the host's.
fn device_of(properties: *const sys::CUmemAllocationProp) -> Option<i32> {
    if properties.is_null() {
        return None;
    }
    // SAFETY: not null, and the caller passes it to the driver, which reads it too.
    let location = unsafe { (*properties).location };
    (location.type_ == sys::CU_MEM_LOCATION_TYPE_DEVICE).then_some(location.__bindgen_anon_1_id())
}

/// CUDA 13 has moved the device's number into a union; one place knows.
trait LocationId {
    fn __bindgen_anon_1_id(&self) -> i32;
}

impl LocationId for sys::CUmemLocation {
    fn __bindgen_anon_1_id(&self) -> i32 {
        self.id
    }
}

fn create(
    handle: *mut Handle,
    bytes: usize,
    properties: *const sys::CUmemAllocationProp,
    call: impl Fn() -> CUresult,
) -> CUresult {
    let (Some(ordinal), false, 1..) = (device_of(properties), handle.is_null(), bytes) else { return call() };
    match quota() {
        Quota::On(process) => match process.known.of_ordinal(process, ordinal) {
            Some(device) => process.allocate(device, bytes as u64, &call, || {
                // SAFETY: not null, and the driver has just written to it.
                (Key::new(Kind::Physical, unsafe { *handle }), 1)
            }),
            None => call(),
        },
        Quota::Off => call(),
        Quota::Closed => CUresult::CUDA_ERROR_OUT_OF_MEMORY,
    }
}

/// A reference to physical memory more (1) or less (-1); with the last one the bytes go back.
fn count(process: &Process, handle: u64, by: i64) {
    let gone = Key::new(Kind::Physical, handle).and_then(|key| process.holdings.change_references(key, by));
    if let Some(Holding { bytes, device, lane, .. }) = gone {
        process.give_back(device, lane, bytes);
    }
}

/// After a successful call, if there is a quota.
fn then(answer: CUresult, note: impl FnOnce(&Process)) -> CUresult {
    if answer.is_success()
        && let Quota::On(process) = quota()
    {
        note(process);
    }
    answer
}

fn mapped(process: &Process, address: CUdeviceptr, bytes: usize, handle: Handle) {
    let known = Key::new(Kind::Physical, handle).and_then(|key| process.holdings.get(key));
    if let (Some(Holding { device, lane, .. }), Some(key)) = (known, Key::new(Kind::Mapping, address)) {
        count(process, handle, 1);
        let mapping = Holding { bytes: bytes as u64, device, lane, owner: handle };
        if let Ok(Some(before)) = process.holdings.insert(key, mapping) {
            count(process, before.owner, -1);
        }
    }
}

/// A range may cover several mappings, each of them whole.
fn unmapped(process: &Process, address: CUdeviceptr, bytes: usize) {
    let end = address.saturating_add(bytes as u64);
    let mut at = address;
    while at < end {
        let mapping = Key::new(Kind::Mapping, at).and_then(|key| process.holdings.remove(key));
        let Some(mapping) = mapping else { return };
        count(process, mapping.owner, -1);
        at = at.saturating_add(mapping.bytes.max(1));
    }
}

hooks! { super::super::LIBCUDA, sys;
    cuMemCreate: fn(
        handle: *mut Handle, bytes: usize, properties: *const sys::CUmemAllocationProp, flags: c_ulonglong
    ) -> CUresult = |real| create(handle, bytes, properties, real);
    cuMemRelease: fn(handle: Handle) -> CUresult = |real| then(real(), |process| count(process, handle, -1));
    cuMemRetainAllocationHandle: fn(handle: *mut Handle, address: *mut core::ffi::c_void) -> CUresult
        // SAFETY: after success the driver has written to it.
        = |real| then(real(), |process| count(process, unsafe { *handle }, 1));
    cuMemMap: fn(
        address: CUdeviceptr, bytes: usize, offset: usize, handle: Handle, flags: c_ulonglong
    ) -> CUresult = |real| then(real(), |process| mapped(process, address, bytes, handle));
    cuMemUnmap: fn(address: CUdeviceptr, bytes: usize) -> CUresult
        = |real| then(real(), |process| unmapped(process, address, bytes));
}
