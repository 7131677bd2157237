//! Locks. That of journals and holdings: one word, private to the process, free when zero. A child made by fork sees its
//! parent's state as zeroes, so it finds the lock free.
//!
//! A thread holds the lock for nanoseconds. So it releases it by one plain store and wakes nobody: a waiter spins, and
//! sleeps a little between attempts in case the holder has lost its processor.

use crate::thread;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering::Acquire, Ordering::Relaxed, Ordering::Release};
use gpuquota_region::sys;

/// A lock. All-zero bytes are a free one.
pub struct Lock(AtomicU32);

/// Releases the lock when dropped.
pub struct LockGuard<'l>(&'l Lock);

impl Lock {
    /// Takes the lock if it is free.
    #[inline]
    pub fn try_lock(&self) -> Option<LockGuard<'_>> {
        self.0.compare_exchange(0, 1, Acquire, Relaxed).ok().map(|_| LockGuard(self))
    }

    /// Takes the lock; waits while another thread holds it.
    #[inline]
    pub fn lock(&self) -> LockGuard<'_> {
        self.try_lock().unwrap_or_else(|| self.lock_slowly())
    }

    #[cold]
    fn lock_slowly(&self) -> LockGuard<'_> {
        let _errno = sys::KeepErrno::new();
        loop {
            for _ in 0..200 {
                core::hint::spin_loop();
                if let Some(guard) = self.try_lock() {
                    return guard;
                }
            }
            sys::sleep_until(sys::monotonic_ns().wrapping_add(20_000));
        }
    }
}

impl Drop for LockGuard<'_> {
    #[inline]
    fn drop(&mut self) {
        self.0.0.store(0, Release);
    }
}

/// A lock in static memory, for what a process does once. It names its holder, so that a child made by fork does not wait
/// for a thread of its parent's, and a signal handler not for the thread that it interrupts.
pub struct StaticLock(AtomicU64);

/// Releases the lock when dropped.
pub struct StaticLockGuard<'l>(&'l StaticLock);

impl StaticLock {
    /// A free lock.
    pub const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// Takes the lock; waits while another thread of this process holds it. `None` if this very thread holds it.
    pub fn lock(&self) -> Option<StaticLockGuard<'_>> {
        let process = u64::from(sys::pid()) << 32;
        // Words of two threads lie apart by less than 2^38 bytes.
        let own = process | thread::number() >> 6 & 0xffff_ffff;
        loop {
            match self.0.load(Relaxed) {
                holder if holder == own => return None,
                holder if holder != 0 && holder >> 32 << 32 == process => {
                    sys::sleep_until(sys::monotonic_ns().wrapping_add(20_000));
                }
                // Free, or a thread held it that this process does not have.
                left => {
                    if self.0.compare_exchange(left, own, Acquire, Relaxed).is_ok() {
                        return Some(StaticLockGuard(self));
                    }
                }
            }
        }
    }
}

impl Drop for StaticLockGuard<'_> {
    fn drop(&mut self) {
        self.0.0.store(0, Release);
    }
}
