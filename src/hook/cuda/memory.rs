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

/// An allocation of `bytes` whose address the driver writes to `pointer`: 64 bits of it, or 32 in the first driver API.
#[inline(always)]
fn allocate<T: Copy + Into<u64>>(pointer: *mut T, bytes: u64, call: impl Fn() -> CUresult) -> CUresult {
    if pointer.is_null() || bytes == 0 {
        return call();
    }
    allocation(&call, |process, place| {
        process.allocate(place.device, bytes, &call, || {
            // SAFETY: not null, and the driver has just written to it.
            (Key::new(Kind::Memory, unsafe { *pointer }.into()), place.context)
        })
    })
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
    width: usize,
    height: usize,
    element: c_uint,
}

/// `given` reads the address and the length of a row from where the driver writes them; `None` where that is nowhere.
fn allocate_pitched(
    asked: Pitched,
    given: Option<impl Fn() -> (u64, u64)>,
    call: impl Fn() -> CUresult,
) -> CUresult {
    let height = asked.height as u64;
    let most = longest_row(asked.width).and_then(|row| row.checked_mul(height));
    let (Some(given), Some(most @ 1..)) = (given, most) else { return call() };
    allocation(&call, |process, place| {
        let most = if process.has_room(place.device, most) {
            most
        } else {
            // The bound may refuse what would fit, so the driver is asked how long a row really is.
            row_of(process, place, asked).map_or(most, |row| row.saturating_mul(height))
        };
        let granted = || {
            let (pointer, row) = given();
            if longest_row(asked.width).is_some_and(|longest| row > longest) {
                PITCH_ALIGNMENT.fetch_max(1 << row.trailing_zeros().min(63), Relaxed);
            }
            (Key::new(Kind::Memory, pointer), place.context, row.saturating_mul(height))
        };
        process.allocate_at_most(place.device, most, &call, granted, || take_back(given().0))
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
        take_back(memory);
    }
    process.give_back_reservation(place.device, reservation);
    answer.is_success().then_some(pitch as u64)
}

/// The end of what has a handle.
pub(super) fn release(kind: Kind, handle: u64, call: impl FnOnce() -> CUresult) -> CUresult {
    match quota() {
        Quota::On(process) => process.free(Key::new(kind, handle), call),
        Quota::Off | Quota::Closed => call(),
    }
}

/// Gives memory back that never was the program's.
fn take_back(memory: CUdeviceptr) {
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

hooks! { super::super::LIBCUDA, sys;
    cuMemAlloc: fn(dptr: *mut c_uint, bytes: c_uint) -> CUresult = |real| allocate(dptr, bytes.into(), real);
    cuMemAlloc_v2: fn(dptr: *mut CUdeviceptr, bytes: usize) -> CUresult
        = |real| allocate(dptr, bytes as u64, real);
    cuMemAllocManaged: fn(dptr: *mut CUdeviceptr, bytes: usize, flags: c_uint) -> CUresult
        = |real| allocate(dptr, bytes as u64, real);
    cuMemAllocPitch: fn(
        dptr: *mut c_uint, pitch: *mut c_uint, width: c_uint, height: c_uint, element: c_uint
    ) -> CUresult = |real| {
        let asked = Pitched { width: width as usize, height: height as usize, element };
        // SAFETY: not null, and read after the driver has written to them.
        let given = || unsafe { (u64::from(*dptr), u64::from(*pitch)) };
        allocate_pitched(asked, (!dptr.is_null() && !pitch.is_null()).then_some(given), real)
    };
    cuMemAllocPitch_v2: fn(
        dptr: *mut CUdeviceptr, pitch: *mut usize, width: usize, height: usize, element: c_uint
    ) -> CUresult = |real| {
        // SAFETY: not null, and read after the driver has written to them.
        let given = || unsafe { (*dptr, *pitch as u64) };
        let given = (!dptr.is_null() && !pitch.is_null()).then_some(given);
        allocate_pitched(Pitched { width, height, element }, given, real)
    };
    cuMemFree: fn(dptr: c_uint) -> CUresult = |real| free(u64::from(dptr), real);
    cuMemFree_v2: fn(dptr: CUdeviceptr) -> CUresult = |real| free(dptr, real);
}
