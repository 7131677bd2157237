//! The driver's figures on memory: cut down to the container's slice.
//!
//! # Safety
//! This file may use `unsafe` because it rewrites the out-parameters that the driver has just written successfully.
#![allow(unsafe_code)]

use crate::driver::cuda::{CUdevice, CUresult};
use crate::driver::sys::cuda as sys;
use crate::hook::hooks;
use crate::process::{Quota, quota};
use crate::view;
use core::ffi::c_uint;

/// Rewrites free and total after a success. A caller may pass null for either, as far as the driver allows it.
#[inline]
fn memory_info<T: Copy + TryFrom<u64>>(free: *mut T, total: *mut T, answer: CUresult) -> CUresult
where
    u64: TryFrom<T>,
{
    let Quota::On(process) = quota() else { return answer };
    if !answer.is_success() {
        return answer;
    }
    let Some(place) = process.scope.place() else { return answer };
    // SAFETY: null or just written by the driver.
    let read = |from: *mut T| if from.is_null() { None } else { u64::try_from(unsafe { *from }).ok() };
    let write = |to: *mut T, value: u64| {
        if let (false, Ok(value)) = (to.is_null(), T::try_from(value)) {
            // SAFETY: not null, and the driver has just written to it.
            unsafe { *to = value };
        }
    };
    let real = (read(total).unwrap_or(u64::MAX), read(free).unwrap_or(u64::MAX));
    if let Some(slice) = view::slice(process.memory(), place.device, real.0, real.1) {
        write(total, slice.total);
        write(free, slice.free);
    }
    answer
}

fn total_memory<T: Copy + TryFrom<u64>>(bytes: *mut T, ordinal: CUdevice, answer: CUresult) -> CUresult
where
    u64: TryFrom<T>,
{
    let Quota::On(process) = quota() else { return answer };
    if !answer.is_success() || bytes.is_null() {
        return answer;
    }
    // SAFETY: not null, and the driver has just written to it.
    let real = u64::try_from(unsafe { *bytes });
    if let (Ok(real), Some(device)) = (real, process.scope.of_ordinal(ordinal))
        && let Ok(total) = T::try_from(view::total(process.memory(), device, real))
    {
        // SAFETY: as above.
        unsafe { *bytes = total };
    }
    answer
}

hooks! { sys;
    cuMemGetInfo: fn(free: *mut c_uint, total: *mut c_uint) -> CUresult = |real| memory_info(free, total, real());
    cuMemGetInfo_v2: fn(free: *mut usize, total: *mut usize) -> CUresult = |real| memory_info(free, total, real());
    cuDeviceTotalMem: fn(bytes: *mut c_uint, device: CUdevice) -> CUresult
        = |real| total_memory(bytes, device, real());
    cuDeviceTotalMem_v2: fn(bytes: *mut usize, device: CUdevice) -> CUresult
        = |real| total_memory(bytes, device, real());
}
