//! Allocating and freeing device memory.

use crate::model::objects::handle::ContextHandle;
use crate::model::objects::heap::{Allocation, Spot, Use};
use crate::model::objects::region::Backing;
use crate::model::operations::{access, graph_memory, pools, sharing, stamps};
use crate::model::world::World;
use crate::tools::bytes;
use crate::tools::status::{INVALID_VALUE, OUT_OF_MEMORY, Outcome};

/// An allocation that was looked for.
pub struct Found {
    ordinal: usize,
    spot: Spot,
    pub context: ContextHandle,
    purpose: Use,
}

/// Places and charges `size` bytes of a device that live and die with `context`.
///
/// # Errors
/// `OUT_OF_MEMORY`; nothing is charged then.
#[inline(always)]
pub fn allocate(
    world: &mut World,
    ordinal: usize,
    size: u64,
    context: ContextHandle,
    purpose: Use,
) -> Outcome<u64> {
    let placed = world.devices[ordinal].heap.place(size, context, purpose, 0).ok_or(OUT_OF_MEMORY)?;
    if let Err(status) = charge_or_trim(world, ordinal, size, placed.physical) {
        world.devices[ordinal].heap.remove(placed.address);
        return Err(status);
    }
    Ok(placed.address)
}

/// Charges memory, once more after the pools of the device gave back what they do not use.
#[inline(always)]
pub fn charge_or_trim(world: &mut World, ordinal: usize, requested: u64, physical: u64) -> Outcome {
    match world.charge(ordinal, requested, physical) {
        Ok(()) => Ok(()),
        Err(status)
            if pools::trim_pools(world, ordinal, |_| 0) + graph_memory::trim_graph_memory(world, ordinal)
                == 0 =>
        {
            Err(status)
        }
        Err(_) => world.charge(ordinal, requested, physical),
    }
}

/// Frees the allocation that begins at `address`, whatever it is.
///
/// # Errors
/// `INVALID_VALUE` if none begins there.
pub fn free(world: &mut World, address: u64) -> Outcome {
    let own = begins(world, address)?;
    free_at(world, &own)
}

/// Frees what was found.
#[inline(always)]
pub fn free_at(world: &mut World, &Found { ordinal, spot, purpose, .. }: &Found) -> Outcome {
    if purpose == Use::Graph {
        return graph_memory::end_graph_memory(world, spot.begin);
    }
    let heap = &mut world.devices[ordinal].heap;
    let (allocation, physical) = heap.take(spot).ok_or(INVALID_VALUE)?;
    stamps::forget_stamps(world, spot.begin, allocation.size);
    match allocation.purpose {
        Use::Pool(pool) => {
            let kept = world.pools.get_mut(pool).map(|pool| pool.give(allocation.size, physical));
            world.release(ordinal, allocation.size, if kept.is_ok() { 0 } else { physical });
            if allocation.shared {
                sharing::part(world, ordinal, spot.begin);
            }
            return Ok(());
        }
        Use::Managed => {
            let region = world.regions.remove(spot.begin);
            bytes::hide(spot.begin, allocation.size);
            if matches!(region.map(|region| region.backing), Some(Backing::Managed { on_host: true, .. })) {
                return Ok(());
            }
        }
        _ => {}
    }
    if allocation.shared {
        sharing::part(world, ordinal, spot.begin);
        world.release(ordinal, 0, if allocation.is_whole() { 0 } else { physical });
    } else {
        world.release(ordinal, allocation.size, physical);
    }
    Ok(())
}

/// The allocation that begins at `address`.
#[inline(always)]
fn begins(world: &mut World, address: u64) -> Outcome<Found> {
    let ordinal = access::heap_of(world, address).ok_or(INVALID_VALUE)?;
    let heap = &mut world.devices[ordinal].heap;
    let spot = heap.locate(address).filter(|spot| spot.begin == address).ok_or(INVALID_VALUE)?;
    let Allocation { context, purpose, .. } = *heap.at(spot).ok_or(INVALID_VALUE)?;
    Ok(Found { ordinal, spot, context, purpose })
}

/// The ordinal of the device on which the allocation lies that begins at `address`.
pub fn device_of(world: &mut World, address: u64) -> Outcome<usize> {
    begins(world, address).map(|found| found.ordinal)
}

/// The same, if it is a caller's to free.
#[inline(always)]
pub fn callers_own(world: &mut World, address: u64) -> Outcome<Found> {
    begins(world, address)
        .and_then(|found| if found.purpose.is_callers() { Ok(found) } else { Err(INVALID_VALUE) })
}
