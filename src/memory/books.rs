//! Charges: a reservation before the driver is called, what is held after it, and the way back.
//!
//! The protocol that makes a reservation atomic and survives SIGKILL stands in `quota::ledger`; this file gives it
//! the region's words. A request that does not fit is `reserve`'s matter.

use super::holdings::{Holding, Holdings, Key, Kind};
use super::journals::Journals;
use crate::container::{Container, DeviceRef};
use crate::devices::Scope;
use core::sync::atomic::Ordering::Relaxed;
use gpuquota_quota::ledger::{self, Refused};
use gpuquota_region::layout::Device;

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

/// Bytes that are counted in the total and not yet recorded as an allocation.
#[derive(Clone, Copy)]
pub struct Reservation {
    /// Of this device.
    pub device: DeviceRef,
    /// Through this journal.
    pub journal: u8,
    /// So many.
    pub bytes: u64,
}

impl Reservation {
    /// What is held once the driver has given them.
    pub fn holding(self, owner: u64) -> Holding {
        Holding { bytes: self.bytes, device: self.device.index, journal: self.journal, owner }
    }
}

/// The accounts of this process. All-zero bytes: nothing is charged.
pub struct Accounts {
    /// Through which journals it charges.
    pub journals: Journals,
    /// What it holds.
    pub holdings: Holdings,
}

/// The accounts, and what they are counted by.
#[derive(Clone, Copy)]
pub struct Books<'p> {
    /// The container whose total they count in, and its devices.
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

    /// What may be in use after a request has been admitted; `None` for any number.
    #[inline(always)]
    pub fn ceiling(self, device: DeviceRef, room: Room) -> Option<u64> {
        if room == Room::Given {
            return None;
        }
        let cap = self.scope.devices.memory_cap(device).filter(|_| !self.scope.container.observes());
        if room == Room::Anywhere || !self.scope.container.spills() {
            return cap;
        }
        match self.scope.devices.physical_cap(device) {
            Some(physical) => Some(ledger::ceiling(cap, physical, &device.record.spilled)),
            None => cap,
        }
    }

    /// Whether `bytes` more would be within the cap now; another thread may take them in the next instant.
    pub fn has_room(self, device: DeviceRef, bytes: u64) -> bool {
        let fits = |cap| ledger::used(&device.record.used).checked_add(bytes).is_some_and(|sum| sum <= cap);
        self.ceiling(device, Room::Device).is_none_or(fits)
    }

    /// One attempt to reserve `bytes`.
    pub fn try_reserve(self, device: DeviceRef, bytes: u64, room: Room) -> Result<Reservation, Refused> {
        let journal = self.try_take(device, bytes, room)?;
        Ok(Reservation { device, journal, bytes })
    }

    /// The same; answers the journal alone, which a processor has in a register.
    #[inline(always)]
    pub fn try_take(self, device: DeviceRef, bytes: u64, room: Room) -> Result<u8, Refused> {
        let container = &self.scope.container;
        let open = self.accounts.journals.free(container, device.index).ok_or(Refused::Broken)?;
        let used = if container.spills() {
            // What lies on the host moves meanwhile.
            open.take(container, device, bytes, || self.ceiling(device, room))?
        } else {
            let cap = self.ceiling(device, room);
            open.take(container, device, bytes, || cap)?
        };
        let Device { peak, .. } = device.record;
        if peak.load(Relaxed) < used {
            peak.fetch_max(used, Relaxed);
        }
        Ok(open.journal)
    }

    /// Gives `bytes` of a journal back.
    #[inline(always)]
    pub fn give_back(self, device: u8, journal: u8, bytes: u64) {
        if self.accounts.journals.give(&self.scope.container, device, journal, bytes).is_none() {
            self.scope.container.count_fallback();
        }
    }

    /// Gives a reservation back that nothing came of.
    pub fn roll_back(self, reservation: Reservation) {
        self.give_back(reservation.device.index, reservation.journal, reservation.bytes);
    }

    /// Notes what is held under a key.
    #[inline(always)]
    pub fn note(self, key: Option<Key>, holding: Holding) {
        if key.is_none_or(|key| !self.accounts.holdings.insert_fresh(key, holding)) {
            self.note_slowly(key, holding);
        }
    }

    /// The same where there is no room yet for the key, or something was held under it.
    #[inline(never)]
    fn note_slowly(self, key: Option<Key>, holding: Holding) {
        match key.map(|key| self.accounts.holdings.insert(key, holding)) {
            Some(Ok(None)) => {}
            // Freed behind our back.
            Some(Ok(Some(before))) if key.is_some_and(Key::is_charged) => {
                self.give_back(before.device, before.journal, before.bytes);
            }
            Some(Ok(Some(_))) => {}
            // What cannot be noted stays charged until the process ends: never too little.
            Some(Err(_)) | None => self.scope.container.count_fallback(),
        }
    }

    /// What was held under a key is gone, and its bytes with it.
    #[inline(always)]
    pub fn release(self, key: Key, holding: Holding) {
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

    /// The key of memory at an address that may have been sent to the host.
    #[inline(always)]
    pub fn memory_key(self, pointer: u64) -> Option<Key> {
        let spilled =
            || Key::new(Kind::Spilled, pointer).filter(|key| self.accounts.holdings.get(*key).is_some());
        let spilled = if self.accounts.holdings.has_spilled() { spilled() } else { None };
        spilled.or_else(|| Key::new(Kind::Memory, pointer))
    }
}
