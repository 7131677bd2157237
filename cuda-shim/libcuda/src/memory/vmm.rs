//! Virtual memory management: physical memory and addresses, joined by hand. Physical memory is a file
//! without a name, so that it can lie at several addresses, and is on the device's account until its last
//! handle and its last mapping are gone.
//!
//! # Safety
//! Exports symbols.
#![allow(unsafe_code)]

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use crate::bytes;
use crate::ffi::{In, Out, Outcome, export};
use crate::heap::BLOCK;
use crate::memory::pool::{AccessDesc, Location};
use crate::memory::region::{Backing, Region};
use crate::status::{INVALID_VALUE, NOT_SUPPORTED, OUT_OF_MEMORY, Status};
use crate::table::{Handle, Kind};
use crate::world::{World, world};

/// `CU_MEM_ALLOCATION_TYPE_PINNED`.
const PINNED: u32 = 1;
/// `CU_MEM_ACCESS_FLAGS_PROT_READ` and `_READWRITE`.
const READ: u32 = 1;
const READ_WRITE: u32 = 3;
/// `CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR`: may be asked for, but sharing itself is not simulated.
const FILE_DESCRIPTOR: u32 = 1;

/// `CUmemAllocationProp`.
#[repr(C)]
#[derive(Clone, Copy)]
struct AllocationProp {
    kind: u32,
    handle_types: u32,
    location: Location,
    security: u64,
    flags: [u8; 8],
}

/// Physical memory of a device.
pub struct Physical {
    device: usize,
    length: u64,
    file: OwnedFd,
    prop: AllocationProp,
    /// Times that callers hold its handle, and mappings.
    handles: u32,
    mappings: u32,
}

impl Physical {
    /// The ordinal of its device.
    pub fn device(&self) -> usize {
        self.device
    }
}

impl Kind for Physical {
    const TAG: u64 = 21;
    const WRONG: Status = INVALID_VALUE;
}

impl World {
    /// The memory behind a handle that some caller still holds.
    fn held(&mut self, handle: Handle<Physical>) -> Outcome<&mut Physical> {
        self.physicals
            .get_mut(handle)
            .and_then(|physical| if physical.handles > 0 { Ok(physical) } else { Err(INVALID_VALUE) })
    }

    /// Gives physical memory back if nobody holds it and nothing maps it.
    fn settle(&mut self, handle: Handle<Physical>) -> Outcome {
        let physical = self.physicals.get(handle)?;
        if physical.handles == 0 && physical.mappings == 0 {
            let physical = self.physicals.remove(handle)?;
            self.release(physical.device, physical.length, physical.length);
        }
        Ok(())
    }

    fn checked_prop(&self, prop: In<AllocationProp>) -> Outcome<(usize, AllocationProp)> {
        let prop = prop.get()?;
        if prop.kind != PINNED {
            return Err(INVALID_VALUE);
        }
        let ordinal = self.located(prop.location)?;
        if prop.handle_types & !FILE_DESCRIPTOR != 0 { Err(NOT_SUPPORTED) } else { Ok((ordinal, prop)) }
    }
}

/// Whether numbers are multiples of the granularity, and the last of them, a length, is not zero.
fn granular(numbers: &[u64]) -> Outcome {
    let whole = numbers.iter().all(|number| number.is_multiple_of(BLOCK));
    if whole && numbers.last().is_some_and(|length| *length > 0) { Ok(()) } else { Err(INVALID_VALUE) }
}

/// Addresses that begin at a block's start.
fn reserve_aligned(length: u64, alignment: u64) -> Option<u64> {
    let alignment = alignment.max(BLOCK);
    let whole = length.checked_add(alignment)?;
    let base = bytes::reserve(whole)?;
    let start = base.next_multiple_of(alignment);
    if start > base {
        bytes::unmap(base, start - base);
    }
    bytes::unmap(start + length, base + whole - start - length);
    Some(start)
}

fn create(out: Out<Handle<Physical>>, length: u64, prop: In<AllocationProp>, flags: u64) -> Outcome {
    out.required()?;
    let mut world = world()?;
    let (device, prop) = world.checked_prop(prop)?;
    granular(&[length])?;
    if flags != 0 {
        return Err(INVALID_VALUE);
    }
    world.charge_or_trim(device, length, length)?;
    let Some(file) = bytes::memory_file(length) else {
        world.release(device, length, length);
        return Err(OUT_OF_MEMORY);
    };
    // SAFETY: the descriptor is fresh and nobody else's.
    let file = unsafe { OwnedFd::from_raw_fd(file) };
    let handle = world.physicals.add(Physical { device, length, file, prop, handles: 1, mappings: 0 });
    out.put(handle)
}

fn map(start: u64, length: u64, offset: u64, handle: Handle<Physical>, flags: u64) -> Outcome {
    let mut world = world()?;
    granular(&[start, offset, length])?;
    let free = world.regions.reserved_range(start, length) && !world.regions.overlaps(start, length);
    let physical = world.held(handle)?;
    let fits = offset.checked_add(length).is_some_and(|end| end <= physical.length);
    if flags != 0 || !free || !fits {
        return Err(INVALID_VALUE);
    }
    if !bytes::place_file(start, length, physical.file.as_raw_fd(), offset) {
        return Err(OUT_OF_MEMORY);
    }
    physical.mappings += 1;
    let backing = Backing::Mapped { physical: handle, read: false, write: false };
    world.regions.add(Region { start, length, context: Handle::NULL, backing });
    Ok(())
}

fn unmap(start: u64, length: u64) -> Outcome {
    let mut world = world()?;
    granular(&[start, length])?;
    for region in world.regions.mapped_exactly(start, length).ok_or(INVALID_VALUE)? {
        world.regions.remove(region.start);
        bytes::unplace(region.start, region.length);
        if let Backing::Mapped { physical, .. } = region.backing {
            world.physicals.get_mut(physical)?.mappings -= 1;
            world.settle(physical)?;
        }
    }
    Ok(())
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
        world.located(desc.location)?;
        if !matches!(desc.flags, 0 | READ | READ_WRITE) {
            return Err(INVALID_VALUE);
        }
        strongest = strongest.max(desc.flags);
    }
    // All devices see the same pages: what one may do, the others may.
    let (read, write) = (strongest >= READ, strongest == READ_WRITE);
    for region in regions {
        if let Backing::Mapped { physical, .. } = region.backing {
            bytes::protect(region.start, region.length, read, write);
            world.regions.add(Region { backing: Backing::Mapped { physical, read, write }, ..region });
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
        let start = reserve_aligned(length, alignment).ok_or(OUT_OF_MEMORY)?;
        world.regions.reserve(start, length);
        out.put(start)
    }

    fn cuMemAddressFree(start: u64, length: u64) {
        let mut world = world()?;
        if world.regions.overlaps(start, length) || !world.regions.unreserve(start, length) {
            return Err(INVALID_VALUE);
        }
        bytes::unmap(start, length);
        Ok(())
    }

    fn cuMemCreate(out: Out<Handle<Physical>>, length: u64, prop: In<AllocationProp>, flags: u64) {
        create(out, length, prop, flags)
    }

    fn cuMemRelease(handle: Handle<Physical>) {
        let mut world = world()?;
        world.held(handle)?.handles -= 1;
        world.settle(handle)
    }

    fn cuMemMap(start: u64, length: u64, offset: u64, handle: Handle<Physical>, flags: u64) {
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
        world.located(location.get()?)?;
        match world.regions.find(address).map(|region| region.backing) {
            Some(Backing::Mapped { read, write, .. }) => {
                flags.put(u64::from(if write { READ_WRITE } else { u32::from(read) }))
            }
            _ => Err(INVALID_VALUE),
        }
    }

    fn cuMemGetAllocationGranularity(out: Out<u64>, prop: In<AllocationProp>, option: u32) {
        out.required()?;
        world()?.checked_prop(prop)?;
        // Minimum and recommended.
        if option > 1 { Err(INVALID_VALUE) } else { out.put(BLOCK) }
    }

    fn cuMemGetAllocationPropertiesFromHandle(out: Out<AllocationProp>, handle: Handle<Physical>) {
        out.put(world()?.held(handle)?.prop)
    }

    fn cuMemRetainAllocationHandle(out: Out<Handle<Physical>>, address: u64) {
        out.required()?;
        let mut world = world()?;
        match world.regions.find(address).map(|region| region.backing) {
            Some(Backing::Mapped { physical, .. }) => {
                world.physicals.get_mut(physical)?.handles += 1;
                out.put(physical)
            }
            _ => Err(INVALID_VALUE),
        }
    }
}
