//! The limits of a context that say how much the driver takes for stacks, heaps and the output of kernels.
//!
//! # Safety
//! This file may use `unsafe` because it asks the driver with pointers to its own locals.
#![allow(unsafe_code)]

use crate::driver::sys::cuda as sys;

/// The current context's limit.
pub fn limit(limit: sys::CUlimit) -> Option<u64> {
    let mut value = 0;
    // SAFETY: writes to a local.
    let answer = unsafe { sys::cuCtxGetLimit::REAL.get()?(&mut value, limit) };
    answer.is_success().then_some(value as u64)
}

/// Sets the current context's limit to a value that it had.
pub fn set_limit_back(limit: sys::CUlimit, value: u64) {
    if let Some(set) = sys::cuCtxSetLimit::REAL.get() {
        // SAFETY: no pointers.
        let _ = unsafe { set(limit, value as usize) };
    }
}

/// What the driver takes of a device at most for this value of a limit, as far as that follows from the value.
pub fn most_for(limit: sys::CUlimit, value: u64, ordinal: sys::CUdevice) -> u64 {
    match limit {
        // Each thread that may be on the device has one.
        sys::CU_LIMIT_STACK_SIZE => threads_of(ordinal).map_or(0, |threads| value.saturating_mul(threads)),
        sys::CU_LIMIT_PRINTF_FIFO_SIZE | sys::CU_LIMIT_MALLOC_HEAP_SIZE => value,
        _ => 0,
    }
}

/// The threads that can be on a device at once.
fn threads_of(ordinal: sys::CUdevice) -> Option<u64> {
    let query = sys::cuDeviceGetAttribute::REAL.get()?;
    let get = |attribute| {
        let mut value = 0;
        // SAFETY: writes to a local.
        let answer = unsafe { query(&mut value, attribute, ordinal) };
        u64::try_from(value).ok().filter(|_| answer.is_success())
    };
    let processors = get(sys::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?;
    processors.checked_mul(get(sys::CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_MULTIPROCESSOR)?)
}
