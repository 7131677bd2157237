//! `cuGetProcAddress`: ask the driver, then translate by address. No names, no versions: whichever variant the
//! driver chose is the one whose hook is handed out.
//!
//! # Safety
//! This room may use `unsafe` because it rewrites the out-parameter that the driver has just written successfully.
#![allow(unsafe_code)]

use super::{CUresult, LIBCUDA, hooks, sys};
use crate::account::Verdict;
use core::ffi::{c_char, c_int, c_void};

fn translate(function: *mut *mut c_void, answer: CUresult) -> CUresult {
    if answer.is_success() && !function.is_null() {
        // SAFETY: not null, and the driver has just written to it.
        let real = unsafe { *function };
        if let Some(hook) = LIBCUDA.by_real_address(real) {
            // SAFETY: as above.
            unsafe { *function = hook.0.cast_mut() };
        }
    }
    answer
}

hooks! { super::super::LIBCUDA, sys;
    cuGetProcAddress: fn(
        symbol: *const c_char, function: *mut *mut c_void, version: c_int, flags: sys::cuuint64_t
    ) -> CUresult = |real| translate(function, real());
    cuGetProcAddress_v2: fn(
        symbol: *const c_char, function: *mut *mut c_void, version: c_int, flags: sys::cuuint64_t,
        status: *mut sys::CUdriverProcAddressQueryResult
    ) -> CUresult = |real| translate(function, real());
}
