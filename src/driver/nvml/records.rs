//! Lists of records that NVML writes: on the stack if they are short, else in a mapping.
//!
//! # Safety
//! This file may use `unsafe` because it makes slices of the records that NVML has just written.
#![allow(unsafe_code)]

use super::sys;
use core::ffi::c_uint;
use gpuquota_region::sys as kernel;
use sys::nvmlReturn_t;

/// So many records fit on the stack.
const FEW: usize = 48;

/// Lets NVML write a list, and reads it; `None` if NVML does not give it. A list of which NVML finds nothing is empty.
///
/// # Safety
/// `T` is plain data: zeroes are a valid value.
pub unsafe fn read<T, R>(
    mut list: impl FnMut(&mut c_uint, *mut T) -> Option<nvmlReturn_t>,
    read: impl FnOnce(&[T]) -> R,
) -> Option<R> {
    // SAFETY: plain data.
    let mut few: [T; FEW] = unsafe { core::mem::zeroed() };
    let mut count = FEW as c_uint;
    match list(&mut count, few.as_mut_ptr())? {
        nvmlReturn_t::NVML_SUCCESS => return Some(read(few.get(..count as usize)?)),
        nvmlReturn_t::NVML_ERROR_NOT_FOUND => return Some(read(&[])),
        nvmlReturn_t::NVML_ERROR_INSUFFICIENT_SIZE => {}
        _ => return None,
    }
    // There may be more of them by now.
    let capacity = (count as usize).saturating_add(FEW).min(1 << 16);
    let bytes = capacity.wrapping_mul(size_of::<T>());
    let memory = kernel::map_private(bytes).ok()?;
    count = capacity as c_uint;
    let result = match list(&mut count, memory.cast()) {
        Some(nvmlReturn_t::NVML_SUCCESS) => {
            // SAFETY: the mapping is as large, zeroed, and NVML has written the first `count` records.
            let many = unsafe { core::slice::from_raw_parts(memory.cast::<T>(), capacity) };
            many.get(..count as usize).map(read)
        }
        Some(nvmlReturn_t::NVML_ERROR_NOT_FOUND) => Some(read(&[])),
        _ => None,
    };
    kernel::unmap_private(memory, bytes);
    result
}
