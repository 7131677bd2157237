//! Reservations: the fast path, and what is tried before a request is refused.

use super::arenas::Arenas;
use super::books::{Accounts, Books, Reservation, Room};
use super::overhead::Overhead;
use super::refusal::{Refusals, Request, any_reserving, note_excess, others_hold};
use crate::container::DeviceRef;
use crate::devices::Scope;
use gpuquota_quota::ledger::{self, Refused};
use gpuquota_region::sys;

/// How long a refusal waits for reservations in flight, which may turn out smaller or fail.
const SETTLING_NS: u64 = 10_000_000;
/// How long for the bytes of a process that is dying.
const TEARDOWN_NS: u64 = 100_000_000;
/// Pause between two looks. The wait that the operator allows may be long.
const PAUSE_NS: u64 = 200_000;
const LONG_PAUSE_NS: u64 = 2_000_000;

/// What this process knows of its bytes. All-zero bytes: it has none.
pub struct State {
    accounts: Accounts,
    /// What arenas hold.
    pub arenas: Arenas,
    /// What the driver takes beside requests.
    pub overhead: Overhead,
    refusals: Refusals,
}

/// The bytes of this process, and what they are counted by.
#[derive(Clone, Copy)]
pub struct Memory<'p> {
    /// The container and its devices.
    pub scope: &'p Scope,
    /// What is known of them.
    pub state: &'p State,
}

impl<'p> Memory<'p> {
    /// The books.
    #[inline]
    pub fn books(self) -> Books<'p> {
        Books { scope: self.scope, accounts: &self.state.accounts }
    }

    /// Reserves `bytes` of a device; `None` if they may not be had, which is then already written down.
    #[inline(always)]
    pub fn reserve(self, device: DeviceRef, bytes: u64) -> Option<Reservation> {
        self.state.overhead.measure_if_owing(self.books(), device);
        self.reserve_in(device, bytes, Room::Device)
    }

    /// The same, wherever they may lie.
    #[inline(always)]
    pub fn reserve_in(self, device: DeviceRef, bytes: u64, room: Room) -> Option<Reservation> {
        let journal = match self.books().try_take(device, bytes, room) {
            Ok(journal) => {
                if self.scope.container.observes() {
                    note_excess(self.books(), device);
                }
                journal
            }
            Err(_) => self.take_slowly(device, bytes, room)?,
        };
        Some(Reservation { device, journal, bytes })
    }

    /// A refusal is right only if the bytes of the dead are back and no reservation in flight may still shrink. Answers the
    /// journal through which the bytes were taken after all.
    #[cold]
    fn take_slowly(self, device: DeviceRef, bytes: u64, room: Room) -> Option<u8> {
        let _errno = sys::KeepErrno::new();
        let container = &self.scope.container;
        let mut request = Request { device, bytes, cap: self.books().ceiling(device, room) };
        let mut used = ledger::used(&device.record.used);
        let started = sys::monotonic_ns();
        // Code that was unloaded may still be charged, and pools may hold what they do not use.
        self.state.overhead.measure_before_refusal(self.books(), device, SETTLING_NS);
        self.state.arenas.trim(self.books(), device.index);
        let patience = u64::from(container.limits().memory_wait_ms).wrapping_mul(1_000_000);
        let mut killed_at = None;
        while request.cap.is_none_or(|cap| bytes <= cap) {
            container.reap();
            request.cap = self.books().ceiling(device, room);
            match self.books().try_take(device, bytes, room) {
                Ok(journal) => return Some(journal),
                Err(Refused::Cap { used: now }) => used = now,
                Err(Refused::Broken) => {}
            }
            let now = sys::monotonic_ns();
            let waited = now.saturating_sub(started);
            let settling = waited < SETTLING_NS && any_reserving(container, device.index);
            let dying = match killed_at {
                Some(at) => now.saturating_sub(at) < TEARDOWN_NS,
                None => waited < TEARDOWN_NS && container.any_dying(),
            };
            if settling || dying {
                sys::sleep_until(now.wrapping_add(PAUSE_NS));
            } else if waited < patience && others_hold(container, device) {
                sys::sleep_until(now.wrapping_add(LONG_PAUSE_NS));
            } else if request.end_a_lower_priority(container) {
                killed_at = Some(now);
            } else {
                break;
            }
        }
        self.state.refusals.tell(container, &request, used);
        None
    }

    /// Reserves on the device without much ado: there is another place.
    pub fn reserve_on_device(self, device: DeviceRef, bytes: u64) -> Option<Reservation> {
        self.state.overhead.measure_if_owing(self.books(), device);
        let attempt = || self.books().try_reserve(device, bytes, Room::Device).ok();
        attempt().or_else(|| {
            let _errno = sys::KeepErrno::new();
            self.state.arenas.trim(self.books(), device.index);
            self.scope.container.reap();
            attempt()
        })
    }
}
