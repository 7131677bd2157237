//! Who owns an address, and what of it may be read and written.

use crate::model::objects::op::Op;
use crate::model::objects::region::Backing;
use crate::model::world::World;

/// The ordinal of the device whose heap deals out `address`.
#[inline]
pub fn heap_of(world: &World, address: u64) -> Option<usize> {
    // Heaps lie one behind the other, in the order of their devices.
    let first = &world.devices.first()?.heap;
    let ordinal = (address.checked_sub(first.base())? / first.reach()) as usize;
    (ordinal < world.devices.len()).then_some(ordinal)
}

/// Notes that `length` bytes from `address` are written, for the heap to zero them afterwards.
#[inline]
pub fn touch(world: &mut World, address: u64, length: u64) {
    if length > 0
        && let Some(ordinal) = heap_of(world, address)
        && let Some((_, allocation)) = world.devices[ordinal].heap.find(address)
    {
        allocation.touched = true;
    }
}

/// Whether a device may read, or `write`, `length` bytes from `address`.
#[inline]
pub fn reaches(world: &mut World, address: u64, length: u64, write: bool) -> bool {
    if let Some(ordinal) = heap_of(world, address) {
        let found = world.devices[ordinal].heap.find(address);
        return found.is_some_and(|(begin, allocation)| length <= allocation.size - (address - begin));
    }
    world.regions.reaches(address, length, write)
}

/// Whether an address means memory of a device, not of the host.
pub fn on_device(world: &World, address: u64) -> bool {
    heap_of(world, address).is_some()
        || world.regions.find(address).is_some_and(|region| match region.backing {
            Backing::Mapped { physical, .. } => {
                world.physicals.get(physical).is_ok_and(|physical| physical.device.is_some())
            }
            Backing::Opened { .. } => true,
            _ => false,
        })
}

/// Whether the driver gave out, or knows, this address; every other one is plain host memory.
pub fn knows(world: &World, address: u64) -> bool {
    heap_of(world, address).is_some()
        || world.regions.reserved(address)
        || world.regions.find(address).is_some()
}

/// Begin and length of the allocation, mapping or registration that covers `address`.
pub fn range_of(world: &mut World, address: u64) -> Option<(u64, u64)> {
    match heap_of(world, address) {
        Some(ordinal) => world.devices[ordinal].heap.find(address).map(|(begin, it)| (begin, it.size)),
        None => world.regions.find(address).map(|region| (region.start, region.length)),
    }
}

/// Notes which device memory a piece of work writes, so that it reads zero when it is dealt out again.
pub fn touch_written(world: &mut World, op: &Op) {
    match op {
        Op::Copy(copy) => touch(world, copy.to, copy.reach()),
        Op::Fill(fill) => touch(world, fill.to, fill.reach()),
        Op::Alloc(address, bytes) => touch(world, *address, *bytes),
        _ => {}
    }
}
