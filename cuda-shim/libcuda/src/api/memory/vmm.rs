//! Virtual memory management: addresses and physical memory, joined by hand.
//!
//! # Safety
//! Exports symbols.
#![allow(unsafe_code)]

use crate::api::export::export;
use crate::model::objects::handle::{Handle, PhysicalHandle};
use crate::model::objects::location::{AccessDesc, DEVICE, Location};
use crate::model::objects::region::{Backing, Region};
use crate::model::operations::{physicals, pools};
use crate::model::world::{World, world};
use crate::tools::bytes::{self, BLOCK};
use crate::tools::ffi::{In, Out};
use crate::tools::status::{INVALID_VALUE, NOT_SUPPORTED, OUT_OF_MEMORY, Outcome};

/// `CU_MEM_ACCESS_FLAGS_PROT_READ` and `_READWRITE`.
const READ: u32 = 1;
const READ_WRITE: u32 = 3;

/// Whether numbers are multiples of the granularity, and the last of them, a length, is not zero.
fn granular(numbers: &[u64]) -> Outcome {
    let whole = numbers.iter().all(|number| number.is_multiple_of(BLOCK));
    if whole && numbers.last().is_some_and(|length| *length > 0) { Ok(()) } else { Err(INVALID_VALUE) }
}

fn map(start: u64, length: u64, offset: u64, handle: PhysicalHandle, flags: u64) -> Outcome {
    let mut world = world()?;
    granular(&[start])?;
    let whole = physicals::held(&mut world, handle)?.length;
    // cuda.h says of the offset that it must be zero for now; other lengths than the handle's are answered likewise.
    if length > 0 && (offset != 0 || length != whole) {
        return Err(NOT_SUPPORTED);
    }
    // Driver 580 maps beyond the end of a reservation, into addresses that nobody asked for; here they may be others'.
    let free = world.regions.reserved_range(start, length) && !world.regions.overlaps(start, length);
    if flags != 0 || !free || length == 0 {
        return Err(INVALID_VALUE);
    }
    if !physicals::back(&world, world.physicals.get(handle)?, start, length, offset) {
        return Err(OUT_OF_MEMORY);
    }
    world.physicals.get_mut(handle)?.mappings += 1;
    let backing = Backing::Mapped { physical: handle, offset, read: false, write: false };
    world.regions.add(Region { start, length, context: Handle::NULL, backing });
    Ok(())
}

fn unmap(start: u64, length: u64) -> Outcome {
    let mut world = world()?;
    granular(&[start, length])?;
    for region in world.regions.mapped_exactly(start, length).ok_or(INVALID_VALUE)? {
        world.regions.remove(region.start);
        bytes::unback(region.start, region.length);
        if let Backing::Mapped { physical, .. } = region.backing {
            world.physicals.get_mut(physical)?.mappings -= 1;
            physicals::free_unused(&mut world, physical)?;
        }
    }
    Ok(())
}

/// Whether all of these mappings are of memory of the host.
fn on_host(world: &World, regions: &[Region]) -> Outcome<bool> {
    for region in regions {
        if let Backing::Mapped { physical, .. } = region.backing
            && world.physicals.get(physical)?.device.is_some()
        {
            return Ok(false);
        }
    }
    Ok(true)
}

fn set_access(start: u64, length: u64, list: In<AccessDesc>, count: u64) -> Outcome {
    let mut world = world()?;
    granular(&[start, length])?;
    if count == 0 {
        return Err(INVALID_VALUE);
    }
    let regions = world.regions.mapped_exactly(start, length).ok_or(INVALID_VALUE)?;
    let mut strongest = 0;
    for index in 0..count {
        let desc = list.at(index as usize)?;
        if desc.location.kind == DEVICE {
            pools::located(&world, desc.location)?;
        } else if !on_host(&world, &regions)? {
            // The host reaches no memory of a device.
            return Err(NOT_SUPPORTED);
        }
        if !matches!(desc.flags, 0 | READ | READ_WRITE) {
            return Err(INVALID_VALUE);
        }
        strongest = strongest.max(desc.flags);
    }
    // All devices see the same pages: what one may do, the others may.
    let (read, write) = (strongest >= READ, strongest == READ_WRITE);
    for region in regions {
        if let Backing::Mapped { physical, offset, .. } = region.backing {
            let backing = Backing::Mapped { physical, offset, read, write };
            world.regions.add(Region { backing, ..region });
        }
    }
    Ok(())
}

export! {
    fn cuMemAddressReserve(out: Out<u64>, length: u64, alignment: u64, hint: u64, flags: u64) {
        out.required()?;
        // The hint may be ignored, as documented.
        let _ = hint;
        let mut world = world()?;
        granular(&[length])?;
        if flags != 0 || !(alignment == 0 || alignment.is_power_of_two()) {
            return Err(INVALID_VALUE);
        }
        let start = world.space.take(length, alignment).ok_or(OUT_OF_MEMORY)?;
        world.regions.reserve(start, length);
        out.put(start)
    }

    fn cuMemAddressFree(start: u64, length: u64) {
        let mut world = world()?;
        if world.regions.overlaps(start, length) || !world.regions.unreserve(start, length) {
            return Err(INVALID_VALUE);
        }
        world.space.give(start, length);
        Ok(())
    }

    fn cuMemMap(start: u64, length: u64, offset: u64, handle: PhysicalHandle, flags: u64) {
        map(start, length, offset, handle, flags)
    }

    fn cuMemUnmap(start: u64, length: u64) {
        unmap(start, length)
    }

    fn cuMemSetAccess(start: u64, length: u64, list: In<AccessDesc>, count: u64) {
        set_access(start, length, list, count)
    }

    fn cuMemGetAccess(flags: Out<u64>, location: In<Location>, address: u64) {
        let world = world()?;
        pools::located(&world, location.get()?)?;
        match world.regions.find(address).map(|region| region.backing) {
            Some(Backing::Mapped { read, write, .. }) => {
                flags.put(u64::from(if write { READ_WRITE } else { u32::from(read) }))
            }
            _ => Err(INVALID_VALUE),
        }
    }
}
