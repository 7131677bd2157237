//! Reservations: the fast path, and the attempts to make room before a refusal.

use super::arenas::Arenas;
use super::books::{Accounts, Books, Placement, Reservation};
use super::overhead::{Charges, Overhead};
use super::refusal::{MemoryRequest, Refusals, any_reserving, count_excess, others_hold};
use crate::container::DeviceRef;
use crate::devices::Scope;
use gpuquota_quota::ledger::{self, Refused};
use gpuquota_region::layout::{
    REFUSED_CONTEXT, REFUSED_MEMORY_LIMIT, REFUSED_PHYSICAL_LIMIT, REFUSED_UNCOUNTED,
};
use gpuquota_region::sys;

/// How long a refusal waits for reservations of calls under way, which may turn out smaller or fail.
const RESERVING_WAIT_NS: u64 = 10_000_000;
/// How long a refusal waits for the bytes of a process that is dying.
const TEARDOWN_NS: u64 = 100_000_000;
/// Pause between two attempts.
const PAUSE_NS: u64 = 200_000;
/// The same in the wait that the operator allows, which may be long.
const LONG_PAUSE_NS: u64 = 2_000_000;

/// The state of this process's bytes. All-zero bytes: it has none.
pub struct State {
    pub(super) accounts: Accounts,
    /// The charges of its arenas.
    pub arenas: Arenas,
    /// The bytes that the driver takes unasked.
    pub overhead: Overhead,
    refusals: Refusals,
}

/// The bytes of this process, with the container and the devices that they belong to.
#[derive(Clone, Copy)]
pub struct Memory<'p> {
    /// The container and its devices.
    pub scope: &'p Scope,
    /// The state of the bytes.
    pub state: &'p State,
}

impl<'p> Memory<'p> {
    /// The books.
    #[inline]
    pub fn books(self) -> Books<'p> {
        Books { scope: self.scope, accounts: &self.state.accounts }
    }

    /// The charges.
    #[inline]
    pub fn charges(self) -> Charges<'p> {
        Charges { books: self.books(), arenas: &self.state.arenas }
    }

    /// Reserves `bytes` of a device. `None`: they do not fit, and the refusal is recorded.
    #[inline(always)]
    pub fn reserve(self, device: DeviceRef, bytes: u64) -> Option<Reservation> {
        self.state.overhead.measure_if_due(self.charges(), device);
        self.reserve_in(device, bytes, Placement::Device)
    }

    /// The same with a placement.
    #[inline(always)]
    pub fn reserve_in(self, device: DeviceRef, bytes: u64, placement: Placement) -> Option<Reservation> {
        self.reserve_as(device, bytes, placement, REFUSED_MEMORY_LIMIT)
    }

    /// Reserves what a context will take.
    pub fn reserve_context(self, device: DeviceRef, bytes: u64) -> Option<Reservation> {
        self.state.overhead.measure_if_due(self.charges(), device);
        self.reserve_as(device, bytes, Placement::Device, REFUSED_CONTEXT)
    }

    /// The same; `reason` is that of a refusal.
    #[inline(always)]
    fn reserve_as(
        self,
        device: DeviceRef,
        bytes: u64,
        placement: Placement,
        reason: usize,
    ) -> Option<Reservation> {
        let journal = match self.books().try_take(device, bytes, placement) {
            Ok(journal) => {
                if self.scope.container.observes() {
                    count_excess(self.books(), device);
                }
                journal
            }
            Err(_) => self.take_slowly(device, bytes, placement, reason)?,
        };
        Some(Reservation { device, journal, bytes })
    }

    /// Makes room and tries again, or refuses. A refusal is right only if the bytes of dead processes are back and no
    /// reservation of a call under way may still shrink. Answers the journal that recorded the charge.
    #[cold]
    fn take_slowly(self, device: DeviceRef, bytes: u64, placement: Placement, reason: usize) -> Option<u8> {
        let _errno = sys::KeepErrno::new();
        let container = &self.scope.container;
        self.state.accounts.absent.look_again(container);
        let cap = self.books().ceiling(device, placement);
        let mut request = MemoryRequest { device, bytes, cap, reason };
        let mut used = ledger::used(&device.record.used);
        let started = sys::monotonic_ns();
        // Unloaded code may still be charged, and pools may hold memory that no allocation uses.
        self.state.overhead.measure_before_refusal(self.charges(), device, RESERVING_WAIT_NS);
        self.state.arenas.trim(self.books(), device.index);
        let allowed_wait_ns = u64::from(container.limits().memory_wait_ms).wrapping_mul(1_000_000);
        let mut killed_at = None;
        while request.cap.is_none_or(|cap| bytes <= cap) {
            container.reap();
            request.cap = self.books().ceiling(device, placement);
            match self.books().try_take(device, bytes, placement) {
                Ok(journal) => return Some(journal),
                Err(Refused::Cap { used: now }) => used = now,
                Err(Refused::Broken) => {}
            }
            let now = sys::monotonic_ns();
            let waited = now.saturating_sub(started);
            let may_shrink = waited < RESERVING_WAIT_NS && any_reserving(container, device.index);
            let dying = match killed_at {
                Some(at) => now.saturating_sub(at) < TEARDOWN_NS,
                None => waited < TEARDOWN_NS && container.any_dying(),
            };
            if may_shrink || dying {
                sys::sleep_until(now.wrapping_add(PAUSE_NS));
            } else if waited < allowed_wait_ns && others_hold(container, device) {
                sys::sleep_until(now.wrapping_add(LONG_PAUSE_NS));
            } else if request.end_a_lower_priority(container) {
                killed_at = Some(now);
            } else {
                break;
            }
            self.state.accounts.absent.look_again(container);
        }
        self.report(request, used);
        None
    }

    /// Why a request is refused that has met a cap.
    fn reason(self, request: MemoryRequest, used: u64) -> usize {
        let MemoryRequest { device, bytes, reason, cap } = request;
        if cap.is_none() || self.scope.container.claimed_slot().is_none() {
            return REFUSED_UNCOUNTED;
        }
        let is_within = |cap| used.saturating_add(bytes) <= cap;
        let is_physical = self.books().ceiling(device, Placement::Anywhere).is_none_or(is_within);
        if reason == REFUSED_MEMORY_LIMIT && is_physical { REFUSED_PHYSICAL_LIMIT } else { reason }
    }

    /// Records the refusal of something whose size was known only afterwards, for one of the `REFUSED_` reasons.
    pub fn report_refusal(self, device: DeviceRef, bytes: u64, reason: usize) {
        let cap = self.books().ceiling(device, Placement::Device);
        let used = ledger::used(&device.record.used);
        self.report(MemoryRequest { device, bytes, cap, reason }, used);
    }

    /// What is in no books is in use too.
    fn report(self, request: MemoryRequest, used: u64) {
        let absent = self.state.accounts.absent.of(request.device);
        let cap = request.cap.map(|cap| cap.saturating_add(absent));
        let reason = self.reason(request, used);
        let request = MemoryRequest { cap, reason, ..request };
        self.state.refusals.report(&self.scope.container, &request, used.saturating_add(absent));
    }

    /// Reserves on the device without a wait and without a refusal, because the bytes may lie on the host instead.
    pub fn reserve_on_device(self, device: DeviceRef, bytes: u64) -> Option<Reservation> {
        self.state.overhead.measure_if_due(self.charges(), device);
        let attempt = || self.books().try_reserve(device, bytes, Placement::Device).ok();
        attempt().or_else(|| {
            let _errno = sys::KeepErrno::new();
            self.state.arenas.trim(self.books(), device.index);
            self.scope.container.reap();
            attempt()
        })
    }
}
