//! Launches: a share or a lease may delay each of them. The library never delays or charges stream memory operations, host
//! functions, events, copies and fills, because these are not kernels.
//!
//! # Safety
//! This file may use `unsafe` because it reads the caller's launch configurations.
#![allow(unsafe_code)]

use super::graph::with_memory;
use crate::container::hami;
use crate::driver::cuda::{CUresult, CUstream, context_of};
use crate::driver::sys::cuda as sys;
use crate::hook::hooks;
use crate::process::{Process, Quota, quota_unchecked};
use crate::time::LaunchCall;
use core::ffi::{c_int, c_uint, c_void};
use gpuquota_quota::share;

/// The process, if its launches may have to wait. In a container without core limits, leases and a monitor's block this
/// reads two shared words,
/// and counts the call.
#[inline(always)]
fn throttled() -> Option<&'static Process> {
    let Quota::On(process) = quota_unchecked() else { return None };
    let container = &process.scope.container;
    let throttled = hami::report_launch(container.hami(), container.header()) || !container.is_unthrottled();
    if throttled {
        return Some(process);
    }
    process.count_time();
    None
}

/// A launch in the current context.
#[inline(always)]
fn launch(
    stream: CUstream,
    per_thread: bool,
    key: impl FnOnce() -> u64,
    call: impl Fn() -> CUresult + Copy,
) -> CUresult {
    let Some(process) = throttled() else { return call() };
    // The slow path borrows a copy of its own, so that an unthrottled launch need not store its arguments.
    let copy = call;
    launch_metered(process, &LaunchCall { key: key(), stream, per_thread }, &copy)
}

#[inline(never)]
fn launch_metered(process: &Process, launch: &LaunchCall, call: &dyn Fn() -> CUresult) -> CUresult {
    process.make_whole();
    let (meter, scope) = process.meter();
    match process.scope.place() {
        Some(place) => meter.launch(scope, place, launch, call),
        None => call(),
    }
}

/// One launch on several devices: it waits for each device's share in turn, and then makes the call.
fn launch_on_all(
    list: *const sys::CUDA_LAUNCH_PARAMS,
    count: c_uint,
    call: impl Fn() -> CUresult,
) -> CUresult {
    let Some(process) = throttled().filter(|_| !list.is_null() && count <= MAX_DEVICES) else {
        return call();
    };
    process.make_whole();
    // SAFETY: not null, and the caller passes as many to the driver, which reads them too.
    let all = unsafe { core::slice::from_raw_parts(list, count as usize) };
    launch_each(process, all, &call)
}

/// A longer list goes to the driver unmetered; no machine has more devices.
const MAX_DEVICES: c_uint = 64;

fn launch_each(process: &Process, all: &[sys::CUDA_LAUNCH_PARAMS], call: &dyn Fn() -> CUresult) -> CUresult {
    let Some((first, rest)) = all.split_first() else { return call() };
    let place = context_of(first.hStream)
        .and_then(|context| process.scope.devices.place_of(&process.scope.container, context));
    let Some(place) = place else { return launch_each(process, rest, call) };
    let grid = [first.gridDimX, first.gridDimY, first.gridDimZ];
    let block = [first.blockDimX, first.blockDimY, first.blockDimZ];
    let key = key_of(first.function, grid, block, first.sharedMemBytes);
    let launch = LaunchCall { key, stream: first.hStream, per_thread: false };
    let (meter, scope) = process.meter();
    meter.launch(scope, place, &launch, || launch_each(process, rest, call))
}

/// The key of a launch: the function and its geometry.
fn key_of(function: sys::CUfunction, grid: [c_uint; 3], block: [c_uint; 3], shared: c_uint) -> u64 {
    let pair = |a: c_uint, b: c_uint| u64::from(a) << 32 | u64::from(b);
    let ([gx, gy, gz], [bx, by, bz]) = (grid, block);
    share::key(&[function as u64, pair(gx, gy), pair(gz, bx), pair(by, bz), u64::from(shared)])
}

/// The key of an old launch, which uses the block shape of the last `cuFuncSetBlockShape`.
fn key_of_grid(function: sys::CUfunction, width: c_int, height: c_int) -> u64 {
    share::key(&[function as u64, u64::from(width.unsigned_abs()), u64::from(height.unsigned_abs())])
}

fn key_of_configuration(configuration: *const sys::CUlaunchConfig, function: sys::CUfunction) -> u64 {
    if configuration.is_null() {
        return 0;
    }
    // SAFETY: not null, and the caller passes it to the driver, which reads it too.
    let c = unsafe { &*configuration };
    let (grid, block) = ([c.gridDimX, c.gridDimY, c.gridDimZ], [c.blockDimX, c.blockDimY, c.blockDimZ]);
    key_of(function, grid, block, c.sharedMemBytes)
}

fn stream_of(configuration: *const sys::CUlaunchConfig) -> CUstream {
    // SAFETY: as above.
    if configuration.is_null() { core::ptr::null_mut() } else { unsafe { (*configuration).hStream } }
}

hooks! { sys;
    cuLaunchKernel: fn(
        function: sys::CUfunction, gx: c_uint, gy: c_uint, gz: c_uint, bx: c_uint, by: c_uint, bz: c_uint,
        shared: c_uint, stream: CUstream, parameters: *mut *mut c_void, extra: *mut *mut c_void
    ) -> CUresult = |real| launch(stream, false, || key_of(function, [gx, gy, gz], [bx, by, bz], shared), real);
    cuLaunchKernel_ptsz: fn(
        function: sys::CUfunction, gx: c_uint, gy: c_uint, gz: c_uint, bx: c_uint, by: c_uint, bz: c_uint,
        shared: c_uint, stream: CUstream, parameters: *mut *mut c_void, extra: *mut *mut c_void
    ) -> CUresult = |real| launch(stream, true, || key_of(function, [gx, gy, gz], [bx, by, bz], shared), real);
    cuLaunchCooperativeKernel: fn(
        function: sys::CUfunction, gx: c_uint, gy: c_uint, gz: c_uint, bx: c_uint, by: c_uint, bz: c_uint,
        shared: c_uint, stream: CUstream, parameters: *mut *mut c_void
    ) -> CUresult = |real| launch(stream, false, || key_of(function, [gx, gy, gz], [bx, by, bz], shared), real);
    cuLaunchCooperativeKernel_ptsz: fn(
        function: sys::CUfunction, gx: c_uint, gy: c_uint, gz: c_uint, bx: c_uint, by: c_uint, bz: c_uint,
        shared: c_uint, stream: CUstream, parameters: *mut *mut c_void
    ) -> CUresult = |real| launch(stream, true, || key_of(function, [gx, gy, gz], [bx, by, bz], shared), real);
    cuLaunchKernelEx: fn(
        configuration: *const sys::CUlaunchConfig, function: sys::CUfunction,
        parameters: *mut *mut c_void, extra: *mut *mut c_void
    ) -> CUresult
        = |real| launch(stream_of(configuration), false, || key_of_configuration(configuration, function), real);
    cuLaunchKernelEx_ptsz: fn(
        configuration: *const sys::CUlaunchConfig, function: sys::CUfunction,
        parameters: *mut *mut c_void, extra: *mut *mut c_void
    ) -> CUresult
        = |real| launch(stream_of(configuration), true, || key_of_configuration(configuration, function), real);
    cuLaunch: fn(function: sys::CUfunction) -> CUresult
        = |real| launch(core::ptr::null_mut(), false, || share::key(&[function as u64]), real);
    cuLaunchGrid: fn(function: sys::CUfunction, width: c_int, height: c_int) -> CUresult
        = |real| launch(core::ptr::null_mut(), false, || key_of_grid(function, width, height), real);
    cuLaunchGridAsync: fn(function: sys::CUfunction, width: c_int, height: c_int, stream: CUstream) -> CUresult
        = |real| launch(stream, false, || key_of_grid(function, width, height), real);
    cuLaunchCooperativeKernelMultiDevice: fn(
        list: *mut sys::CUDA_LAUNCH_PARAMS, count: c_uint, flags: c_uint
    ) -> CUresult = |real| launch_on_all(list, count, real);
    cuGraphLaunch: fn(graph: sys::CUgraphExec, stream: CUstream) -> CUresult
        = |real| launch(stream, false, || share::key(&[graph as u64]), || with_memory(graph, real));
    cuGraphLaunch_ptsz: fn(graph: sys::CUgraphExec, stream: CUstream) -> CUresult
        = |real| launch(stream, true, || share::key(&[graph as u64]), || with_memory(graph, real));
}
