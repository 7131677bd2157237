//! Locks. That of journals, holdings and other state of this process: one word, free when zero. A child made by fork sees its
//! parent's state as zeroes, so it finds the lock free.
//!
//! A thread holds the lock for nanoseconds. So it releases it by one plain store and wakes nobody: a waiter spins, and
//! sleeps a little between attempts in case the holder has lost its processor.
//!
//! The word names the holder, because a holder may never come back: its thread was cancelled or left the hook by
//! `siglongjmp` or an exception. The lock is then *lost*, and who takes it repairs what it guards. A lock is lost if its
//! holder's thread has ended, or if it is the caller's own and the caller is in a hook of its own account. In the hook of a
//! signal handler the caller's own lock is held by the code that the handler has interrupted; so nobody waits for it.
//! A lock of another living thread is never taken. Who has waited for it for [`PATIENCE`] goes on without it, and errs on
//! the side of charging too much.

use crate::thread;
use core::sync::atomic::{
    AtomicU32, AtomicU64, Ordering::AcqRel, Ordering::Acquire, Ordering::Relaxed, Ordering::Release,
};
use gpuquota_region::sys;

/// A lock. All-zero bytes are a free one.
pub struct Lock(AtomicU32);

/// In the word: the lock is held.
const HELD: u32 = thread::TAGGED;
/// In the word: somebody has waited in vain, so that others wait only briefly.
const SUSPECT: u32 = 1 << 30;
/// In the word: how often the lock was taken from a lost holder. A number that the kernel gives out again then makes another
/// word. Numbers of threads have 22 bits.
const TAKEN_OVER: u32 = ID.wrapping_add(1);
const ID: u32 = (1 << 22) - 1;

/// Attempts of 20 microseconds, or more, for which a thread waits for a lock that is held for nanoseconds.
const PATIENCE: u32 = 20_000;
/// The same where somebody else has waited in vain.
const NO_PATIENCE: u32 = 50;
/// After so many attempts a waiter asks whether the holder lives.
const ASK_AFTER: u32 = 8;

/// Whom to ask whether the holder of a lock lives.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Ask {
    /// The kernel, by a system call.
    Kernel,
    /// Nobody.
    Nobody,
}

/// The end of a wait.
enum Slowly {
    Taken,
    TakenOver,
    Never,
}

/// Releases the lock when dropped.
pub struct LockGuard<'l>(&'l Lock);

/// The word of a lock that this thread holds. Every thread of a program comes here through a hook; those of unit tests do not.
#[inline(always)]
fn own_tag() -> u32 {
    thread::tag() | if cfg!(test) { HELD } else { 0 }
}

impl Lock {
    /// Takes the lock if it is free.
    #[inline(always)]
    pub fn try_lock(&self) -> Option<LockGuard<'_>> {
        self.take_if_free().then(|| LockGuard(self))
    }

    #[inline(always)]
    fn take_if_free(&self) -> bool {
        self.0.compare_exchange(0, own_tag(), Acquire, Relaxed).is_ok()
    }

    /// Takes the lock if it is free or lost; `repair` repairs what it guards after a loss. [`Ask::Nobody`] finds only a loss of
    /// the caller's own.
    #[inline]
    pub fn try_lock_or_repair(&self, ask: Ask, repair: impl FnOnce()) -> Option<LockGuard<'_>> {
        if let Some(guard) = self.try_lock() {
            return Some(guard);
        }
        if !self.take_over(ask) {
            return None;
        }
        repair();
        Some(LockGuard(self))
    }

    /// Takes the lock, for whose holder the driver works; waits for `most_ns`, and looks again after each `pause_ns`. It guards
    /// nothing that a loss leaves half done.
    #[cold]
    pub fn lock_within(&self, most_ns: u64, pause_ns: u64) -> Option<LockGuard<'_>> {
        let until = sys::monotonic_ns().saturating_add(most_ns);
        loop {
            match self.try_lock_or_repair(Ask::Kernel, || {}) {
                None if sys::monotonic_ns() < until => {
                    sys::sleep_until(sys::monotonic_ns().wrapping_add(pause_ns));
                }
                taken => return taken,
            }
        }
    }

    /// Takes the lock; waits while another thread holds it. `repair` repairs what it guards after a loss. `None` if the
    /// code that a signal handler has interrupted holds it, or another thread does not give it back.
    #[inline(always)]
    pub fn lock(&self, repair: impl FnOnce()) -> Option<LockGuard<'_>> {
        if !self.take_if_free() {
            match self.lock_slowly() {
                Slowly::Taken => {}
                Slowly::TakenOver => repair(),
                Slowly::Never => return None,
            }
        }
        Some(LockGuard(self))
    }

    #[cold]
    #[inline(never)]
    fn lock_slowly(&self) -> Slowly {
        let _errno = sys::KeepErrno::new();
        let (mut attempt, mut seen) = (0u32, 0u32);
        while attempt < PATIENCE {
            for _ in 0..200 {
                core::hint::spin_loop();
                if self.take_if_free() {
                    return Slowly::Taken;
                }
            }
            let own = self.is_own();
            if own && thread::is_nested() {
                return Slowly::Never;
            }
            if (own || attempt % ASK_AFTER == ASK_AFTER.wrapping_sub(1)) && self.take_over(Ask::Kernel) {
                return Slowly::TakenOver;
            }
            if attempt > NO_PATIENCE && self.0.load(Relaxed) & SUSPECT != 0 {
                return Slowly::Never;
            }
            // Among many threads one may be late often, as long as others get their turn.
            let held = self.0.load(Relaxed);
            attempt = if held == seen { attempt.wrapping_add(1) } else { 0 };
            seen = held;
            sys::sleep_until(sys::monotonic_ns().wrapping_add(20_000));
        }
        let held = self.0.load(Relaxed);
        if held != 0 {
            let _ = self.0.compare_exchange(held, held | SUSPECT, Relaxed, Relaxed);
        }
        Slowly::Never
    }

    /// Whether this thread holds the lock.
    fn is_own(&self) -> bool {
        let held = self.0.load(Relaxed);
        held & ID != 0 && held & (HELD | ID) == own_tag()
    }

    /// Takes a lock whose holder is lost.
    #[cold]
    #[inline(never)]
    fn take_over(&self, ask: Ask) -> bool {
        let held = self.0.load(Relaxed);
        let holder = held & ID;
        if held & HELD == 0 || holder == 0 {
            return false;
        }
        let lost = if self.is_own() {
            !thread::is_nested()
        } else {
            ask == Ask::Kernel && !sys::thread_lives(holder)
        };
        let count = held.wrapping_add(TAKEN_OVER) & !(HELD | SUSPECT | ID);
        let taken = own_tag() | count;
        lost && self.0.compare_exchange(held, taken, AcqRel, Relaxed).is_ok()
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

#[cfg(test)]
mod tests;
