//! Setting memory. A fill returns before it is done, also where it is not asynchronous by name.
//!
//! # Safety
//! Exports symbols.
#![allow(unsafe_code)]

use crate::api::export::export;
use crate::model::objects::handle::{Handle, StreamHandle};
use crate::model::objects::op::Op;
use crate::model::operations::fills::{Rows, resolve};
use crate::model::operations::{captures, streams, submit};
use crate::model::world::world;
use crate::tools::ffi::NullStream;
use crate::tools::status::Outcome;

fn fill(null: NullStream, stream: Option<StreamHandle>, rows: Rows, value: u32, element: u32) -> Outcome {
    let target = stream.unwrap_or(Handle::NULL);
    let fill = {
        let mut world = world()?;
        let target = streams::stream(&mut world, null, target)?;
        if stream.is_none() {
            captures::forbid_wait(&mut world, target)?;
        }
        resolve(&mut world, rows, value, element)?
    };
    match fill {
        Some(fill) => submit::submit(null, target, Op::Fill(fill)).map(|_| ()),
        None => Ok(()),
    }
}

/// The exports for one element: plain, asynchronous, and both over rows.
macro_rules! fills {
    ($($ty:ty: $plain:ident / $plain_twin:ident, $later:ident / $later_twin:ident,
       $rows:ident / $rows_twin:ident, $rows_later:ident / $rows_later_twin:ident;)*) => {
        export! {
            $(
            twin fn |null| $plain / $plain_twin (to: u64, value: $ty, count: u64) {
                fill(null, None, (to, 0, count, 1), value.into(), size_of::<$ty>() as u32)
            }
            twin fn |null| $later / $later_twin (to: u64, value: $ty, count: u64, stream: StreamHandle) {
                fill(null, Some(stream), (to, 0, count, 1), value.into(), size_of::<$ty>() as u32)
            }
            twin fn |null| $rows / $rows_twin (to: u64, pitch: u64, value: $ty, width: u64, height: u64) {
                fill(null, None, (to, pitch, width, height), value.into(), size_of::<$ty>() as u32)
            }
            twin fn |null| $rows_later / $rows_later_twin (
                to: u64, pitch: u64, value: $ty, width: u64, height: u64, stream: StreamHandle,
            ) {
                fill(null, Some(stream), (to, pitch, width, height), value.into(), size_of::<$ty>() as u32)
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
