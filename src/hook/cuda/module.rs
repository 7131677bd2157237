//! Calls that take memory without a size: they load code, at once or at the first request for a function, or set heaps. The
//! library measures the overhead after them. Code that turns out to be more than fits is unloaded again.
//!
//! # Safety
//! This file may use `unsafe` because it reads the handle that the driver has just written, and unloads what it names.
#![allow(unsafe_code)]

use crate::driver::cuda::CUresult;
use crate::driver::sys::cuda as sys;
use crate::hook::hooks;
use crate::process::{Quota, quota};
use core::ffi::{c_char, c_uint, c_void};

/// Measures the overhead after a successful call.
fn measured(answer: CUresult) -> CUresult {
    if answer.is_success()
        && let Quota::On(process) = quota()
    {
        process.measure_after_load();
    }
    answer
}

/// Makes a call that loads code and writes its handle; `unload` undoes it.
fn load<H: Copy>(
    handle: *mut H,
    unload: Option<unsafe extern "C" fn(H) -> CUresult>,
    call: impl FnOnce() -> CUresult,
) -> CUresult {
    let undo = || {
        if let Some(unload) = unload {
            // SAFETY: the driver has just written the handle, which nobody else has seen.
            unsafe { unload(*handle) };
        }
    };
    if let Quota::On(process) = quota()
        && let Some(place) = process.scope.place()
    {
        return process.memory().load_code(place.device, call, undo);
    }
    call()
}

fn load_module(module: *mut sys::CUmodule, call: impl FnOnce() -> CUresult) -> CUresult {
    load(module, sys::cuModuleUnload::REAL.get(), call)
}

fn load_library(library: *mut sys::CUlibrary, call: impl FnOnce() -> CUresult) -> CUresult {
    load(library, sys::cuLibraryUnload::REAL.get(), call)
}

/// Sets a limit of the current context.
fn set_limit(limit: sys::CUlimit, value: u64, call: impl FnOnce() -> CUresult) -> CUresult {
    match quota() {
        Quota::On(process) => match process.scope.place() {
            Some(place) => process.memory().set_limit(place.device, limit, value, call),
            None => call(),
        },
        Quota::Off | Quota::Closed => call(),
    }
}

hooks! { sys;
    cuModuleLoad: fn(module: *mut sys::CUmodule, path: *const c_char) -> CUresult = |real| load_module(module, real);
    cuModuleLoadData: fn(module: *mut sys::CUmodule, image: *const c_void) -> CUresult
        = |real| load_module(module, real);
    cuModuleLoadDataEx: fn(
        module: *mut sys::CUmodule, image: *const c_void, count: c_uint, options: *mut sys::CUjit_option,
        values: *mut *mut c_void
    ) -> CUresult = |real| load_module(module, real);
    cuModuleLoadFatBinary: fn(module: *mut sys::CUmodule, image: *const c_void) -> CUresult
        = |real| load_module(module, real);
    cuModuleUnload: fn(module: sys::CUmodule) -> CUresult = |real| measured(real());
    cuLibraryLoadData: fn(
        library: *mut sys::CUlibrary, code: *const c_void, jit: *mut sys::CUjit_option, jit_values: *mut *mut c_void,
        jit_count: c_uint, options: *mut sys::CUlibraryOption, values: *mut *mut c_void, count: c_uint
    ) -> CUresult = |real| load_library(library, real);
    cuLibraryLoadFromFile: fn(
        library: *mut sys::CUlibrary, path: *const c_char, jit: *mut sys::CUjit_option, jit_values: *mut *mut c_void,
        jit_count: c_uint, options: *mut sys::CUlibraryOption, values: *mut *mut c_void, count: c_uint
    ) -> CUresult = |real| load_library(library, real);
    cuLibraryUnload: fn(library: sys::CUlibrary) -> CUresult = |real| measured(real());
    cuLibraryGetModule: fn(module: *mut sys::CUmodule, library: sys::CUlibrary) -> CUresult = |real| measured(real());
    cuModuleGetFunction: fn(
        function: *mut sys::CUfunction, module: sys::CUmodule, name: *const c_char
    ) -> CUresult = |real| measured(real());
    cuKernelGetFunction: fn(function: *mut sys::CUfunction, kernel: sys::CUkernel) -> CUresult
        = |real| measured(real());
    cuFuncLoad: fn(function: sys::CUfunction) -> CUresult = |real| measured(real());
    cuCtxSetLimit: fn(limit: sys::CUlimit, value: usize) -> CUresult = |real| set_limit(limit, value as u64, real);
}
