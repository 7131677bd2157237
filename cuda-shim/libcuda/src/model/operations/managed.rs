//! Moving the pages of managed memory.

use crate::model::objects::region::{Backing, Region};
use crate::model::world::World;
use crate::tools::bytes::BLOCK;

impl World {
    /// Moves the managed memory that begins at `address` as a whole, if the range covers it and there is room.
    pub fn move_pages(&mut self, address: u64, count: u64, to_host: bool) {
        let Some(Region { start, length, backing: Backing::Managed { on_host, .. }, .. }) =
            self.regions.at(address).copied()
        else {
            return;
        };
        let Some(ordinal) = self.heap_of(start).filter(|_| on_host != to_host && length <= count) else {
            return;
        };
        let physical = length.next_multiple_of(BLOCK);
        if to_host {
            self.release(ordinal, length, physical);
        } else if self.charge_or_trim(ordinal, length, physical).is_err() {
            return;
        }
        self.regions.move_managed(start, to_host);
    }
}
