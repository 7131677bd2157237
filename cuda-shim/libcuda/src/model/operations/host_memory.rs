//! Host memory that a context leaves behind.

use crate::model::objects::handle::ContextHandle;
use crate::model::objects::region::Backing;
use crate::model::world::World;
use crate::tools::bytes::{self, PAGE};

/// Gives back the host memory of a context.
pub fn free_host_of(world: &mut World, context: ContextHandle) {
    for region in world.regions.of(context) {
        world.regions.remove(region.start);
        if let Backing::Pinned { .. } = region.backing {
            bytes::unmap(region.start, region.length.next_multiple_of(PAGE));
        }
    }
}
