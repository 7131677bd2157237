//! Is there a driver?
//!
//! # Safety
//! This room may use `unsafe` because only the loader itself knows where it would find the driver.
#![allow(unsafe_code)]

/// Whether a program started from here would find libcuda.so.1.
pub fn is_there() -> bool {
    // SAFETY: the name is a C string. The constructors of a driver run in every CUDA program; the handle is kept,
    // so nothing is unloaded.
    unsafe { !libc::dlopen(c"libcuda.so.1".as_ptr(), libc::RTLD_LAZY | libc::RTLD_LOCAL).is_null() }
}
