//! Device memory by address: allocations that are charged, and their frees.
//!
//! # Safety
//! This room may use `unsafe` because it reads the out-parameters that the driver has just written successfully.
#![allow(unsafe_code)]

use super::{CUdeviceptr, CUresult, CUstream, hooks, is_capturing, sys};
use crate::device::Place;
use crate::holdings::{Key, Kind};
use crate::process::{Process, Quota, quota};
use core::ffi::c_uint;

/// An allocation in the calling thread's context: `charged` says how, where there is a quota.
#[inline(always)]
pub(super) fn allocation(
    call: impl Fn() -> CUresult,
    charged: impl FnOnce(&Process, Place) -> CUresult,
) -> CUresult {
    match quota() {
        Quota::On(process) => match process.known.place(process) {
            Some(place) => charged(process, place),
            // Without a context the driver says what is wrong.
            None => call(),
        },
        Quota::Off => call(),
        Quota::Closed => CUresult::CUDA_ERROR_OUT_OF_MEMORY,
    }
}

/// An allocation of `bytes` whose address the driver writes to `pointer`.
#[inline(always)]
fn allocate(pointer: *mut CUdeviceptr, bytes: u64, call: impl Fn() -> CUresult) -> CUresult {
    if pointer.is_null() || bytes == 0 {
        return call();
    }
    allocation(&call, |process, place| {
        process.allocate(place.device, bytes, &call, || (key_at(pointer), place.context))
    })
}

/// The key of the address that a successful call has written.
#[inline]
fn key_at(pointer: *mut CUdeviceptr) -> Option<Key> {
    // SAFETY: not null, and the driver has just written to it.
    Key::new(Kind::Memory, unsafe { *pointer })
}

/// A stream-ordered allocation. Captured, it becomes a node of a graph and takes no memory here.
#[inline]
fn allocate_in_stream(
    pointer: *mut CUdeviceptr,
    bytes: u64,
    stream: CUstream,
    per_thread: bool,
    call: impl Fn() -> CUresult,
) -> CUresult {
    if is_capturing(stream, per_thread) { call() } else { allocate(pointer, bytes, call) }
}

/// The driver pads a row to at most this many bytes, as far as any device is known; what it took is read after.
const PITCH_ALIGNMENT: u64 = 512;

fn allocate_pitched(
    pointer: *mut CUdeviceptr,
    pitch: *mut usize,
    (width, height): (usize, usize),
    call: impl Fn() -> CUresult,
) -> CUresult {
    let height = height as u64;
    let row = (width as u64).checked_next_multiple_of(PITCH_ALIGNMENT);
    let most = row.and_then(|row| row.checked_mul(height));
    let (false, false, Some(most @ 1..)) = (pointer.is_null(), pitch.is_null(), most) else { return call() };
    allocation(&call, |process, place| {
        process.allocate_at_most(place.device, most, &call, || {
            // SAFETY: not null, and the driver has just written to it.
            let taken = unsafe { *pitch } as u64;
            (key_at(pointer), place.context, taken.saturating_mul(height))
        })
    })
}

/// A free by address.
#[inline(always)]
fn free(pointer: u64, call: impl FnOnce() -> CUresult) -> CUresult {
    match quota() {
        Quota::On(process) => process.free(Key::new(Kind::Memory, pointer), call),
        Quota::Off | Quota::Closed => call(),
    }
}

/// A 32-bit out-parameter of the first driver API.
fn allocate_v1(pointer: *mut c_uint, bytes: c_uint, call: impl Fn() -> CUresult) -> CUresult {
    if pointer.is_null() || bytes == 0 {
        return call();
    }
    allocation(&call, |process, place| {
        process.allocate(place.device, u64::from(bytes), &call, || {
            // SAFETY: not null, and the driver has just written to it.
            (Key::new(Kind::Memory, u64::from(unsafe { *pointer })), place.context)
        })
    })
}

hooks! { super::super::LIBCUDA, sys;
    cuMemAlloc: fn(dptr: *mut c_uint, bytes: c_uint) -> CUresult = |real| allocate_v1(dptr, bytes, real);
    cuMemAlloc_v2: fn(dptr: *mut CUdeviceptr, bytes: usize) -> CUresult
        = |real| allocate(dptr, bytes as u64, real);
    cuMemAllocManaged: fn(dptr: *mut CUdeviceptr, bytes: usize, flags: c_uint) -> CUresult
        = |real| allocate(dptr, bytes as u64, real);
    cuMemAllocPitch_v2: fn(
        dptr: *mut CUdeviceptr, pitch: *mut usize, width: usize, height: usize, element: c_uint
    ) -> CUresult = |real| allocate_pitched(dptr, pitch, (width, height), real);
    cuMemAllocAsync: fn(dptr: *mut CUdeviceptr, bytes: usize, stream: CUstream) -> CUresult
        = |real| allocate_in_stream(dptr, bytes as u64, stream, false, real);
    cuMemAllocAsync_ptsz: fn(dptr: *mut CUdeviceptr, bytes: usize, stream: CUstream) -> CUresult
        = |real| allocate_in_stream(dptr, bytes as u64, stream, true, real);
    cuMemAllocFromPoolAsync: fn(
        dptr: *mut CUdeviceptr, bytes: usize, pool: sys::CUmemoryPool, stream: CUstream
    ) -> CUresult = |real| allocate_in_stream(dptr, bytes as u64, stream, false, real);
    cuMemAllocFromPoolAsync_ptsz: fn(
        dptr: *mut CUdeviceptr, bytes: usize, pool: sys::CUmemoryPool, stream: CUstream
    ) -> CUresult = |real| allocate_in_stream(dptr, bytes as u64, stream, true, real);
    cuMemFree: fn(dptr: c_uint) -> CUresult = |real| free(u64::from(dptr), real);
    cuMemFree_v2: fn(dptr: CUdeviceptr) -> CUresult = |real| free(dptr, real);
    cuMemFreeAsync, cuMemFreeAsync_ptsz: fn(dptr: CUdeviceptr, stream: CUstream) -> CUresult
        = |real| free(dptr, real);
}
