//! The life of the driver and of contexts: what a context held goes with it.
//!
//! # Safety
//! This room may use `unsafe` because it reads the out-parameters that the driver has just written successfully.
#![allow(unsafe_code)]

use super::{CUcontext, CUdevice, CUresult, device_count, hooks, primary_is_active, sys};
use crate::account::Verdict;
use crate::process::{Quota, quota, speak};
use core::ffi::c_uint;

/// cuInit attaches to the region, and is where a quota that cannot be kept is refused.
fn init(call: impl FnOnce() -> CUresult) -> CUresult {
    let quota = quota();
    speak();
    if matches!(quota, Quota::Closed) {
        return CUresult::CUDA_ERROR_NO_DEVICE;
    }
    let answer = call();
    if answer.is_success()
        && let Quota::On(process) = quota
    {
        // Launches look at the region's word before they look at anything else, so limits must be there first.
        for ordinal in 0..device_count() {
            process.known.of_ordinal(process, ordinal);
        }
    }
    answer
}

/// A context goes. Its events must not be touched once it is gone, its memory is free only then.
fn destroy(context: u64, call: impl FnOnce() -> CUresult) -> CUresult {
    let Quota::On(process) = quota() else { return call() };
    process.meter.forget_context(process, context);
    let answer = call();
    if answer.is_success() {
        process.context_is_gone(context);
    }
    answer
}

/// A primary context is reset, or released by one of its users.
fn leave_primary(ordinal: CUdevice, reset: bool, call: impl FnOnce() -> CUresult) -> CUresult {
    let Quota::On(process) = quota() else { return call() };
    let Some(context) = process.known.primary(ordinal) else { return call() };
    process.meter.forget_context(process, context);
    let answer = call();
    if answer.is_success() && (reset || !primary_is_active(ordinal)) {
        process.context_is_gone(context);
    }
    answer
}

fn retain_primary(context: *mut CUcontext, ordinal: CUdevice, answer: CUresult) -> CUresult {
    if answer.is_success()
        && let Quota::On(process) = quota()
    {
        // SAFETY: after success the driver has written to it.
        process.known.is_primary(ordinal, unsafe { *context } as u64);
    }
    answer
}

hooks! { super::super::LIBCUDA, sys;
    cuInit: fn(flags: c_uint) -> CUresult = |real| init(real);
    cuCtxDestroy: fn(context: CUcontext) -> CUresult = |real| destroy(context as u64, real);
    cuCtxDestroy_v2: fn(context: CUcontext) -> CUresult = |real| destroy(context as u64, real);
    cuDevicePrimaryCtxRetain: fn(context: *mut CUcontext, device: CUdevice) -> CUresult
        = |real| retain_primary(context, device, real());
    cuDevicePrimaryCtxRelease, cuDevicePrimaryCtxRelease_v2: fn(device: CUdevice) -> CUresult
        = |real| leave_primary(device, false, real);
    cuDevicePrimaryCtxReset, cuDevicePrimaryCtxReset_v2: fn(device: CUdevice) -> CUresult
        = |real| leave_primary(device, true, real);
}
