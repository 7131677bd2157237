//! Launches: each asks the share first.
//!
//! # Safety
//! This room may use `unsafe` because it reads the caller's launch configuration.
#![allow(unsafe_code)]

use super::{CUresult, CUstream, graph::with_memory, hooks, sys};
use crate::meter::{self, Launch};
use crate::process::{Quota, quota};
use core::ffi::{c_uint, c_void};
use core::sync::atomic::Ordering::Relaxed;
use gpuquota_quota::share;

/// A launch. Where no device of the container has a core limit this is one look at a shared word.
#[inline(always)]
fn launch(
    stream: CUstream,
    per_thread: bool,
    key: impl FnOnce() -> u64,
    call: impl FnOnce() -> CUresult,
) -> CUresult {
    let Quota::On(process) = quota() else { return call() };
    let Some(region) = process.region() else { return call() };
    // HAMi's monitor takes a container for idle that never says otherwise.
    let recent = &region.hami().recent_kernel;
    if (0..2).contains(&recent.load(Relaxed)) {
        recent.store(2, Relaxed);
    }
    if meter::is_idle(&region.ours().header) {
        return call();
    }
    match process.known.place(process) {
        Some(place) => process.meter.launch(process, place, &Launch { key: key(), stream, per_thread }, call),
        None => call(),
    }
}

/// The key of a function with its geometry.
fn key_of(function: sys::CUfunction, grid: [c_uint; 3], block: [c_uint; 3], shared: c_uint) -> u64 {
    let pair = |a: c_uint, b: c_uint| u64::from(a) << 32 | u64::from(b);
    let ([gx, gy, gz], [bx, by, bz]) = (grid, block);
    share::key(&[function as u64, pair(gx, gy), pair(gz, bx), pair(by, bz), u64::from(shared)])
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

hooks! { super::super::LIBCUDA, sys;
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
    cuGraphLaunch: fn(graph: sys::CUgraphExec, stream: CUstream) -> CUresult
        = |real| launch(stream, false, || share::key(&[graph as u64]), || with_memory(graph, real));
    cuGraphLaunch_ptsz: fn(graph: sys::CUgraphExec, stream: CUstream) -> CUresult
        = |real| launch(stream, true, || share::key(&[graph as u64]), || with_memory(graph, real));
}
