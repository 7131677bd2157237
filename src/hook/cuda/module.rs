//! What takes memory and does not say how much: code that is loaded, at once or when a function is first asked for,
//! heaps that are set. Measured afterwards.

use super::{CUresult, hooks, sys};
use crate::account::Verdict;
use crate::process::{Quota, quota};
use core::ffi::{c_char, c_uint, c_void};

/// After the call, if it changed anything.
fn settled(answer: CUresult) -> CUresult {
    if answer.is_success()
        && let Quota::On(process) = quota()
    {
        process.settle_after_load();
    }
    answer
}

hooks! { super::super::LIBCUDA, sys;
    cuModuleLoad: fn(module: *mut sys::CUmodule, path: *const c_char) -> CUresult = |real| settled(real());
    cuModuleLoadData: fn(module: *mut sys::CUmodule, image: *const c_void) -> CUresult = |real| settled(real());
    cuModuleLoadDataEx: fn(
        module: *mut sys::CUmodule, image: *const c_void, count: c_uint, options: *mut sys::CUjit_option,
        values: *mut *mut c_void
    ) -> CUresult = |real| settled(real());
    cuModuleLoadFatBinary: fn(module: *mut sys::CUmodule, image: *const c_void) -> CUresult = |real| settled(real());
    cuModuleUnload: fn(module: sys::CUmodule) -> CUresult = |real| settled(real());
    cuLibraryLoadData: fn(
        library: *mut sys::CUlibrary, code: *const c_void, jit: *mut sys::CUjit_option, jit_values: *mut *mut c_void,
        jit_count: c_uint, options: *mut sys::CUlibraryOption, values: *mut *mut c_void, count: c_uint
    ) -> CUresult = |real| settled(real());
    cuLibraryLoadFromFile: fn(
        library: *mut sys::CUlibrary, path: *const c_char, jit: *mut sys::CUjit_option, jit_values: *mut *mut c_void,
        jit_count: c_uint, options: *mut sys::CUlibraryOption, values: *mut *mut c_void, count: c_uint
    ) -> CUresult = |real| settled(real());
    cuLibraryUnload: fn(library: sys::CUlibrary) -> CUresult = |real| settled(real());
    cuLibraryGetModule: fn(module: *mut sys::CUmodule, library: sys::CUlibrary) -> CUresult = |real| settled(real());
    cuModuleGetFunction: fn(
        function: *mut sys::CUfunction, module: sys::CUmodule, name: *const c_char
    ) -> CUresult = |real| settled(real());
    cuKernelGetFunction: fn(function: *mut sys::CUfunction, kernel: sys::CUkernel) -> CUresult
        = |real| settled(real());
    cuFuncLoad: fn(function: sys::CUfunction) -> CUresult = |real| settled(real());
    cuCtxSetLimit: fn(limit: sys::CUlimit, value: usize) -> CUresult = |real| settled(real());
}
