//! The variables that set limits, found in one pass over the environment: asking `getenv` for each of them and its
//! indices would pass over it a hundred times, and a pod's environment may hold a thousand variables.
//!
//! # Safety
//! This room may use `unsafe` because it reads the C library's environment. Values are used before start returns; a
//! program that changes its environment in another thread at that very moment races with every `getenv` of its own.
#![allow(unsafe_code)]

use core::ffi::{CStr, c_char};
use gpuquota_quota::limits::KNOBS;
use gpuquota_quota::text::Fixed;

unsafe extern "C" {
    static environ: *const *const c_char;
}

/// More than all knobs with all their indices.
const MOST: usize = 96;

/// What the environment says of knobs.
pub struct Environment {
    entries: [&'static [u8]; MOST],
    used: usize,
}

impl Environment {
    /// Reads it.
    pub fn read() -> Self {
        let mut found = Self { entries: [&[]; MOST], used: 0 };
        // SAFETY: environ is null or a list of C strings that ends with null.
        let mut next = unsafe { environ };
        while !next.is_null() {
            // SAFETY: as above.
            let entry = unsafe { *next };
            if entry.is_null() {
                break;
            }
            // SAFETY: as above.
            let entry = unsafe { CStr::from_ptr(entry) }.to_bytes();
            if KNOBS.iter().any(|knob| entry.starts_with(knob.name.as_bytes()))
                && let Some(place) = found.entries.get_mut(found.used)
            {
                *place = entry;
                found.used = found.used.saturating_add(1);
            }
            next = next.wrapping_add(1);
        }
        found
    }

    /// The value of a knob or of one of its indices.
    pub fn get(&self, name: &str) -> Option<&'static [u8]> {
        let value = |entry: &&'static [u8]| entry.strip_prefix(name.as_bytes())?.strip_prefix(b"=");
        self.entries.iter().take(self.used).find_map(value)
    }
}

/// The value of any variable.
pub fn get(name: &str) -> Option<&'static [u8]> {
    let name: Fixed<64> = Fixed::copy_of(name.as_bytes())?;
    // SAFETY: name is a C string.
    unsafe {
        let value = libc::getenv(name.as_c_str().as_ptr());
        (!value.is_null()).then(|| CStr::from_ptr(value).to_bytes())
    }
}
