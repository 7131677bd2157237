//! Memory that processes share: the maker's calls that let others open it, and the calls that open it.
//!
//! # Safety
//! This file may use `unsafe` because it reads what the driver has written for the caller.
#![allow(unsafe_code)]

use crate::driver::cuda::{CUdeviceptr, CUresult, managed};
use crate::driver::sys::cuda as sys;
use crate::hook::hooks;
use crate::memory::books::Books;
use crate::process::{Quota, quota};
use core::ffi::{c_uint, c_ulonglong, c_void};

type Handle = sys::CUmemGenericAllocationHandle;

/// After a call that lets other processes open memory; `bytes` tells of how many.
fn export(call: impl FnOnce() -> CUresult, bytes: impl FnOnce(Books<'static>) -> Option<u64>) -> CUresult {
    let answer = call();
    if answer.is_success()
        && let Quota::On(process) = quota()
        && let books = process.memory().books()
        && let Some(bytes) = bytes(books)
    {
        books.was_exported(bytes);
    }
    answer
}

/// A call that opens another process's memory.
fn import(call: impl FnOnce() -> CUresult) -> CUresult {
    match quota() {
        Quota::On(process) => match process.scope.place() {
            Some(place) => process.memory().import(place.device, call),
            None => call(),
        },
        Quota::Off | Quota::Closed => call(),
    }
}

/// A call that opens memory of another process's pool.
fn import_from_pool(
    memory: *mut CUdeviceptr,
    pool: sys::CUmemoryPool,
    call: impl FnOnce() -> CUresult,
) -> CUresult {
    match quota() {
        Quota::On(process) => match process.scope.place() {
            Some(place) => {
                // SAFETY: read after the call's success, so the driver has written to it.
                let address = || unsafe { *memory };
                process.memory().import_from_pool(place.device, pool as u64, call, address)
            }
            None => call(),
        },
        Quota::Off | Quota::Closed => call(),
    }
}

hooks! { sys;
    cuIpcGetMemHandle: fn(handle: *mut sys::CUipcMemHandle, memory: CUdeviceptr) -> CUresult
        = |real| export(real, |_| managed::bytes_of(memory));
    cuIpcOpenMemHandle: fn(memory: *mut CUdeviceptr, handle: sys::CUipcMemHandle, flags: c_uint) -> CUresult
        = |real| import(real);
    cuIpcOpenMemHandle_v2: fn(memory: *mut CUdeviceptr, handle: sys::CUipcMemHandle, flags: c_uint) -> CUresult
        = |real| import(real);
    cuMemExportToShareableHandle: fn(
        shared: *mut c_void, handle: Handle, kind: sys::CUmemAllocationHandleType, flags: c_ulonglong
    ) -> CUresult = |real| export(real, |books| books.bytes_of_handle(handle));
    cuMemImportFromShareableHandle: fn(
        handle: *mut Handle, shared: *mut c_void, kind: sys::CUmemAllocationHandleType
    ) -> CUresult = |real| import(real);
    cuMemPoolExportPointer: fn(shared: *mut sys::CUmemPoolPtrExportData, memory: CUdeviceptr) -> CUresult
        = |real| export(real, |_| managed::bytes_of(memory));
    cuMemPoolImportPointer: fn(
        memory: *mut CUdeviceptr, pool: sys::CUmemoryPool, shared: *mut sys::CUmemPoolPtrExportData
    ) -> CUresult = |real| import_from_pool(memory, pool, real);
}
