//! Physical memory behind handles: held, and shared with other processes by file descriptor.
//!
//! Memory of a device lies in its heap's file; what is exported moves to a file of its own, which its holders
//! share. It is on the device's account until its last handle and its last mapping in any process are gone.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;

use cuda_shim_device::SharedKey;

use crate::model::objects::handle::PhysicalHandle;
use crate::model::objects::location::{DEVICE, Location};
use crate::model::objects::physical::{AllocationProp, Content, LABEL, Physical};
use crate::model::operations::{memory, pools};
use crate::model::world::World;
use crate::tools::bytes;
use crate::tools::ffi::In;
use crate::tools::status::{INVALID_VALUE, NOT_SUPPORTED, OUT_OF_MEMORY, Outcome};

/// `CU_MEM_ALLOCATION_TYPE_PINNED`.
pub const PINNED: u32 = 1;

/// `CU_MEM_LOCATION_TYPE_HOST`, `_HOST_NUMA` and `_HOST_NUMA_CURRENT`.
const HOSTS: std::ops::RangeInclusive<u32> = 2..=4;

/// `CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR`, the only way of sharing that is simulated.
pub const FILE_DESCRIPTOR: u32 = 1;

/// The memory behind a handle that some caller still holds.
pub fn held(world: &mut World, handle: PhysicalHandle) -> Outcome<&mut Physical> {
    let physical = world.physicals.get_mut(handle)?;
    if physical.handles > 0 { Ok(physical) } else { Err(INVALID_VALUE) }
}

/// Gives physical memory back if nobody holds it and nothing maps it.
pub fn free_unused(world: &mut World, handle: PhysicalHandle) -> Outcome {
    let physical = world.physicals.get(handle)?;
    if physical.handles != 0 || physical.mappings != 0 {
        return Ok(());
    }
    let physical = world.physicals.remove(handle)?;
    let Some(ordinal) = physical.device else { return Ok(()) };
    match (physical.content, physical.shared) {
        (Content::Heap(address), _) => memory::free(world, address)?,
        (_, Some(key)) => world.state.memory(world.devices[ordinal].index).part(key),
        _ => world.release(ordinal, physical.length, physical.length),
    }
    Ok(())
}

/// Puts the bytes of physical memory from `offset` behind addresses.
pub fn back(world: &World, physical: &Physical, start: u64, length: u64, offset: u64) -> bool {
    let (file, begin) = match (&physical.content, physical.device) {
        (Content::File(file), _) => (file, 0),
        (Content::Heap(address), Some(ordinal)) => {
            let Some(found) = world.devices[ordinal].heap.content(*address) else { return false };
            found
        }
        _ => return false,
    };
    let shown = physical.device.is_some() || bytes::show(start, length, file, begin + offset);
    shown && bytes::back(start, length, file, begin + offset)
}

/// The device that a caller's properties mean, `None` for the host.
pub fn checked_prop(world: &World, prop: In<AllocationProp>) -> Outcome<(Option<usize>, AllocationProp)> {
    let prop = prop.get()?;
    if prop.kind != PINNED {
        return Err(INVALID_VALUE);
    }
    let home = match prop.location.kind {
        DEVICE => Some(pools::located(world, prop.location)?),
        kind if HOSTS.contains(&kind) => None,
        _ => return Err(INVALID_VALUE),
    };
    if prop.handle_types & !FILE_DESCRIPTOR != 0 { Err(NOT_SUPPORTED) } else { Ok((home, prop)) }
}

/// Moves physical memory to a file of its own, whose holders share it from now on.
pub fn share(world: &mut World, handle: PhysicalHandle) -> Outcome {
    let physical = world.physicals.get(handle)?;
    let (Content::Heap(address), Some(ordinal)) = (&physical.content, physical.device) else {
        return Ok(());
    };
    let (address, length, index) = (*address, physical.length, world.devices[ordinal].index);
    let file = bytes::memory_file(&format!("{LABEL}{index}"), length).ok_or(OUT_OF_MEMORY)?;
    let key = key_of(&file)?;
    let (content, begin) = world.devices[ordinal].heap.content(address).ok_or(OUT_OF_MEMORY)?;
    bytes::copy_file(content, begin, length, &file).map_err(|_| OUT_OF_MEMORY)?;
    if !world.state.memory(index).offer(key, length, length) {
        return Err(OUT_OF_MEMORY);
    }
    world.devices[ordinal].heap.remove(address);
    let physical = world.physicals.get_mut(handle)?;
    physical.content = Content::File(file);
    physical.shared = Some(key);
    for (region, offset) in world.regions.mappings_of(handle) {
        back(world, world.physicals.get(handle)?, region.start, region.length, offset);
    }
    Ok(())
}

/// Takes in memory that another process, or this one, exported.
pub fn import(world: &mut World, file: File) -> Outcome<PhysicalHandle> {
    let key = key_of(&file)?;
    let known = world.physicals.select(|physical| physical.shared == Some(key));
    if let Some(handle) = known.first() {
        world.physicals.get_mut(*handle)?.handles += 1;
        return Ok(*handle);
    }
    let label = std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd()));
    let label = label.map_err(|_| INVALID_VALUE)?.to_string_lossy().into_owned();
    let place = label.split(LABEL).nth(1).and_then(|rest| rest.split(' ').next()).ok_or(INVALID_VALUE)?;
    let device = match place {
        "host" => None,
        index => {
            let found = world.devices.iter().position(|device| device.index.to_string() == index);
            Some(found.ok_or(INVALID_VALUE)?)
        }
    };
    if let Some(ordinal) = device
        && !world.state.memory(world.devices[ordinal].index).join(key)
    {
        return Err(INVALID_VALUE);
    }
    let location = match device {
        Some(ordinal) => Location { kind: DEVICE, id: ordinal as i32 },
        None => Location { kind: *HOSTS.start(), id: 0 },
    };
    let prop =
        AllocationProp { kind: PINNED, handle_types: FILE_DESCRIPTOR, location, security: 0, flags: [0; 8] };
    let length = file.metadata().map_err(|_| INVALID_VALUE)?.len();
    let content = Content::File(file);
    let physical = Physical { device, length, content, shared: Some(key), prop, handles: 1, mappings: 0 };
    Ok(world.physicals.add(physical))
}

pub fn key_of(file: &File) -> Outcome<SharedKey> {
    let inode = file.metadata().map_err(|_| INVALID_VALUE)?.ino();
    Ok(SharedKey { inode, offset: 0 })
}
