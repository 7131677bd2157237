//! `uncancelled.rs` for Miri.
#![allow(unsafe_code, clippy::missing_safety_doc, reason = "as there")]

use libc::{c_char, c_int, clockid_t, pollfd, timespec};
pub use libc::{close, fallocate, pread, pwrite, write};

pub unsafe fn open(path: *const c_char, flags: c_int, mode: u32) -> c_int {
    // SAFETY: by the caller.
    unsafe { libc::open(path, flags, mode) }
}

pub unsafe fn clock_nanosleep(
    clock: clockid_t,
    flags: c_int,
    until: *const timespec,
    rest: *mut timespec,
) -> c_int {
    // SAFETY: by the caller.
    unsafe { libc::clock_nanosleep(clock, flags, until, rest) }
}

pub unsafe fn poll(records: *mut pollfd, count: usize, wait_ns: u32) -> c_int {
    // SAFETY: by the caller.
    unsafe { libc::poll(records, count as libc::nfds_t, (wait_ns / 1_000_000).cast_signed()) }
}

pub unsafe fn take_signal(set: *const libc::sigset_t) {
    let now = timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: by the caller.
    unsafe { libc::sigtimedwait(set, core::ptr::null_mut(), &now) };
}
