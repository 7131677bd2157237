//! Bytes: reserve, call the driver, commit or roll back.
//!
//! The protocol that makes a reservation atomic and survives SIGKILL stands in `quota::ledger`; this room gives it
//! the region's words and picks a lane for the thread. What a refusal means stands in [`refusal`].

mod lanes;
mod refusal;

use crate::holdings::{Holding, Key, Kind};
use crate::meter;
use crate::process::Process;
use crate::spill::Room;
use core::sync::atomic::{AtomicU64, Ordering::Acquire, Ordering::Relaxed};
use gpuquota_quota::ledger::{self, Journal, Journals, Refused};
use gpuquota_region::layout::{Device, EVENT_REAPED, KIND_SPILLED, LANES};
use gpuquota_region::slot::Settle;
use gpuquota_region::{Region, sys};
pub use lanes::Lanes;
pub use refusal::Refusals;

/// How long the driver's own refusal is retried while a dead process's memory may be on its way back.
const TEARDOWN_NS: u64 = 100_000_000;
/// How long after a death its memory may still be on its way.
const TEARDOWN_WINDOW_NS: u64 = 1_000_000_000;

/// The region's lanes, numbered slot by slot, as seen from one word of a device.
pub struct Lines<'r> {
    /// The region.
    region: &'r Region,
    /// Its device.
    device: u8,
    /// Whether the word is that of bytes on the host.
    spilled: bool,
}

impl Journals for Lines<'_> {
    #[inline]
    fn journal(&self, index: u32) -> Option<Journal<'_>> {
        let index = index as usize;
        let lane = self.region.ours().lanes.get(index / LANES)?.get(index % LANES)?;
        Some(Journal {
            amount: &lane.amount,
            operation: &lane.operation,
            held: &lane.held,
            reserving: &lane.reserving,
        })
    }

    #[inline]
    fn serves(&self, index: u32) -> bool {
        let index = index as usize;
        let Some(slot) = self.region.ours().slots.get(index / LANES) else { return false };
        let lane = slot.lane_device.get(index % LANES).zip(slot.lane_kind.get(index % LANES));
        lane.is_some_and(|(device, kind)| {
            device.load(Acquire) == self.device.wrapping_add(1)
                && (kind.load(Acquire) == KIND_SPILLED) == self.spilled
        })
    }
}

impl Lines<'_> {
    /// The word itself.
    fn word(&self) -> Option<&AtomicU64> {
        let record = self.region.ours().devices.get(usize::from(self.device))?;
        Some(if self.spilled { &record.spilled } else { &record.used })
    }
}

/// A lane's number in the books.
fn number(slot: usize, lane: u8) -> u32 {
    (slot.wrapping_mul(LANES) as u32).wrapping_add(u32::from(lane))
}

/// What one kind of allocation needs to know of a call's answer.
pub trait Verdict: Copy {
    /// The call succeeded.
    fn is_success(self) -> bool;
    /// The device itself has no room.
    fn is_out_of_memory(self) -> bool;
    /// The answer to a request over the cap.
    const OUT_OF_MEMORY: Self;
}

/// Bytes that are reserved but not yet anybody's.
#[derive(Clone, Copy)]
pub struct Reservation {
    lane: u8,
    bytes: u64,
}

impl Reservation {
    /// The lane through which they were charged.
    pub fn lane(self) -> u8 {
        self.lane
    }

    /// How many.
    pub fn bytes(self) -> u64 {
        self.bytes
    }
}

impl Process {
    pub(crate) fn device(&self, index: u8) -> Option<&'static Device> {
        self.region()?.ours().devices.get(usize::from(index))
    }

    /// A lane for this thread to use: the first that is not busy.
    #[inline]
    fn with_lane<R>(&self, device: u8, then: impl FnOnce(u8, usize) -> R) -> Option<R> {
        let slot = self.slot_index()?;
        let (lane, _held) = self.free_lane(device)?;
        Some(then(lane, slot))
    }

    /// Reserves `bytes` of a device; `None` if they may not be had, which is then already written down.
    #[inline]
    pub fn reserve(&self, device: u8, bytes: u64) -> Option<Reservation> {
        self.settle_what_is_owed(device);
        self.reserve_in(device, bytes, Room::Device)
    }

    /// The same, wherever they may lie.
    #[inline]
    pub fn reserve_in(&self, device: u8, bytes: u64, room: Room) -> Option<Reservation> {
        let record = self.device(device)?;
        match self.try_reserve(record, device, bytes, room) {
            Ok(reservation) => {
                if self.observes() {
                    self.note_excess(device, record);
                }
                Some(reservation)
            }
            Err(refused) => self.reserve_slowly(record, device, bytes, room, refused),
        }
    }

    /// One attempt.
    #[inline]
    pub fn try_reserve(
        &self,
        record: &Device,
        device: u8,
        bytes: u64,
        room: Room,
    ) -> Result<Reservation, Refused> {
        let region = self.region().ok_or(Refused::Broken)?;
        let take = |lane, slot| {
            let book = Lines { region, device, spilled: false };
            let cap = || self.ceiling(device, record, room);
            let used = ledger::take_below(&book, &record.used, number(slot, lane), bytes, cap)?;
            if record.peak.load(Relaxed) < used {
                record.peak.fetch_max(used, Relaxed);
            }
            Ok(Reservation { lane, bytes })
        };
        let reservation = self.with_lane(device, take).ok_or(Refused::Broken)??;
        self.show(device);
        Ok(reservation)
    }

    /// Says that a reservation is an upper bound, until it is settled.
    fn announce(&self, reservation: Reservation, sign: i64) {
        let lane = self
            .slot_index()
            .zip(self.region())
            .and_then(|(slot, region)| region.ours().lanes.get(slot)?.get(usize::from(reservation.lane)));
        if let Some(lane) = lane {
            lane.reserving.fetch_add((reservation.bytes as i64).wrapping_mul(sign) as u64, Relaxed);
        }
    }

    fn note_excess(&self, device: u8, record: &Device) {
        let cap = self.known.memory_cap(device, record);
        if cap.is_some_and(|cap| ledger::used(&record.used) > cap) {
            record.would_deny.fetch_add(1, Relaxed);
        }
    }

    /// Changes a word of a device through a lane of this process, whose lock is held meanwhile. `None` where there is no
    /// such lane, or the book is broken.
    #[inline]
    pub fn post(
        &self,
        device: u8,
        lane: u8,
        spilled: bool,
        change: impl FnOnce(&Lines<'_>, &AtomicU64, u32) -> Result<u64, Refused>,
    ) -> Option<u64> {
        let (region, slot) = self.region().zip(self.slot_index())?;
        let book = Lines { region, device, spilled };
        let word = book.word()?;
        let _held = self.lane_lock(lane)?.lock();
        change(&book, word, number(slot, lane)).ok()
    }

    /// Gives `bytes` of a lane back.
    #[inline]
    pub fn give_back(&self, device: u8, lane: u8, bytes: u64) {
        match self.post(device, lane, false, |book, word, number| ledger::give(book, word, number, bytes)) {
            Some(_) => self.show(device),
            None => self.fell_back(),
        }
    }

    /// Gives a reservation back that nothing came of.
    pub fn give_back_reservation(&self, device: u8, reservation: Reservation) {
        self.give_back(device, reservation.lane, reservation.bytes);
    }

    /// Counts an incident that was survived by going on with the driver's own answer.
    #[cold]
    fn fell_back(&self) {
        if let Some(region) = self.region() {
            region.ours().header.fallbacks.fetch_add(1, Relaxed);
        }
    }

    /// An allocation: reserves `bytes`, makes the call, and notes what it gave under the key that `granted` tells.
    #[inline]
    pub fn allocate<R: Verdict>(
        &self,
        device: u8,
        bytes: u64,
        call: impl Fn() -> R,
        granted: impl FnOnce() -> (Option<Key>, u64),
    ) -> R {
        let Some(reservation) = self.reserve(device, bytes) else { return R::OUT_OF_MEMORY };
        let answer = self.call_with_patience(device, call);
        if !answer.is_success() {
            self.give_back(device, reservation.lane, bytes);
            return answer;
        }
        let (key, owner) = granted();
        self.note(key, Holding { bytes, device, lane: reservation.lane, owner });
        answer
    }

    /// An allocation whose size the driver decides: reserves `most`, and settles to what `granted` tells. Where that is
    /// more, the memory is given back by `undo` and asked for again, for now it is known how much it takes.
    pub fn allocate_at_most<R: Verdict>(
        &self,
        device: u8,
        most: u64,
        call: impl Fn() -> R,
        granted: impl Fn() -> (Option<Key>, u64, u64),
        undo: impl Fn(),
    ) -> R {
        let mut most = most;
        loop {
            let Some(reservation) = self.reserve(device, most) else { return R::OUT_OF_MEMORY };
            self.announce(reservation, 1);
            let answer = self.call_with_patience(device, &call);
            let (key, owner, bytes) = if answer.is_success() { granted() } else { (None, 0, 0) };
            if bytes > most {
                undo();
            }
            let kept = if bytes > most { 0 } else { bytes };
            if kept < most {
                self.give_back(device, reservation.lane, most.wrapping_sub(kept));
            }
            self.announce(reservation, -1);
            if bytes > most {
                most = bytes;
                continue;
            }
            if answer.is_success() {
                self.note(key, Holding { bytes, device, lane: reservation.lane, owner });
            }
            return answer;
        }
    }

    /// Whether `bytes` more would be within the cap now; another thread may take them in the next instant.
    pub fn has_room(&self, device: u8, bytes: u64, room: Room) -> bool {
        let Some(record) = self.device(device) else { return true };
        let fits = |cap| ledger::used(&record.used).checked_add(bytes).is_some_and(|sum| sum <= cap);
        self.ceiling(device, record, room).is_none_or(fits)
    }

    #[inline]
    pub fn note(&self, key: Option<Key>, holding: Holding) {
        match key.map(|key| self.holdings.insert(key, holding)) {
            Some(Ok(None)) => {}
            // Freed behind our back.
            Some(Ok(Some(before))) if key.is_some_and(Key::is_charged) => {
                self.give_back(before.device, before.lane, before.bytes);
            }
            Some(Ok(Some(_))) => {}
            // What cannot be noted stays charged until the process ends: never too little.
            Some(Err(_)) | None => self.fell_back(),
        }
    }

    /// Makes the call; where the driver itself has no room although the quota has, and a process has just died,
    /// tries again until its memory is back.
    #[inline]
    pub fn call_with_patience<R: Verdict>(&self, device: u8, call: impl Fn() -> R) -> R {
        let answer = call();
        if answer.is_out_of_memory() { self.call_again(device, answer, call) } else { answer }
    }

    #[cold]
    fn call_again<R: Verdict>(&self, device: u8, answer: R, call: impl Fn() -> R) -> R {
        let _errno = sys::KeepErrno::new();
        self.reap();
        let started = sys::monotonic_ns();
        let died = self.device(device).map_or(0, |record| record.reaped_at_ns.load(Relaxed));
        let mut answer = answer;
        if died == 0 || started.saturating_sub(died) > TEARDOWN_WINDOW_NS {
            return answer;
        }
        while answer.is_out_of_memory() && sys::monotonic_ns().saturating_sub(started) < TEARDOWN_NS {
            sys::sleep_until(sys::monotonic_ns().wrapping_add(2_000_000));
            answer = call();
        }
        answer
    }

    /// A free: takes the holding out, makes the call, gives the bytes back; a failed free puts the holding back.
    /// What is not known is forwarded all the same.
    #[inline]
    pub fn free<R: Verdict>(&self, key: Option<Key>, call: impl FnOnce() -> R) -> R {
        let holding = key.and_then(|key| self.holdings.remove(key));
        let answer = call();
        if let (Some(key), Some(holding)) = (key, holding) {
            if answer.is_success() {
                self.no_longer_spilled(key, &holding);
                self.give_back(holding.device, holding.lane, holding.bytes);
            } else {
                self.note(Some(key), holding);
            }
        }
        answer
    }

    /// A free by address, in stream order or not: of memory that is charged for itself, or from a pool.
    #[inline]
    pub fn free_any<R: Verdict>(&self, pointer: u64, call: impl FnOnce() -> R) -> R {
        if !self.has_keepers() {
            return self.free(self.key_of(pointer), call);
        }
        let pooled = Key::new(Kind::Pooled, pointer).and_then(|key| Some((key, self.holdings.remove(key)?)));
        let Some((key, holding)) = pooled else { return self.free(self.key_of(pointer), call) };
        let answer = call();
        if answer.is_success() {
            self.keepers_are_stale();
        } else {
            self.note(Some(key), holding);
        }
        answer
    }

    /// A pool is gone: what was allocated from it is charged for itself from now on.
    pub fn charge_each_of_pool(&self, device: u8, pool: u64) {
        self.holdings.remove_owned(&[Kind::Pooled], pool, |key, holding| {
            let charged = self
                .device(device)
                .and_then(|record| self.try_reserve(record, device, holding.bytes, Room::Given).ok());
            if let Some(reservation) = charged {
                let holding = Holding { lane: reservation.lane, owner: 0, ..holding };
                self.note(Key::new(Kind::Memory, key.value()), holding);
            }
        });
    }

    /// A context is gone, and with it all that belonged to it.
    #[cold]
    pub fn context_is_gone(&self, context: u64) {
        self.known.forget_context(context);
        let kinds = [Kind::Memory, Kind::Array, Kind::External, Kind::Spilled];
        self.holdings.remove_owned(&kinds, context, |key, holding| {
            self.no_longer_spilled(key, &holding);
            self.give_back(holding.device, holding.lane, holding.bytes);
        });
        self.keepers_are_stale();
        self.settle_stale_keepers();
        self.forget_context_cost(context);
    }
}

/// Settles what a dead process left.
pub struct Heir;

impl Settle for Heir {
    fn settle(&mut self, region: &Region, index: usize) {
        let ours = region.ours();
        let Some(slot) = ours.slots.get(index) else { return };
        let mut given = 0u64;
        // What lay on the host is taken back from there first, as with every free.
        for spilled in [true, false] {
            let lanes = slot.lane_device.iter().zip(&slot.lane_kind).enumerate();
            for (lane, (serves, kind)) in lanes {
                let Some(at) = serves.load(Acquire).checked_sub(1) else { continue };
                let Some(device) = ours.devices.get(usize::from(at)) else { continue };
                if (kind.load(Acquire) == KIND_SPILLED) != spilled {
                    continue;
                }
                let book = Lines { region, device: at, spilled };
                let Some(word) = book.word() else { continue };
                if let Ok(bytes @ 1..) = ledger::reap(&book, word, number(index, lane as u8))
                    && !spilled
                {
                    device.reaped_at_ns.store(sys::monotonic_ns(), Relaxed);
                    given = given.saturating_add(bytes);
                }
            }
        }
        let (now, last_launch) = (sys::monotonic_ns(), slot.heartbeat_ns.load(Relaxed));
        for ((device, turns), pending) in ours.devices.iter().zip(&ours.header.turns).zip(&slot.pending_ns) {
            meter::books(&ours.header, device, turns, pending).reap_pending(now, last_launch);
        }
        if given > 0 {
            region.event(EVENT_REAPED, u32::MAX, 0, given, 0);
        }
    }
}
