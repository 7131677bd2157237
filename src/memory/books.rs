//! Charges: a reservation before the call of the driver, a holding after it, and the way back.
//!
//! `quota::ledger` has the protocol that makes a reservation atomic and survives SIGKILL; this file gives it the region's
//! words. `reserve` treats a request that does not fit.

use super::absent::Absent;
use super::blocks::Blocks;
use super::due::Due;
use super::holdings::{Holding, Holdings, Key, Kind};
use super::journals::ProcessJournals;
use crate::container::{Container, DeviceRef};
use crate::devices::Scope;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};
use gpuquota_quota::ledger::{self, Refused};
use gpuquota_region::layout::Device;

/// Where reserved bytes may lie.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Placement {
    /// On the device only.
    Device,
    /// On the host too.
    Anywhere,
    /// Where they lie already: the driver has given them, so no cap applies.
    Given,
}

/// Bytes that are in the total and not yet recorded as a holding.
#[derive(Clone, Copy)]
pub struct Reservation {
    /// The device.
    pub device: DeviceRef,
    /// The journal that recorded the charge.
    pub journal: u8,
    /// The bytes.
    pub bytes: u64,
}

impl Reservation {
    /// The holding that it becomes once the driver has given the bytes.
    pub fn holding(self, owner: u64) -> Holding {
        Holding { bytes: self.bytes, device: self.device.index, journal: self.journal, owner }
    }
}

/// The accounts of this process. All-zero bytes: nothing is charged.
pub struct Accounts {
    /// Its journals.
    pub journals: ProcessJournals,
    /// Its holdings.
    pub holdings: Holdings,
    /// The blocks that its allocations share.
    pub blocks: Blocks,
    /// Why the overhead of each device has to be measured again.
    pub due: Due,
    /// What others hold that have not put it back into the region.
    pub absent: Absent,
    /// Bytes that other processes may have opened, at most, of those that this one has made.
    pub exported: AtomicU64,
}

/// The accounts of this process, with the container and the devices that they belong to.
#[derive(Clone, Copy)]
pub struct Books<'p> {
    /// The container and its devices.
    pub scope: &'p Scope,
    /// The accounts.
    pub accounts: &'p Accounts,
}

impl<'p> Books<'p> {
    /// The container.
    #[inline]
    pub fn container(self) -> &'p Container {
        &self.scope.container
    }

    /// The most bytes that may be in use once a request is admitted; `None` without a limit.
    #[inline(always)]
    pub fn ceiling(self, device: DeviceRef, placement: Placement) -> Option<u64> {
        if placement == Placement::Given {
            return None;
        }
        let cap = self.scope.devices.memory_cap(device).filter(|_| !self.scope.container.observes());
        let absent = self.accounts.absent.of(device);
        let cap = if absent == 0 { cap } else { cap.map(|cap| cap.saturating_sub(absent)) };
        // A budget of the limits file makes this process spill; another process's stands in the region alone.
        let budget = device.record.physical_limit.load(Relaxed) != 0 || self.scope.container.spills();
        if placement == Placement::Anywhere || !budget {
            return cap;
        }
        match self.scope.devices.physical_cap(device) {
            Some(physical) => Some(ledger::ceiling(cap, physical, &device.record.spilled)),
            None => cap,
        }
    }

    /// Whether the cap has room for `bytes` now. Another thread may take them in the next instant.
    pub fn has_room(self, device: DeviceRef, bytes: u64) -> bool {
        let fits = |cap| ledger::used(&device.record.used).checked_add(bytes).is_some_and(|sum| sum <= cap);
        self.ceiling(device, Placement::Device).is_none_or(fits)
    }

    /// One attempt to reserve `bytes`.
    pub fn try_reserve(
        self,
        device: DeviceRef,
        bytes: u64,
        placement: Placement,
    ) -> Result<Reservation, Refused> {
        let journal = self.try_take(device, bytes, placement)?;
        Ok(Reservation { device, journal, bytes })
    }

    /// The same. Answers the journal alone, because one byte stays in a register.
    #[inline(always)]
    pub fn try_take(self, device: DeviceRef, bytes: u64, placement: Placement) -> Result<u8, Refused> {
        // What was admitted beside contents that are lost was admitted beside nothing. They may have been restored meanwhile.
        let known = self.scope.container.known_contents();
        let taken = self.try_take_now(device, bytes, placement);
        match self.scope.container.has_contents(known) {
            true => taken,
            false => self.take_again(device, bytes, placement, taken),
        }
    }

    /// Restores the contents of the region, and takes the bytes anew.
    #[cold]
    #[inline(never)]
    fn take_again(
        self,
        device: DeviceRef,
        bytes: u64,
        placement: Placement,
        taken: Result<u8, Refused>,
    ) -> Result<u8, Refused> {
        /// Contents that are lost all the time.
        const TRIES: usize = 16;
        let mut taken = taken;
        for _ in 0..TRIES {
            if let Ok(journal) = taken {
                self.give_back(device.index, journal, bytes);
            }
            self.make_whole();
            let known = self.scope.container.known_contents();
            taken = self.try_take_now(device, bytes, placement);
            if self.scope.container.has_contents(known) {
                return taken;
            }
        }
        // Nobody can count now. A process that has brought a limit stays below it.
        let limit = self.scope.devices.known.brought(device.index).and_then(|limits| limits.memory);
        if let (Ok(journal), Some(_)) = (taken, limit) {
            self.give_back(device.index, journal, bytes);
            return Err(Refused::Broken);
        }
        taken
    }

    #[inline(always)]
    fn try_take_now(self, device: DeviceRef, bytes: u64, placement: Placement) -> Result<u8, Refused> {
        let container = &self.scope.container;
        let locked = self.accounts.journals.lock_free(container, device.index).ok_or(Refused::Broken)?;
        let used = if container.spills() {
            // The bytes on the host change meanwhile, and the ceiling with them.
            locked.take(container, device, bytes, || self.ceiling(device, placement))?
        } else {
            let cap = self.ceiling(device, placement);
            locked.take(container, device, bytes, || cap)?
        };
        let Device { peak, .. } = device.record;
        if peak.load(Relaxed) < used {
            peak.fetch_max(used, Relaxed);
        }
        Ok(locked.journal)
    }

    /// Gives back `bytes` of a journal.
    #[inline(always)]
    pub fn give_back(self, device: u8, journal: u8, bytes: u64) {
        if self.accounts.journals.give_back(&self.scope.container, device, journal, bytes).is_none() {
            self.scope.container.count_fallback();
        }
    }

    /// Gives back a reservation whose call failed.
    pub fn roll_back(self, reservation: Reservation) {
        self.give_back(reservation.device.index, reservation.journal, reservation.bytes);
    }

    /// Records a holding under its key.
    #[inline(always)]
    pub fn record_holding(self, key: Option<Key>, holding: Holding) {
        // Plain branches: a closure would be a call of its own, with more than one caller.
        if let Some(key) = key
            && self.accounts.holdings.insert_fresh(key, holding)
        {
            return;
        }
        self.record_slowly(key, holding);
    }

    /// The same where the table has to grow, or the key has a holding already.
    #[inline(never)]
    pub fn record_slowly(self, key: Option<Key>, holding: Holding) {
        match key.map(|key| self.accounts.holdings.insert(key, holding)) {
            Some(Ok(None)) => {}
            // The previous memory was freed by a call that the library did not see.
            Some(Ok(Some(before))) => {
                if let Some(key) = key.filter(|key| key.is_charged()) {
                    self.release(key, before);
                }
            }
            // The charge stays until the process ends, because an error must never charge too little.
            Some(Err(_)) | None => self.scope.container.count_fallback(),
        }
    }

    /// Gives back the bytes of a holding whose memory was freed.
    #[inline(always)]
    pub fn release(self, key: Key, holding: Holding) {
        if key.is(Kind::Memory) {
            return self.release_memory(key.value(), holding);
        }
        if key.is(Kind::OnHost) {
            return;
        }
        if key.is(Kind::Spilled) {
            self.accounts.journals.change_spilled(
                &self.scope.container,
                holding.device,
                holding.bytes,
                false,
            );
        }
        self.give_back(holding.device, holding.journal, holding.bytes);
    }

    /// The key of memory at an address, which may lie on the host.
    #[inline(always)]
    pub fn memory_key(self, pointer: u64) -> Option<Key> {
        let of_kind = |kind| Key::new(kind, pointer).filter(|key| self.accounts.holdings.get(*key).is_some());
        let spilled = || of_kind(Kind::Spilled).or_else(|| of_kind(Kind::OnHost));
        let spilled = if self.accounts.holdings.has_spilled() { spilled() } else { None };
        spilled.or_else(|| Key::new(Kind::Memory, pointer))
    }
}
