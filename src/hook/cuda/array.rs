//! Arrays: charged by format and extent.
//!
//! # Safety
//! This room may use `unsafe` because it reads the caller's descriptors and the out-parameters that the driver has
//! just written successfully.
#![allow(unsafe_code)]

use super::{CUresult, hooks, memory::allocation, sys};
use crate::holdings::{Key, Kind};
use crate::process::{Quota, quota};
use core::ffi::c_uint;

type Descriptor = sys::CUDA_ARRAY_DESCRIPTOR;
type Descriptor3D = sys::CUDA_ARRAY3D_DESCRIPTOR;

/// Bits of one channel. What is not listed (block-compressed and video formats) is taken as 32, an upper bound.
fn channel_bits(format: sys::CUarray_format) -> u64 {
    match format {
        sys::CU_AD_FORMAT_UNSIGNED_INT8 | sys::CU_AD_FORMAT_SIGNED_INT8 => 8,
        sys::CU_AD_FORMAT_UNSIGNED_INT16 | sys::CU_AD_FORMAT_SIGNED_INT16 | sys::CU_AD_FORMAT_HALF => 16,
        _ => 32,
    }
}

/// Bytes of an extent; a dimension of 0 does not exist.
fn bytes_of(format: sys::CUarray_format, channels: c_uint, extent: [usize; 3]) -> Option<u64> {
    let elements =
        extent.iter().try_fold(1u64, |product, side| product.checked_mul((*side).max(1) as u64))?;
    let bits = elements.checked_mul(channel_bits(format))?.checked_mul(u64::from(channels.max(1)))?;
    Some(bits.div_ceil(8))
}

/// Bytes of an array that is mapped later, or sparse: its memory is physical memory of the VMM.
fn is_unbacked(flags: c_uint) -> bool {
    flags & (sys::CUDA_ARRAY3D_SPARSE | sys::CUDA_ARRAY3D_DEFERRED_MAPPING) != 0
}

fn bytes_of_3d(descriptor: *const Descriptor3D) -> Option<u64> {
    if descriptor.is_null() {
        return None;
    }
    // SAFETY: not null, and the caller passes it to the driver, which reads it too.
    let descriptor = unsafe { *descriptor };
    let extent = [descriptor.Width, descriptor.Height, descriptor.Depth];
    bytes_of(descriptor.Format, descriptor.NumChannels, extent).filter(|_| !is_unbacked(descriptor.Flags))
}

fn bytes_of_2d(descriptor: *const Descriptor) -> Option<u64> {
    if descriptor.is_null() {
        return None;
    }
    // SAFETY: as above.
    let descriptor = unsafe { *descriptor };
    bytes_of(descriptor.Format, descriptor.NumChannels, [descriptor.Width, descriptor.Height, 1])
}

/// All levels: each has half the sides of the one before.
fn bytes_of_levels(descriptor: *const Descriptor3D, levels: c_uint) -> Option<u64> {
    let base = bytes_of_3d(descriptor)?;
    // SAFETY: not null, or there were no bytes.
    let descriptor = unsafe { *descriptor };
    let level = |level: u32| {
        let side = |side: usize| if side == 0 { 0 } else { (side >> level.min(63)).max(1) };
        let extent = [side(descriptor.Width), side(descriptor.Height), side(descriptor.Depth)];
        bytes_of(descriptor.Format, descriptor.NumChannels, extent)
    };
    (1..levels.min(32)).try_fold(base, |sum, next| sum.checked_add(level(next)?))
}

fn create<T>(handle: *mut *mut T, bytes: Option<u64>, call: impl Fn() -> CUresult) -> CUresult {
    let (false, Some(bytes @ 1..)) = (handle.is_null(), bytes) else { return call() };
    allocation(&call, |process, place| {
        process.allocate(place.device, bytes, &call, || {
            // SAFETY: not null, and the driver has just written to it.
            (Key::new(Kind::Array, unsafe { *handle } as u64), place.context)
        })
    })
}

fn destroy(handle: u64, call: impl FnOnce() -> CUresult) -> CUresult {
    match quota() {
        Quota::On(process) => process.free(Key::new(Kind::Array, handle), call),
        Quota::Off | Quota::Closed => call(),
    }
}

hooks! { super::super::LIBCUDA, sys;
    cuArrayCreate_v2: fn(array: *mut sys::CUarray, descriptor: *const Descriptor) -> CUresult
        = |real| create(array, bytes_of_2d(descriptor), real);
    cuArray3DCreate_v2: fn(array: *mut sys::CUarray, descriptor: *const Descriptor3D) -> CUresult
        = |real| create(array, bytes_of_3d(descriptor), real);
    cuMipmappedArrayCreate: fn(
        array: *mut sys::CUmipmappedArray, descriptor: *const Descriptor3D, levels: c_uint
    ) -> CUresult = |real| create(array, bytes_of_levels(descriptor, levels), real);
    cuArrayDestroy: fn(array: sys::CUarray) -> CUresult = |real| destroy(array as u64, real);
    cuMipmappedArrayDestroy: fn(array: sys::CUmipmappedArray) -> CUresult = |real| destroy(array as u64, real);
}
