//! Calls that take memory without a size: they load code, at once or at the first request for a function, or set heaps. The
//! library measures the overhead after them.

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

hooks! { sys;
    cuModuleLoad: fn(module: *mut sys::CUmodule, path: *const c_char) -> CUresult = |real| measured(real());
    cuModuleLoadData: fn(module: *mut sys::CUmodule, image: *const c_void) -> CUresult = |real| measured(real());
    cuModuleLoadDataEx: fn(
        module: *mut sys::CUmodule, image: *const c_void, count: c_uint, options: *mut sys::CUjit_option,
        values: *mut *mut c_void
    ) -> CUresult = |real| measured(real());
    cuModuleLoadFatBinary: fn(module: *mut sys::CUmodule, image: *const c_void) -> CUresult = |real| measured(real());
    cuModuleUnload: fn(module: sys::CUmodule) -> CUresult = |real| measured(real());
    cuLibraryLoadData: fn(
        library: *mut sys::CUlibrary, code: *const c_void, jit: *mut sys::CUjit_option, jit_values: *mut *mut c_void,
        jit_count: c_uint, options: *mut sys::CUlibraryOption, values: *mut *mut c_void, count: c_uint
    ) -> CUresult = |real| measured(real());
    cuLibraryLoadFromFile: fn(
        library: *mut sys::CUlibrary, path: *const c_char, jit: *mut sys::CUjit_option, jit_values: *mut *mut c_void,
        jit_count: c_uint, options: *mut sys::CUlibraryOption, values: *mut *mut c_void, count: c_uint
    ) -> CUresult = |real| measured(real());
    cuLibraryUnload: fn(library: sys::CUlibrary) -> CUresult = |real| measured(real());
    cuLibraryGetModule: fn(module: *mut sys::CUmodule, library: sys::CUlibrary) -> CUresult = |real| measured(real());
    cuModuleGetFunction: fn(
        function: *mut sys::CUfunction, module: sys::CUmodule, name: *const c_char
    ) -> CUresult = |real| measured(real());
    cuKernelGetFunction: fn(function: *mut sys::CUfunction, kernel: sys::CUkernel) -> CUresult
        = |real| measured(real());
    cuFuncLoad: fn(function: sys::CUfunction) -> CUresult = |real| measured(real());
    cuCtxSetLimit: fn(limit: sys::CUlimit, value: usize) -> CUresult = |real| measured(real());
}
