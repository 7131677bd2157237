//! The virtual memory API: what refers to physical memory (`memory::physical` has the books).
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
    let books = match &decision {
        Decision::Granted(grant) => Some(grant.books()),
        Decision::PassThrough | Decision::Refused => None,
    };
    let memory = books.and_then(Books::new_physical);
    // The owner of physical memory is the number of its references.
    let answer = allocate_as_decided(decision, 1, call, || memory);
    if answer.is_success()
        && let Some((books, memory)) = books.zip(memory)
    {
        // SAFETY: not null, and the driver has written to it.
        books.record_handle(unsafe { *handle }, memory);
    }
    answer
}

/// A call that makes something refer to physical memory: the reference is there before it, and `record` records after it
/// what refers to the memory.
fn refer(
    find: impl FnOnce(Books<'static>) -> Option<u64>,
    call: impl FnOnce() -> CUresult,
    record: impl FnOnce(Books<'static>, u64),
) -> CUresult {
    let Quota::On(process) = quota() else { return call() };
    let books = process.memory().books();
    let memory = find(books).filter(|memory| books.keep_physical(*memory).is_some());
    let answer = call();
    match memory {
        Some(memory) if answer.is_success() => record(books, memory),
        Some(memory) => books.drop_physical(memory),
        None => {}
    }
    answer
}

fn release(handle: Handle, call: impl FnOnce() -> CUresult) -> CUresult {
    let Quota::On(process) = quota() else { return call() };
    let books = process.memory().books();
    let release = books.release_handle(handle);
    let answer = call();
    books.finish_release(release, answer.is_success());
    answer
}

/// The driver writes to `handle` a handle of the memory that is mapped at `address`: one that the program has, or a new one.
fn retain(handle: *mut Handle, address: u64, call: impl FnOnce() -> CUresult) -> CUresult {
    // SAFETY: after success the driver has written to it.
    let given = || unsafe { *handle };
    let known = |books: Books<'static>| books.physical_at(address);
    let Quota::On(process) = quota() else { return call() };
    if known(process.memory().books()).is_some() {
        return refer(known, call, |books, memory| books.use_handle(given(), memory));
    }
    after_success(call(), |books| books.use_known_handle(given()))
}

/// Binds memory to a multicast object.
fn bind(
    object: Handle,
    device: Option<CUdevice>,
    offset: usize,
    find: impl FnOnce(Books<'static>) -> Option<u64>,
    call: impl FnOnce() -> CUresult,
) -> CUresult {
    refer(find, call, |books, memory| {
        // The first form of the call leaves the device to the driver: the one on which the memory lies.
        let of_memory = || books.device_of_physical(memory);
        let device = device.map_or_else(of_memory, |ordinal| Some(books.scope.of_ordinal(ordinal)?.index));
        match books.physical_of(object).zip(device) {
            Some((object, device)) => books.record_binding(object, device, offset as u64, memory),
            None => books.drop_physical(memory),
        }
    })
}

fn unbind(books: Books<'_>, object: Handle, ordinal: CUdevice, offset: usize) {
    let device = books.scope.of_ordinal(ordinal);
    if let Some((object, device)) = books.physical_of(object).zip(device) {
        books.remove_binding(object, device.index, offset as u64);
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

hooks! { sys;
    cuMemCreate: fn(
        handle: *mut Handle, bytes: usize, properties: *const sys::CUmemAllocationProp, flags: c_ulonglong
    ) -> CUresult = |real| create(handle, bytes, properties, real);
    cuMemRelease: fn(handle: Handle) -> CUresult = |real| release(handle, real);
    cuMemRetainAllocationHandle: fn(handle: *mut Handle, address: *mut c_void) -> CUresult
        = |real| retain(handle, address as u64, real);
    cuMemMap: fn(
        address: CUdeviceptr, bytes: usize, offset: usize, handle: Handle, flags: c_ulonglong
    ) -> CUresult = |real| refer(
        |books| books.physical_of(handle), real,
        |books, memory| books.record_mapping(address, bytes as u64, memory));
    cuMemUnmap: fn(address: CUdeviceptr, bytes: usize) -> CUresult
        = |real| after_success(real(), |books| books.remove_mappings(address, bytes as u64));
    cuMulticastCreate: fn(object: *mut Handle, properties: *const sys::CUmulticastObjectProp) -> CUresult
        // SAFETY: after success the driver has written to it.
        = |real| after_success(real(), |books| books.record_multicast(unsafe { *object }));
    cuMulticastBindMem: fn(
        object: Handle, offset: usize, handle: Handle, from: usize, bytes: usize, flags: c_ulonglong
    ) -> CUresult = |real| bind(object, None, offset, |books| books.physical_of(handle), real);
    cuMulticastBindMem_v2: fn(
        object: Handle, device: CUdevice, offset: usize, handle: Handle, from: usize, bytes: usize,
        flags: c_ulonglong
    ) -> CUresult = |real| bind(object, Some(device), offset, |books| books.physical_of(handle), real);
    cuMulticastBindAddr: fn(
        object: Handle, offset: usize, address: CUdeviceptr, bytes: usize, flags: c_ulonglong
    ) -> CUresult = |real| bind(object, None, offset, |books| books.physical_at(address), real);
    cuMulticastBindAddr_v2: fn(
        object: Handle, device: CUdevice, offset: usize, address: CUdeviceptr, bytes: usize, flags: c_ulonglong
    ) -> CUresult = |real| bind(object, Some(device), offset, |books| books.physical_at(address), real);
    cuMulticastUnbind: fn(object: Handle, device: CUdevice, offset: usize, bytes: usize) -> CUresult
        = |real| after_success(real(), |books| unbind(books, object, device, offset));
}
