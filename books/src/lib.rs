//! The region's words in the types of `quota`: journals and totals of bytes, and the books of a device's time; and
//! [`Reaper`], which settles what a dead process left there. The processes of a container use it, and the node's tools.

#![no_std]
#![allow(clippy::cast_possible_truncation)]

mod reaper;

pub use reaper::Reaper;

use core::sync::atomic::{AtomicU64, Ordering::Acquire, Ordering::Relaxed};
use gpuquota_quota::ledger::{self, Journal, Journals};
use gpuquota_quota::share::lease::{AGENT_TIMEOUT_NS, AgentWords, Lease};
use gpuquota_quota::share::{Books, Busy, Clock, Rate};
use gpuquota_region::layout::{
    self, Device, Header, JOURNALS, JournalRecord, KIND_SPILLED, LeaseRecord, Ours,
};
use gpuquota_region::sys;

/// One of the region's journals, with its number there.
#[derive(Clone, Copy)]
pub struct OwnJournal {
    /// Its number in the region, which counts through the slots.
    pub number: u32,
    words: &'static JournalRecord,
}

impl OwnJournal {
    /// Journal `journal` of a slot.
    #[inline]
    pub fn of(ours: &'static Ours, slot: usize, journal: u8) -> Option<Self> {
        let words = ours.journals.get(slot)?.get(usize::from(journal))?;
        let number = (slot.wrapping_mul(JOURNALS) as u32).wrapping_add(u32::from(journal));
        Some(Self { number, words })
    }

    /// The bytes that it holds.
    #[must_use]
    pub fn held_bytes(&self) -> u64 {
        layout::held_bytes(self.words.held.load(Acquire))
    }
}

/// The region's journals of one total of a device, and the journal among them that records an operation.
pub struct JournalBook {
    ours: &'static Ours,
    device: u8,
    /// Whether the total is that of bytes on the host.
    spilled: bool,
    own: OwnJournal,
}

impl Journals for JournalBook {
    #[inline(always)]
    fn journal(&self, index: u32) -> Option<Journal<'_>> {
        let JournalRecord { amount, operation, held, reserving } = if index == self.own.number {
            self.own.words
        } else {
            let index = index as usize;
            self.ours.journals.get(index / JOURNALS)?.get(index % JOURNALS)?
        };
        Some(Journal { amount, operation, held, reserving })
    }

    #[inline]
    fn serves(&self, index: u32) -> bool {
        let index = index as usize;
        let Some(slot) = self.ours.slots.get(index / JOURNALS) else { return false };
        let journal = slot.journal_device.get(index % JOURNALS).zip(slot.journal_kind.get(index % JOURNALS));
        journal.is_some_and(|(device, kind)| {
            device.load(Acquire) == self.device.wrapping_add(1)
                && (kind.load(Acquire) == KIND_SPILLED) == self.spilled
        })
    }
}

impl JournalBook {
    /// The journals of the total of bytes in use, or of the total of bytes on the host.
    #[inline]
    pub fn new(ours: &'static Ours, device: u8, spilled: bool, own: OwnJournal) -> Self {
        Self { ours, device, spilled, own }
    }

    /// Finishes what a thread of this process has left half done in the own journal. The caller has the journal's lock.
    #[cold]
    pub fn recover(&self, total: &AtomicU64) {
        let _ = ledger::recover(self, total, self.own.number);
    }

    /// The total.
    #[inline]
    pub fn word(&self) -> Option<&'static AtomicU64> {
        let record = self.ours.devices.get(usize::from(self.device))?;
        Some(if self.spilled { &record.spilled } else { &record.used })
    }
}

/// Makes a total of a device the sum of all journals, after the contents of the region were lost.
#[cold]
pub fn balance(ours: &'static Ours, device: u8, spilled: bool) {
    let Some(own) = OwnJournal::of(ours, 0, 0) else { return };
    let book = JournalBook::new(ours, device, spilled, own);
    let slots = (ours.header.slot_high.load(Acquire) as usize).min(layout::SLOTS);
    if let Some(word) = book.word() {
        ledger::balance::balance(&book, word, slots.wrapping_mul(JOURNALS) as u32);
    }
}

/// The words that record the use of a device's time: `pending_ns` is one process's, the others are the container's.
pub fn time_books<'b>(
    header: &Header,
    device: &'b Device,
    lease_record: &'b LeaseRecord,
    pending_ns: &'b AtomicU64,
) -> Books<'b> {
    Books {
        clock: Clock {
            virtual_time: &device.virtual_time_ns,
            idle_at: &device.idle_at_ns,
            idle_ns: &device.idle_ns,
            rate: &device.virtual_percent,
            largest_charge_ns: &device.largest_charge_ns,
            clamped: &device.clamped,
        },
        busy: Busy { until: &device.busy_until_ns, known_from: &device.gaps_from_ns, gaps: &device.gaps },
        in_flight_until: &device.in_flight_until_ns,
        gpu_time_ns: &device.gpu_time_ns,
        pending_ns,
        rate: Rate::new(device.core_limit.load(Relaxed)),
        has_peers: header.slot_high.load(Relaxed) > 1,
        agent: AgentWords {
            lease: lease(lease_record),
            enforces_share: true,
            asked_at: &lease_record.asked_at_ns,
            in_flight_ns: &lease_record.in_flight_ns,
            uncertainty_ns: &lease_record.uncertainty_ns,
        },
    }
}

/// The container's lease; `None` without an agent, and where the agent has not renewed the lease in time.
#[inline]
pub fn lease(lease_record: &LeaseRecord) -> Option<Lease> {
    let lease = Lease::read(lease_record.lease.load(Relaxed))?;
    let silent_ns = sys::monotonic_coarse_ns().saturating_sub(lease_record.renewed_at_ns.load(Relaxed));
    (silent_ns < AGENT_TIMEOUT_NS).then_some(lease)
}
