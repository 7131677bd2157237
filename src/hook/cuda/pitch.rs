//! Pitched memory: the driver decides how long a row is.
//!
//! # Safety
//! This file may use `unsafe` because it reads and writes the out-parameters that the driver has just written, and calls
//! the driver with its own locals.
#![allow(unsafe_code)]

use super::memory::Site;
use crate::devices::Place;
use crate::driver::cuda::{CUdeviceptr, CUresult, managed};
use crate::driver::sys::cuda as sys;
use crate::hook::hooks;
use crate::memory::Memory;
use core::ffi::c_uint;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// The driver pads rows to a multiple of at most so many bytes. A longer row than this predicts raises the number. Charges
/// use the true length of a row, which the driver writes.
static PITCH_ALIGNMENT: AtomicU64 = AtomicU64::new(512);

/// The longest row of a width that the driver may use.
fn longest_row(width: usize) -> Option<u64> {
    (width as u64).checked_next_multiple_of(PITCH_ALIGNMENT.load(Relaxed))
}

/// The program's request for a pitched allocation.
#[derive(Clone, Copy)]
struct PitchRequest {
    width: usize,
    height: usize,
    element: c_uint,
}

/// The out-parameters for an address and the length of a row: 64 bits each, or 32 in the first driver API.
#[derive(Clone, Copy)]
struct OutParameters<T> {
    pointer: *mut T,
    pitch: *mut T,
}

impl<T: Copy + Into<u64> + TryFrom<u64>> OutParameters<T> {
    /// Reads the driver's answer.
    fn read(self) -> (u64, u64) {
        // SAFETY: not null, which `allocate` checks first, and the driver has just written to them.
        unsafe { ((*self.pointer).into(), (*self.pitch).into()) }
    }

    /// Writes an answer in place of the driver. False where it does not fit into 32 bits.
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
    request: PitchRequest,
    out: OutParameters<T>,
    call: impl Fn() -> CUresult,
) -> CUresult {
    let height = request.height as u64;
    let most = longest_row(request.width).and_then(|row| row.checked_mul(height));
    let (false, false, Some(most @ 1..)) = (out.pointer.is_null(), out.pitch.is_null(), most) else {
        return call();
    };
    let (memory, place) = match Site::here() {
        Site::Charged(memory, place) => (memory, place),
        Site::Free => return call(),
        Site::Closed => return CUresult::OUT_OF_MEMORY,
    };
    let may_spill = memory.scope.container.spills();
    let fits = memory.books().has_room(place.device, memory.in_blocks(place.device, most));
    if !fits && may_spill {
        return allocate_on_host(memory, place, request, out, most);
    }
    let most = if fits {
        most
    } else {
        // The upper bound does not fit, and the true size may. So this finds out the true length of a row.
        row_of(memory, place, request).map_or(most, |row| row.saturating_mul(height))
    };
    let taken = || {
        let (pointer, row) = out.read();
        if longest_row(request.width).is_some_and(|longest| row > longest) {
            PITCH_ALIGNMENT.fetch_max(1 << row.trailing_zeros().min(63), Relaxed);
        }
        (pointer, row.saturating_mul(height))
    };
    let answer = memory.allocate(place, most, &call, taken);
    if answer.is_out_of_memory() && may_spill {
        return allocate_on_host(memory, place, request, out, most);
    }
    answer
}

/// Allocates it on the host, with rows of the greatest length.
#[cold]
fn allocate_on_host<T: Copy + Into<u64> + TryFrom<u64>>(
    memory: Memory<'_>,
    place: Place,
    request: PitchRequest,
    out: OutParameters<T>,
    most: u64,
) -> CUresult {
    let row = longest_row(request.width).unwrap_or(0);
    let bytes = row.saturating_mul(request.height as u64);
    let on_host = || managed::allocate_on_host(bytes, |address| out.write(address, row));
    let (answer, spillable) = memory.admit_on_host(place.device, most, on_host);
    match spillable {
        Some(spillable) if answer.is_success() => {
            return spillable.commit(memory, out.read().0, bytes, place.context);
        }
        Some(spillable) => spillable.roll_back(),
        None => {}
    }
    answer
}

/// The true length of a row: allocates a single row to find out.
#[cold]
fn row_of(memory: Memory<'_>, place: Place, request: PitchRequest) -> Option<u64> {
    let most = memory.in_blocks(place.device, longest_row(request.width)?);
    if !memory.books().has_room(place.device, most) {
        return None;
    }
    let allocate = sys::cuMemAllocPitch_v2::REAL.get()?;
    let reservation = memory.reserve(place.device, most)?;
    let (mut address, mut pitch) = (0, 0);
    // SAFETY: writes to locals; the sizes are the caller's, and a valid call passes them to the driver too.
    let answer = unsafe { allocate(&mut address, &mut pitch, request.width, 1, request.element) };
    if answer.is_success() {
        managed::free_unseen(address);
    }
    memory.books().roll_back(reservation);
    answer.is_success().then_some(pitch as u64)
}

hooks! { sys;
    cuMemAllocPitch: fn(
        dptr: *mut c_uint, pitch: *mut c_uint, width: c_uint, height: c_uint, element: c_uint
    ) -> CUresult = |real| {
        let request = PitchRequest { width: width as usize, height: height as usize, element };
        allocate(request, OutParameters { pointer: dptr, pitch }, real)
    };
    cuMemAllocPitch_v2: fn(
        dptr: *mut CUdeviceptr, pitch: *mut usize, width: usize, height: usize, element: c_uint
    ) -> CUresult = |real| {
        let out = OutParameters { pointer: dptr, pitch: pitch.cast::<u64>() };
        allocate(PitchRequest { width, height, element }, out, real)
    };
}
