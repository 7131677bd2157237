//! The blocks of a device that allocations of this process fill in part, and how many allocations lie in each.
//!
//! A block usually has an entry of one word at a place that its number gives, so that an allocation counts itself by one
//! compare-and-swap. Where that place is taken by another block, the block is a holding (`Kind::Block`).

use super::holdings::{Holding, Holdings, Key, Kind, TableFull};
use core::sync::atomic::{AtomicU64, Ordering::AcqRel, Ordering::Acquire, Ordering::Relaxed};
use gpuquota_region::layout::{DEVICES, JOURNALS};

/// Entries of one word; a power of two.
const ENTRIES: usize = 256;
/// The bits of an entry, from the lowest: allocations, journal, device, and the rest is the block's number.
const COUNT_BITS: u32 = 14;
const JOURNAL_BITS: u32 = 6;
const DEVICE_BITS: u32 = 6;
const NUMBER_SHIFT: u32 = COUNT_BITS + JOURNAL_BITS + DEVICE_BITS;
const _: () = assert!(JOURNALS <= 1 << JOURNAL_BITS && DEVICES <= 1 << DEVICE_BITS);
const MOST_ALLOCATIONS: u64 = (1 << COUNT_BITS) - 1;

/// The shared blocks of this process. All-zero bytes: none.
pub struct SharedBlocks {
    /// 0: free.
    entries: [AtomicU64; ENTRIES],
    /// All of them.
    all: AtomicU64,
    /// Those of them that are holdings.
    others: AtomicU64,
}

/// Who pays for a block.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Payer {
    /// Region index of the device.
    pub device: u8,
    /// The journal that recorded the charge.
    pub journal: u8,
}

/// What is left in a block that an allocation has left.
pub enum Left {
    /// Other allocations.
    Others,
    /// Nothing, and this is who paid for it.
    Nobody(Payer),
    /// It takes more steps to tell.
    Unknown,
}

/// An entry that stands for a block.
#[derive(Clone, Copy)]
struct Entry(u64);

impl Entry {
    /// The entry of a block with one allocation; `None` if its number does not fit.
    #[inline(always)]
    fn new(block: u64, Payer { device, journal }: Payer) -> Option<Self> {
        let payer = u64::from(device) << JOURNAL_BITS | u64::from(journal);
        (block >> (64 - NUMBER_SHIFT) == 0).then_some(Self(block << NUMBER_SHIFT | payer << COUNT_BITS | 1))
    }

    #[inline(always)]
    fn is_of(self, block: u64) -> bool {
        self.0 != 0 && self.0 >> NUMBER_SHIFT == block
    }

    #[inline(always)]
    fn count(self) -> u64 {
        self.0 & MOST_ALLOCATIONS
    }

    #[inline(always)]
    fn payer(self) -> Payer {
        let [journal, device] = [
            self.0 >> COUNT_BITS & ((1 << JOURNAL_BITS) - 1),
            self.0 >> (COUNT_BITS + JOURNAL_BITS) & ((1 << DEVICE_BITS) - 1),
        ];
        Payer { device: device as u8, journal: journal as u8 }
    }
}

impl SharedBlocks {
    #[inline(always)]
    fn place(&self, block: u64) -> Option<&AtomicU64> {
        // Neighbours get different places, and blocks at equal distances do not all get the same one.
        self.entries.get((block ^ block >> 8) as usize % ENTRIES)
    }

    /// Counts one more allocation in a block. False if no allocation lies in it yet.
    #[inline(always)]
    pub fn join(&self, holdings: &Holdings, block: u64) -> bool {
        let Some(place) = self.place(block) else { return false };
        let mut seen = place.load(Acquire);
        while Entry(seen).is_of(block) && Entry(seen).count() < MOST_ALLOCATIONS {
            match place.compare_exchange_weak(seen, seen.wrapping_add(1), AcqRel, Acquire) {
                Ok(_) => return true,
                Err(now) => seen = now,
            }
        }
        self.others.load(Relaxed) != 0 && Key::new(Kind::Block, block).is_some_and(|key| holdings.join(key))
    }

    /// Enters a block with one allocation in it. False where that takes more than one step; then nothing has changed.
    #[inline(always)]
    pub fn enter_fresh(&self, block: u64, payer: Payer) -> bool {
        self.others.load(Relaxed) == 0 && self.enter_word(block, payer)
    }

    /// Makes an entry of one word for a block. False where its place is taken.
    #[inline(always)]
    fn enter_word(&self, block: u64, payer: Payer) -> bool {
        let (Some(place), Some(entry)) = (self.place(block), Entry::new(block, payer)) else { return false };
        let entered = place.compare_exchange(0, entry.0, AcqRel, Relaxed).is_ok();
        if entered {
            self.all.fetch_add(1, Relaxed);
        }
        entered
    }

    /// Counts one more allocation in a block. Answers whether it is the first there; then the payer pays for the block.
    pub fn enter(
        &self,
        holdings: &Holdings,
        block: u64,
        bytes: u64,
        payer: Payer,
    ) -> Result<bool, TableFull> {
        if self.enter_fresh(block, payer) {
            Ok(true)
        } else {
            self.enter_slowly(holdings, block, bytes, payer)
        }
    }

    #[cold]
    fn enter_slowly(
        &self,
        holdings: &Holdings,
        block: u64,
        bytes: u64,
        payer: Payer,
    ) -> Result<bool, TableFull> {
        if self.join(holdings, block) {
            return Ok(false);
        }
        if self.enter_word(block, payer) {
            return Ok(true);
        }
        let key = Key::new(Kind::Block, block).ok_or(TableFull)?;
        self.others.fetch_add(1, AcqRel);
        let holding = Holding { bytes, device: payer.device, journal: payer.journal, owner: 1 };
        let entered = holdings.join_or_insert(key, holding);
        match entered {
            Ok(true) => _ = self.all.fetch_add(1, Relaxed),
            Ok(false) | Err(_) => _ = self.others.fetch_sub(1, AcqRel),
        }
        entered
    }

    /// The same where the block has an entry of one word and no thread changes it at the same time; else this changes nothing.
    #[inline(always)]
    pub fn leave_at_once(&self, block: u64) -> Left {
        let Some(place) = self.place(block) else { return Left::Unknown };
        let seen = place.load(Relaxed);
        if !Entry(seen).is_of(block) {
            return Left::Unknown;
        }
        let is_last = Entry(seen).count() == 1;
        let next = if is_last { 0 } else { seen.wrapping_sub(1) };
        if place.compare_exchange(seen, next, AcqRel, Relaxed).is_err() {
            return Left::Unknown;
        }
        if !is_last {
            return Left::Others;
        }
        self.all.fetch_sub(1, Relaxed);
        Left::Nobody(Entry(seen).payer())
    }

    /// Counts one allocation less in a block. Answers who paid for the block if that was the last one.
    pub fn leave(&self, holdings: &Holdings, block: u64) -> Option<Payer> {
        let place = self.place(block)?;
        let mut seen = place.load(Acquire);
        while Entry(seen).is_of(block) {
            let is_last = Entry(seen).count() == 1;
            let next = if is_last { 0 } else { seen.wrapping_sub(1) };
            match place.compare_exchange_weak(seen, next, AcqRel, Acquire) {
                Ok(_) if is_last => {
                    self.all.fetch_sub(1, Relaxed);
                    return Some(Entry(seen).payer());
                }
                Ok(_) => return None,
                Err(now) => seen = now,
            }
        }
        self.leave_slowly(holdings, block)
    }

    #[cold]
    fn leave_slowly(&self, holdings: &Holdings, block: u64) -> Option<Payer> {
        let gone = holdings.change(Key::new(Kind::Block, block)?, |block| {
            block.owner = block.owner.saturating_sub(1);
            block.owner != 0
        });
        let gone = gone.filter(|block| block.owner == 0)?;
        self.others.fetch_sub(1, AcqRel);
        self.all.fetch_sub(1, Relaxed);
        Some(Payer { device: gone.device, journal: gone.journal })
    }

    /// Whether any block of this process is shared.
    #[inline(always)]
    pub fn any(&self) -> bool {
        self.all.load(Relaxed) != 0
    }

    /// The blocks of a device that have entries of one word.
    pub fn count_of(&self, device: u8) -> u64 {
        let entries = self.entries.iter().map(|entry| Entry(entry.load(Acquire)));
        entries.filter(|entry| entry.0 != 0 && entry.payer().device == device).count() as u64
    }
}

#[cfg(test)]
mod tests;
