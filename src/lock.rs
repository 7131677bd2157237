//! The lock of lanes and holdings: one word, private to the process, free when zero (so that a child made by fork,
//! which sees its parent's state as zeroes, finds it free).
//!
//! What it guards takes nanoseconds, so giving it back is one plain store: no waiter is ever woken. A waiter spins,
//! and should the holder have lost its processor, sleeps a little between looks.

use core::sync::atomic::{AtomicU32, Ordering::Acquire, Ordering::Relaxed, Ordering::Release};
use gpuquota_region::sys;

/// A lock. All-zero bytes are a free one.
pub struct Lock(AtomicU32);

/// Held until dropped.
pub struct Held<'l>(&'l Lock);

impl Lock {
    /// Takes the lock if it is free.
    #[inline]
    pub fn try_lock(&self) -> Option<Held<'_>> {
        self.0.compare_exchange(0, 1, Acquire, Relaxed).ok().map(|_| Held(self))
    }

    /// Takes the lock.
    #[inline]
    pub fn lock(&self) -> Held<'_> {
        self.try_lock().unwrap_or_else(|| self.lock_slowly())
    }

    #[cold]
    fn lock_slowly(&self) -> Held<'_> {
        let _errno = sys::KeepErrno::new();
        loop {
            for _ in 0..200 {
                core::hint::spin_loop();
                if let Some(held) = self.try_lock() {
                    return held;
                }
            }
            sys::sleep_until(sys::monotonic_ns().wrapping_add(20_000));
        }
    }
}

impl Drop for Held<'_> {
    #[inline]
    fn drop(&mut self) {
        self.0.0.store(0, Release);
    }
}
