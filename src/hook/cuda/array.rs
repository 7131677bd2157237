//! Arrays: charged by format and extent.
//!
//! # Safety
//! This file may use `unsafe` because it reads the caller's descriptors and the out-parameters that the driver has
//! just written successfully.
#![allow(unsafe_code)]

use super::memory::{Site, allocate_with_handle};
use crate::driver::cuda::CUresult;
use crate::driver::sys::cuda as sys;
use crate::hook::hooks;
use crate::memory::holdings::Kind;
use crate::process::{Quota, quota};
use core::ffi::c_uint;

type DescriptorV1 = sys::CUDA_ARRAY_DESCRIPTOR_v1;
type Descriptor3DV1 = sys::CUDA_ARRAY3D_DESCRIPTOR_v1;
type Descriptor = sys::CUDA_ARRAY_DESCRIPTOR;
type Descriptor3D = sys::CUDA_ARRAY3D_DESCRIPTOR;

/// Reads the caller's descriptor.
fn read<T: Copy>(descriptor: *const T) -> Option<T> {
    // SAFETY: not null, and the caller passes it to the driver, which reads it too.
    (!descriptor.is_null()).then(|| unsafe { *descriptor })
}

/// Bits of one element in all its planes, as cuda.h describes the formats. For a format that is newer than this table: 32
/// for each channel, because no format of the table takes more.
fn element_bits(format: sys::CUarray_format, channels: c_uint) -> u64 {
    let channel = match format {
        sys::CU_AD_FORMAT_UNSIGNED_INT8 | sys::CU_AD_FORMAT_SIGNED_INT8 => 8,
        sys::CU_AD_FORMAT_UNSIGNED_INT16 | sys::CU_AD_FORMAT_SIGNED_INT16 | sys::CU_AD_FORMAT_HALF => 16,
        sys::CU_AD_FORMAT_BC1_UNORM
        | sys::CU_AD_FORMAT_BC1_UNORM_SRGB
        | sys::CU_AD_FORMAT_BC4_UNORM
        | sys::CU_AD_FORMAT_BC4_SNORM => return 4,
        sys::CU_AD_FORMAT_BC2_UNORM..=sys::CU_AD_FORMAT_BC7_UNORM_SRGB
        | sys::CU_AD_FORMAT_UNORM_INT8X1
        | sys::CU_AD_FORMAT_SNORM_INT8X1 => return 8,
        sys::CU_AD_FORMAT_NV12 => return 12,
        sys::CU_AD_FORMAT_NV16
        | sys::CU_AD_FORMAT_YUY2
        | sys::CU_AD_FORMAT_UNORM_INT8X2
        | sys::CU_AD_FORMAT_SNORM_INT8X2
        | sys::CU_AD_FORMAT_UNORM_INT16X1
        | sys::CU_AD_FORMAT_SNORM_INT16X1 => return 16,
        sys::CU_AD_FORMAT_P010
        | sys::CU_AD_FORMAT_P016
        | sys::CU_AD_FORMAT_Y444_PLANAR8
        | sys::CU_AD_FORMAT_YUV444_8bit_SemiPlanar => return 24,
        sys::CU_AD_FORMAT_P210
        | sys::CU_AD_FORMAT_P216
        | sys::CU_AD_FORMAT_Y210
        | sys::CU_AD_FORMAT_Y216
        | sys::CU_AD_FORMAT_AYUV
        | sys::CU_AD_FORMAT_Y410
        | sys::CU_AD_FORMAT_UNORM_INT8X4
        | sys::CU_AD_FORMAT_SNORM_INT8X4
        | sys::CU_AD_FORMAT_UNORM_INT16X2
        | sys::CU_AD_FORMAT_SNORM_INT16X2
        | sys::CU_AD_FORMAT_UNORM_INT_101010_2 => return 32,
        sys::CU_AD_FORMAT_Y444_PLANAR10 | sys::CU_AD_FORMAT_YUV444_16bit_SemiPlanar => return 48,
        sys::CU_AD_FORMAT_Y416 | sys::CU_AD_FORMAT_UNORM_INT16X4 | sys::CU_AD_FORMAT_SNORM_INT16X4 => {
            return 64;
        }
        _ => 32,
    };
    channel * u64::from(channels.max(1))
}

/// Bytes of an extent; 0 means that the array has no such dimension. Compressed formats use blocks of 4 by 4 elements.
fn bytes_of(format: sys::CUarray_format, channels: c_uint, extent: [usize; 3]) -> Option<u64> {
    let blocks = (sys::CU_AD_FORMAT_BC1_UNORM..=sys::CU_AD_FORMAT_BC7_UNORM_SRGB).contains(&format);
    let [width, height, depth] = extent.map(|side| side.max(1) as u64);
    let padded = |side: u64| if blocks { side.checked_next_multiple_of(4) } else { Some(side) };
    let elements = padded(width)?.checked_mul(padded(height)?)?.checked_mul(depth)?;
    Some(elements.checked_mul(element_bits(format, channels))?.div_ceil(8))
}

/// Whether an array has no memory of its own: it is sparse or mapped later, and the VMM gives its physical memory.
fn is_unbacked(flags: c_uint) -> bool {
    flags & (sys::CUDA_ARRAY3D_SPARSE | sys::CUDA_ARRAY3D_DEFERRED_MAPPING) != 0
}

fn bytes_of_3d(descriptor: Descriptor3D) -> Option<u64> {
    let extent = [descriptor.Width, descriptor.Height, descriptor.Depth];
    bytes_of(descriptor.Format, descriptor.NumChannels, extent).filter(|_| !is_unbacked(descriptor.Flags))
}

fn bytes_of_2d(descriptor: Descriptor) -> Option<u64> {
    bytes_of(descriptor.Format, descriptor.NumChannels, [descriptor.Width, descriptor.Height, 1])
}

/// The first driver API counted in 32 bits.
fn bytes_of_2d_v1(descriptor: DescriptorV1) -> Option<u64> {
    let extent = [descriptor.Width as usize, descriptor.Height as usize, 1];
    bytes_of(descriptor.Format, descriptor.NumChannels, extent)
}

fn bytes_of_3d_v1(descriptor: Descriptor3DV1) -> Option<u64> {
    let extent = [descriptor.Width, descriptor.Height, descriptor.Depth].map(|side| side as usize);
    bytes_of(descriptor.Format, descriptor.NumChannels, extent).filter(|_| !is_unbacked(descriptor.Flags))
}

/// Bytes of all levels of a mipmapped array: each level has half the sides of the one before, and as many layers.
fn bytes_of_levels(descriptor: Descriptor3D, levels: c_uint) -> Option<u64> {
    let base = bytes_of_3d(descriptor)?;
    let layered = descriptor.Flags & (sys::CUDA_ARRAY3D_LAYERED | sys::CUDA_ARRAY3D_CUBEMAP) != 0;
    let level = |level: u32| {
        let side = |side: usize| if side == 0 { 0 } else { (side >> level.min(63)).max(1) };
        let depth = if layered { descriptor.Depth } else { side(descriptor.Depth) };
        let extent = [side(descriptor.Width), side(descriptor.Height), depth];
        bytes_of(descriptor.Format, descriptor.NumChannels, extent)
    };
    (1..levels.min(32)).try_fold(base, |sum, next| sum.checked_add(level(next)?))
}

fn create<T>(handle: *mut *mut T, bytes: Option<u64>, call: impl Fn() -> CUresult) -> CUresult {
    let (false, Some(bytes @ 1..)) = (handle.is_null(), bytes) else { return call() };
    // SAFETY: not null, and read only after the driver has written to it.
    let written = || unsafe { *handle } as u64;
    let Site::Charged(memory, place) = Site::here() else {
        return allocate_with_handle(Kind::Array, bytes, call, written);
    };
    let charge = memory.in_blocks(place.device, bytes);
    // A small one shares a block with others, and has no address that would tell which.
    if bytes > charge / 2 {
        return allocate_with_handle(Kind::Array, charge, call, written);
    }
    let answer = allocate_with_handle(Kind::SmallArray, charge, call, written);
    if answer.is_success() {
        memory.state.overhead.small_array_was_made(memory.books(), place.device.index);
    }
    answer
}

/// Destroys an array, large or small.
fn destroy(handle: u64, call: impl FnOnce() -> CUresult) -> CUresult {
    match quota() {
        Quota::On(process) => process.memory().free_array(handle, call),
        Quota::Off | Quota::Closed => call(),
    }
}

hooks! { sys;
    cuArrayCreate: fn(array: *mut sys::CUarray, descriptor: *const DescriptorV1) -> CUresult
        = |real| create(array, read(descriptor).and_then(bytes_of_2d_v1), real);
    cuArrayCreate_v2: fn(array: *mut sys::CUarray, descriptor: *const Descriptor) -> CUresult
        = |real| create(array, read(descriptor).and_then(bytes_of_2d), real);
    cuArray3DCreate: fn(array: *mut sys::CUarray, descriptor: *const Descriptor3DV1) -> CUresult
        = |real| create(array, read(descriptor).and_then(bytes_of_3d_v1), real);
    cuArray3DCreate_v2: fn(array: *mut sys::CUarray, descriptor: *const Descriptor3D) -> CUresult
        = |real| create(array, read(descriptor).and_then(bytes_of_3d), real);
    cuMipmappedArrayCreate: fn(
        array: *mut sys::CUmipmappedArray, descriptor: *const Descriptor3D, levels: c_uint
    ) -> CUresult = |real| {
        let bytes = read(descriptor).and_then(|descriptor| bytes_of_levels(descriptor, levels));
        create(array, bytes, real)
    };
    cuArrayDestroy: fn(array: sys::CUarray) -> CUresult = |real| destroy(array as u64, real);
    cuMipmappedArrayDestroy: fn(array: sys::CUmipmappedArray) -> CUresult = |real| destroy(array as u64, real);
}
