//! `cuGetProcAddress`: the driver answers first, and the address in its answer selects the hook. So the driver chooses the
//! variant. Name and version select the hook only where the driver answers with a function that it does not export.
//!
//! # Safety
//! This file may use `unsafe` because it reads the name that the driver has just read, and rewrites the out-parameter
//! that it has just written successfully.
#![allow(unsafe_code)]

use crate::driver::FunctionRequest;
use crate::driver::cuda::CUresult;
use crate::driver::sys::{LIBCUDA, cuda as sys};
use crate::hook::hooks;
use crate::trace::{self, Door};
use core::ffi::{CStr, c_char, c_int, c_void};

fn translate(
    symbol: *const c_char,
    function: *mut *mut c_void,
    version: c_int,
    flags: sys::cuuint64_t,
    answer: CUresult,
) -> CUresult {
    if !answer.is_success() || symbol.is_null() || function.is_null() {
        return answer;
    }
    // SAFETY: not null; the driver has just read the one and written to the other.
    let (name, real) = unsafe { (CStr::from_ptr(symbol), *function) };
    let per_thread = flags & u64::from(sys::CU_GET_PROC_ADDRESS_PER_THREAD_DEFAULT_STREAM) != 0;
    let by_request = || {
        let request = FunctionRequest { name, version, per_thread };
        if real.is_null() { None } else { LIBCUDA.hook_by_request(&request, real) }
    };
    let hook = LIBCUDA.hook_by_address(real).or_else(by_request);
    if !real.is_null() {
        trace::looked_up(Door::GetProcAddress, name, hook.is_some());
    }
    if let Some(hook) = hook {
        // SAFETY: as above.
        unsafe { *function = hook };
    }
    answer
}

hooks! { sys;
    cuGetProcAddress: fn(
        symbol: *const c_char, function: *mut *mut c_void, version: c_int, flags: sys::cuuint64_t
    ) -> CUresult = |real| translate(symbol, function, version, flags, real());
    cuGetProcAddress_v2: fn(
        symbol: *const c_char, function: *mut *mut c_void, version: c_int, flags: sys::cuuint64_t,
        status: *mut sys::CUdriverProcAddressQueryResult
    ) -> CUresult = |real| translate(symbol, function, version, flags, real());
}
