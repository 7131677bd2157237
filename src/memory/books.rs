//! Charges: a reservation before the driver is called, what is held after it, and the way back.
//!
//! The protocol that makes a reservation atomic and survives SIGKILL stands in `quota::ledger`; this file gives it
//! the region's words. A request that does not fit is `reserve`'s matter.

use super::holdings::{Holding, Holdings, Key, Kind};
use super::journals::{Journals, show_data};
use crate::container::books::JournalBook;
use crate::container::{Container, DeviceRef};
use crate::devices::Devices;
use core::sync::atomic::Ordering::Relaxed;
use gpuquota_quota::ledger::{self, Refused};

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

/// The books of this process's bytes.
#[derive(Clone, Copy)]
pub struct Books<'p> {
    /// The container whose total they count in.
    pub container: &'p Container,
    /// Its devices.
    pub devices: &'p Devices,
    /// Through these journals.
    pub journals: &'p Journals,
    /// What is held for itself.
    pub holdings: &'p Holdings,
}

impl Books<'_> {
    /// What may be in use after a request has been admitted; `None` for any number.
    #[inline]
    pub fn ceiling(self, device: DeviceRef, room: Room) -> Option<u64> {
        if room == Room::Given {
            return None;
        }
        let cap = self.devices.memory_cap(device).filter(|_| !self.container.observes());
        if room == Room::Anywhere || !self.container.spills() {
            return cap;
        }
        match self.devices.physical_cap(device) {
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
    #[inline]
    pub fn try_reserve(self, device: DeviceRef, bytes: u64, room: Room) -> Result<Reservation, Refused> {
        let DeviceRef { index, record } = device;
        let open = self.journals.free(self.container, index).ok_or(Refused::Broken)?;
        let book = JournalBook { region: self.container.region(), device: index, spilled: false };
        let cap = || self.ceiling(device, room);
        let used = ledger::take_below(&book, &record.used, open.number, bytes, cap)?;
        if record.peak.load(Relaxed) < used {
            record.peak.fetch_max(used, Relaxed);
        }
        show_data(self.container, index, bytes);
        Ok(Reservation { device, journal: open.journal, bytes })
    }

    /// Gives `bytes` of a journal back.
    #[inline]
    pub fn give_back(self, device: u8, journal: u8, bytes: u64) {
        if !self.journals.give(self.container, device, journal, bytes) {
            self.container.fell_back();
        }
    }

    /// Gives a reservation back that nothing came of.
    pub fn roll_back(self, reservation: Reservation) {
        self.give_back(reservation.device.index, reservation.journal, reservation.bytes);
    }

    /// Notes what is held under a key.
    #[inline]
    pub fn note(self, key: Option<Key>, holding: Holding) {
        match key.map(|key| self.holdings.insert(key, holding)) {
            Some(Ok(None)) => {}
            // Freed behind our back.
            Some(Ok(Some(before))) if key.is_some_and(Key::is_charged) => {
                self.give_back(before.device, before.journal, before.bytes);
            }
            Some(Ok(Some(_))) => {}
            // What cannot be noted stays charged until the process ends: never too little.
            Some(Err(_)) | None => self.container.fell_back(),
        }
    }

    /// What was held under a key is gone, and its bytes with it.
    #[inline]
    pub fn release(self, key: Key, holding: Holding) {
        if key.is(Kind::Spilled) {
            self.journals.change_spilled(self.container, holding.device, holding.bytes, false);
        }
        self.give_back(holding.device, holding.journal, holding.bytes);
    }

    /// The key of memory at an address that may have been sent to the host.
    #[inline]
    pub fn memory_key(self, pointer: u64) -> Option<Key> {
        let spilled = || Key::new(Kind::Spilled, pointer).filter(|key| self.holdings.get(*key).is_some());
        let spilled = if self.holdings.has_spilled() { spilled() } else { None };
        spilled.or_else(|| Key::new(Kind::Memory, pointer))
    }
}
