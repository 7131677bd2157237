//! The variables that set limits, found in one pass over the environment. A `getenv` for each of them and for each of
//! its indices would pass over the environment a hundred times, and a pod's environment may hold a thousand variables.
//!
//! # Safety
//! This file may use `unsafe` because it reads the C library's environment. The library uses the values before its
//! start returns. A program that changes its environment in another thread at that moment races with every `getenv`.
#![allow(unsafe_code)]

use core::ffi::{CStr, c_char};
use gpuquota_quota::limits::KNOBS;
use gpuquota_quota::text::Fixed;

unsafe extern "C" {
    static environ: *const *const c_char;
}

/// More than all knobs with all their indices.
const MAX_ENTRIES: usize = 136;

/// The environment's entries for knobs.
pub struct Environment {
    entries: [&'static [u8]; MAX_ENTRIES],
    used: usize,
}

impl Environment {
    /// Copies the entries for knobs out of the process's environment. A program that runs with more rights than its caller
    /// (setuid, file capabilities) has none: its environment is the caller's.
    pub fn read() -> Self {
        let mut knobs = Self { entries: [&[]; MAX_ENTRIES], used: 0 };
        if has_more_rights() {
            return knobs;
        }
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
                && let Some(free) = knobs.entries.get_mut(knobs.used)
            {
                *free = entry;
                knobs.used = knobs.used.saturating_add(1);
            }
            next = next.wrapping_add(1);
        }
        knobs
    }

    /// The value of a knob or of one of its indices.
    pub fn get(&self, name: &str) -> Option<&'static [u8]> {
        let value = |entry: &&'static [u8]| entry.strip_prefix(name.as_bytes())?.strip_prefix(b"=");
        self.entries.iter().take(self.used).find_map(value)
    }
}

/// Whether the program runs with more rights than its caller.
fn has_more_rights() -> bool {
    // SAFETY: reads a word that the kernel gave the process at its start.
    unsafe { libc::getauxval(libc::AT_SECURE) != 0 }
}

/// The value of a variable that only its own user may set.
pub fn get_trusted(name: &str) -> Option<&'static [u8]> {
    if has_more_rights() { None } else { get(name) }
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
