//! This process's journals after the contents of the region were lost: each is put back as this process knows it.
//!
//! The process knows what each journal holds, also through calls that are under way: the word in the region and the one in
//! [`ProcessJournals::held`] change with the journal's lock held. So with all locks held nothing is missing and nothing is there
//! twice.

use super::{DATA_JOURNALS, ProcessJournals, publish, view_entry};
use crate::container::Container;
use crate::lock::LockGuard;
use core::sync::atomic::{AtomicU8, Ordering::Acquire, Ordering::Relaxed, Ordering::Release};
use gpuquota_books::{JournalBook, OwnJournal};
use gpuquota_quota::ledger::balance;
use gpuquota_region::layout::{JOURNALS, KIND_CONTEXT, KIND_DATA, KIND_MODULE, KIND_SPILLED};
use gpuquota_region::slot;

/// A journal that is in use.
struct Open {
    journal: u8,
    device: u8,
    kind: u8,
}

impl ProcessJournals {
    /// The journals in use.
    fn in_use(&self) -> impl Iterator<Item = Open> + '_ {
        (0u8..).zip(&self.opened).flat_map(move |(device, uses)| {
            (0usize..).zip(uses).filter_map(move |(at, open)| {
                let kind = match at.checked_sub(DATA_JOURNALS) {
                    None => KIND_DATA,
                    Some(other) => (other as u8).wrapping_add(1),
                };
                let journal = open.load(Acquire).checked_sub(1)?;
                (!self.shares(device, kind)).then_some(Open { journal, device, kind })
            })
        })
    }

    /// Whether a kind has no journal of its own.
    fn shares(&self, device: u8, kind: u8) -> bool {
        let sharing = self.sharing.get(usize::from(device)).map_or(0, |sharing| sharing.load(Acquire));
        kind != KIND_DATA && sharing >> kind & 1 != 0
    }

    /// Takes the locks of all journals. `None` where one cannot be had.
    fn lock_all(&self) -> Option<[Option<LockGuard<'_>>; JOURNALS]> {
        let mut guards = [const { None }; JOURNALS];
        for (guard, lock) in guards.iter_mut().zip(&self.locks) {
            *guard = Some(lock.lock(|| {})?);
        }
        Some(guards)
    }

    /// Puts this process's slot and journals back, and makes each total the sum of all journals. Answers the bytes that it holds,
    /// `None` where a thread does not give a journal back.
    #[cold]
    pub fn put_back(&self, container: &Container) -> Option<u64> {
        let (ours, at) = (container.ours(), container.claimed_slot()?);
        let slot = ours.slots.get(at)?;
        let mut sum = 0u64;
        {
            let _locks = self.lock_all()?;
            slot::put_back(&container.region(), at);
            for Open { journal, device, kind } in self.in_use() {
                let number = usize::from(journal);
                let (Some(own), Some(held)) = (OwnJournal::of(ours, at, journal), self.held_by(journal))
                else {
                    continue;
                };
                let held = held.load(Relaxed);
                slot.journal_kind.get(number)?.store(kind, Release);
                slot.journal_device.get(number)?.store(device.wrapping_add(1), Release);
                let _ = balance::put_back(&JournalBook::new(ours, device, false, own), own.number, held);
                if let Some(words) = ours.journals.get(at).and_then(|journals| journals.get(number)) {
                    publish(self.reserving.get(number)?, &words.reserving);
                }
                sum = sum.wrapping_add(if kind == KIND_SPILLED { 0 } else { held });
            }
            for device in self.devices_in_use() {
                self.put_back_view(container, at, device);
            }
        }
        for device in self.devices_in_use() {
            for spilled in [false, true] {
                gpuquota_books::balance(ours, device, spilled);
            }
        }
        Some(sum)
    }

    fn devices_in_use(&self) -> impl Iterator<Item = u8> + '_ {
        let in_use =
            |(_, uses): &(u8, &[_; super::USES])| uses.iter().any(|open: &AtomicU8| open.load(Acquire) != 0);
        (0u8..).zip(&self.opened).filter(in_use).map(|(device, _)| device)
    }

    /// Shows in HAMi's view what this process holds of a device. The caller holds all journals.
    fn put_back_view(&self, container: &Container, slot: usize, device: u8) {
        let Some(used) = view_entry(container, slot, device) else { return };
        let other = |kind| self.other_bytes(device, kind);
        let all = self.in_use().filter(|open| open.device == device && open.kind != KIND_SPILLED);
        let held = all.filter_map(|open| self.held_by(open.journal)).map(|held| held.load(Relaxed));
        let total = held.fold(0, u64::wrapping_add);
        let (context, module) = (other(KIND_CONTEXT), other(KIND_MODULE));
        used.context.store(context, Relaxed);
        used.module.store(module, Relaxed);
        // Pools and graphs are data there.
        used.set_data(total.wrapping_sub(context).wrapping_sub(module), total);
    }
}
