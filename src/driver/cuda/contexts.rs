//! The end of contexts that the program has not seen.
//!
//! # Safety
//! This file may use `unsafe` because it passes handles back to the driver that has just given them.
#![allow(unsafe_code)]

use super::{CUcontext, CUdevice, sys};

/// Destroys a context.
pub fn destroy_context(context: CUcontext) {
    if let Some(destroy) = sys::cuCtxDestroy_v2::REAL.get() {
        // SAFETY: the driver has just given it, and no other code has its handle.
        unsafe { destroy(context) };
    }
}

/// Destroys a green context.
pub fn destroy_green_context(context: sys::CUgreenCtx) {
    if let Some(destroy) = sys::cuGreenCtxDestroy::REAL.get() {
        // SAFETY: as above.
        unsafe { destroy(context) };
    }
}

/// Gives up a use of a primary context; the last one destroys it.
pub fn release_primary(ordinal: CUdevice) {
    if let Some(release) = sys::cuDevicePrimaryCtxRelease_v2::REAL.get() {
        // SAFETY: takes a number.
        unsafe { release(ordinal) };
    }
}
