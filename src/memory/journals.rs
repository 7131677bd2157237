//! The journals of this process: through which of them a thread charges a device, and how much each kind comes to.
//!
//! A journal serves one device and one kind of bytes. What programs ask for may go through several journals, so that
//! threads need not wait for each other; the measured kinds have one each. A process of very many devices has one journal
//! for each of them, where all that it holds there is told as asked for.

use crate::container::books::{JournalBook, OwnJournal};
use crate::container::{Container, DeviceRef};
use crate::driver::cuda;
use crate::lock::{Lock, LockGuard};
use crate::thread;
use core::sync::atomic::{
    AtomicU8, AtomicU64, Ordering::AcqRel, Ordering::Acquire, Ordering::Relaxed, Ordering::Release,
};
use gpuquota_quota::ledger::{self, Refused};
use gpuquota_region::hami::Used;
use gpuquota_region::layout::{
    self, DEVICES, JOURNALS, KIND_CONTEXT, KIND_DATA, KIND_GRAPH, KIND_MODULE, KIND_POOL, KIND_SPILLED,
    KINDS, Slot,
};

/// Journals that threads of one process may use at a time for what they ask of one device; beyond, they wait for each
/// other for the nanoseconds that an operation takes.
const DATA_JOURNALS: usize = 4;
/// With one for each other kind.
const USES: usize = DATA_JOURNALS + KIND_SPILLED as usize;

/// The journals of this process. All-zero bytes: none in use.
pub struct Journals {
    locks: [Lock; JOURNALS],
    /// Journal + 1 by device and use; 0 for none yet. First those of what is asked for, then the other kinds.
    opened: [[AtomicU8; USES]; DEVICES],
    /// Other kinds that go through the first journal of what is asked for, bit by bit, for want of another.
    sharing: [AtomicU8; DEVICES],
    /// Bytes of each kind that were not asked for by a call with a size, as they were last set.
    others: [[AtomicU64; KINDS]; DEVICES],
}

/// A journal whose lock this thread holds.
pub struct Open<'j> {
    /// Its number in the process.
    pub journal: u8,
    slot: usize,
    own: OwnJournal,
    _held: LockGuard<'j>,
}

impl Journals {
    /// A journal for this thread to charge what was asked for: the first that is not busy, beginning with one by the
    /// thread's number, so that threads do not meet in one as long as there are enough.
    #[inline(always)]
    pub fn free(&self, container: &Container, device: u8) -> Option<Open<'_>> {
        let slot = container.slot_index()?;
        let uses = self.opened.get(usize::from(device))?;
        let serving = uses.get(thread::spread() % DATA_JOURNALS)?;
        let journal = serving.load(Acquire).checked_sub(1);
        if let Some(journal) = journal
            && let Some(held) = self.lock(journal)?.try_lock()
        {
            let own = OwnJournal::of(container.ours(), slot, journal)?;
            return Some(Open { journal, slot, own, _held: held });
        }
        self.next_free(container, device, slot, uses)
    }

    #[inline(never)]
    fn next_free(
        &self,
        container: &Container,
        device: u8,
        slot: usize,
        uses: &[AtomicU8; USES],
    ) -> Option<Open<'_>> {
        let ours = container.ours();
        let open = |journal, held| {
            Some(Open { journal, slot, own: OwnJournal::of(ours, slot, journal)?, _held: held })
        };
        let first = thread::spread() % DATA_JOURNALS;
        let (before, from) = uses.get(..DATA_JOURNALS)?.split_at_checked(first)?;
        let mut any = None;
        for serving in from.iter().chain(before) {
            let opened = serving.load(Acquire).checked_sub(1);
            let Some(journal) = opened.or_else(|| self.open(container, device, KIND_DATA, serving)) else {
                continue;
            };
            any = any.or(Some(journal));
            if let Some(held) = self.lock(journal)?.try_lock() {
                return open(journal, held);
            }
        }
        let journal = any?;
        open(journal, self.lock(journal)?.lock())
    }

    #[inline(always)]
    fn lock(&self, journal: u8) -> Option<&Lock> {
        self.locks.get(usize::from(journal))
    }

    /// The journal of one of the other kinds; `None` where there is none for it.
    fn of_kind(&self, container: &Container, device: u8, kind: u8) -> Option<u8> {
        let at = DATA_JOURNALS.wrapping_add(usize::from(kind.checked_sub(1)?));
        let uses = self.opened.get(usize::from(device))?;
        let serving = uses.get(at)?;
        serving.load(Acquire).checked_sub(1).or_else(|| match self.open(container, device, kind, serving) {
            // What lies on the host is counted in another word.
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

    /// Each device that the process may ever use keeps a journal; the others are for the first that asks.
    fn may_open(&self, slot: &Slot, serving: &AtomicU8) -> bool {
        let first = |uses: &[AtomicU8; USES]| uses.first().is_some_and(|first| core::ptr::eq(first, serving));
        if self.opened.iter().any(first) {
            return true;
        }
        let served = |uses: &&[AtomicU8; USES]| uses.first().is_some_and(|first| first.load(Relaxed) != 0);
        let waiting =
            (cuda::device_count() as usize).saturating_sub(self.opened.iter().filter(served).count());
        slot.journal_device.iter().filter(|journal| journal.load(Relaxed) == 0).count() > waiting
    }

    #[cold]
    fn open(&self, container: &Container, device: u8, kind: u8, serving: &AtomicU8) -> Option<u8> {
        let mine = device.wrapping_add(1);
        let slot = container.slot()?;
        if !self.may_open(slot, serving) {
            return None;
        }
        let journals = &slot.journal_device;
        let free = |journal: &AtomicU8| journal.compare_exchange(0, mine, AcqRel, Relaxed).is_ok();
        let journal = journals.iter().position(free)?;
        slot.journal_kind.get(journal)?.store(kind, Release);
        match serving.compare_exchange(0, (journal as u8).wrapping_add(1), AcqRel, Acquire) {
            Ok(_) => Some(journal as u8),
            Err(other) => {
                // Another thread was first; the journal has held nothing yet.
                journals.get(journal)?.store(0, Release);
                other.checked_sub(1)
            }
        }
    }

    /// Changes a word of a device through a journal of this process, whose lock is held meanwhile. `None` where there is no
    /// such journal, or the book is broken.
    fn post(
        &self,
        container: &Container,
        device: u8,
        journal: u8,
        spilled: bool,
        change: impl FnOnce(&JournalBook, &AtomicU64, u32) -> Result<u64, Refused>,
    ) -> Option<u64> {
        let (ours, slot) = (container.ours(), container.slot_index()?);
        let own = OwnJournal::of(ours, slot, journal)?;
        let book = JournalBook::new(ours, device, spilled, own);
        let word = book.word()?;
        let _held = self.lock(journal)?.lock();
        change(&book, word, own.number).ok()
    }

    /// Gives `bytes` back that were taken through a journal. `None` where the book is broken.
    #[inline(always)]
    pub fn give(&self, container: &Container, device: u8, journal: u8, bytes: u64) -> Option<u64> {
        let (ours, slot) = (container.ours(), container.slot_index()?);
        let own = OwnJournal::of(ours, slot, journal)?;
        let word = &ours.devices.get(usize::from(device))?.used;
        let after = {
            let _held = self.lock(journal)?.lock();
            ledger::give(&JournalBook::new(ours, device, false, own), word, own.number, bytes).ok()?
        };
        show_data(container, slot, device, bytes.wrapping_neg());
        Some(after)
    }

    /// Counts bytes as lying on the host, or no longer. False where no journal is free for them, or the book is broken.
    pub fn change_spilled(&self, container: &Container, device: u8, bytes: u64, more: bool) -> bool {
        let Some(journal) = self.of_kind(container, device, KIND_SPILLED) else { return false };
        let after = self.post(container, device, journal, true, |book, word, number| match more {
            true => ledger::take(book, word, number, bytes, None),
            false => ledger::give(book, word, number, bytes),
        });
        after.is_some()
    }

    /// Says that so many bytes of a journal are an upper bound, until they are settled; 0 takes that back.
    pub fn announce(&self, container: &Container, journal: u8, bytes: i64) {
        let slot = container.slot_index();
        let words = slot.and_then(|slot| container.ours().journals.get(slot)?.get(usize::from(journal)));
        if let Some(words) = words {
            words.reserving.fetch_add(bytes as u64, Relaxed);
        }
    }

    /// Bytes that this process is charged for what it asked of a device.
    pub fn requested_bytes(&self, container: &Container, device: u8) -> Option<u64> {
        let words = container.ours().journals.get(container.slot_index()?)?;
        let uses = self.opened.get(usize::from(device))?.get(..DATA_JOURNALS)?;
        let opened =
            uses.iter().map_while(|journal| words.get(usize::from(journal.load(Acquire).checked_sub(1)?)));
        let held = |words: &layout::JournalRecord| layout::held_bytes(words.held.load(Acquire));
        let bytes = opened.map(held).fold(0, u64::wrapping_add);
        let sharing = self.sharing.get(usize::from(device))?.load(Relaxed);
        let shares = |kind: &u8| sharing >> kind & 1 != 0;
        let others = (0..KINDS as u8).filter(shares).map(|kind| self.other_bytes(device, kind));
        Some(bytes.wrapping_sub(others.fold(0, u64::wrapping_add)))
    }

    /// Bytes that this process is charged for another kind.
    pub fn other_bytes(&self, device: u8, kind: u8) -> u64 {
        self.other(device, kind).map_or(0, |bytes| bytes.load(Relaxed))
    }

    /// Bytes that this process is charged for what arenas hold of a device.
    pub fn arena_bytes(&self, device: u8) -> u64 {
        self.other_bytes(device, KIND_POOL).wrapping_add(self.other_bytes(device, KIND_GRAPH))
    }

    fn other(&self, device: u8, kind: u8) -> Option<&AtomicU64> {
        self.others.get(usize::from(device))?.get(usize::from(kind))
    }

    /// Sets what this process is charged for another kind. The driver has taken or given these bytes already, so no
    /// cap is asked: it may be passed by this, and then nothing more is admitted. False where no journal is free for the
    /// kind, or the book is broken.
    pub fn set_charge(&self, container: &Container, device: DeviceRef, kind: u8, bytes: u64) -> bool {
        let Some(charged) = self.other(device.index, kind) else { return false };
        if charged.load(Relaxed) == bytes {
            return true;
        }
        let Some(journal) = self.of_kind(container, device.index, kind) else { return false };
        let after = self.post(container, device.index, journal, false, |book, word, number| {
            let before = charged.swap(bytes, Relaxed);
            let after = match bytes.checked_sub(before) {
                Some(more) => ledger::take(book, word, number, more, None),
                None => ledger::give(book, word, number, before.wrapping_sub(bytes)),
            };
            if let Ok(after) = after {
                device.record.peak.fetch_max(after, Relaxed);
            }
            show_kind(container, device.index, kind, bytes.wrapping_sub(before));
            after
        });
        after.is_some()
    }
}

impl Open<'_> {
    /// Takes `bytes` of a device if its total then stays below `cap`, which is asked for after the total was read.
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
        show_data(container, self.slot, device.index, bytes);
        Ok(used)
    }
}

/// HAMi's view of what the process in a slot holds of a device.
#[inline(always)]
fn shown(container: &Container, slot: usize, device: u8) -> Option<&'static Used> {
    container.hami().procs.get(slot)?.used.get(usize::from(device))
}

/// Writes into HAMi's view by how much this process's requested bytes have changed. Changes add up whatever their order.
#[inline(always)]
fn show_data(container: &Container, slot: usize, device: u8, change: u64) {
    if let Some(used) = shown(container, slot, device) {
        used.data.fetch_add(change, Relaxed);
        used.total.fetch_add(change, Relaxed);
    }
}

/// The same for another kind: pools and graphs are data there.
fn show_kind(container: &Container, device: u8, kind: u8, change: u64) {
    let used = container.slot_index().and_then(|slot| shown(container, slot, device));
    let Some(used) = used else { return };
    let of_kind = match kind {
        KIND_CONTEXT => &used.context,
        KIND_MODULE => &used.module,
        _ => &used.data,
    };
    of_kind.fetch_add(change, Relaxed);
    used.total.fetch_add(change, Relaxed);
}
