//! Oversubscription: allocations for which there is no room on the device come from the host's memory, where programs
//! and kernels reach them all the same, more slowly.
//!
//! The cap counts both. A second word of the device counts what lies on the host, and the difference of the two is held
//! to the physical budget (`quota::ledger::ceiling`): the order in which both change makes one compare-and-swap enough.
//!
//! Only what is asked for by address can lie there: plain, pitched and managed memory. The rest (arrays, the VMM, pools,
//! graphs) has the device's memory or is refused.

use crate::account::{Reservation, Verdict};
use crate::holdings::{Holding, Key, Kind};
use crate::process::Process;
use core::sync::atomic::Ordering::{Relaxed, Release};
use gpuquota_quota::ledger;
use gpuquota_region::layout::{Device, KIND_SPILLED};
use gpuquota_region::sys::KeepErrno;

/// Where bytes may lie that are reserved.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Room {
    /// On the device only.
    Device,
    /// On the host if need be.
    Anywhere,
    /// Where they are: the driver has given them already, and no cap is asked.
    Given,
}

impl Process {
    /// Whether allocations may come from the host's memory.
    #[inline]
    pub fn spills(&self) -> bool {
        self.may_spill.load(Relaxed)
    }

    /// What may be in use after a request has been admitted; `None` for any number.
    #[inline]
    pub fn ceiling(&self, device: u8, record: &Device, room: Room) -> Option<u64> {
        if room == Room::Given {
            return None;
        }
        let cap = self.known.memory_cap(device, record).filter(|_| !self.observes());
        if room == Room::Anywhere || !self.spills() {
            return cap;
        }
        match self.known.physical_cap(device, record) {
            Some(physical) => Some(ledger::ceiling(cap, physical, &record.spilled)),
            None => cap,
        }
    }

    /// An allocation by address, where memory may be oversubscribed: `spill` asks the host for it.
    #[cold]
    pub fn allocate_or_spill<R: Verdict>(
        &self,
        device: u8,
        bytes: u64,
        call: impl Fn() -> R,
        spill: impl Fn() -> R,
        granted: impl FnOnce() -> (u64, u64),
    ) -> R {
        let Some(record) = self.device(device) else { return call() };
        self.settle_what_is_owed(device);
        if let Some(reservation) = self.reserve_on_device(record, device, bytes) {
            let answer = self.call_with_patience(device, &call);
            if answer.is_success() {
                let (pointer, owner) = granted();
                let holding = Holding { bytes, device, lane: reservation.lane(), owner };
                self.note(Key::new(Kind::Memory, pointer), holding);
                return answer;
            }
            if !answer.is_out_of_memory() {
                self.give_back_reservation(device, reservation);
                return answer;
            }
            // The device itself is full, of others' memory.
            return self.spill(record, device, reservation, spill, granted);
        }
        self.allocate_on_host(device, bytes, spill, granted)
    }

    /// An allocation on the host, which `spill` asks for it.
    #[cold]
    pub fn allocate_on_host<R: Verdict>(
        &self,
        device: u8,
        bytes: u64,
        spill: impl Fn() -> R,
        granted: impl FnOnce() -> (u64, u64),
    ) -> R {
        match self.device(device).zip(self.reserve_in(device, bytes, Room::Anywhere)) {
            Some((record, reservation)) => self.spill(record, device, reservation, spill, granted),
            None => R::OUT_OF_MEMORY,
        }
    }

    /// Reserves on the device without much ado: there is another place.
    fn reserve_on_device(&self, record: &Device, device: u8, bytes: u64) -> Option<Reservation> {
        let attempt = || self.try_reserve(record, device, bytes, Room::Device).ok();
        attempt().or_else(|| {
            let _errno = KeepErrno::new();
            self.squeeze(device);
            self.reap();
            attempt()
        })
    }

    fn spill<R: Verdict>(
        &self,
        record: &Device,
        device: u8,
        reservation: Reservation,
        spill: impl Fn() -> R,
        granted: impl FnOnce() -> (u64, u64),
    ) -> R {
        let bytes = reservation.bytes();
        if !self.change_spilled(device, bytes, true) {
            self.give_back_reservation(device, reservation);
            return R::OUT_OF_MEMORY;
        }
        let answer = spill();
        if !answer.is_success() {
            self.change_spilled(device, bytes, false);
            self.give_back_reservation(device, reservation);
            return answer;
        }
        record.spills.fetch_add(1, Relaxed);
        self.has_spilled.store(true, Release);
        let (pointer, owner) = granted();
        let holding = Holding { bytes, device, lane: reservation.lane(), owner };
        self.note(Key::new(Kind::Spilled, pointer), holding);
        answer
    }

    /// The key of memory at an address that may have been sent to the host.
    #[inline]
    pub fn key_of(&self, pointer: u64) -> Option<Key> {
        let spilled = || Key::new(Kind::Spilled, pointer).filter(|key| self.holdings.get(*key).is_some());
        let spilled = if self.has_spilled.load(Relaxed) { spilled() } else { None };
        spilled.or_else(|| Key::new(Kind::Memory, pointer))
    }

    /// What was held is gone: its bytes lie nowhere any more.
    pub fn no_longer_spilled(&self, key: Key, holding: &Holding) {
        if key.is(Kind::Spilled) {
            self.change_spilled(holding.device, holding.bytes, false);
        }
    }

    /// Counts bytes as lying on the host, or no longer. False where no lane is free for them, or the book is broken.
    fn change_spilled(&self, device: u8, bytes: u64, more: bool) -> bool {
        let Some(lane) = self.lane_of(device, KIND_SPILLED) else { return false };
        let after = self.post(device, lane, true, |book, word, number| match more {
            true => ledger::take(book, word, number, bytes, None),
            false => ledger::give(book, word, number, bytes),
        });
        after.is_some()
    }
}
