//! Host memory that a context leaves behind.

use crate::model::objects::handle::ContextHandle;
use crate::model::objects::region::Backing;
use crate::model::world::World;
use crate::tools::bytes;
use crate::tools::bytes::PAGE;

impl World {
    /// Gives back the host memory of a context.
    pub fn free_host_of(&mut self, context: ContextHandle) {
        for region in self.regions.of(context) {
            self.regions.remove(region.start);
            if let Backing::Pinned { .. } = region.backing {
                bytes::unmap(region.start, region.length.next_multiple_of(PAGE));
            }
        }
    }
}
