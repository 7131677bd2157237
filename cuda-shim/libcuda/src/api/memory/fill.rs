//! Setting memory. A fill returns before it is done, also where it is not asynchronous by name.
//!
//! # Safety
//! Exports symbols.
#![allow(unsafe_code)]

use crate::capture;
use crate::ffi::{Lane, Outcome, export};
use crate::op::{Fill, Op};
use crate::status::INVALID_VALUE;
use crate::stream::{self, Stream};
use crate::table::Handle;
use crate::world::{World, world};

/// Rows to set: where, bytes from row to row, elements per row, rows.
type Rows = (u64, u64, u64, u64);

/// The fill that a call stands for; `None` if it sets nothing.
///
/// # Errors
/// `INVALID_VALUE` for memory that is not the device's, or not aligned to the element.
pub fn resolve(world: &mut World, rows: Rows, value: u32, element: u32) -> Outcome<Option<Fill>> {
    let (to, pitch, count, height) = rows;
    let bytes = u64::from(element);
    if count == 0 || height == 0 {
        return Ok(None);
    }
    let width = count.checked_mul(bytes).ok_or(INVALID_VALUE)?;
    let aligned = to.is_multiple_of(bytes) && (height == 1 || pitch.is_multiple_of(bytes));
    if !aligned || (height > 1 && pitch < width) {
        return Err(INVALID_VALUE);
    }
    let pitch = if height == 1 { width } else { pitch };
    let reach =
        pitch.checked_mul(height - 1).and_then(|rows| rows.checked_add(width)).ok_or(INVALID_VALUE)?;
    if !world.reaches(to, reach, true) {
        return Err(INVALID_VALUE);
    }
    Ok(Some(Fill { to, pitch, value, element, width, height }))
}

fn fill(lane: Lane, stream: Option<Handle<Stream>>, rows: Rows, value: u32, element: u32) -> Outcome {
    let target = stream.unwrap_or(Handle::NULL);
    let fill = {
        let mut world = world()?;
        let target = world.stream(lane, target)?;
        if stream.is_none() {
            capture::forbid_wait(&mut world, target)?;
        }
        resolve(&mut world, rows, value, element)?
    };
    match fill {
        Some(fill) => stream::submit(lane, target, Op::Fill(fill)).map(|_| ()),
        None => Ok(()),
    }
}

/// The exports for one element: plain, asynchronous, and both over rows.
macro_rules! fills {
    ($($ty:ty: $plain:ident / $plain_twin:ident, $later:ident / $later_twin:ident,
       $rows:ident / $rows_twin:ident, $rows_later:ident / $rows_later_twin:ident;)*) => {
        export! {
            $(
            lane fn |lane| $plain / $plain_twin (to: u64, value: $ty, count: u64) {
                fill(lane, None, (to, 0, count, 1), value.into(), size_of::<$ty>() as u32)
            }
            lane fn |lane| $later / $later_twin (to: u64, value: $ty, count: u64, stream: Handle<Stream>) {
                fill(lane, Some(stream), (to, 0, count, 1), value.into(), size_of::<$ty>() as u32)
            }
            lane fn |lane| $rows / $rows_twin (to: u64, pitch: u64, value: $ty, width: u64, height: u64) {
                fill(lane, None, (to, pitch, width, height), value.into(), size_of::<$ty>() as u32)
            }
            lane fn |lane| $rows_later / $rows_later_twin (
                to: u64, pitch: u64, value: $ty, width: u64, height: u64, stream: Handle<Stream>,
            ) {
                fill(lane, Some(stream), (to, pitch, width, height), value.into(), size_of::<$ty>() as u32)
            }
            )*
        }
    };
}

fills! {
    u8: cuMemsetD8_v2 / cuMemsetD8_v2_ptds, cuMemsetD8Async / cuMemsetD8Async_ptsz,
        cuMemsetD2D8_v2 / cuMemsetD2D8_v2_ptds, cuMemsetD2D8Async / cuMemsetD2D8Async_ptsz;
    u16: cuMemsetD16_v2 / cuMemsetD16_v2_ptds, cuMemsetD16Async / cuMemsetD16Async_ptsz,
        cuMemsetD2D16_v2 / cuMemsetD2D16_v2_ptds, cuMemsetD2D16Async / cuMemsetD2D16Async_ptsz;
    u32: cuMemsetD32_v2 / cuMemsetD32_v2_ptds, cuMemsetD32Async / cuMemsetD32Async_ptsz,
        cuMemsetD2D32_v2 / cuMemsetD2D32_v2_ptds, cuMemsetD2D32Async / cuMemsetD2D32Async_ptsz;
}
