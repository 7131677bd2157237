//! A lock that costs one atomic exchange and one store: the driver takes it in nearly every call.
//!
//! # Safety
//! The only room that hands out `&mut` through a shared reference: a guard exists only while the flag is
//! held, and the flag is held by one guard at a time.
#![allow(unsafe_code)]

use std::cell::UnsafeCell;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

/// A value behind a spinning, then yielding lock.
pub struct Spin<T> {
    taken: AtomicBool,
    value: UnsafeCell<T>,
}

// SAFETY: the flag gives access to one thread at a time.
unsafe impl<T: Send> Sync for Spin<T> {}

/// Access to the value until dropped.
pub struct Guard<'a, T>(&'a Spin<T>);

impl<T> Spin<T> {
    /// A free lock.
    pub const fn new(value: T) -> Spin<T> {
        Spin { taken: AtomicBool::new(false), value: UnsafeCell::new(value) }
    }

    /// Waits for the lock.
    #[inline]
    pub fn lock(&self) -> Guard<'_, T> {
        if self.taken.compare_exchange_weak(false, true, Acquire, Relaxed).is_err() {
            self.wait();
        }
        Guard(self)
    }

    #[cold]
    fn wait(&self) {
        let mut attempts = 0u32;
        while self.taken.load(Relaxed) || self.taken.swap(true, Acquire) {
            attempts += 1;
            match attempts {
                ..100 => std::hint::spin_loop(),
                100..1000 => std::thread::yield_now(),
                _ => std::thread::sleep(std::time::Duration::from_micros(50)),
            }
        }
    }
}

impl<T> Drop for Guard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        self.0.taken.store(false, Release);
    }
}

impl<T> Deref for Guard<'_, T> {
    type Target = T;
    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: this guard holds the flag.
        unsafe { &*self.0.value.get() }
    }
}

impl<T> DerefMut for Guard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: this guard holds the flag, and is borrowed mutably.
        unsafe { &mut *self.0.value.get() }
    }
}
