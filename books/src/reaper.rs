//! Gives back the bytes of a dead process and the GPU time that it had in flight.

use crate::{JournalBook, OwnJournal, time_books};
use core::sync::atomic::{Ordering::AcqRel, Ordering::Acquire, Ordering::Relaxed};
use gpuquota_quota::ledger;
use gpuquota_region::layout::{EVENT_REAPED, KIND_DATA, KIND_POOL, KIND_SPILLED};
use gpuquota_region::slot::SettleSlot;
use gpuquota_region::{Region, sys};

/// Gives back the bytes and the pending GPU time of a dead process.
pub struct Reaper;

impl SettleSlot for Reaper {
    fn settle_slot(&mut self, region: &Region, index: usize, keep: bool) -> bool {
        let ours = region.ours();
        let Some(slot) = ours.slots.get(index) else { return true };
        let mut given = 0u64;
        // The most that the others may keep, and what they do not leave of it.
        let exported = if keep { slot.exported.load(Acquire) } else { 0 };
        let mut may_keep = exported;
        // Bytes on the host leave their own total first, as in every free. Of what others may keep pools come first: for them alone it
        // matters which journal has it.
        let turn_of = |kind| match kind {
            KIND_SPILLED => 0,
            KIND_POOL => 1,
            _ => 2,
        };
        for turn in 0..3 {
            let spilled = turn == 0;
            let journals = slot.journal_device.iter().zip(&slot.journal_kind).enumerate();
            for (journal, (serves, kind)) in journals {
                let Some(at) = serves.load(Acquire).checked_sub(1) else { continue };
                let Some(device) = ours.devices.get(usize::from(at)) else { continue };
                if turn_of(kind.load(Acquire)) != turn {
                    continue;
                }
                let Some(own) = OwnJournal::of(ours, index, journal as u8) else { continue };
                let book = JournalBook::new(ours, at, spilled, own);
                let Some(word) = book.word() else { continue };
                let shared = matches!(kind.load(Acquire), KIND_DATA | KIND_POOL);
                let keep = if shared { may_keep } else { 0 };
                let Ok(reaped) = ledger::reap_but(&book, word, own.number, keep) else { continue };
                may_keep = may_keep.saturating_sub(reaped.kept);
                if reaped.given != 0 && !spilled {
                    device.reaped_at_ns.store(sys::monotonic_ns(), Relaxed);
                    given = given.saturating_add(reaped.given);
                }
            }
        }
        let (now, last_launch) = (sys::monotonic_ns(), slot.last_launch_ns.load(Relaxed));
        for ((device, lease), pending) in ours.devices.iter().zip(&ours.header.leases).zip(&slot.pending_ns) {
            time_books(&ours.header, device, lease, pending).reap_pending(now, last_launch);
        }
        if given > 0 {
            region.event(EVENT_REAPED, u32::MAX, 0, given, 0);
        }
        // What others had opened may be freed since.
        let _ = slot.exported.fetch_update(AcqRel, Relaxed, |left| Some(left.saturating_sub(may_keep)));
        may_keep == exported
    }
}
