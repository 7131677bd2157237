//! Overhead: the bytes that the driver takes unasked, for contexts, code, heaps and local memory.
//!
//! No call gives this figure, so the library measures it: the driver's own figure for this process, less the most that
//! the driver can have spent on the process's requests. A driver gives memory out in blocks, and the container does not
//! pay for the rest of a block. The cost of a context, measured when it was made, stays charged while the context lives,
//! also where requested memory is not on the device yet (managed memory moves). Where the driver gives no figure the
//! library charges nothing. It does not guess by the card's name, and it does not take differences of the whole device, in
//! which a neighbour's allocation looks like one of ours.
//!
//! The library measures after each call that may change the overhead, at most every few milliseconds. It finds code that
//! the driver loads at a kernel's first run in the next measurement, or when a program reads the view or is refused.

use super::books::{Accounts, Books};
use crate::container::DeviceRef;
use crate::driver::cuda::CUresult;
use crate::driver::nvml::process_memory;
use crate::lock::{Ask, Lock};
use crate::uuid::Uuid;
use core::sync::atomic::{
    AtomicBool, AtomicU64, Ordering::AcqRel, Ordering::Acquire, Ordering::Relaxed, Ordering::Release,
};
use gpuquota_region::layout::{DEVICES, KIND_CONTEXT, KIND_MODULE};
use gpuquota_region::sys::{self, KeepErrno};

/// Pause between two measurements of a device after calls.
const PAUSE_NS: u64 = 5_000_000;
/// Pause between two measurements for the view.
const VIEW_PAUSE_NS: u64 = 100_000_000;
/// Drivers give device memory out in blocks of this size, or of smaller ones.
const BLOCK: u64 = 2 << 20;
/// Contexts whose cost the library remembers.
const CONTEXTS: usize = 64;

/// The overhead of this process. All-zero bytes: none.
pub struct Overhead {
    /// One measurement at a time.
    measuring: Lock,
    /// Living contexts by handle, and the cost of each: bytes << 8 | device.
    contexts: [AtomicU64; CONTEXTS],
    costs: [AtomicU64; CONTEXTS],
    devices: [DeviceOverhead; DEVICES],
}

/// The overhead on one device.
struct DeviceOverhead {
    /// When it was last measured, CLOCK_MONOTONIC nanoseconds; 0: never.
    measured_at_ns: AtomicU64,
    /// A call since then was not measured, because it came too soon after the last measurement.
    due: AtomicBool,
    /// The cost of its living contexts, bytes.
    floor: AtomicU64,
}

impl Overhead {
    fn of(&self, device: u8) -> Option<&DeviceOverhead> {
        self.devices.get(usize::from(device))
    }

    /// Makes a call that creates a context, and charges the context's cost. `handle` reads its handle after the call.
    #[cold]
    pub fn create_context(
        &self,
        books: Books<'_>,
        device: DeviceRef,
        call: impl FnOnce() -> CUresult,
        handle: impl FnOnce() -> u64,
    ) -> CUresult {
        // If two threads make contexts at the same time, the cost of each is not measurable; the sum is.
        let measuring = self.measuring.try_lock_or_repair(Ask::Kernel, || {});
        let before = measuring.as_ref().and_then(|_| overhead_now(books, device));
        let answer = call();
        if answer.is_success() {
            let _errno = KeepErrno::new();
            // Who has a context is a process at the device, also where no byte of it is known.
            let _ = books.accounts.journals.of_kind(books.container(), device.index, KIND_CONTEXT);
            if let Some(cost) = before.and_then(|before| overhead_now(books, device)?.checked_sub(before)) {
                self.remember_context(device.index, handle(), cost);
            }
            drop(measuring);
            self.measure(books, device, 0);
        }
        answer
    }

    /// The context has another name from now on.
    pub fn rename_context(&self, from: u64, to: u64) {
        if let Some(stored) = self.contexts.iter().find(|stored| stored.load(Acquire) == from) {
            stored.store(to, Release);
        }
    }

    /// Gives back the cost of a context that was destroyed.
    pub fn forget_context(&self, books: Books<'_>, context: u64) {
        let mut pairs = self.contexts.iter().zip(&self.costs);
        let Some((stored, cost)) = pairs.find(|(stored, _)| stored.load(Acquire) == context) else { return };
        let cost = cost.swap(0, AcqRel);
        stored.store(0, Release);
        let [index, ..] = cost.to_le_bytes();
        if let Some(overhead) = self.of(index) {
            let _ =
                overhead.floor.fetch_update(AcqRel, Relaxed, |floor| Some(floor.saturating_sub(cost >> 8)));
        }
        if let Some(device) = books.container().device(index) {
            self.measure(books, device, 0);
        }
    }

    fn remember_context(&self, device: u8, context: u64, cost: u64) {
        let claim = |(stored, _): &(&AtomicU64, &AtomicU64)| {
            stored.compare_exchange(0, context, AcqRel, Relaxed).is_ok()
        };
        let entry = self.contexts.iter().zip(&self.costs).find(claim);
        if let Some(((_, stored_cost), overhead)) = entry.zip(self.of(device)) {
            stored_cost.store(cost << 8 | u64::from(device), Release);
            overhead.floor.fetch_add(cost, AcqRel);
        }
    }

    /// Measures after a call that may have loaded code or grown a heap.
    #[cold]
    pub fn measure_after_load(&self, books: Books<'_>, device: DeviceRef) {
        self.measure(books, device, PAUSE_NS);
    }

    /// Measures when a program reads the view, unless the last measurement is recent.
    #[inline]
    pub fn measure_for_view(&self, books: Books<'_>, device: DeviceRef) {
        let Some(overhead) = self.of(device.index) else { return };
        let measured = overhead.measured_at_ns.load(Relaxed);
        // Without any measurement this process has made no call with an overhead.
        let long_ago = || sys::monotonic_coarse_ns().saturating_sub(measured) > VIEW_PAUSE_NS;
        if overhead.due.load(Relaxed) || measured != 0 && long_ago() {
            self.measure(books, device, 0);
        }
    }

    /// Measures before an admission, if a measurement is due and the pause is over.
    #[inline]
    pub fn measure_if_due(&self, books: Books<'_>, device: DeviceRef) {
        if self.of(device.index).is_some_and(|overhead| overhead.due.load(Relaxed)) {
            self.measure(books, device, PAUSE_NS);
        }
    }

    /// Measures before a refusal, because unloaded code may still be charged.
    pub fn measure_before_refusal(&self, books: Books<'_>, device: DeviceRef, pause_ns: u64) {
        self.measure(books, device, pause_ns);
    }

    /// Measures and charges the result, unless the last measurement is less than `pause_ns` old.
    #[cold]
    fn measure(&self, books: Books<'_>, device: DeviceRef, pause_ns: u64) {
        let _errno = KeepErrno::new();
        let Some(of_device) = self.of(device.index) else { return };
        of_device.due.store(true, Relaxed);
        let now = sys::monotonic_ns();
        if now.saturating_sub(of_device.measured_at_ns.load(Relaxed)) < pause_ns {
            return;
        }
        let Some(_measuring) = self.measuring.try_lock_or_repair(Ask::Kernel, || {}) else { return };
        of_device.measured_at_ns.store(now.max(1), Relaxed);
        of_device.due.store(false, Relaxed);
        let Some(overhead) = overhead_now(books, device) else { return };
        let (contexts, code) = split(overhead, of_device.floor.load(Acquire));
        books.accounts.journals.set_charge(books.container(), device, KIND_CONTEXT, contexts);
        books.accounts.journals.set_charge(books.container(), device, KIND_MODULE, code);
    }
}

/// The bytes of the driver's figure beyond the most that requests can have cost and beyond what arenas hold.
fn beyond_requests(figure: u64, most: u64, arenas: u64) -> u64 {
    figure.saturating_sub(most).saturating_sub(arenas)
}

/// The charges for contexts, and for code and heaps. Contexts are charged their cost at their creation, also where the
/// driver's figure is below that.
fn split(overhead: u64, floor: u64) -> (u64, u64) {
    (floor, overhead.saturating_sub(floor))
}

/// The driver's figure for this process, beyond the requests of the process. `None` where the driver gives no figure, and
/// where other threads allocate all the time.
fn overhead_now(books: Books<'_>, device: DeviceRef) -> Option<u64> {
    let (container, Accounts { journals, holdings }) = (books.container(), books.accounts);
    books.scope.devices.memory_cap(device)?;
    let uuid = Uuid::of(device.record);
    for _ in 0..4 {
        let (held, most) = holdings.sum_of(device.index, BLOCK)?;
        let bytes = process_memory::of_this_process(&uuid)?;
        // Charges and holdings differ while a call is under way, and the driver's figure may contain its bytes or not.
        if journals.requested_bytes(container, device.index) == Some(held)
            && holdings.sum_of(device.index, BLOCK)?.0 == held
        {
            return Some(beyond_requests(bytes, most, journals.arena_bytes(device.index)));
        }
    }
    None
}

#[cfg(test)]
mod tests;
