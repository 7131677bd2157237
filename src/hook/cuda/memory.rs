//! Device memory by address: allocations that are charged, and their frees.
//!
//! # Safety
//! This room may use `unsafe` because it reads the out-parameters that the driver has just written successfully.
#![allow(unsafe_code)]

use super::{CUdeviceptr, CUresult, hooks, sys};
use crate::account::Verdict;
use crate::device::Place;
use crate::holdings::{Key, Kind};
use crate::process::{Process, Quota, quota};
use core::ffi::c_uint;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

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
pub(super) fn key_at(pointer: *mut CUdeviceptr) -> Option<Key> {
    // SAFETY: not null, and the driver has just written to it.
    Key::new(Kind::Memory, unsafe { *pointer })
}

/// The driver pads rows to at most a multiple of this, as far as it is known; a longer row than expected teaches
/// better. What was really taken is read afterwards in any case.
static PITCH_ALIGNMENT: AtomicU64 = AtomicU64::new(512);

/// The longest row that a width may come to.
fn longest_row(width: usize) -> Option<u64> {
    (width as u64).checked_next_multiple_of(PITCH_ALIGNMENT.load(Relaxed))
}

/// A pitched allocation as it was asked for.
#[derive(Clone, Copy)]
struct Pitched {
    pointer: *mut CUdeviceptr,
    pitch: *mut usize,
    width: usize,
    height: usize,
    element: c_uint,
}

fn allocate_pitched(asked: Pitched, call: impl Fn() -> CUresult) -> CUresult {
    let height = asked.height as u64;
    let most = longest_row(asked.width).and_then(|row| row.checked_mul(height));
    let (false, false, Some(most @ 1..)) = (asked.pointer.is_null(), asked.pitch.is_null(), most) else {
        return call();
    };
    allocation(&call, |process, place| {
        let most = if process.has_room(place.device, most) {
            most
        } else {
            // The bound may refuse what would fit, so the driver is asked how long a row really is.
            row_of(process, place, asked).map_or(most, |row| row.saturating_mul(height))
        };
        let granted = || {
            // SAFETY: not null, and the driver has just written to it.
            let row = unsafe { *asked.pitch } as u64;
            if longest_row(asked.width).is_some_and(|longest| row > longest) {
                PITCH_ALIGNMENT.fetch_max(1 << row.trailing_zeros().min(63), Relaxed);
            }
            (key_at(asked.pointer), place.context, row.saturating_mul(height))
        };
        process.allocate_at_most(place.device, most, &call, granted, || {
            // SAFETY: as above.
            release(unsafe { *asked.pointer });
        })
    })
}

/// Bytes of a row of a pitched allocation, found by allocating a single one.
#[cold]
fn row_of(process: &Process, place: Place, asked: Pitched) -> Option<u64> {
    let most = longest_row(asked.width)?;
    if !process.has_room(place.device, most) {
        return None;
    }
    let allocate = cuMemAllocPitch_v2::REAL.get()?;
    let reservation = process.reserve(place.device, most)?;
    let (mut memory, mut pitch) = (0, 0);
    // SAFETY: writes to locals; the sizes are the caller's, who gives them to the driver too.
    let answer = unsafe { allocate(&mut memory, &mut pitch, asked.width, 1, asked.element) };
    if answer.is_success() {
        release(memory);
    }
    process.give_back_reservation(place.device, reservation);
    answer.is_success().then_some(pitch as u64)
}

/// Gives memory back that never was the program's.
fn release(memory: CUdeviceptr) {
    if let Some(free) = cuMemFree_v2::REAL.get() {
        // SAFETY: the driver has just given it, and nobody else was told.
        unsafe { free(memory) };
    }
}

/// A free by address.
#[inline(always)]
fn free(pointer: u64, call: impl FnOnce() -> CUresult) -> CUresult {
    match quota() {
        Quota::On(process) => process.free_any(pointer, call),
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
    ) -> CUresult = |real| allocate_pitched(Pitched { pointer: dptr, pitch, width, height, element }, real);
    cuMemFree: fn(dptr: c_uint) -> CUresult = |real| free(u64::from(dptr), real);
    cuMemFree_v2: fn(dptr: CUdeviceptr) -> CUresult = |real| free(dptr, real);
}
