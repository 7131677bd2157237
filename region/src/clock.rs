//! Clocks, and sleeps until a time on one of them.
//!
//! # Safety
//! This module may use `unsafe` because it is the crate's border to the kernel: every block passes pointers to live
//! locals or to a borrowed word.
#![allow(unsafe_code)]

use crate::uncancelled;
use core::sync::atomic::AtomicU32;

/// The longest sleep where the kernel or a sandbox refuses the call that sleeps until a time or on a word.
const SHORT_NS: u32 = 1_000_000;

/// A clock's nanoseconds.
fn clock_ns(clock: libc::clockid_t) -> u64 {
    // SAFETY: timespec is plain data and clock_gettime fills it; both clocks exist on every Linux.
    let time = unsafe {
        let mut time: libc::timespec = core::mem::zeroed();
        libc::clock_gettime(clock, &mut time);
        time
    };
    time.tv_sec.cast_unsigned().wrapping_mul(1_000_000_000).wrapping_add(time.tv_nsec.cast_unsigned())
}

/// CLOCK_MONOTONIC in nanoseconds (no system call: the vDSO answers).
#[must_use]
pub fn monotonic_ns() -> u64 {
    clock_ns(libc::CLOCK_MONOTONIC)
}

/// CLOCK_MONOTONIC in nanoseconds, some milliseconds late and cheaper.
#[must_use]
pub fn monotonic_coarse_ns() -> u64 {
    clock_ns(libc::CLOCK_MONOTONIC_COARSE)
}

/// Nanoseconds since 1970.
#[must_use]
pub fn realtime_ns() -> u64 {
    // Miri tells tests no date.
    clock_ns(if cfg!(miri) { libc::CLOCK_MONOTONIC } else { libc::CLOCK_REALTIME })
}

fn timespec(ns: u64) -> libc::timespec {
    libc::timespec { tv_sec: (ns / 1_000_000_000).cast_signed(), tv_nsec: (ns % 1_000_000_000).cast_signed() }
}

/// Sleeps for at most a millisecond, in the oldest way there is: a sandbox refused the others.
#[cold]
fn sleep_shortly(until_ns: u64) {
    if monotonic_ns() < until_ns {
        // SAFETY: no descriptors are passed.
        unsafe { uncancelled::poll(core::ptr::null_mut(), 0, SHORT_NS) };
    }
}

/// Sleeps until CLOCK_MONOTONIC reaches `until_ns`, or a signal handler ran. Where a sandbox refuses this it is a
/// millisecond at most: callers sleep in a loop.
pub fn sleep_until(until_ns: u64) {
    let time = timespec(until_ns);
    // SAFETY: time is a live local; the remainder is not asked for; errno is this thread's.
    let refused = unsafe {
        uncancelled::clock_nanosleep(libc::CLOCK_MONOTONIC, libc::TIMER_ABSTIME, &time, core::ptr::null_mut())
            != 0
            && *libc::__errno_location() != libc::EINTR
    };
    if refused {
        sleep_shortly(until_ns);
    }
}

/// Sleeps until CLOCK_MONOTONIC reaches `until_ns`, another process wakes the sleepers on `word` ([`WakePage::wake`]), or
/// a signal handler ran; not at all where `word` is not `seen` any more. The word may lie in memory that processes share.
///
/// [`WakePage::wake`]: crate::sys::WakePage::wake
pub fn sleep_on(word: &AtomicU32, seen: u32, until_ns: u64) {
    let time = timespec(until_ns);
    // SAFETY: the word lives as long as the borrow, time is a live local; the kernel reads both. errno is this thread's.
    let refused = unsafe {
        libc::syscall(
            libc::SYS_futex,
            word.as_ptr(),
            libc::FUTEX_WAIT_BITSET,
            seen,
            &raw const time,
            core::ptr::null::<u32>(),
            libc::FUTEX_BITSET_MATCH_ANY,
        ) != 0
            && !matches!(*libc::__errno_location(), libc::EAGAIN | libc::EINTR | libc::ETIMEDOUT)
    };
    if refused {
        sleep_until(until_ns.min(monotonic_ns().saturating_add(SHORT_NS.into())));
    }
}
