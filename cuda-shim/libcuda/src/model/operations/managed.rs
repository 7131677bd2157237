//! Moving the pages of managed memory.

use crate::model::objects::region::{Backing, Region};
use crate::model::operations::{access, memory};
use crate::model::world::World;
use crate::tools::bytes::BLOCK;

/// Moves the managed memory that begins at `address` as a whole, if the range covers it and there is room.
pub fn move_pages(world: &mut World, address: u64, count: u64, to_host: bool) {
    let Some(Region { start, length, backing: Backing::Managed { on_host, .. }, .. }) =
        world.regions.at(address).copied()
    else {
        return;
    };
    let Some(ordinal) = access::heap_of(world, start).filter(|_| on_host != to_host && length <= count)
    else {
        return;
    };
    let physical = length.next_multiple_of(BLOCK);
    if to_host {
        world.release(ordinal, length, physical);
    } else if memory::charge_or_trim(world, ordinal, length, physical).is_err() {
        return;
    }
    world.regions.move_managed(start, to_host);
}
