//! Making and destroying arrays.

use crate::model::objects::array::Extent;
use crate::model::objects::handle::{ArrayHandle, ContextHandle, MipmapHandle};
use crate::model::objects::heap::Use;
use crate::model::operations::{captures, memory};
use crate::model::world::{World, world};
use crate::tools::status::Outcome;

/// Takes an array away, and its memory if that is its own.
pub fn destroy_array(world: &mut World, handle: ArrayHandle) -> Outcome {
    let array = world.arrays.remove(handle)?;
    if array.owner.is_null() { memory::free(world, array.address) } else { Ok(()) }
}

/// Takes a mipmapped array away with its levels and its memory.
pub fn destroy_mipmap(world: &mut World, handle: MipmapHandle) -> Outcome {
    let mipmap = world.mipmaps.remove(handle)?;
    for level in mipmap.levels {
        let _ = world.arrays.remove(level);
    }
    memory::free(world, mipmap.address)
}

/// Memory for arrays of the current context.
pub fn array_memory(world: &mut World, size: u64) -> Outcome<(ContextHandle, u64)> {
    let context = world.current()?;
    let ordinal = world.contexts.get(context)?.device;
    captures::forbid_unsafe_call(world)?;
    Ok((context, memory::allocate(world, ordinal, size, context, Use::Internal)?))
}

/// The extent of an array.
pub fn extent(handle: ArrayHandle) -> Outcome<Extent> {
    handle.given()?;
    Ok(world()?.arrays.get(handle)?.extent)
}
