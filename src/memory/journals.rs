//! The journals of this process: the threads charge devices through them.
//!
//! A journal serves one device and one kind of bytes. Requested bytes may go through several journals, so that threads
//! need not wait for each other; each measured kind has one. A process with very many devices has one journal for each of
//! them, in which all kinds count as requested bytes.

mod lost;

use crate::container::{Container, DeviceRef};
use crate::driver::cuda;
use crate::lock::{Ask, Lock, LockGuard};
use crate::thread;
use core::sync::atomic::{
    AtomicU8, AtomicU64, Ordering::AcqRel, Ordering::Acquire, Ordering::Relaxed, Ordering::Release,
};
use gpuquota_books::{JournalBook, OwnJournal};
use gpuquota_quota::ledger::{self, Refused};
use gpuquota_region::hami::Used;
use gpuquota_region::layout::{
    self, DEVICES, JOURNALS, KIND_CONTEXT, KIND_DATA, KIND_GRAPH, KIND_MODULE, KIND_POOL, KIND_SPILLED,
    KINDS, Ours, Slot,
};

/// Journals for requested bytes of one device. Further threads wait for each other, for the nanoseconds of an operation.
const DATA_JOURNALS: usize = 4;
/// Those, and one for each other kind.
const USES: usize = DATA_JOURNALS + KIND_SPILLED as usize;

/// The journals of this process. All-zero bytes: none in use.
pub struct ProcessJournals {
    locks: [Lock; JOURNALS],
    /// Journal + 1 by device and use; 0 for none yet. The uses are first requested bytes, then the other kinds.
    opened: [[AtomicU8; USES]; DEVICES],
    /// The other kinds that share the first journal of requested bytes because no journal was left: one bit for each.
    sharing: [AtomicU8; DEVICES],
    /// The last charge of each other kind, bytes.
    others: [[AtomicU64; KINDS]; DEVICES],
    /// What each journal holds, bytes, and what is reserved through it for calls under way: the region may be lost (`lost`).
    /// Changed with the journal's lock held.
    held: [AtomicU64; JOURNALS],
    reserving: [AtomicU64; JOURNALS],
}

/// A journal whose lock this thread holds.
pub struct LockedJournal<'j> {
    /// Its number in the process.
    pub journal: u8,
    slot: usize,
    own: OwnJournal,
    /// What it holds, as this process knows it.
    held: &'j AtomicU64,
    _guard: LockGuard<'j>,
}

impl ProcessJournals {
    /// Locks a journal for requested bytes: one that depends on the thread, so that threads use different journals as long as
    /// there are enough; else the first free one.
    #[inline(always)]
    pub fn lock_free(&self, container: &Container, device: u8) -> Option<LockedJournal<'_>> {
        self.lock_free_from(container, device, thread::spread() % DATA_JOURNALS)
    }

    /// The same for a thread that prefers one of them.
    #[inline(always)]
    fn lock_free_from(
        &self,
        container: &Container,
        device: u8,
        preferred: usize,
    ) -> Option<LockedJournal<'_>> {
        let slot = container.slot_index()?;
        let uses = self.opened.get(usize::from(device))?;
        let journal = uses.get(preferred)?.load(Acquire).checked_sub(1);
        if let Some(journal) = journal
            && let Some(guard) = self.lock(journal)?.try_lock()
        {
            let own = OwnJournal::of(container.ours(), slot, journal)?;
            return Some(LockedJournal { journal, slot, own, held: self.held_by(journal)?, _guard: guard });
        }
        self.lock_next_free(container, device, preferred)
    }

    #[inline(never)]
    fn lock_next_free(
        &self,
        container: &Container,
        device: u8,
        preferred: usize,
    ) -> Option<LockedJournal<'_>> {
        let (ours, slot) = (container.ours(), container.slot_index()?);
        let uses = self.opened.get(usize::from(device))?.get(..DATA_JOURNALS)?;
        let opened = |serving: &AtomicU8| {
            let journal = serving.load(Acquire).checked_sub(1);
            journal.or_else(|| self.open(container, device, KIND_DATA, serving))
        };
        let locked = |journal, guard| {
            let (own, held) = (OwnJournal::of(ours, slot, journal)?, self.held_by(journal)?);
            Some(LockedJournal { journal, slot, own, held, _guard: guard })
        };
        // Each device has its first journal. The others open as long as enough stay for the first ones of all devices.
        let first = opened(uses.first()?)?;
        let preferred = uses.get(preferred..preferred.saturating_add(1))?;
        for journal in preferred.iter().chain(uses).filter_map(opened) {
            let repair = || self.repair(ours, slot, device, journal);
            if let Some(guard) = self.lock(journal)?.try_lock_or_repair(Ask::Kernel, repair) {
                return locked(journal, guard);
            }
        }
        locked(first, self.lock(first)?.lock(|| self.repair(ours, slot, device, first))?)
    }

    /// Finishes the operation on the total of requested bytes that a lost thread has left in a journal.
    #[cold]
    fn repair(&self, ours: &'static Ours, slot: usize, device: u8, journal: u8) {
        if let Some(own) = OwnJournal::of(ours, slot, journal) {
            let book = JournalBook::new(ours, device, false, own);
            if let Some(word) = book.word() {
                book.recover(word);
            }
            self.learn_held(&own, journal);
        }
    }

    #[inline(always)]
    fn lock(&self, journal: u8) -> Option<&Lock> {
        self.locks.get(usize::from(journal))
    }

    /// What a journal holds, as this process knows it. The caller has its lock.
    #[inline(always)]
    fn held_by(&self, journal: u8) -> Option<&AtomicU64> {
        self.held.get(usize::from(journal))
    }

    /// The journal of another kind than requested bytes; `None` where none is left for it.
    pub fn of_kind(&self, container: &Container, device: u8, kind: u8) -> Option<u8> {
        let at = DATA_JOURNALS.wrapping_add(usize::from(kind.checked_sub(1)?));
        let uses = self.opened.get(usize::from(device))?;
        let serving = uses.get(at)?;
        serving.load(Acquire).checked_sub(1).or_else(|| match self.open(container, device, kind, serving) {
            // Bytes on the host have a total of their own, so they cannot share a journal.
            None if kind != KIND_SPILLED => {
                let first = uses.first()?;
                let journal = first.load(Acquire).checked_sub(1);
                let journal = journal.or_else(|| self.open(container, device, KIND_DATA, first))?;
                serving.store(journal.wrapping_add(1), Release);
                self.sharing.get(usize::from(device))?.fetch_or(1 << kind, Release);
                Some(journal)
            }
            own => own,
        })
    }

    /// Whether a further use may open a journal: one stays reserved for each device that the process has not used yet.
    fn may_open(&self, slot: &Slot, serving: &AtomicU8) -> bool {
        let first = |uses: &[AtomicU8; USES]| uses.first().is_some_and(|first| core::ptr::eq(first, serving));
        if self.opened.iter().any(first) {
            return true;
        }
        let served = |uses: &&[AtomicU8; USES]| uses.first().is_some_and(|first| first.load(Relaxed) != 0);
        let unserved =
            (cuda::device_count() as usize).saturating_sub(self.opened.iter().filter(served).count());
        slot.journal_device.iter().filter(|journal| journal.load(Relaxed) == 0).count() > unserved
    }

    #[cold]
    fn open(&self, container: &Container, device: u8, kind: u8, serving: &AtomicU8) -> Option<u8> {
        let mine = device.wrapping_add(1);
        let slot = container.slot()?;
        if !self.may_open(slot, serving) {
            return None;
        }
        let journals = &slot.journal_device;
        let journal = (0..).zip(journals).position(|(number, journal): (u8, &AtomicU8)| {
            // Where the region was lost a moment ago, only this process knows which of its journals are in use.
            !self.is_open(number) && journal.compare_exchange(0, mine, AcqRel, Relaxed).is_ok()
        })?;
        slot.journal_kind.get(journal)?.store(kind, Release);
        match serving.compare_exchange(0, (journal as u8).wrapping_add(1), AcqRel, Acquire) {
            Ok(_) => Some(journal as u8),
            Err(other) => {
                // Another thread was first; no operation has used this journal yet.
                journals.get(journal)?.store(0, Release);
                other.checked_sub(1)
            }
        }
    }

    fn is_open(&self, journal: u8) -> bool {
        self.opened.as_flattened().iter().any(|open| open.load(Acquire) == journal.wrapping_add(1))
    }

    /// A thread was lost amid an operation of a journal, which is now finished.
    #[cold]
    fn learn_held(&self, own: &OwnJournal, journal: u8) {
        if let Some(held) = self.held_by(journal) {
            held.store(own.held_bytes(), Relaxed);
        }
    }

    /// Changes a total of a device through a journal of this process, and holds the journal's lock meanwhile. `change` answers the
    /// new total, and by how much the journal's bytes have changed. `None` where the process has no such journal, or the
    /// journal is corrupt.
    fn change_total(
        &self,
        container: &Container,
        device: u8,
        journal: u8,
        spilled: bool,
        change: impl FnOnce(&JournalBook, &AtomicU64, u32) -> (Result<u64, Refused>, u64),
    ) -> Option<u64> {
        let (ours, slot) = (container.ours(), container.slot_index()?);
        let own = OwnJournal::of(ours, slot, journal)?;
        let book = JournalBook::new(ours, device, spilled, own);
        let word = book.word()?;
        let held = self.held_by(journal)?;
        let _guard = self.lock(journal)?.lock(|| {
            book.recover(word);
            self.learn_held(&own, journal);
        })?;
        let (after, more) = change(&book, word, own.number);
        if after.is_ok() {
            held.store(held.load(Relaxed).wrapping_add(more), Relaxed);
        }
        after.ok()
    }

    /// Gives back `bytes` that were taken through a journal. `None` where the journal is corrupt.
    #[inline(always)]
    pub fn give_back(&self, container: &Container, device: u8, journal: u8, bytes: u64) -> Option<u64> {
        let (ours, slot) = (container.ours(), container.slot_index()?);
        let own = OwnJournal::of(ours, slot, journal)?;
        let word = &ours.devices.get(usize::from(device))?.used;
        let held = self.held_by(journal)?;
        let _guard = self.lock(journal)?.lock(|| self.repair(ours, slot, device, journal))?;
        let after =
            ledger::give(&JournalBook::new(ours, device, false, own), word, own.number, bytes).ok()?;
        held.store(held.load(Relaxed).wrapping_sub(bytes), Relaxed);
        write_data_view(container, slot, device, bytes.wrapping_neg());
        Some(after)
    }

    /// Adds bytes to the total of bytes on the host, or takes them out. False where no journal is left for them, or the
    /// journal is corrupt.
    pub fn change_spilled(&self, container: &Container, device: u8, bytes: u64, more: bool) -> bool {
        let Some(journal) = self.of_kind(container, device, KIND_SPILLED) else { return false };
        let after = self.change_total(container, device, journal, true, |book, word, number| match more {
            true => (ledger::take(book, word, number, bytes, None), bytes),
            false => (ledger::give(book, word, number, bytes), bytes.wrapping_neg()),
        });
        after.is_some()
    }

    /// Adds to the bytes of a journal that are an upper bound: the call has not returned, and its true size may be less. A
    /// negative number takes the bound back.
    pub fn add_reserving(&self, container: &Container, journal: u8, bytes: i64) {
        let slot = container.slot_index();
        let words = slot.and_then(|slot| container.ours().journals.get(slot)?.get(usize::from(journal)));
        if let Some((words, known)) = words.zip(self.reserving.get(usize::from(journal))) {
            known.fetch_add(bytes as u64, AcqRel);
            publish(known, &words.reserving);
        }
    }

    /// The sum of what `read` reads of each journal of this process for requested bytes of a device.
    fn sum_of(
        &self,
        container: &Container,
        device: u8,
        read: impl Fn(&layout::JournalRecord) -> u64,
    ) -> Option<u64> {
        let words = container.ours().journals.get(container.slot_index()?)?;
        let uses = self.opened.get(usize::from(device))?.get(..DATA_JOURNALS)?;
        let opened =
            uses.iter().filter_map(|journal| words.get(usize::from(journal.load(Acquire).checked_sub(1)?)));
        Some(opened.map(read).fold(0, u64::wrapping_add))
    }

    /// This process's charge for requested bytes of a device.
    pub fn requested_bytes(&self, container: &Container, device: u8) -> Option<u64> {
        let bytes = self.sum_of(container, device, |words| layout::held_bytes(words.held.load(Acquire)))?;
        let sharing = self.sharing.get(usize::from(device))?.load(Relaxed);
        let shares = |kind: &u8| sharing >> kind & 1 != 0;
        let others = (0..KINDS as u8).filter(shares).map(|kind| self.other_bytes(device, kind));
        Some(bytes.wrapping_sub(others.fold(0, u64::wrapping_add)))
    }

    /// A number that each operation of this process on requested bytes of a device changes.
    pub fn operations(&self, container: &Container, device: u8) -> Option<u64> {
        self.sum_of(container, device, |words| words.operation.load(Acquire))
    }

    /// This process's charge for another kind, bytes.
    pub fn other_bytes(&self, device: u8, kind: u8) -> u64 {
        self.other(device, kind).map_or(0, |bytes| bytes.load(Relaxed))
    }

    /// This process's charge for the arenas of a device, bytes.
    pub fn arena_bytes(&self, device: u8) -> u64 {
        self.other_bytes(device, KIND_POOL).wrapping_add(self.other_bytes(device, KIND_GRAPH))
    }

    fn other(&self, device: u8, kind: u8) -> Option<&AtomicU64> {
        self.others.get(usize::from(device))?.get(usize::from(kind))
    }

    /// Sets this process's charge for another kind. The driver has taken or given these bytes already, so the cap does not
    /// apply: this may lift use above it, and then the library admits nothing more. False where no journal is left for the
    /// kind, or the journal is corrupt.
    pub fn set_charge(&self, container: &Container, device: DeviceRef, kind: u8, bytes: u64) -> bool {
        let Some(charged) = self.other(device.index, kind) else { return false };
        if charged.load(Relaxed) == bytes {
            return true;
        }
        let Some(journal) = self.of_kind(container, device.index, kind) else { return false };
        let after = self.change_total(container, device.index, journal, false, |book, word, number| {
            let before = charged.swap(bytes, Relaxed);
            let after = match bytes.checked_sub(before) {
                Some(more) => ledger::take(book, word, number, more, None),
                None => ledger::give(book, word, number, before.wrapping_sub(bytes)),
            };
            if let Ok(after) = after {
                device.record.peak.fetch_max(after, Relaxed);
            }
            write_kind_view(container, device.index, kind, bytes.wrapping_sub(before));
            (after, bytes.wrapping_sub(before))
        });
        after.is_some()
    }
}

impl LockedJournal<'_> {
    /// Takes `bytes` of a device if its total stays within `cap`. `cap` runs after the total was read.
    #[inline(always)]
    pub fn take(
        &self,
        container: &Container,
        device: DeviceRef,
        bytes: u64,
        cap: impl Fn() -> Option<u64>,
    ) -> Result<u64, Refused> {
        let book = JournalBook::new(container.ours(), device.index, false, self.own);
        let used = ledger::take_below(&book, &device.record.used, self.own.number, bytes, cap)?;
        self.held.store(self.held.load(Relaxed).wrapping_add(bytes), Relaxed);
        write_data_view(container, self.slot, device.index, bytes);
        Ok(used)
    }
}

/// Writes a word of this process's for others to see. The last thread that has changed it writes last.
fn publish(known: &AtomicU64, seen: &AtomicU64) {
    loop {
        let now = known.load(Acquire);
        seen.store(now, Release);
        if known.load(Acquire) == now {
            return;
        }
    }
}

/// The entry of HAMi's view for the process in a slot and a device.
#[inline(always)]
fn view_entry(container: &Container, slot: usize, device: u8) -> Option<&'static Used> {
    container.hami().procs.get(slot)?.used.get(usize::from(device))
}

/// Adds a change of this process's requested bytes to HAMi's view. The sum does not depend on the order of changes.
#[inline(always)]
fn write_data_view(container: &Container, slot: usize, device: u8, change: u64) {
    if let Some(used) = view_entry(container, slot, device) {
        used.data.fetch_add(change, Relaxed);
        used.total.fetch_add(change, Relaxed);
    }
}

/// The same for another kind. HAMi's view counts pools and graphs as data.
fn write_kind_view(container: &Container, device: u8, kind: u8, change: u64) {
    let used = container.slot_index().and_then(|slot| view_entry(container, slot, device));
    let Some(used) = used else { return };
    let of_kind = match kind {
        KIND_CONTEXT => &used.context,
        KIND_MODULE => &used.module,
        _ => &used.data,
    };
    of_kind.fetch_add(change, Relaxed);
    used.total.fetch_add(change, Relaxed);
}

#[cfg(test)]
mod tests;
