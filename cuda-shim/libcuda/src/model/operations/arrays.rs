//! Making and destroying arrays.

use crate::model::objects::array::Extent;
use crate::model::objects::handle::{ArrayHandle, ContextHandle, MipmapHandle};
use crate::model::objects::heap::Use;
use crate::model::operations::captures;
use crate::model::world::{World, world};
use crate::tools::status::Outcome;

impl World {
    /// Takes an array away, and its memory if that is its own.
    pub fn destroy_array(&mut self, handle: ArrayHandle) -> Outcome {
        let array = self.arrays.remove(handle)?;
        if array.owner.is_null() { self.free(array.address) } else { Ok(()) }
    }

    /// Takes a mipmapped array away with its levels and its memory.
    pub fn destroy_mipmap(&mut self, handle: MipmapHandle) -> Outcome {
        let mipmap = self.mipmaps.remove(handle)?;
        for level in mipmap.levels {
            let _ = self.arrays.remove(level);
        }
        self.free(mipmap.address)
    }

    /// Memory for arrays of the current context.
    pub fn array_memory(&mut self, size: u64) -> Outcome<(ContextHandle, u64)> {
        let context = self.current()?;
        let ordinal = self.contexts.get(context)?.device;
        captures::forbid_unsafe_call(self)?;
        Ok((context, self.allocate(ordinal, size, context, Use::Internal)?))
    }
}

/// The extent of an array.
pub fn extent(handle: ArrayHandle) -> Outcome<Extent> {
    handle.given()?;
    Ok(world()?.arrays.get(handle)?.extent)
}
