//! Whose pids NVML gives, by the driver's branch (measured, and read from the open kernel modules).
//!
//! | driver | lists of processes, in a PID namespace of its own | samples of utilisation there |
//! |---|---|---|
//! | before 535.113 | the host's | the host's |
//! | 535.113 to 565 | the namespace's | the host's |
//! | from 570 | the namespace's | the namespace's |
//!
//! In the initial PID namespace all of them are the host's, and so are the process's own.
//!
//! # Safety
//! This file may use `unsafe` because it calls NVML with a pointer to its own local.
#![allow(unsafe_code)]

use super::{SUCCESS, sys};
use core::sync::atomic::{AtomicU32, Ordering::Relaxed};
use gpuquota_region::sys as kernel;

/// Whether the pids in NVML's lists are those of this process's PID namespace.
pub fn of_lists_are_ours() -> bool {
    ours_since(535, 113)
}

/// The same of its samples of utilisation.
pub fn of_samples_are_ours() -> bool {
    ours_since(570, 0)
}

fn ours_since(major: u32, minor: u32) -> bool {
    branch() >= number(major, minor)
}

/// A version as one number, not 0.
const fn number(major: u32, minor: u32) -> u32 {
    let minor = if minor < 0xFFFE { minor } else { 0xFFFE };
    (major << 16) | minor.wrapping_add(1)
}

/// The driver's branch, as far as it matters for pids: in the initial PID namespace later than all, and 0 while the driver
/// does not say it.
fn branch() -> u32 {
    /// 0: not found out yet.
    static BRANCH: AtomicU32 = AtomicU32::new(0);
    if BRANCH.load(Relaxed) == 0 {
        let found = if kernel::in_first_pid_namespace() { Some(u32::MAX) } else { driver_version() };
        BRANCH.store(found.unwrap_or(0), Relaxed);
    }
    BRANCH.load(Relaxed)
}

/// The first two numbers of the driver's version.
fn driver_version() -> Option<u32> {
    let mut text = [0u8; 80];
    // SAFETY: writes to a local, whose length is passed along.
    let answer = unsafe { sys::nvmlSystemGetDriverVersion::REAL.get()?(text.as_mut_ptr().cast(), 80) };
    let mut numbers = text.split(|byte| !byte.is_ascii_digit()).map(|digits| {
        digits.iter().fold(0u32, |number, digit| number.wrapping_mul(10).wrapping_add(u32::from(digit & 15)))
    });
    (answer == SUCCESS).then_some(number(numbers.next()?, numbers.next()?))
}
