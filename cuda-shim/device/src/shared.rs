//! Memory that several processes hold. One of the holders pays for it; when that one lets go or dies, another
//! does, as a device frees exported memory only when nobody has it any more.
//!
//! A row is the truth about one piece; what each process pays is added up from the rows, so that a holder that
//! dies half-way leaves nothing to guess. All of it under the device's memory lock.

use crate::layout::{NOBODY, SLOTS, SharedCells};
use crate::memory::MemoryGuard;
use crate::state::State;
use crate::sums::rows;

/// What the same memory is known by in every process: its file's inode and where in the file it begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SharedKey {
    /// Of the file without a name that is behind it.
    pub inode: u64,
    /// In bytes.
    pub offset: u64,
}

impl SharedCells {
    fn is(&self, key: SharedKey) -> bool {
        self.payer.get() != 0 && self.inode.get() == key.inode && self.offset.get() == key.offset
    }

    fn hold(&self, slot: usize, holds: bool) {
        let word = &self.holders[slot / 64];
        let bit = 1 << (slot % 64);
        word.set(if holds { word.get() | bit } else { word.get() & !bit });
    }

    fn holder(&self) -> Option<usize> {
        (0..SLOTS).find(|slot| self.holders[slot / 64].get() & (1 << (slot % 64)) != 0)
    }

    /// Has another holder pay if `slot` does not hold it any more, or nobody for memory of a pool; empties the row if there is
    /// no holder.
    fn pass_on(&self, slot: usize) {
        let heir = |heir| if self.pooled.get() == 1 { NOBODY } else { heir as u64 + 1 };
        if self.payer.get() == slot as u64 + 1 || self.payer.get() == NOBODY {
            self.payer.set(self.holder().map_or(0, heir));
        }
    }
}

impl MemoryGuard<'_> {
    /// Makes memory that this process holds and pays one that others may hold as well. False if the device has
    /// no row left for it.
    pub fn offer(&mut self, key: SharedKey, requested: u64, physical: u64) -> bool {
        if !self.list(key, requested, physical, false) {
            return false;
        }
        self.share.requested.sub(requested);
        self.share.physical.sub(physical);
        self.recount();
        true
    }

    /// Lets others hold memory of a pool of this process, which goes on to pay for it with the pool. When this process has let
    /// go of it, it stays as long as the others hold it, and nobody pays.
    pub fn offer_pooled(&mut self, key: SharedKey, physical: u64) -> bool {
        self.list(key, 0, physical, true)
    }

    fn list(&mut self, key: SharedKey, requested: u64, physical: u64, pooled: bool) -> bool {
        let Some(place) = self.device.shared.iter().position(|row| row.payer.get() == 0) else {
            return false;
        };
        let row = &self.device.shared[place];
        for word in &row.holders {
            word.set(0);
        }
        row.inode.set(key.inode);
        row.offset.set(key.offset);
        row.requested.set(requested);
        row.physical.set(physical);
        row.pooled.set(u64::from(pooled));
        row.hold(self.slot, true);
        self.device.shared_used.raise(place as u64 + 1);
        row.payer.set(self.slot as u64 + 1);
        true
    }

    /// Holds memory that another process offers. False if nobody holds it any more.
    pub fn join(&mut self, key: SharedKey) -> bool {
        let row = rows(self.device).find(|row| row.is(key));
        if let Some(row) = row {
            row.hold(self.slot, true);
        }
        row.is_some()
    }

    /// Lets go of shared memory.
    pub fn part(&mut self, key: SharedKey) {
        if let Some(row) = rows(self.device).find(|row| row.is(key)) {
            row.hold(self.slot, false);
            row.pass_on(self.slot);
            self.recount();
        }
    }

    fn recount(&self) {
        self.state.recount(self.index);
        self.state.add_up(self.index);
    }
}

impl State {
    /// Has others pay for what a dead process held. Under the memory lock; doing it twice is harmless.
    pub(crate) fn disinherit(&self, index: usize, slot: usize) {
        let device = &self.layout().devices[index];
        for row in rows(device) {
            row.hold(slot, false);
            row.pass_on(slot);
        }
        self.recount(index);
    }
}
