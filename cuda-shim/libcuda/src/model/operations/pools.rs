//! Allocating from pools, and giving back what they do not use.

use crate::model::objects::handle::{ContextHandle, PoolHandle};
use crate::model::objects::heap::Use;
use crate::model::objects::location::{DEVICE, Location};
use crate::model::objects::pool::Pool;
use crate::model::world::World;
use crate::tools::status::{INVALID_VALUE, OUT_OF_MEMORY, Outcome};

/// The ordinal of a location, which must be a device.
pub fn located(world: &World, location: Location) -> Outcome<usize> {
    if location.kind != DEVICE {
        return Err(INVALID_VALUE);
    }
    world.device(location.id).map(|(ordinal, _)| ordinal)
}

pub fn allocate_from(
    world: &mut World,
    handle: PoolHandle,
    size: u64,
    context: ContextHandle,
) -> Outcome<u64> {
    let pool = world.pools.get(handle)?;
    let ordinal = pool.device;
    if pool.lender.is_some() {
        return Err(INVALID_VALUE);
    }
    let purse = match pool.purse {
        Some(purse) => purse,
        None => {
            let purse = world.devices[ordinal].heap.new_purse();
            world.pools.get_mut(handle)?.purse = Some(purse);
            purse
        }
    };
    let heap = &mut world.devices[ordinal].heap;
    let placed = heap.place(size, context, Use::Pool(handle), purse).ok_or(OUT_OF_MEMORY)?;
    let charged = charge_for(world, handle, size, placed.physical);
    if charged.is_err() {
        world.devices[ordinal].heap.remove(placed.address);
    }
    charged.map(|()| placed.address)
}

/// Charges what a pool's idle memory does not cover.
fn charge_for(world: &mut World, handle: PoolHandle, size: u64, physical: u64) -> Outcome {
    let pool = world.pools.get(handle)?;
    let ordinal = pool.device;
    let fresh = physical.saturating_sub(pool.idle);
    if pool.limit != 0 && pool.reserved.saturating_add(fresh) > pool.limit {
        return Err(OUT_OF_MEMORY);
    }
    if world.charge(ordinal, size, fresh).is_err() {
        trim_pools(world, ordinal, |_| 0);
        world.charge(ordinal, size, physical)?;
        world.pools.get_mut(handle)?.take(size, physical, physical);
        return Ok(());
    }
    world.pools.get_mut(handle)?.take(size, physical, fresh);
    Ok(())
}

/// Gives back what a pool holds beyond `keep` bytes and does not use; how much that was.
pub fn trim(world: &mut World, handle: PoolHandle, keep: u64) -> u64 {
    let Ok(pool) = world.pools.get_mut(handle) else { return 0 };
    let surplus = pool.idle.min(pool.reserved.saturating_sub(keep));
    pool.idle -= surplus;
    pool.reserved -= surplus;
    let ordinal = pool.device;
    if surplus > 0 {
        world.release(ordinal, 0, surplus);
    }
    surplus
}

/// Trims the pools of a device, each to what `keep` says; how much that gave back.
pub fn trim_pools(world: &mut World, ordinal: usize, keep: impl Fn(&Pool) -> u64) -> u64 {
    let due: Vec<_> = world
        .pools
        .iter()
        .filter(|(_, pool)| pool.device == ordinal && pool.idle > 0)
        .map(|(handle, pool)| (handle, keep(pool)))
        .collect();
    due.into_iter().map(|(handle, keep)| trim(world, handle, keep)).sum()
}

/// A synchronization in a context: the pools of its device go back to their thresholds.
pub fn trim_pools_of(world: &mut World, context: ContextHandle) {
    if let Ok(context) = world.contexts.get(context) {
        let ordinal = context.device;
        trim_pools(world, ordinal, |pool| pool.threshold);
    }
}
