//! This process: the composition of the parts below. The first hook that needs it starts it, and in a child made by fork
//! the first hook there starts it again.
//!
//! # Safety
//! This file may use `unsafe` because it keeps the process's state in one mapping that the kernel zeroes in a child
//! (`MADV_WIPEONFORK`). So locks that another thread held at the fork are free there, the child does not have the parent's
//! slot, and it starts anew without any handler. Every type in [`Process`] is therefore valid when all its bytes are zero.
//! The starting thread alone writes the few fields that are not atomic, before it publishes `phase`.
#![allow(unsafe_code)]

use crate::container::Outcome;
use crate::devices::Scope;
use crate::environment;
use crate::memory::{self, Memory};
use crate::thread;
use crate::time::{Counted, Meter};
use core::mem::size_of;
use core::sync::atomic::{AtomicPtr, AtomicU32, Ordering::AcqRel, Ordering::Acquire, Ordering::Release};
use gpuquota_region::sys::{self, InChild, KeepErrno, NoSignals};

const FRESH: u32 = 0;
const STARTING: u32 = 1;
const READY: u32 = 2;
const OFF: u32 = 3;
const CLOSED: u32 = 4;

/// Everything that belongs to this process alone.
pub struct Process {
    phase: AtomicU32,
    /// The container and its devices.
    pub scope: Scope,
    memory: memory::State,
    meter: Meter,
    counted: Counted,
}

/// Whether this process has a quota.
pub enum Quota {
    /// It has one, and this is its state.
    On(&'static Process),
    /// It has none: the hook passes the call through.
    Off,
    /// The library cannot keep it, and the operator wants such a process to have no GPU: the hook refuses.
    Closed,
}

static PROCESS: AtomicPtr<Process> = AtomicPtr::new(core::ptr::null_mut());

/// This process's quota. The first call starts it, and one that finds the contents of the region lost restores them.
#[inline(always)]
pub fn quota() -> Quota {
    match ready() {
        Some(process) if process.scope.container.is_whole() => Quota::On(process),
        _ => quota_slowly(),
    }
}

/// The same for a call that finds out about lost contents by itself: a launch by another word, an allocation when it is admitted.
#[inline(always)]
pub fn quota_unchecked() -> Quota {
    ready().map_or_else(quota_slowly, Quota::On)
}

#[inline(always)]
fn ready() -> Option<&'static Process> {
    let process = PROCESS.load(Acquire);
    if process.is_null() {
        return None;
    }
    // SAFETY: a published pointer is a mapping of Process's size that is never undone.
    let process = unsafe { &*process };
    (process.phase.load(Acquire) == READY).then_some(process)
}

#[cold]
#[inline(never)]
fn quota_slowly() -> Quota {
    let _errno = KeepErrno::new();
    let Some(process) = state() else { return Quota::Off };
    loop {
        match process.phase.load(Acquire) {
            READY => {
                process.make_whole();
                return Quota::On(process);
            }
            OFF => return Quota::Off,
            CLOSED => return Quota::Closed,
            FRESH => {
                // A thread that left the start half done would leave all others waiting.
                let _signals = NoSignals::new();
                if process.phase.compare_exchange(FRESH, STARTING, AcqRel, Acquire).is_ok() {
                    thread::learn_id();
                    process.start();
                }
            }
            _ => sys::sleep_until(sys::monotonic_ns().wrapping_add(100_000)),
        }
    }
}

/// The mapping. The first thread here makes it.
fn state() -> Option<&'static Process> {
    let process = PROCESS.load(Acquire);
    if !process.is_null() {
        // SAFETY: as in `quota`.
        return Some(unsafe { &*process });
    }
    let fresh = sys::map_private(size_of::<Process>()).ok()?;
    // Kernels before 4.14 lack this advice; there a child keeps its parent's books until exec.
    let _ = sys::advise_fork(fresh, size_of::<Process>(), InChild::Zeroed);
    let published = PROCESS.compare_exchange(core::ptr::null_mut(), fresh.cast(), AcqRel, Acquire);
    let process = match published {
        Ok(_) => fresh.cast(),
        Err(other) => {
            sys::unmap_private(fresh, size_of::<Process>());
            other
        }
    };
    // SAFETY: as in `quota`; all-zero bytes are a valid Process.
    Some(unsafe { &*process })
}

impl Process {
    /// Starts the container and its devices. Runs once, in the thread that won `phase`.
    fn start(&'static self) {
        let phase = match self.scope.container.start() {
            Outcome::Ready => READY,
            Outcome::Off => OFF,
            Outcome::Closed => CLOSED,
        };
        self.scope.devices.read_visible(environment::get("CUDA_VISIBLE_DEVICES"));
        self.phase.store(phase, Release);
    }

    /// Restores the contents of the region if they are lost.
    #[inline]
    pub fn make_whole(&self) {
        if !self.scope.container.is_whole() {
            self.memory().books().make_whole();
        }
    }

    /// This process's bytes.
    #[inline]
    pub fn memory(&self) -> Memory<'_> {
        Memory { scope: &self.scope, state: &self.memory }
    }

    /// This process's GPU time.
    #[inline]
    pub fn meter(&self) -> (&Meter, &Scope) {
        (&self.meter, &self.scope)
    }

    /// A launch of a container without a share, or a wait for one.
    #[inline(always)]
    pub fn count_time(&self) {
        self.counted.call(&self.scope);
    }

    /// Measures the overhead after a call that may have loaded code or grown a heap.
    #[cold]
    pub fn measure_after_load(&self) {
        if let Some(place) = self.scope.place() {
            let memory = self.memory();
            memory.state.overhead.measure_after_load(memory.charges(), place.device);
        }
    }
}

/// At cuInit: writes one line on stderr if something is wrong with the limits, once per container.
#[cold]
pub fn warn() {
    let _errno = KeepErrno::new();
    let Some(process) = state() else { return };
    let phase = process.phase.load(Acquire);
    if phase >= READY {
        process.scope.container.warn(phase == CLOSED);
    }
}
