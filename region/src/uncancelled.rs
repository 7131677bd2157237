//! System calls that glibc makes points of cancellation, under glibc's names and by their numbers: a program may cancel its
//! thread while that is in the library, and must not do so half-way.
//!
//! # Safety
//! This file may use `unsafe` because each function passes its arguments on to the kernel as they are. What a caller has to
//! guarantee is what the manual asks for the function of this name.
#![allow(unsafe_code, clippy::missing_safety_doc, reason = "the manual's functions")]

use libc::{c_char, c_int, c_void, clockid_t, off_t, pollfd, size_t, ssize_t, timespec};

/// Bytes of the kernel's signal sets.
const SIGNAL_BYTES: usize = 8;

/// What fits into the type by the kernel's word.
#[allow(clippy::cast_possible_truncation, reason = "numbers of descriptors, counts, or -1")]
const fn short(answer: libc::c_long) -> c_int {
    answer as c_int
}

/// The same for a number of bytes.
#[allow(clippy::cast_possible_truncation, reason = "c_long and ssize_t are the same on Linux")]
const fn bytes_of(answer: libc::c_long) -> ssize_t {
    answer as ssize_t
}

pub unsafe fn open(path: *const c_char, flags: c_int, mode: u32) -> c_int {
    // SAFETY: by the caller.
    short(unsafe { libc::syscall(libc::SYS_openat, libc::AT_FDCWD, path, flags, mode) })
}

pub unsafe fn close(fd: c_int) -> c_int {
    // SAFETY: by the caller.
    short(unsafe { libc::syscall(libc::SYS_close, fd) })
}

pub unsafe fn fallocate(fd: c_int, mode: c_int, offset: off_t, length: off_t) -> c_int {
    // SAFETY: by the caller.
    short(unsafe { libc::syscall(libc::SYS_fallocate, fd, mode, offset, length) })
}

pub unsafe fn pread(fd: c_int, buffer: *mut c_void, bytes: size_t, offset: off_t) -> ssize_t {
    // SAFETY: by the caller.
    bytes_of(unsafe { libc::syscall(libc::SYS_pread64, fd, buffer, bytes, offset) })
}

pub unsafe fn pwrite(fd: c_int, buffer: *const c_void, bytes: size_t, offset: off_t) -> ssize_t {
    // SAFETY: by the caller.
    bytes_of(unsafe { libc::syscall(libc::SYS_pwrite64, fd, buffer, bytes, offset) })
}

pub unsafe fn write(fd: c_int, buffer: *const c_void, bytes: size_t) -> ssize_t {
    // SAFETY: by the caller.
    bytes_of(unsafe { libc::syscall(libc::SYS_write, fd, buffer, bytes) })
}

/// The error is in errno, other than the manual says.
pub unsafe fn clock_nanosleep(
    clock: clockid_t,
    flags: c_int,
    until: *const timespec,
    rest: *mut timespec,
) -> c_int {
    // SAFETY: by the caller.
    short(unsafe { libc::syscall(libc::SYS_clock_nanosleep, clock, flags, until, rest) })
}

/// As poll(2), with a wait in nanoseconds, below a second.
pub unsafe fn poll(records: *mut pollfd, count: usize, wait_ns: u32) -> c_int {
    let wait = timespec { tv_sec: 0, tv_nsec: libc::c_long::from(wait_ns) };
    let no_mask = core::ptr::null::<libc::sigset_t>();
    // SAFETY: by the caller.
    short(unsafe { libc::syscall(libc::SYS_ppoll, records, count, &raw const wait, no_mask, SIGNAL_BYTES) })
}

/// As sigtimedwait(3) without a wait.
pub unsafe fn take_signal(set: *const libc::sigset_t) {
    let now = timespec { tv_sec: 0, tv_nsec: 0 };
    let no_information = core::ptr::null_mut::<libc::siginfo_t>();
    // SAFETY: by the caller.
    unsafe {
        libc::syscall(libc::SYS_rt_sigtimedwait, set, no_information, &raw const now, SIGNAL_BYTES);
    }
}
