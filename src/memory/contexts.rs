//! Contexts: a context that does not fit is refused before it is made.
//!
//! No call says what a context will take. So the library reserves what one has taken on this device: the region keeps that
//! figure (`Device::context_bytes`), and the first process of the container that makes a context learns it. While that
//! process learns, it reserves all of the container's memory, so that no other process makes a context of unknown size
//! beside it; the others wait for it.
//!
//! NVML's figure of the device grows by more than its figure of the process: by 5.6 MiB for each context on an H200 with driver
//! 580. Both are read before and after, so that only what other processes do meanwhile and NVML does not list can be in the
//! difference. More than a sixteenth of the context is no part of a context.
//!
//! Where the driver does not give a process its own figure nobody can learn. If the region has a figure all the same (the
//! node's agent may write one), each context is charged that, and counted in `Device::estimated_contexts`. Else contexts are
//! not charged: the first one leaves `CONTEXT_BYTES_UNSEEN` in the region, and those after it reserve nothing, because a
//! reservation of everything would refuse the memory that others ask for meanwhile.

use super::books::{Placement, Reservation};
use super::overhead::Overhead;
use super::refusal::any_reserving;
use super::reserve::Memory;
use crate::container::DeviceRef;
use crate::driver::cuda::CUresult;
use crate::driver::nvml::process_memory::Unlisted;
use crate::uuid::Uuid;
use core::sync::atomic::{AtomicU64, Ordering::Acquire, Ordering::Relaxed, Ordering::Release};
use gpuquota_quota::ledger;
use gpuquota_region::layout::{CONTEXT_BYTES_UNSEEN, Device, KIND_CONTEXT, REFUSED_CONTEXT};
use gpuquota_region::sys::{self, KeepErrno};

/// How long a process waits for another one that learns what a context takes, and for another thread that makes one.
const LEARNING_WAIT_NS: u64 = 10_000_000_000;
/// Pause between two looks.
const PAUSE_NS: u64 = 1_000_000;

/// A kind of contexts.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Sort {
    /// A primary context, or one that the program has created.
    Full,
    /// A green context, which takes at most what a full one does.
    Green,
}

/// What is reserved for a context.
enum Expected {
    /// It does not fit.
    Refused,
    /// These bytes, which one has taken before.
    Known(Option<Reservation>),
    /// What a context takes is not known; the reservation keeps other processes from making one.
    Unknown(Option<Reservation>),
}

/// What this process has learned about green contexts of any device: bytes + 1; 0: nothing.
static GREEN: AtomicU64 = AtomicU64::new(0);

impl Memory<'_> {
    /// Makes a context by `call`, unless it `exists`. `handle` reads its handle after the call; `undo` destroys it again.
    #[cold]
    pub fn create_context(
        self,
        device: DeviceRef,
        sort: Sort,
        exists: impl FnOnce() -> bool,
        call: impl FnOnce() -> CUresult,
        handle: impl Fn() -> u64,
        undo: impl FnOnce(),
    ) -> CUresult {
        let _errno = KeepErrno::new();
        let (books, overhead) = (self.books(), &self.state.overhead);
        // If two threads made contexts at the same time, the cost of each would not be measurable.
        let creation = overhead.creating.lock_within(LEARNING_WAIT_NS, PAUSE_NS);
        if creation.is_none() || exists() {
            return call();
        }
        books.accounts.absent.look_once(books.container());
        let peak = device.record.peak.load(Relaxed);
        let (reservation, known) = match self.expect_context(device, sort) {
            Expected::Refused => return CUresult::OUT_OF_MEMORY,
            Expected::Known(reservation) => (reservation, true),
            Expected::Unknown(reservation) => (reservation, false),
        };
        let reserved = reservation.map_or(0, |reservation| reservation.bytes);
        let before = overhead.look(self.charges(), device);
        let unlisted = || Unlisted::of(&Uuid::of(device.record));
        let unlisted_before = before.and_then(|_| unlisted());
        let answer = call();
        let mut cost = None;
        if answer.is_success() {
            // Who has a context is a process at the device, also where no byte of it is known.
            let _ = books.accounts.journals.of_kind(books.container(), device.index, KIND_CONTEXT);
            let grown = |after: u64| before.and_then(|before| after.checked_sub(before.beyond));
            let listed = overhead.look(self.charges(), device).and_then(|after| grown(after.beyond));
            let hidden = listed.map_or(0, |listed| {
                unlisted_part(device, listed, unlisted_before.and_then(|before| Some((before, unlisted()?))))
            });
            let measured = listed.map(|listed| listed.saturating_add(hidden));
            cost = measured.or(Some(reserved).filter(|reserved| known && *reserved != 0));
            learn(device, sort, measured);
            if let Some(measured) = measured {
                self.scope.devices.known.remember_context_bytes(device.index, measured);
            } else if cost.is_some() {
                device.record.estimated_contexts.fetch_add(1, Relaxed);
            }
            if let Some(cost) = cost {
                overhead.remember_context(device.index, handle(), cost, hidden);
            }
            overhead.measure_now(self.charges(), device);
        }
        if let Some(reservation) = reservation {
            self.drop_reservation(overhead, reservation, peak);
        }
        // More than was reserved: the cost was not known, or has grown.
        let is_more = cost.is_some_and(|cost| !known || cost > reserved);
        if is_more && self.is_above_cap(device) {
            undo();
            overhead.forget_context(self.charges(), handle());
            self.report_refusal(device, cost.unwrap_or(0), REFUSED_CONTEXT);
            return CUresult::OUT_OF_MEMORY;
        }
        answer
    }

    /// Gives the reservation of a context back; `before` is the peak of use before it.
    fn drop_reservation(self, overhead: &Overhead, reservation: Reservation, before: u64) {
        let journals = &self.books().accounts.journals;
        let bytes = reservation.bytes.cast_signed().wrapping_neg();
        journals.add_reserving(self.books().container(), reservation.journal, bytes);
        overhead.change_reserved(reservation.device.index, reservation.bytes, false);
        self.books().roll_back(reservation);
        // The context was charged while its reservation was still there. That is no use of memory.
        let Device { peak, used, .. } = reservation.device.record;
        let without = |peak: u64| peak.saturating_sub(reservation.bytes).max(before).max(ledger::used(used));
        let _ = peak.fetch_update(Relaxed, Relaxed, |peak| Some(without(peak)));
    }

    fn keep_reservation(self, reservation: Reservation) -> Reservation {
        let journals = &self.books().accounts.journals;
        self.state.overhead.change_reserved(reservation.device.index, reservation.bytes, true);
        let bytes = reservation.bytes.cast_signed();
        journals.add_reserving(self.books().container(), reservation.journal, bytes);
        reservation
    }

    /// Whether more is in use than the cap allows.
    pub fn is_above_cap(self, device: DeviceRef) -> bool {
        let ceiling = self.books().ceiling(device, Placement::Device);
        ceiling.is_some_and(|ceiling| ledger::used(&device.record.used) > ceiling)
    }

    /// Reserves what a context will take.
    fn expect_context(self, device: DeviceRef, sort: Sort) -> Expected {
        let Some(ceiling) = self.books().ceiling(device, Placement::Device) else {
            return Expected::Unknown(None);
        };
        let started = sys::monotonic_ns();
        loop {
            match known_cost(device, sort) {
                Some(0) => return Expected::Known(None),
                Some(known) => {
                    let reservation =
                        self.reserve_context(device, known).map(|all| self.keep_reservation(all));
                    return reservation.map_or(Expected::Refused, |known| Expected::Known(Some(known)));
                }
                None => {}
            }
            // This succeeds only where nobody has anything of the container's memory.
            if let Ok(all) = self.books().try_reserve(device, ceiling, Placement::Device) {
                return Expected::Unknown(Some(self.keep_reservation(all)));
            }
            self.scope.container.reap();
            let now = sys::monotonic_ns();
            let is_over = now.saturating_sub(started) > LEARNING_WAIT_NS;
            if is_over || !any_reserving(&self.scope.container, device.index) {
                return Expected::Unknown(None);
            }
            sys::sleep_until(now.wrapping_add(PAUSE_NS));
        }
    }
}

/// The part of a context's cost that NVML counts to no process, by what was unlisted before and after; else by what a context
/// has taken before.
fn unlisted_part(device: DeviceRef, listed: u64, seen: Option<(Unlisted, Unlisted)>) -> u64 {
    let plausible = |bytes: &u64| *bytes <= listed / 16;
    let grown = |(before, after): (Unlisted, Unlisted)| {
        after.bytes.checked_sub(before.bytes).filter(|_| after.others == before.others)
    };
    let known = || known_cost(device, Sort::Full)?.checked_sub(listed);
    seen.and_then(grown).filter(plausible).or_else(|| known().filter(plausible)).unwrap_or(0)
}

/// What a context takes, as far as is known: 0 where one has been made and nothing was seen of it.
fn known_cost(device: DeviceRef, sort: Sort) -> Option<u64> {
    let full = || match device.record.context_bytes.load(Acquire) {
        0 => None,
        CONTEXT_BYTES_UNSEEN => Some(0),
        bytes => Some(bytes),
    };
    match sort {
        Sort::Full => full(),
        Sort::Green => GREEN.load(Acquire).checked_sub(1).or_else(full),
    }
}

/// Learns what a context has taken, `None` if the driver did not say. The largest figure counts: a process's second context
/// may take more than its first.
fn learn(device: DeviceRef, sort: Sort, cost: Option<u64>) {
    let full = |bytes| device.record.context_bytes.fetch_max(bytes, Release);
    match (sort, cost) {
        (Sort::Full, Some(bytes)) => _ = full(bytes.max(CONTEXT_BYTES_UNSEEN)),
        (Sort::Green, Some(bytes)) => _ = GREEN.fetch_max(bytes.saturating_add(1), Release),
        (Sort::Full | Sort::Green, None) => _ = full(CONTEXT_BYTES_UNSEEN),
    }
}
