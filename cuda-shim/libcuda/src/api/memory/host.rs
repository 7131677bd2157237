//! Host memory that devices reach: pinned and registered. The same address serves both sides.
//!
//! # Safety
//! Exports symbols.
#![allow(unsafe_code)]

use crate::api::export::export;
use crate::model::objects::region::{Backing, Region};
use crate::model::operations::{access, captures, contexts, marks};
use crate::model::world::world;
use crate::tools::bytes::{self, PAGE};
use crate::tools::ffi::Out;
use crate::tools::status::{
    HOST_MEMORY_ALREADY_REGISTERED, HOST_MEMORY_NOT_REGISTERED, INVALID_VALUE, OUT_OF_MEMORY, Outcome,
};

/// `CU_MEMHOSTALLOC_PORTABLE`, `_DEVICEMAP` and `_WRITECOMBINED`.
const ALLOC_FLAGS: u32 = 7;

/// `CU_MEMHOSTREGISTER_PORTABLE`, `_DEVICEMAP`, `_IOMEMORY` and `_READ_ONLY`.
const REGISTER_FLAGS: u32 = 15;
pub const DEVICE_MAP: u32 = 2;

/// Pins fresh memory. Nothing is no error, as with driver 580, and null can be freed.
fn allocate(out: Out<u64>, length: u64, flags: u32) -> Outcome {
    out.required()?;
    let mut world = world()?;
    let context = world.current()?;
    if flags & !ALLOC_FLAGS != 0 {
        return Err(INVALID_VALUE);
    }
    if length == 0 {
        return out.put(0);
    }
    captures::forbid_unsafe_call(&mut world)?;
    let whole = length.checked_next_multiple_of(PAGE).ok_or(OUT_OF_MEMORY)?;
    let start = bytes::map(whole).ok_or(OUT_OF_MEMORY)?;
    world.regions.add(Region { start, length, context, backing: Backing::Pinned { flags } });
    out.put(start)
}

fn register(start: u64, length: u64, flags: u32) -> Outcome {
    let mut world = world()?;
    let context = world.current()?;
    let end = start.checked_add(length).ok_or(INVALID_VALUE)?;
    if start == 0 || start == end || flags & !REGISTER_FLAGS != 0 || access::heap_of(&world, start).is_some()
    {
        return Err(INVALID_VALUE);
    }
    if world.regions.overlaps(start, length) {
        return Err(HOST_MEMORY_ALREADY_REGISTERED);
    }
    world.regions.add(Region { start, length, context, backing: Backing::Registered { flags } });
    Ok(())
}

/// The address by which devices reach pinned or registered memory.
pub fn device_address(address: u64, flags: u32) -> Outcome<u64> {
    let world = world()?;
    world.current()?;
    if flags != 0 {
        return Err(INVALID_VALUE);
    }
    match world.regions.find(address).map(|region| region.backing) {
        Some(Backing::Pinned { .. } | Backing::Registered { .. }) => Ok(address),
        _ => Err(INVALID_VALUE),
    }
}

export! {
    fn cuMemAllocHost_v2(out: Out<u64>, length: u64) {
        allocate(out, length, DEVICE_MAP)
    }

    fn cuMemHostAlloc(out: Out<u64>, length: u64, flags: u32) {
        allocate(out, length, flags)
    }

    fn cuMemFreeHost(start: u64) {
        let mark = {
            let mut world = world()?;
            let current = world.current()?;
            if start == 0 {
                return Ok(());
            }
            let region = *world.regions.at(start).ok_or(INVALID_VALUE)?;
            let Backing::Pinned { .. } = region.backing else { return Err(INVALID_VALUE) };
            captures::forbid_unsafe_call(&mut world)?;
            contexts::end_of(&world, region.context).or_else(|_| contexts::end_of(&world, current))?
        };
        marks::wait(&mark);
        let mut world = world()?;
        let region = world.regions.remove(start).ok_or(INVALID_VALUE)?;
        bytes::unmap(region.start, region.length.next_multiple_of(PAGE));
        Ok(())
    }

    fn cuMemHostRegister = cuMemHostRegister_v2(start: u64, length: u64, flags: u32) {
        register(start, length, flags)
    }

    fn cuMemHostUnregister(start: u64) {
        let mut world = world()?;
        world.current()?;
        if start == 0 {
            return Err(INVALID_VALUE);
        }
        match world.regions.at(start).map(|region| region.backing) {
            Some(Backing::Registered { .. }) => {
                world.regions.remove(start);
                Ok(())
            }
            _ => Err(HOST_MEMORY_NOT_REGISTERED),
        }
    }

    fn cuMemHostGetDevicePointer_v2(out: Out<u64>, address: u64, flags: u32) {
        out.required()?;
        out.put(device_address(address, flags)?)
    }

    early fn cuMemHostGetFlags(flags: Out<u32>, address: u64) {
        flags.required()?;
        let world = world()?;
        world.current()?;
        match world.regions.find(address).map(|region| region.backing) {
            Some(Backing::Pinned { flags: given } | Backing::Registered { flags: given }) => flags.put(given),
            _ => Err(INVALID_VALUE),
        }
    }
}
