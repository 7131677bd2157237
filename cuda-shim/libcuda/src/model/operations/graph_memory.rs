//! Memory that graphs allocate. It has its address from the day its node is added; every launch of the node
//! charges it anew, every free gives the request back. The device keeps the physical memory for the graphs
//! until it is trimmed.

use crate::model::objects::graph_memory::Block;
use crate::model::objects::handle::ContextHandle;
use crate::model::objects::heap::Use;
use crate::model::operations::pools;
use crate::model::world::World;
use crate::tools::status::{INVALID_VALUE, OUT_OF_MEMORY, Outcome};

/// An address for an allocation node. Nothing is charged yet.
pub fn place_for_graph(world: &mut World, ordinal: usize, size: u64, context: ContextHandle) -> Outcome<u64> {
    if size == 0 {
        return Err(INVALID_VALUE);
    }
    let heap = &mut world.devices[ordinal].heap;
    let purse = heap.graph_purse();
    let placed = heap.place(size, context, Use::Graph, purse).ok_or(OUT_OF_MEMORY)?;
    let block = Block { ordinal, size, physical: placed.physical, live: false, mapped: false, owners: 1 };
    world.graph_blocks.insert(placed.address, block);
    Ok(placed.address)
}

/// An allocation node runs. `again` allows that the memory was never freed since the last time.
pub fn begin_graph_memory(world: &mut World, address: u64, again: bool) -> Outcome {
    let block = world.graph_blocks.get(&address).ok_or(INVALID_VALUE)?;
    let (ordinal, size, physical) = (block.ordinal, block.size, block.physical);
    if block.live {
        return if again { Ok(()) } else { Err(INVALID_VALUE) };
    }
    let live = world.devices[ordinal].graph_memory.live + physical;
    let mut fresh = live.saturating_sub(world.devices[ordinal].graph_memory.reserved);
    if world.charge(ordinal, size, fresh).is_err() {
        // After a trim the graphs hold less than before, so more has to be charged.
        pools::trim_pools(world, ordinal, |_| 0);
        trim_graph_memory(world, ordinal);
        fresh = live.saturating_sub(world.devices[ordinal].graph_memory.reserved);
        world.charge(ordinal, size, fresh)?;
    }
    let usage = &mut world.devices[ordinal].graph_memory;
    usage.live = live;
    usage.reserved += fresh;
    usage.reserved_high = usage.reserved_high.max(usage.reserved);
    if let Some(block) = world.graph_blocks.get_mut(&address) {
        block.live = true;
        if !std::mem::replace(&mut block.mapped, true) {
            usage.mapped += physical;
        }
    }
    usage.used_high = usage.used_high.max(usage.used());
    Ok(())
}

/// Frees memory of a graph, by a node or by a caller.
pub fn end_graph_memory(world: &mut World, address: u64) -> Outcome {
    let block = world.graph_blocks.get_mut(&address).filter(|block| block.live).ok_or(INVALID_VALUE)?;
    block.live = false;
    let (ordinal, size, physical) = (block.ordinal, block.size, block.physical);
    world.devices[ordinal].graph_memory.live -= physical;
    world.release(ordinal, size, 0);
    drop_unused_graph_memory(world, address);
    Ok(())
}

/// An executable graph owns memory beside the node that it came from. There can be one at a time.
///
/// # Errors
/// `INVALID_VALUE` if there is one already.
pub fn share_graph_memory(world: &mut World, address: u64) -> Outcome {
    let block =
        world.graph_blocks.get_mut(&address).filter(|block| block.owners == 1).ok_or(INVALID_VALUE)?;
    block.owners = 2;
    Ok(())
}

/// An owner is gone: after the last, the address may be dealt out again as soon as nobody uses it.
pub fn disown_graph_memory(world: &mut World, address: u64) {
    if let Some(block) = world.graph_blocks.get_mut(&address) {
        block.owners = block.owners.saturating_sub(1);
        drop_unused_graph_memory(world, address);
    }
}

fn drop_unused_graph_memory(world: &mut World, address: u64) {
    if let Some(block) = world.graph_blocks.get(&address).filter(|block| block.owners == 0 && !block.live) {
        let ordinal = block.ordinal;
        world.graph_blocks.remove(&address);
        world.devices[ordinal].heap.remove(address);
    }
}

/// Gives back what graphs of a device hold and do not use.
pub fn trim_graph_memory(world: &mut World, ordinal: usize) -> u64 {
    for block in world.graph_blocks.values_mut().filter(|block| block.ordinal == ordinal) {
        block.mapped = block.live;
    }
    let usage = &mut world.devices[ordinal].graph_memory;
    usage.mapped = usage.live;
    let surplus = usage.reserved - usage.live;
    usage.reserved = usage.live;
    if surplus > 0 {
        world.release(ordinal, 0, surplus);
    }
    surplus
}
