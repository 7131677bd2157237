//! The lock of the holdings: one word, private to the process, free when zero (so that a child made by fork, which
//! sees its parent's state as zeroes, finds it free).
//!
//! # Safety
//! This room may use `unsafe` because it makes two system calls on the address of a word that it borrows.
#![allow(unsafe_code)]

use core::sync::atomic::{AtomicU32, Ordering::Acquire, Ordering::Relaxed, Ordering::Release};

const FREE: u32 = 0;
const TAKEN: u32 = 1;
/// Taken, and somebody may sleep for it.
const CONTENDED: u32 = 2;

/// A lock. All-zero bytes are a free one.
pub struct Futex(AtomicU32);

/// Held until dropped.
pub struct Held<'l>(&'l Futex);

impl Futex {
    /// Takes the lock if it is free.
    #[inline]
    pub fn try_lock(&self) -> Option<Held<'_>> {
        self.0.compare_exchange(FREE, TAKEN, Acquire, Relaxed).ok().map(|_| Held(self))
    }

    /// Takes the lock, sleeping if need be. What it guards takes nanoseconds.
    #[inline]
    pub fn lock(&self) -> Held<'_> {
        self.try_lock().unwrap_or_else(|| self.lock_slowly())
    }

    #[cold]
    fn lock_slowly(&self) -> Held<'_> {
        for _ in 0..100 {
            core::hint::spin_loop();
            if let Some(held) = self.try_lock() {
                return held;
            }
        }
        while self.0.swap(CONTENDED, Acquire) != FREE {
            self.call(libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG, CONTENDED);
        }
        Held(self)
    }

    fn call(&self, operation: i32, value: u32) {
        let errno = gpuquota_region::sys::KeepErrno::new();
        // SAFETY: the word outlives the call; there is no timeout.
        unsafe {
            libc::syscall(
                libc::SYS_futex,
                self.0.as_ptr(),
                operation,
                value,
                core::ptr::null::<libc::timespec>(),
            );
        }
        drop(errno);
    }
}

impl Drop for Held<'_> {
    #[inline]
    fn drop(&mut self) {
        if self.0.0.swap(FREE, Release) == CONTENDED {
            self.0.call(libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG, 1);
        }
    }
}
