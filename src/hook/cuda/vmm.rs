//! The virtual memory API: physical memory lives until its last handle, its last mapping and its last binding to a
//! multicast object are gone. A multicast object holds no memory of its own.
//!
//! # Safety
//! This file may use `unsafe` because it reads the caller's property record and the out-parameters that the driver
//! has just written successfully.
#![allow(unsafe_code)]

use super::memory::allocate_as_decided;
use crate::driver::cuda::{CUdevice, CUdeviceptr, CUresult, ordinal_of};
use crate::driver::sys::cuda as sys;
use crate::hook::hooks;
use crate::memory::books::Books;
use crate::memory::holdings::{Holding, Key, Kind};
use crate::memory::ops::Decision;
use crate::process::{Quota, quota};
use core::ffi::{c_ulonglong, c_void};

type Handle = sys::CUmemGenericAllocationHandle;

/// The device on which the program wants memory; `None` for the host.
fn device_of(properties: *const sys::CUmemAllocationProp) -> Option<CUdevice> {
    // SAFETY: not null, and the caller passes it to the driver, which reads it too.
    (!properties.is_null()).then(|| ordinal_of(unsafe { &(*properties).location })).flatten()
}

fn create(
    handle: *mut Handle,
    bytes: usize,
    properties: *const sys::CUmemAllocationProp,
    call: impl Fn() -> CUresult,
) -> CUresult {
    let (Some(ordinal), false, 1..) = (device_of(properties), handle.is_null(), bytes) else { return call() };
    let decision = match quota() {
        Quota::On(process) => match process.scope.of_ordinal(ordinal) {
            Some(device) => process.memory().admit(device, bytes as u64),
            None => Decision::PassThrough,
        },
        Quota::Off => Decision::PassThrough,
        Quota::Closed => Decision::Refused,
    };
    // The owner of physical memory is the number of its references.
    // SAFETY: not null, and read only after the driver has written to it.
    allocate_as_decided(decision, 1, call, || Key::new(Kind::Physical, unsafe { *handle }))
}

/// Adds a reference to physical memory (1) or removes one (-1). The last one gives the bytes back.
fn change_references(books: Books<'_>, handle: u64, by: i64) {
    let gone =
        Key::new(Kind::Physical, handle).and_then(|key| books.accounts.holdings.change_references(key, by));
    match gone {
        Some(Holding { bytes: MULTICAST, .. }) => {
            books.accounts.holdings.remove_owned(&[Kind::Binding], handle, |_, binding| {
                change_references(books, binding.bytes, -1)
            })
        }
        Some(Holding { bytes, device, journal, .. }) => books.give_back(device, journal, bytes),
        None => {}
    }
}

/// The bytes of a multicast object; no physical memory has so few.
const MULTICAST: u64 = 0;

fn record_multicast(books: Books<'_>, handle: Handle) {
    let object = Holding { bytes: MULTICAST, device: 0, journal: 0, owner: 1 };
    books.record_holding(Key::new(Kind::Physical, handle), object);
}

/// The key of a binding: a hash of the multicast object, the device and the offset.
fn binding_key(object: Handle, device: u8, offset: usize) -> Option<Key> {
    let word = object.wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(32) ^ offset as u64 ^ u64::from(device);
    Key::new(Kind::Binding, word.wrapping_mul(0xD6E8_FEB8_6659_FD93) >> 4)
}

/// Records a binding of physical memory to a multicast object.
fn record_binding(books: Books<'_>, object: Handle, offset: usize, handle: Handle) {
    let memory = Key::new(Kind::Physical, handle).and_then(|key| books.accounts.holdings.get(key));
    // A holding has 48 bits for its bytes, and here they are the memory's handle.
    let Some(Holding { device, journal, .. }) = memory.filter(|_| handle >> 48 == 0) else { return };
    if let Some(key) = binding_key(object, device, offset) {
        change_references(books, handle, 1);
        if books
            .accounts
            .holdings
            .insert(key, Holding { bytes: handle, device, journal, owner: object })
            .is_err()
        {
            change_references(books, handle, -1);
        }
    }
}

/// The same for physical memory that is given by the address of its mapping.
fn record_binding_at(books: Books<'_>, object: Handle, offset: usize, address: CUdeviceptr) {
    let (Some(retain), Some(release)) =
        (sys::cuMemRetainAllocationHandle::REAL.get(), sys::cuMemRelease::REAL.get())
    else {
        return;
    };
    let mut handle = 0;
    // SAFETY: writes a handle to a local; the address is the caller's, which the driver has just accepted.
    if unsafe { retain(&mut handle, address as *mut c_void) }.is_success() {
        record_binding(books, object, offset, handle);
        // SAFETY: the handle that was just retained.
        unsafe { release(handle) };
    }
}

fn remove_binding(books: Books<'_>, object: Handle, ordinal: CUdevice, offset: usize) {
    let device = books.scope.of_ordinal(ordinal);
    let key = device.and_then(|device| binding_key(object, device.index, offset));
    if let Some(binding) = key.and_then(|key| books.accounts.holdings.remove(key)) {
        change_references(books, binding.bytes, -1);
    }
}

/// Runs `update` after a successful call, if this process has a quota.
fn after_success(answer: CUresult, update: impl FnOnce(Books<'static>)) -> CUresult {
    if answer.is_success()
        && let Quota::On(process) = quota()
    {
        update(process.memory().books());
    }
    answer
}

/// Records a mapping of physical memory.
fn record_mapping(books: Books<'_>, address: CUdeviceptr, bytes: usize, handle: Handle) {
    let memory = Key::new(Kind::Physical, handle).and_then(|key| books.accounts.holdings.get(key));
    if let (Some(Holding { device, journal, .. }), Some(key)) = (memory, Key::new(Kind::Mapping, address)) {
        change_references(books, handle, 1);
        let mapping = Holding { bytes: bytes as u64, device, journal, owner: handle };
        if let Ok(Some(before)) = books.accounts.holdings.insert(key, mapping) {
            change_references(books, before.owner, -1);
        }
    }
}

/// Removes the mappings of a range, which covers each of them wholly.
fn remove_mappings(books: Books<'_>, address: CUdeviceptr, bytes: usize) {
    let end = address.saturating_add(bytes as u64);
    let mut at = address;
    while at < end {
        let mapping = Key::new(Kind::Mapping, at).and_then(|key| books.accounts.holdings.remove(key));
        let Some(mapping) = mapping else { return };
        change_references(books, mapping.owner, -1);
        at = at.saturating_add(mapping.bytes.max(1));
    }
}

hooks! { sys;
    cuMemCreate: fn(
        handle: *mut Handle, bytes: usize, properties: *const sys::CUmemAllocationProp, flags: c_ulonglong
    ) -> CUresult = |real| create(handle, bytes, properties, real);
    cuMemRelease: fn(handle: Handle) -> CUresult = |real| after_success(real(), |books| change_references(books, handle, -1));
    cuMemRetainAllocationHandle: fn(handle: *mut Handle, address: *mut c_void) -> CUresult
        // SAFETY: after success the driver has written to it.
        = |real| after_success(real(), |books| change_references(books, unsafe { *handle }, 1));
    cuMemMap: fn(
        address: CUdeviceptr, bytes: usize, offset: usize, handle: Handle, flags: c_ulonglong
    ) -> CUresult = |real| after_success(real(), |books| record_mapping(books, address, bytes, handle));
    cuMemUnmap: fn(address: CUdeviceptr, bytes: usize) -> CUresult
        = |real| after_success(real(), |books| remove_mappings(books, address, bytes));
    cuMulticastCreate: fn(object: *mut Handle, properties: *const sys::CUmulticastObjectProp) -> CUresult
        // SAFETY: after success the driver has written to it.
        = |real| after_success(real(), |books| record_multicast(books, unsafe { *object }));
    cuMulticastBindMem: fn(
        object: Handle, offset: usize, handle: Handle, from: usize, bytes: usize, flags: c_ulonglong
    ) -> CUresult = |real| after_success(real(), |books| record_binding(books, object, offset, handle));
    cuMulticastBindMem_v2: fn(
        object: Handle, device: CUdevice, offset: usize, handle: Handle, from: usize, bytes: usize,
        flags: c_ulonglong
    ) -> CUresult = |real| after_success(real(), |books| record_binding(books, object, offset, handle));
    cuMulticastBindAddr: fn(
        object: Handle, offset: usize, address: CUdeviceptr, bytes: usize, flags: c_ulonglong
    ) -> CUresult = |real| after_success(real(), |books| record_binding_at(books, object, offset, address));
    cuMulticastBindAddr_v2: fn(
        object: Handle, device: CUdevice, offset: usize, address: CUdeviceptr, bytes: usize, flags: c_ulonglong
    ) -> CUresult = |real| after_success(real(), |books| record_binding_at(books, object, offset, address));
    cuMulticastUnbind: fn(object: Handle, device: CUdevice, offset: usize, bytes: usize) -> CUresult
        = |real| after_success(real(), |books| remove_binding(books, object, device, offset));
}
