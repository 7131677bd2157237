//! What the driver takes beside requests: contexts, code, heaps, local memory.
//!
//! No call tells how much that is, so it is measured: the driver's own figure for this process, less the most that it
//! can have spent on what the process asked for (a driver gives memory out in blocks, and the rest of a block is not
//! held against anybody). What a context cost when it was made stays charged while it lives, also where memory that was
//! asked for is not there yet (managed memory moves). Where the driver tells no figure nothing is charged: never a guess
//! by the card's name, never a difference of the whole device, in which a neighbour's allocation looks like ours.
//!
//! Measured is after each call that can have such an effect, at most every few milliseconds; code that the driver loads
//! when a kernel first runs is found at the next of them, or when somebody looks at the memory or is refused.

use super::books::{Accounts, Books};
use crate::container::DeviceRef;
use crate::driver::cuda::CUresult;
use crate::driver::nvml::process_memory;
use crate::lock::Lock;
use crate::uuid::Uuid;
use core::sync::atomic::{
    AtomicBool, AtomicU64, Ordering::AcqRel, Ordering::Acquire, Ordering::Relaxed, Ordering::Release,
};
use gpuquota_region::layout::{DEVICES, KIND_CONTEXT, KIND_MODULE};
use gpuquota_region::sys::{self, KeepErrno};

/// Pause between two measurements of a device that nobody waits for.
const PAUSE_NS: u64 = 5_000_000;
/// The same where somebody only looks.
const LOOKING_PAUSE_NS: u64 = 100_000_000;
/// Drivers give device memory out in blocks of this size, or of smaller ones.
const BLOCK: u64 = 2 << 20;
/// Contexts whose cost is remembered.
const CONTEXTS: usize = 64;

/// What this process knows of its overhead. All-zero bytes: nothing.
pub struct Overhead {
    /// One measurement at a time.
    measuring: Lock,
    /// Living contexts by handle, and what each cost: bytes << 8 | device.
    contexts: [AtomicU64; CONTEXTS],
    costs: [AtomicU64; CONTEXTS],
    devices: [DeviceOverhead; DEVICES],
}

/// One device.
struct DeviceOverhead {
    /// When it was last measured, CLOCK_MONOTONIC nanoseconds; 0: never.
    measured_at_ns: AtomicU64,
    /// Something happened since that was not measured, because it came too soon after another.
    owing: AtomicBool,
    /// What its living contexts cost.
    floor: AtomicU64,
}

impl Overhead {
    fn of(&self, device: u8) -> Option<&DeviceOverhead> {
        self.devices.get(usize::from(device))
    }

    /// Makes a call that creates a context, which `handle` tells afterwards, and charges what it cost.
    #[cold]
    pub fn create_context(
        &self,
        books: Books<'_>,
        device: DeviceRef,
        call: impl FnOnce() -> CUresult,
        handle: impl FnOnce() -> u64,
    ) -> CUresult {
        // Of contexts that two threads make at the same time none can be told what it cost; the sum still is right.
        let measuring = self.measuring.try_lock();
        let before = measuring.as_ref().and_then(|_| overhead_now(books, device));
        let answer = call();
        if answer.is_success() {
            let _errno = KeepErrno::new();
            if let Some(cost) = before.and_then(|before| overhead_now(books, device)?.checked_sub(before)) {
                self.remember_context(device.index, handle(), cost);
            }
            drop(measuring);
            self.measure(books, device, 0);
        }
        answer
    }

    /// A context is gone, and what it cost with it.
    pub fn forget_context(&self, books: Books<'_>, context: u64) {
        let mut pairs = self.contexts.iter().zip(&self.costs);
        let Some((known, cost)) = pairs.find(|(known, _)| known.load(Acquire) == context) else { return };
        let cost = cost.swap(0, AcqRel);
        known.store(0, Release);
        let [index, ..] = cost.to_le_bytes();
        if let Some(known) = self.of(index) {
            let _ = known.floor.fetch_update(AcqRel, Relaxed, |floor| Some(floor.saturating_sub(cost >> 8)));
        }
        if let Some(device) = books.container().device(index) {
            self.measure(books, device, 0);
        }
    }

    fn remember_context(&self, device: u8, context: u64, cost: u64) {
        let free = |(known, _): &(&AtomicU64, &AtomicU64)| {
            known.compare_exchange(0, context, AcqRel, Relaxed).is_ok()
        };
        let place = self.contexts.iter().zip(&self.costs).find(free);
        if let Some(((_, place), known)) = place.zip(self.of(device)) {
            place.store(cost << 8 | u64::from(device), Release);
            known.floor.fetch_add(cost, AcqRel);
        }
    }

    /// After a call that may have loaded code or grown a heap.
    #[cold]
    pub fn measure_after_load(&self, books: Books<'_>, device: DeviceRef) {
        self.measure(books, device, PAUSE_NS);
    }

    /// When somebody looks at a device's memory: not each time.
    #[inline]
    pub fn measure_for_view(&self, books: Books<'_>, device: DeviceRef) {
        let Some(known) = self.of(device.index) else { return };
        let measured = known.measured_at_ns.load(Relaxed);
        // Where nothing was ever measured, nothing that has an overhead has happened.
        let long_ago = || sys::monotonic_coarse_ns().saturating_sub(measured) > LOOKING_PAUSE_NS;
        if known.owing.load(Relaxed) || measured != 0 && long_ago() {
            self.measure(books, device, 0);
        }
    }

    /// Before bytes are given: what was not measured yet counts too, as soon as it may be measured.
    #[inline]
    pub fn measure_if_owing(&self, books: Books<'_>, device: DeviceRef) {
        if self.of(device.index).is_some_and(|known| known.owing.load(Relaxed)) {
            self.measure(books, device, PAUSE_NS);
        }
    }

    /// Before a request is refused: code that was unloaded may still be charged.
    pub fn measure_before_refusal(&self, books: Books<'_>, device: DeviceRef, pause_ns: u64) {
        self.measure(books, device, pause_ns);
    }

    /// Measures, unless that was done less than `pause_ns` ago, and charges what there is.
    #[cold]
    fn measure(&self, books: Books<'_>, device: DeviceRef, pause_ns: u64) {
        let _errno = KeepErrno::new();
        let Some(known) = self.of(device.index) else { return };
        known.owing.store(true, Relaxed);
        let now = sys::monotonic_ns();
        if now.saturating_sub(known.measured_at_ns.load(Relaxed)) < pause_ns {
            return;
        }
        let Some(_measuring) = self.measuring.try_lock() else { return };
        known.measured_at_ns.store(now.max(1), Relaxed);
        known.owing.store(false, Relaxed);
        let Some(overhead) = overhead_now(books, device) else { return };
        let (contexts, code) = split(overhead, known.floor.load(Acquire));
        books.accounts.journals.set_charge(books.container(), device, KIND_CONTEXT, contexts);
        books.accounts.journals.set_charge(books.container(), device, KIND_MODULE, code);
    }
}

/// What of the driver's figure nobody asked for: all but the most that requests can have cost, and what arenas hold.
fn beyond_requests(figure: u64, most: u64, arenas: u64) -> u64 {
    figure.saturating_sub(most).saturating_sub(arenas)
}

/// What contexts are charged, and what code and heaps are. A context costs what it cost when it was made, also where less
/// than that is measured.
fn split(overhead: u64, floor: u64) -> (u64, u64) {
    (floor, overhead.saturating_sub(floor))
}

/// What the driver says that this process holds, beyond what it asked for. `None` where the driver does not tell,
/// or other threads allocate all the time.
fn overhead_now(books: Books<'_>, device: DeviceRef) -> Option<u64> {
    let (container, Accounts { journals, holdings }) = (books.container(), books.accounts);
    books.scope.devices.memory_cap(device)?;
    let uuid = Uuid::of(device.record);
    for _ in 0..4 {
        let (noted, most) = holdings.held_of(device.index, BLOCK)?;
        let bytes = process_memory::of_this_process(&uuid)?;
        // What is charged and not noted, or the other way round, is of a call under way: nobody knows whether the
        // driver's figure contains it.
        if journals.requested_bytes(container, device.index) == Some(noted)
            && holdings.held_of(device.index, BLOCK)?.0 == noted
        {
            return Some(beyond_requests(bytes, most, journals.arena_bytes(device.index)));
        }
    }
    None
}

#[cfg(test)]
mod tests;
