//! The lanes of this process: through which of them a thread charges a device, and how much each kind comes to.
//!
//! A lane serves one device and one kind of bytes. What programs ask for may go through several lanes, so that
//! threads need not wait for each other; the measured kinds have one each. A process of very many devices has one lane for
//! each of them, where all that it holds there is told as asked for.

use crate::hook::cuda;
use crate::lock::{Held, Lock};
use crate::process::Process;
use core::sync::atomic::{
    AtomicU8, AtomicU64, Ordering::AcqRel, Ordering::Acquire, Ordering::Relaxed, Ordering::Release,
};
use gpuquota_quota::ledger;
use gpuquota_region::hami::Used;
use gpuquota_region::layout::{
    DEVICES, KIND_CONTEXT, KIND_DATA, KIND_GRAPH, KIND_MODULE, KIND_POOL, KIND_SPILLED, KINDS, LANES, Slot,
};

/// Lanes that threads of one process may use at a time for what they ask of one device; beyond, they wait for each
/// other for the nanoseconds that an operation takes.
const DATA_LANES: usize = 4;
/// With one for each other kind.
const USES: usize = DATA_LANES + KIND_SPILLED as usize;

/// The lanes of this process. All-zero bytes: none in use.
pub struct Lanes {
    locks: [Lock; LANES],
    /// Lane + 1 by device and use; 0 for none yet. First those of what is asked for, then the other kinds.
    opened: [[AtomicU8; USES]; DEVICES],
    /// Other kinds that go through the first lane of what is asked for, bit by bit, for want of another.
    sharing: [AtomicU8; DEVICES],
    others: [Others; DEVICES],
}

/// Bytes of a device that were not asked for by a call with a size, as they were last set.
struct Others {
    kinds: [AtomicU64; KINDS],
    /// Of these, what pools and graphs keep.
    kept: AtomicU64,
    /// Of these, what was measured.
    measured: AtomicU64,
}

impl Process {
    /// A lane for this thread to charge what was asked for: the first that is not busy.
    #[inline]
    pub(super) fn free_lane(&self, device: u8) -> Option<(u8, Held<'_>)> {
        let uses = self.lanes.opened.get(usize::from(device))?.get(..DATA_LANES)?;
        for serving in uses {
            let lane = match serving.load(Acquire).checked_sub(1) {
                Some(lane) => lane,
                None => match self.open_lane(device, KIND_DATA, serving) {
                    Some(lane) => lane,
                    None => break,
                },
            };
            if let Some(held) = self.lanes.locks.get(usize::from(lane))?.try_lock() {
                return Some((lane, held));
            }
        }
        let lane = uses.first()?.load(Acquire).checked_sub(1)?;
        Some((lane, self.lane_lock(lane)?.lock()))
    }

    /// The lock of a lane.
    #[inline]
    pub(super) fn lane_lock(&self, lane: u8) -> Option<&Lock> {
        self.lanes.locks.get(usize::from(lane))
    }

    /// The lane of one of the other kinds; `None` where there is none for it.
    pub fn lane_of(&self, device: u8, kind: u8) -> Option<u8> {
        let at = DATA_LANES.wrapping_add(usize::from(kind.checked_sub(1)?));
        let uses = self.lanes.opened.get(usize::from(device))?;
        let serving = uses.get(at)?;
        serving.load(Acquire).checked_sub(1).or_else(|| match self.open_lane(device, kind, serving) {
            // What lies on the host is counted in another word.
            None if kind != KIND_SPILLED => {
                let first = uses.first()?;
                let lane = first.load(Acquire).checked_sub(1);
                let lane = lane.or_else(|| self.open_lane(device, KIND_DATA, first))?;
                serving.store(lane.wrapping_add(1), Release);
                self.lanes.sharing.get(usize::from(device))?.fetch_or(1 << kind, Release);
                Some(lane)
            }
            own => own,
        })
    }

    /// Each device that the process may ever use keeps a lane; the others are for whoever comes first.
    fn may_open(&self, slot: &Slot, serving: &AtomicU8) -> bool {
        let first = |uses: &[AtomicU8; USES]| uses.first().is_some_and(|first| core::ptr::eq(first, serving));
        if self.lanes.opened.iter().any(first) {
            return true;
        }
        let served = |uses: &&[AtomicU8; USES]| uses.first().is_some_and(|first| first.load(Relaxed) != 0);
        let waiting =
            (cuda::device_count() as usize).saturating_sub(self.lanes.opened.iter().filter(served).count());
        slot.lane_device.iter().filter(|lane| lane.load(Relaxed) == 0).count() > waiting
    }

    #[cold]
    fn open_lane(&self, device: u8, kind: u8, serving: &AtomicU8) -> Option<u8> {
        let mine = device.wrapping_add(1);
        let slot = self.slot()?;
        if !self.may_open(slot, serving) {
            return None;
        }
        let lanes = &slot.lane_device;
        let lane = lanes.iter().position(|lane| lane.compare_exchange(0, mine, AcqRel, Relaxed).is_ok())?;
        slot.lane_kind.get(lane)?.store(kind, Release);
        match serving.compare_exchange(0, (lane as u8).wrapping_add(1), AcqRel, Acquire) {
            Ok(_) => Some(lane as u8),
            Err(other) => {
                // Another thread was first; the lane has held nothing yet.
                lanes.get(lane)?.store(0, Release);
                other.checked_sub(1)
            }
        }
    }

    /// Bytes that this process is charged for what it asked of a device.
    pub fn asked_bytes(&self, device: u8) -> Option<u64> {
        let lanes = self.region()?.ours().lanes.get(self.slot_index()?)?;
        let uses = self.lanes.opened.get(usize::from(device))?.get(..DATA_LANES)?;
        let opened = uses.iter().map_while(|lane| lanes.get(usize::from(lane.load(Acquire).checked_sub(1)?)));
        let bytes = opened.fold(0, |sum: u64, lane| sum.wrapping_add(lane.held.load(Acquire) >> 16));
        match self.lanes.sharing.get(usize::from(device))?.load(Relaxed) {
            0 => Some(bytes),
            sharing => {
                let shares = |kind: &u8| sharing >> kind & 1 != 0;
                let others = (0..KINDS as u8).filter(shares).map(|kind| self.other_bytes(device, kind));
                Some(bytes.wrapping_sub(others.fold(0, u64::wrapping_add)))
            }
        }
    }

    /// Bytes that this process is charged for another kind.
    pub fn other_bytes(&self, device: u8, kind: u8) -> u64 {
        self.other(device, kind).map_or(0, |bytes| bytes.load(Relaxed))
    }

    fn other(&self, device: u8, kind: u8) -> Option<&AtomicU64> {
        self.lanes.others.get(usize::from(device))?.kinds.get(usize::from(kind))
    }

    /// Sets what this process is charged for another kind. The driver has taken or given these bytes already, so no
    /// cap is asked: it may be passed by this, and then nothing more is admitted. False where no lane is free for the
    /// kind, or the book is broken.
    pub fn set_charge(&self, device: u8, kind: u8, bytes: u64) -> bool {
        let Some((shown, record)) = self.other(device, kind).zip(self.device(device)) else { return false };
        if shown.load(Relaxed) == bytes {
            return true;
        }
        let Some(lane) = self.lane_of(device, kind) else { return false };
        let after = self.post(device, lane, false, |book, word, number| {
            let before = shown.swap(bytes, Relaxed);
            let after = match bytes.checked_sub(before) {
                Some(more) => ledger::take(book, word, number, more, None),
                None => ledger::give(book, word, number, before.wrapping_sub(bytes)),
            };
            if let Ok(after) = after {
                record.peak.fetch_max(after, Relaxed);
            }
            self.show_others(device);
            after
        });
        after.is_some()
    }

    /// Writes this process's bytes into HAMi's view after what it asked for has changed. Threads may pass each other
    /// here, so whoever wrote looks again: the last one to write then wrote what was true.
    #[inline]
    pub(super) fn show(&self, device: u8) {
        let (Some(used), Some(others)) = (self.shown(device), self.lanes.others.get(usize::from(device)))
        else {
            return;
        };
        let mut asked = self.asked_bytes(device);
        for _ in 0..4 {
            let data = asked.unwrap_or(0).wrapping_add(others.kept.load(Relaxed));
            used.set_data(data, data.wrapping_add(others.measured.load(Relaxed)));
            let again = self.asked_bytes(device);
            if again == asked {
                return;
            }
            asked = again;
        }
    }

    /// The same after another kind has changed.
    fn show_others(&self, device: u8) {
        let (Some(used), Some(others)) = (self.shown(device), self.lanes.others.get(usize::from(device)))
        else {
            return;
        };
        let sum = |kinds: [u8; 2]| kinds.map(|kind| self.other_bytes(device, kind)).iter().sum::<u64>();
        others.kept.store(sum([KIND_POOL, KIND_GRAPH]), Relaxed);
        others.measured.store(sum([KIND_CONTEXT, KIND_MODULE]), Relaxed);
        used.context.store(self.other_bytes(device, KIND_CONTEXT), Relaxed);
        used.module.store(self.other_bytes(device, KIND_MODULE), Relaxed);
        self.show(device);
    }

    #[inline]
    fn shown(&self, device: u8) -> Option<&'static Used> {
        let process = self.region()?.hami().procs.get(self.slot_index()?)?;
        process.used.get(usize::from(device))
    }
}
