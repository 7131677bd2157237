//! The start of the driver, and the life of contexts: the memory of a context is freed with it.
//!
//! # Safety
//! This file may use `unsafe` because it reads the out-parameters that the driver has just written successfully.
#![allow(unsafe_code)]

use crate::driver::cuda::contexts::{destroy_context, destroy_green_context, release_primary};
use crate::driver::cuda::{
    CUcontext, CUdevice, CUresult, context_lives, context_number, context_of_green, device_count,
    primary_is_active,
};
use crate::driver::sys::cuda as sys;
use crate::hook::hooks;
use crate::memory::contexts::Sort;
use crate::memory::departure::Departure;
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

/// Creates a context of a device, unless it `exists`. The driver writes what `name` makes a handle of to `out`; `undo`
/// destroys it again.
fn create<T>(
    (out, name): (*mut *mut T, impl Fn(*mut T) -> u64),
    ordinal: CUdevice,
    sort: Sort,
    exists: impl FnOnce() -> bool,
    call: impl FnOnce() -> CUresult,
    undo: impl FnOnce(*mut T),
) -> CUresult {
    let (Quota::On(process), false) = (quota(), out.is_null()) else { return call() };
    let Some(device) = process.scope.of_ordinal(ordinal) else { return call() };
    // SAFETY: not null, and after success the driver has written to it.
    let written = || unsafe { *out };
    let context = || name(written());
    let answer = process.memory().create_context(device, sort, exists, call, context, || undo(written()));
    if answer.is_success() {
        process.scope.devices.remember_context(context(), device);
    }
    answer
}

/// Creates a context by one of the calls that make a full one.
fn create_full(out: *mut CUcontext, ordinal: CUdevice, call: impl FnOnce() -> CUresult) -> CUresult {
    create((out, |context| context as u64), ordinal, Sort::Full, || false, call, destroy_context)
}

/// Retains a primary context: the driver creates it if it is not active yet.
fn retain_primary(out: *mut CUcontext, ordinal: CUdevice, call: impl FnOnce() -> CUresult) -> CUresult {
    let Quota::On(process) = quota() else { return call() };
    let answer = if primary_is_active(ordinal) {
        call()
    } else {
        let exists = || primary_is_active(ordinal);
        let handle = (out, |context| context as u64);
        create(handle, ordinal, Sort::Full, exists, call, |_| release_primary(ordinal))
    };
    if answer.is_success() && !out.is_null() {
        // SAFETY: not null, and after success the driver has written to it.
        process.scope.devices.remember_primary(ordinal, unsafe { *out } as u64);
        process.scope.devices.retain_primary(ordinal);
    }
    answer
}

/// Makes a call that may destroy a context. `is_gone` tells after its success whether it has.
fn depart(
    process: &Process,
    context: u64,
    call: impl FnOnce() -> CUresult,
    is_gone: impl FnOnce() -> bool,
    settle: impl FnOnce(Departure),
) -> CUresult {
    let (memory, (meter, scope)) = (process.memory(), process.meter());
    let departure = memory.context_departs(context);
    meter.context_departs(scope, context, departure.tag);
    let answer = call();
    if answer.is_success() && is_gone() {
        meter.forget_context(scope, departure.tag);
        settle(departure);
    } else {
        meter.rename_context(departure.tag, context);
        memory.context_stays(departure);
    }
    answer
}

/// Gives back the memory of a destroyed context.
fn settle(process: &Process) -> impl FnOnce(Departure) {
    let memory = process.memory();
    move |departure| memory.context_was_destroyed(departure.tag)
}

/// Destroys a context.
fn destroy(context: u64, call: impl FnOnce() -> CUresult) -> CUresult {
    let Quota::On(process) = quota() else { return call() };
    depart(process, context, call, || true, settle(process))
}

/// Gives up one use of a context in an old program; the last one destroys it.
fn detach(context: u64, call: impl FnOnce() -> CUresult) -> CUresult {
    let Quota::On(process) = quota() else { return call() };
    depart(process, context, call, || !context_lives(context), settle(process))
}

/// Resets a primary context, or gives up one use of it.
fn leave_primary(ordinal: CUdevice, reset: bool, call: impl FnOnce() -> CUresult) -> CUresult {
    let Quota::On(process) = quota() else { return call() };
    let devices = &process.scope.devices;
    let Some(context) = devices.primary(ordinal) else { return call() };
    if reset {
        devices.reset_primary(ordinal);
    } else if !devices.release_primary(ordinal) {
        return release_one_of_many(process, ordinal, context, call);
    }
    let number = context_number(context);
    // Another thread may have retained it anew since, and got the same handle.
    let is_another = || devices.primary(ordinal) != Some(context) || context_number(context) != number;
    let is_gone = || reset || !primary_is_active(ordinal) || is_another();
    let answer = depart(process, context, call, is_gone, settle(process));
    if !answer.is_success() && !reset {
        devices.retain_primary(ordinal);
    }
    answer
}

/// Releases a primary context that the program still uses: nothing of it is touched.
fn release_one_of_many(
    process: &Process,
    ordinal: CUdevice,
    context: u64,
    call: impl FnOnce() -> CUresult,
) -> CUresult {
    let answer = call();
    if !answer.is_success() {
        process.scope.devices.retain_primary(ordinal);
    } else if !primary_is_active(ordinal) {
        // A release that the library did not see.
        primary_has_gone(process, context);
    }
    answer
}

fn primary_has_gone(process: &Process, context: u64) {
    let (meter, scope) = process.meter();
    meter.forget_context(scope, context);
    process.memory().context_was_destroyed(context);
}

/// Creates a green context. Programs make current, and the driver names, the context behind it.
fn create_green(out: *mut sys::CUgreenCtx, ordinal: CUdevice, call: impl FnOnce() -> CUresult) -> CUresult {
    let name = |green| context_of_green(green).unwrap_or(green as u64);
    create((out, name), ordinal, Sort::Green, || false, call, destroy_green_context)
}

/// Destroys a green context, which may be the last use of its device's primary context.
fn destroy_green(green: sys::CUgreenCtx, call: impl FnOnce() -> CUresult) -> CUresult {
    let Quota::On(process) = quota() else { return call() };
    let (memory, devices) = (process.memory(), &process.scope.devices);
    let context = context_of_green(green).unwrap_or(green as u64);
    let active = |(ordinal, _): &(CUdevice, u64)| primary_is_active(*ordinal);
    let before = devices.primaries().filter(active).fold(0u64, |set, (ordinal, _)| set | bit(ordinal));
    let answer = depart(
        process,
        context,
        call,
        || true,
        |departure| {
            let primary = departure.device.and_then(|device| {
                let on_it = |(ordinal, _): &(CUdevice, u64)| {
                    process.scope.of_ordinal(*ordinal).is_some_and(|here| here.index == device.index)
                };
                devices.primaries().find(on_it)
            });
            memory.green_context_was_destroyed(departure.tag, primary.map_or(0, |(_, context)| context));
        },
    );
    if answer.is_success() {
        let was_active = |(ordinal, _): &(CUdevice, u64)| before & bit(*ordinal) != 0;
        for (_, context) in devices.primaries().filter(was_active).filter(|primary| !active(primary)) {
            primary_has_gone(process, context);
        }
    }
    answer
}

/// The bit of a device in a set of devices.
fn bit(ordinal: CUdevice) -> u64 {
    1u64.checked_shl(ordinal.cast_unsigned()).unwrap_or(0)
}

hooks! { sys;
    cuInit: fn(flags: c_uint) -> CUresult = |real| init(real);
    cuCtxCreate, cuCtxCreate_v2: fn(context: *mut CUcontext, flags: c_uint, device: CUdevice) -> CUresult
        = |real| create_full(context, device, real);
    cuCtxCreate_v3: fn(
        context: *mut CUcontext, affinity: *mut sys::CUexecAffinityParam, count: c_int, flags: c_uint, device: CUdevice
    ) -> CUresult = |real| create_full(context, device, real);
    cuCtxCreate_v4: fn(
        context: *mut CUcontext, parameters: *mut sys::CUctxCreateParams, flags: c_uint, device: CUdevice
    ) -> CUresult = |real| create_full(context, device, real);
    cuGLCtxCreate, cuGLCtxCreate_v2: fn(context: *mut CUcontext, flags: c_uint, device: CUdevice) -> CUresult
        = |real| create_full(context, device, real);
    cuCtxDestroy: fn(context: CUcontext) -> CUresult = |real| destroy(context as u64, real);
    cuCtxDestroy_v2: fn(context: CUcontext) -> CUresult = |real| destroy(context as u64, real);
    cuCtxDetach: fn(context: CUcontext) -> CUresult = |real| detach(context as u64, real);
    cuGreenCtxCreate: fn(
        context: *mut sys::CUgreenCtx, resources: sys::CUdevResourceDesc, device: CUdevice, flags: c_uint
    ) -> CUresult = |real| create_green(context, device, real);
    cuGreenCtxDestroy: fn(context: sys::CUgreenCtx) -> CUresult = |real| destroy_green(context, real);
    cuDevicePrimaryCtxRetain: fn(context: *mut CUcontext, device: CUdevice) -> CUresult
        = |real| retain_primary(context, device, real);
    cuDevicePrimaryCtxRelease, cuDevicePrimaryCtxRelease_v2: fn(device: CUdevice) -> CUresult
        = |real| leave_primary(device, false, real);
    cuDevicePrimaryCtxReset, cuDevicePrimaryCtxReset_v2: fn(device: CUdevice) -> CUresult
        = |real| leave_primary(device, true, real);
}
