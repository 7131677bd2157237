//! The start of the driver, and the life of contexts: the memory of a context is freed with it.
//!
//! # Safety
//! This file may use `unsafe` because it reads the out-parameters that the driver has just written successfully.
#![allow(unsafe_code)]

use crate::driver::cuda::{CUcontext, CUdevice, CUresult, context_lives, device_count, primary_is_active};
use crate::driver::sys::cuda as sys;
use crate::hook::hooks;
use crate::process::{Process, Quota, quota, warn};
use core::ffi::{c_int, c_uint};

/// cuInit opens the region. It refuses the GPU where the library cannot keep the quota.
fn init(call: impl FnOnce() -> CUresult) -> CUresult {
    let quota = quota();
    warn();
    if matches!(quota, Quota::Closed) {
        return CUresult::CUDA_ERROR_NO_DEVICE;
    }
    let answer = call();
    if answer.is_success()
        && let Quota::On(process) = quota
    {
        // Launches first read the region's word for core limits, so the limits of all devices must be there before.
        for ordinal in 0..device_count() {
            process.scope.of_ordinal(ordinal);
        }
        process.scope.devices.tell_differences(&process.scope.container);
    }
    answer
}

/// Creates a context of a device; the driver writes its handle to `out`.
fn create<T>(out: *mut *mut T, ordinal: CUdevice, call: impl FnOnce() -> CUresult) -> CUresult {
    let (Quota::On(process), false) = (quota(), out.is_null()) else { return call() };
    let Some(device) = process.scope.of_ordinal(ordinal) else { return call() };
    // SAFETY: not null, and after success the driver has written to it.
    let context = || unsafe { *out } as u64;
    let memory = process.memory();
    let answer = memory.state.overhead.create_context(memory.books(), device, call, context);
    if answer.is_success() {
        process.scope.devices.remember_context(context(), device);
    }
    answer
}

/// Retains a primary context: the driver creates it if it is not active yet.
fn retain_primary(out: *mut CUcontext, ordinal: CUdevice, call: impl FnOnce() -> CUresult) -> CUresult {
    let Quota::On(process) = quota() else { return call() };
    let answer = if primary_is_active(ordinal) { call() } else { create(out, ordinal, call) };
    if answer.is_success() && !out.is_null() {
        // SAFETY: not null, and after success the driver has written to it.
        process.scope.devices.remember_primary(ordinal, unsafe { *out } as u64);
    }
    answer
}

/// Gives up the measured launches of a context: they stay charged as predicted.
fn forget_launches(process: &Process, context: u64) {
    let (meter, scope) = process.meter();
    meter.forget_context(scope, context);
}

/// Destroys a context. Its events must not be used afterwards, and its memory is free only afterwards.
fn destroy(context: u64, call: impl FnOnce() -> CUresult) -> CUresult {
    let Quota::On(process) = quota() else { return call() };
    forget_launches(process, context);
    let answer = call();
    if answer.is_success() {
        process.memory().context_was_destroyed(context);
    }
    answer
}

/// Gives up one use of a context in an old program; the last one destroys it.
fn detach(context: u64, call: impl FnOnce() -> CUresult) -> CUresult {
    let Quota::On(process) = quota() else { return call() };
    let answer = call();
    if answer.is_success() && !context_lives(context) {
        forget_launches(process, context);
        process.memory().context_was_destroyed(context);
    }
    answer
}

/// Resets a primary context, or gives up one use of it.
fn leave_primary(ordinal: CUdevice, reset: bool, call: impl FnOnce() -> CUresult) -> CUresult {
    let Quota::On(process) = quota() else { return call() };
    let Some(context) = process.scope.devices.primary(ordinal) else { return call() };
    forget_launches(process, context);
    let answer = call();
    if answer.is_success() && (reset || !primary_is_active(ordinal)) {
        process.memory().context_was_destroyed(context);
    }
    answer
}

hooks! { sys;
    cuInit: fn(flags: c_uint) -> CUresult = |real| init(real);
    cuCtxCreate, cuCtxCreate_v2: fn(context: *mut CUcontext, flags: c_uint, device: CUdevice) -> CUresult
        = |real| create(context, device, real);
    cuCtxCreate_v3: fn(
        context: *mut CUcontext, affinity: *mut sys::CUexecAffinityParam, count: c_int, flags: c_uint, device: CUdevice
    ) -> CUresult = |real| create(context, device, real);
    cuCtxCreate_v4: fn(
        context: *mut CUcontext, parameters: *mut sys::CUctxCreateParams, flags: c_uint, device: CUdevice
    ) -> CUresult = |real| create(context, device, real);
    cuGLCtxCreate, cuGLCtxCreate_v2: fn(context: *mut CUcontext, flags: c_uint, device: CUdevice) -> CUresult
        = |real| create(context, device, real);
    cuCtxDestroy: fn(context: CUcontext) -> CUresult = |real| destroy(context as u64, real);
    cuCtxDestroy_v2: fn(context: CUcontext) -> CUresult = |real| destroy(context as u64, real);
    cuCtxDetach: fn(context: CUcontext) -> CUresult = |real| detach(context as u64, real);
    cuGreenCtxCreate: fn(
        context: *mut sys::CUgreenCtx, resources: sys::CUdevResourceDesc, device: CUdevice, flags: c_uint
    ) -> CUresult = |real| create(context, device, real);
    cuGreenCtxDestroy: fn(context: sys::CUgreenCtx) -> CUresult = |real| destroy(context as u64, real);
    cuDevicePrimaryCtxRetain: fn(context: *mut CUcontext, device: CUdevice) -> CUresult
        = |real| retain_primary(context, device, real);
    cuDevicePrimaryCtxRelease, cuDevicePrimaryCtxRelease_v2: fn(device: CUdevice) -> CUresult
        = |real| leave_primary(device, false, real);
    cuDevicePrimaryCtxReset, cuDevicePrimaryCtxReset_v2: fn(device: CUdevice) -> CUresult
        = |real| leave_primary(device, true, real);
}
