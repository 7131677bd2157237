//! Pitched memory: the driver decides how long a row is.
//!
//! # Safety
//! This room may use `unsafe` because it reads and writes the out-parameters that the driver has just written, and calls
//! the driver with its own locals.
#![allow(unsafe_code)]

use super::memory::{allocation, spilled, take_back};
use super::{CUdeviceptr, CUresult, hooks, sys};
use crate::account::Verdict;
use crate::device::Place;
use crate::holdings::{Key, Kind};
use crate::process::Process;
use crate::spill::Room;
use core::ffi::c_uint;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

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

/// Where the driver writes an address and the length of a row: 64 bits each, or 32 in the first driver API.
#[derive(Clone, Copy)]
struct Places<T> {
    pointer: *mut T,
    pitch: *mut T,
}

impl<T: Copy + Into<u64> + TryFrom<u64>> Places<T> {
    /// What the driver has just written.
    fn read(self) -> (u64, u64) {
        // SAFETY: not null, which is looked at first, and the driver has just written to them.
        unsafe { ((*self.pointer).into(), (*self.pitch).into()) }
    }

    /// The same, written in its place. False where it does not fit.
    fn write(self, pointer: u64, pitch: u64) -> bool {
        let (Ok(pointer), Ok(pitch)) = (T::try_from(pointer), T::try_from(pitch)) else { return false };
        // SAFETY: not null, and where the driver would write.
        unsafe {
            *self.pointer = pointer;
            *self.pitch = pitch;
        }
        true
    }
}

fn allocate<T: Copy + Into<u64> + TryFrom<u64>>(
    asked: Pitched,
    places: Places<T>,
    call: impl Fn() -> CUresult,
) -> CUresult {
    let height = asked.height as u64;
    let most = longest_row(asked.width).and_then(|row| row.checked_mul(height));
    let (false, false, Some(most @ 1..)) = (places.pointer.is_null(), places.pitch.is_null(), most) else {
        return call();
    };
    allocation(&call, |process, place| {
        let on_host = || {
            let row = longest_row(asked.width).unwrap_or(0);
            let spill = || spilled(row.saturating_mul(height), |address| places.write(address, row));
            process.allocate_on_host(place.device, most, spill, || (places.read().0, place.context))
        };
        let fits = process.has_room(place.device, most, Room::Device);
        if !fits && process.spills() {
            return on_host();
        }
        let most = if fits {
            most
        } else {
            // The bound may refuse what would fit, so the driver is asked how long a row really is.
            row_of(process, place, asked).map_or(most, |row| row.saturating_mul(height))
        };
        let granted = || {
            let (pointer, row) = places.read();
            if longest_row(asked.width).is_some_and(|longest| row > longest) {
                PITCH_ALIGNMENT.fetch_max(1 << row.trailing_zeros().min(63), Relaxed);
            }
            (Key::new(Kind::Memory, pointer), place.context, row.saturating_mul(height))
        };
        let answer =
            process.allocate_at_most(place.device, most, &call, granted, || take_back(places.read().0));
        if answer.is_out_of_memory() && process.spills() { on_host() } else { answer }
    })
}

/// Bytes of a row of a pitched allocation, found by allocating a single one.
#[cold]
fn row_of(process: &Process, place: Place, asked: Pitched) -> Option<u64> {
    let most = longest_row(asked.width)?;
    if !process.has_room(place.device, most, Room::Device) {
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

hooks! { super::super::LIBCUDA, sys;
    cuMemAllocPitch: fn(
        dptr: *mut c_uint, pitch: *mut c_uint, width: c_uint, height: c_uint, element: c_uint
    ) -> CUresult = |real| {
        let asked = Pitched { width: width as usize, height: height as usize, element };
        allocate(asked, Places { pointer: dptr, pitch }, real)
    };
    cuMemAllocPitch_v2: fn(
        dptr: *mut CUdeviceptr, pitch: *mut usize, width: usize, height: usize, element: c_uint
    ) -> CUresult = |real| {
        let places = Places { pointer: dptr, pitch: pitch.cast::<u64>() };
        allocate(Pitched { width, height, element }, places, real)
    };
}
