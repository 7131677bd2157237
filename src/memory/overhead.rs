//! Overhead: the bytes that the driver takes unasked, for contexts, code, heaps and local memory.
//!
//! No call gives this figure, so the library measures it: the driver's own figure for this process, less the charges of the
//! process's allocations and arenas. It does not guess by the card's name, and it does not take differences of the whole
//! device, in which a neighbour's allocation looks like one of ours.
//!
//! Arrays of less than half a block have no address, and share blocks that nobody can tell. Each is charged a block at first,
//! and the next measurement replaces these charges by what the driver has taken.
//!
//! A context takes some megabytes that NVML counts to the device and to no process. They show while the context is made
//! ([`memory::contexts`](super::contexts)), and are added to the figure as long as the context lives.
//!
//! The figure may be below the charges. Where a process has managed memory, that may not be on the device yet, and contexts
//! stay charged their cost. Else the driver takes less than the blocks that it names, and the figure is the truth.
//!
//! What this process keeps of a dead process's memory is in the driver's figure, and so in the overhead (`imports`).
//!
//! The library measures after each call that may change the overhead, at most every few milliseconds. It finds code that
//! the driver loads at a kernel's first run in the next measurement, or when a program reads the view or is refused.

mod imports;

use super::arenas::Arenas;
use super::books::Books;
use super::due;
use super::holdings::Kind;
use crate::container::DeviceRef;
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
/// A pause lasts at least so many times as long as the driver took to answer.
const PAUSE_TIMES: u64 = 20;
/// Pause between two measurements for the view.
const VIEW_PAUSE_NS: u64 = 100_000_000;
/// Contexts whose cost the library remembers.
const CONTEXTS: usize = 64;

/// The overhead of this process. All-zero bytes: none.
pub struct Overhead {
    /// One creation of a context at a time.
    pub creating: Lock,
    /// One measurement at a time.
    measuring: Lock,
    /// Living contexts by handle, and the cost of each: bytes << 8 | device.
    contexts: [AtomicU64; CONTEXTS],
    costs: [AtomicU64; CONTEXTS],
    /// The part of each cost that is in no figure of a process, bytes.
    unlisted: [AtomicU64; CONTEXTS],
    devices: [DeviceOverhead; DEVICES],
    /// Whether this process has had managed memory, which moves.
    managed: AtomicBool,
}

/// The overhead on one device.
struct DeviceOverhead {
    /// When it was last measured, CLOCK_MONOTONIC nanoseconds; 0: never.
    measured_at_ns: AtomicU64,
    /// How long the driver took to answer then: where it takes long it is asked more rarely.
    took_ns: AtomicU64,
    /// The cost of its living contexts, bytes.
    floor: AtomicU64,
    /// The part of the floor that is in no figure of a process, bytes.
    unlisted: AtomicU64,
    /// Bytes that are reserved for overhead through journals of requested bytes.
    reserved: AtomicU64,
    /// Small arrays that are charged a block each.
    small_arrays: AtomicU64,
}

/// The charges of this process beside which a figure is seen.
#[derive(Clone, Copy)]
pub struct Charges<'p> {
    /// Those of allocations.
    pub books: Books<'p>,
    /// Those of arenas.
    pub arenas: &'p Arenas,
}

/// The driver's figure beside the charges, bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Measured {
    /// What the driver has taken beyond the charges of allocations and arenas.
    pub beyond: u64,
    /// By how much those charges are above the figure.
    pub missing: u64,
}

impl Measured {
    fn new(figure: u64, charged: u64) -> Self {
        Self { beyond: figure.saturating_sub(charged), missing: charged.saturating_sub(figure) }
    }
}

impl Overhead {
    fn of(&self, device: u8) -> Option<&DeviceOverhead> {
        self.devices.get(usize::from(device))
    }

    /// Whether the last measurement is too old for the view. Without any, this process has made no call with an overhead.
    #[inline]
    fn is_old(&self, device: DeviceRef) -> bool {
        let measured = self.of(device.index).map_or(0, |overhead| overhead.measured_at_ns.load(Relaxed));
        measured != 0 && sys::monotonic_coarse_ns().saturating_sub(measured) > VIEW_PAUSE_NS
    }

    /// The context has another name from now on.
    pub fn rename_context(&self, from: u64, to: u64) {
        if let Some(stored) = self.contexts.iter().find(|stored| stored.load(Acquire) == from) {
            stored.store(to, Release);
        }
    }

    /// Gives back the cost of a context that was destroyed.
    pub fn forget_context(&self, charges: Charges<'_>, context: u64) {
        let mut entries = self.contexts.iter().zip(&self.costs).zip(&self.unlisted);
        let found = entries.find(|((stored, _), _)| stored.load(Acquire) == context);
        let Some(((stored, cost), unlisted)) = found else { return };
        let (cost, unlisted) = (cost.swap(0, AcqRel), unlisted.swap(0, AcqRel));
        stored.store(0, Release);
        let [index, ..] = cost.to_le_bytes();
        if let Some(overhead) = self.of(index) {
            for (sum, bytes) in [(&overhead.floor, cost >> 8), (&overhead.unlisted, unlisted)] {
                let _ = sum.fetch_update(AcqRel, Relaxed, |sum| Some(sum.saturating_sub(bytes)));
            }
        }
        if let Some(device) = charges.books.container().device(index) {
            self.measure(charges, device, 0);
        }
    }

    /// Remembers what a context has cost, and how much of that is in no figure of a process.
    pub fn remember_context(&self, device: u8, context: u64, cost: u64, unlisted: u64) {
        let Some(overhead) = self.of(device) else { return };
        let claim = |stored: &AtomicU64| stored.compare_exchange(0, context, AcqRel, Relaxed).is_ok();
        let mut entries = self.contexts.iter().zip(&self.costs).zip(&self.unlisted);
        if let Some(((_, stored_cost), stored_unlisted)) = entries.find(|((stored, _), _)| claim(stored)) {
            stored_cost.store(cost << 8 | u64::from(device), Release);
            stored_unlisted.store(unlisted, Release);
            overhead.floor.fetch_add(cost, AcqRel);
            overhead.unlisted.fetch_add(unlisted, AcqRel);
        }
    }

    /// Counts bytes that are reserved for overhead (`more`), or no longer.
    pub fn change_reserved(&self, device: u8, bytes: u64, more: bool) {
        if let Some(of_device) = self.of(device) {
            let change = if more { bytes } else { bytes.wrapping_neg() };
            of_device.reserved.fetch_add(change, AcqRel);
        }
    }

    /// A small array was made, and is charged a block until the next measurement.
    pub fn small_array_was_made(&self, books: Books<'_>, device: u8) {
        if let Some(of_device) = self.of(device) {
            of_device.small_arrays.fetch_add(1, AcqRel);
            books.accounts.due.add(device, due::SMALL_ARRAYS);
        }
    }

    /// From now on this process may have managed memory.
    pub fn managed_memory_was_made(&self) {
        self.managed.store(true, Relaxed);
    }

    /// The measurement that a call needs before and after it. `None` where the driver gives no figure.
    pub fn look(&self, charges: Charges<'_>, device: DeviceRef) -> Option<Measured> {
        measured_now(charges, device, self.of(device.index)?)
    }

    /// Measures after a call that may have loaded code or grown a heap.
    #[cold]
    pub fn measure_after_load(&self, charges: Charges<'_>, device: DeviceRef) {
        self.measure(charges, device, PAUSE_NS);
    }

    /// Measures when a program reads the view, unless the last measurement is recent.
    #[inline]
    pub fn measure_for_view(&self, charges: Charges<'_>, device: DeviceRef) {
        if charges.books.accounts.due.reasons(device.index) != 0 || self.is_old(device) {
            self.measure_with_losses(charges, device, 0);
        }
    }

    /// Measures before an admission, if a measurement is due and the pause is over.
    #[inline]
    pub fn measure_if_due(&self, charges: Charges<'_>, device: DeviceRef) {
        match charges.books.accounts.due.reasons(device.index) & !due::ARENAS {
            0 => {}
            due::IMPORTS if !self.is_old(device) => self.measure_losses(charges),
            _ => self.measure_with_losses(charges, device, PAUSE_NS),
        }
    }

    #[cold]
    fn measure_with_losses(&self, charges: Charges<'_>, device: DeviceRef, pause_ns: u64) {
        if charges.books.accounts.due.reasons(device.index) & due::IMPORTS != 0 {
            self.measure_losses(charges);
        }
        self.measure(charges, device, pause_ns);
    }

    /// Measures before a refusal, because unloaded code may still be charged.
    pub fn measure_before_refusal(&self, charges: Charges<'_>, device: DeviceRef, pause_ns: u64) {
        // Small arrays are charged too much until they are measured, and imported memory until it is found to be gone.
        let small = self.of(device.index).is_some_and(|of_device| of_device.small_arrays.load(Relaxed) != 0);
        let imports = charges.books.accounts.due.reasons(device.index) & due::IMPORTS != 0;
        self.measure_with_losses(charges, device, if small || imports { 0 } else { pause_ns });
    }

    /// Measures at once, and charges the result.
    pub fn measure_now(&self, charges: Charges<'_>, device: DeviceRef) {
        self.measure(charges, device, 0);
    }

    /// Measures and charges the result, unless the last measurement is less than `pause_ns` old. Answers whether the charge
    /// is now what the driver says.
    #[cold]
    fn measure(&self, charges: Charges<'_>, device: DeviceRef, pause_ns: u64) -> bool {
        let _errno = KeepErrno::new();
        let books = charges.books;
        let Some(of_device) = self.of(device.index) else { return false };
        let now = sys::monotonic_ns();
        let least = of_device.took_ns.load(Relaxed).saturating_mul(PAUSE_TIMES).min(VIEW_PAUSE_NS);
        let pause_ns = if pause_ns == 0 { 0 } else { pause_ns.max(least) };
        if now.saturating_sub(of_device.measured_at_ns.load(Relaxed)) < pause_ns {
            books.accounts.due.add(device.index, due::CALL);
            return false;
        }
        let Some(_measuring) = self.measuring.try_lock_or_repair(Ask::Kernel, || {}) else {
            books.accounts.due.add(device.index, due::CALL);
            return false;
        };
        of_device.measured_at_ns.store(now.max(1), Relaxed);
        books.accounts.due.begin(device.index);
        let small_arrays = of_device.small_arrays.swap(0, AcqRel);
        let floor = of_device.floor.load(Acquire);
        let charge = |kind, bytes| books.accounts.journals.set_charge(books.container(), device, kind, bytes);
        let measured = measured_now(charges, device, of_device);
        of_device.took_ns.store(sys::monotonic_ns().saturating_sub(now), Relaxed);
        let Some(measured) = measured else {
            // Calls were under way, or the driver gives no figure: small arrays wait for the next measurement.
            of_device.small_arrays.fetch_add(small_arrays, AcqRel);
            charge(KIND_CONTEXT, floor);
            return false;
        };
        if small_arrays != 0 {
            let arrays = books.accounts.holdings.charge_of(Kind::SmallArray, device.index);
            let without = Measured {
                beyond: measured.beyond.saturating_add(arrays.saturating_sub(measured.missing)),
                missing: measured.missing.saturating_sub(arrays),
            };
            // First the new charge and then the end of the old ones, so that there is never too little.
            self.charge(charge, without, floor);
            books.accounts.holdings.take_charges(Kind::SmallArray, device.index, |holding| {
                books.give_back(holding.device, holding.journal, holding.bytes);
            });
        } else {
            self.charge(charge, measured, floor);
        }
        true
    }

    fn charge(&self, charge: impl Fn(u8, u64) -> bool, measured: Measured, floor: u64) {
        let (contexts, code) = split(measured, floor, self.managed.load(Relaxed));
        charge(KIND_CONTEXT, contexts);
        charge(KIND_MODULE, code);
    }
}

/// The charges for contexts, and for code and heaps. Contexts are charged their cost at their creation. Where the figure is
/// below that they are charged the rest, unless managed memory may move to the device later.
fn split(Measured { beyond, missing }: Measured, floor: u64, managed: bool) -> (u64, u64) {
    let contexts =
        if managed || missing == 0 && beyond >= floor { floor } else { beyond.saturating_sub(missing) };
    (contexts, beyond.saturating_sub(floor))
}

/// The driver's figure for this process beside its charges. `None` where the driver gives no figure, and where other threads
/// allocate all the time.
fn measured_now(charges: Charges<'_>, device: DeviceRef, overhead: &DeviceOverhead) -> Option<Measured> {
    let Charges { books, arenas } = charges;
    let (container, journals) = (books.container(), &books.accounts.journals);
    books.scope.devices.memory_cap(device)?;
    let uuid = Uuid::of(device.record);
    for _ in 0..4 {
        // Equal sums alone do not show that nothing has happened: memory may have been freed, and as much allocated again.
        let operations = journals.operations(container, device.index)?;
        let before = books.sums_of(device.index)?;
        // A charge of an arena that is above what the arena holds would be taken off the overhead.
        let Some(settings) = arenas.exact(device.index) else {
            arenas.update_device(books, device.index);
            continue;
        };
        let figure = match process_memory::of_this_process(&uuid)? {
            // Without a context there is nothing that could be in no figure.
            0 => 0,
            listed => listed.saturating_add(overhead.unlisted.load(Acquire)),
        };
        // Charges and holdings differ while a call is under way, and the driver's figure may contain its bytes or not.
        let charged = before.charged.wrapping_add(overhead.reserved.load(Acquire));
        if journals.requested_bytes(container, device.index) == Some(charged)
            && books.sums_of(device.index)? == before
            && journals.operations(container, device.index) == Some(operations)
            && arenas.exact(device.index) == Some(settings)
        {
            let arenas = journals.arena_bytes(device.index);
            return Some(Measured::new(figure, before.on_device.saturating_add(arenas)));
        }
    }
    None
}

#[cfg(test)]
mod tests;
