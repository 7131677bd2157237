//! Physical memory behind handles: made, held, and shared with other processes by file descriptor.
//!
//! Memory of a device lies in its heap's file; what is exported moves to a file of its own, which its holders
//! share. It is on the device's account until its last handle and its last mapping in any process are gone.
//!
//! # Safety
//! Exports symbols; takes over descriptors that a caller hands out and in.
#![allow(unsafe_code)]

use std::fs::File;
use std::os::fd::{AsRawFd, BorrowedFd, IntoRawFd};
use std::os::unix::fs::MetadataExt;

use cuda_shim_device::SharedKey;

use crate::bytes;
use crate::ffi::{In, Out, Outcome, export};
use crate::heap::{BLOCK, Use};
use crate::memory::pool::Location;
use crate::memory::region::Backing;
use crate::status::{INVALID_VALUE, NOT_SUPPORTED, OUT_OF_MEMORY, Status};
use crate::table::{Handle, Kind};
use crate::world::{World, world};

/// `CU_MEM_ALLOCATION_TYPE_PINNED`.
const PINNED: u32 = 1;
/// `CU_MEM_LOCATION_TYPE_DEVICE`, `_HOST`, `_HOST_NUMA` and `_HOST_NUMA_CURRENT`.
const DEVICE: u32 = 1;
const HOSTS: std::ops::RangeInclusive<u32> = 2..=4;
/// `CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR`, the only way of sharing that is simulated.
pub const FILE_DESCRIPTOR: u32 = 1;
/// What a file of shared memory is called, before the place of its device in the machine, or `host`.
const LABEL: &str = "cuda-sim-physical-";

/// `CUmemAllocationProp`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct AllocationProp {
    kind: u32,
    handle_types: u32,
    location: Location,
    security: u64,
    flags: [u8; 8],
}

/// Where the bytes lie.
enum Content {
    /// In the heap of the device, at this address.
    Heap(u64),
    /// In a file of their own.
    File(File),
}

/// Physical memory.
pub struct Physical {
    /// The ordinal of its device; `None` for memory of the host.
    pub device: Option<usize>,
    pub length: u64,
    content: Content,
    /// By what other processes know it, once they may.
    shared: Option<SharedKey>,
    prop: AllocationProp,
    /// Times that callers hold its handle, and mappings.
    pub handles: u32,
    pub mappings: u32,
}

impl Physical {
    /// As what it may be exported: `CUmemAllocationHandleType` bits.
    pub fn handle_types(&self) -> u32 {
        self.prop.handle_types
    }
}

impl Kind for Physical {
    const TAG: u64 = 21;
    const WRONG: Status = INVALID_VALUE;
}

impl World {
    /// The memory behind a handle that some caller still holds.
    pub fn held(&mut self, handle: Handle<Physical>) -> Outcome<&mut Physical> {
        let physical = self.physicals.get_mut(handle)?;
        if physical.handles > 0 { Ok(physical) } else { Err(INVALID_VALUE) }
    }

    /// Gives physical memory back if nobody holds it and nothing maps it.
    pub fn settle(&mut self, handle: Handle<Physical>) -> Outcome {
        let physical = self.physicals.get(handle)?;
        if physical.handles != 0 || physical.mappings != 0 {
            return Ok(());
        }
        let physical = self.physicals.remove(handle)?;
        let Some(ordinal) = physical.device else { return Ok(()) };
        match (physical.content, physical.shared) {
            (Content::Heap(address), _) => self.free(address)?,
            (_, Some(key)) => self.state.memory(self.devices[ordinal].index).part(key),
            _ => self.release(ordinal, physical.length, physical.length),
        }
        Ok(())
    }

    /// Puts the bytes of physical memory from `offset` behind addresses.
    pub fn back(&self, physical: &Physical, start: u64, length: u64, offset: u64) -> bool {
        let (file, begin) = match (&physical.content, physical.device) {
            (Content::File(file), _) => (file, 0),
            (Content::Heap(address), Some(ordinal)) => {
                let Some(found) = self.devices[ordinal].heap.content(*address) else { return false };
                found
            }
            _ => return false,
        };
        let shown = physical.device.is_some() || bytes::show(start, length, file, begin + offset);
        shown && bytes::back(start, length, file, begin + offset)
    }

    /// The device that a caller's properties mean, `None` for the host.
    pub fn checked_prop(&self, prop: In<AllocationProp>) -> Outcome<(Option<usize>, AllocationProp)> {
        let prop = prop.get()?;
        if prop.kind != PINNED {
            return Err(INVALID_VALUE);
        }
        let home = match prop.location.kind {
            DEVICE => Some(self.located(prop.location)?),
            kind if HOSTS.contains(&kind) => None,
            _ => return Err(INVALID_VALUE),
        };
        if prop.handle_types & !FILE_DESCRIPTOR != 0 { Err(NOT_SUPPORTED) } else { Ok((home, prop)) }
    }

    /// Moves physical memory to a file of its own, whose holders share it from now on.
    fn share(&mut self, handle: Handle<Physical>) -> Outcome {
        let physical = self.physicals.get(handle)?;
        let (Content::Heap(address), Some(ordinal)) = (&physical.content, physical.device) else {
            return Ok(());
        };
        let (address, length, index) = (*address, physical.length, self.devices[ordinal].index);
        let file = bytes::memory_file(&format!("{LABEL}{index}"), length).ok_or(OUT_OF_MEMORY)?;
        let key = key_of(&file)?;
        let (content, begin) = self.devices[ordinal].heap.content(address).ok_or(OUT_OF_MEMORY)?;
        bytes::copy_file(content, begin, length, &file).map_err(|_| OUT_OF_MEMORY)?;
        if !self.state.memory(index).offer(key, length, length) {
            return Err(OUT_OF_MEMORY);
        }
        self.devices[ordinal].heap.remove(address);
        let physical = self.physicals.get_mut(handle)?;
        physical.content = Content::File(file);
        physical.shared = Some(key);
        for (region, offset) in self.regions.mappings_of(handle) {
            self.back(self.physicals.get(handle)?, region.start, region.length, offset);
        }
        Ok(())
    }

    /// Takes in memory that another process, or this one, exported.
    fn import(&mut self, file: File) -> Outcome<Handle<Physical>> {
        let key = key_of(&file)?;
        let known = self.physicals.select(|physical| physical.shared == Some(key));
        if let Some(handle) = known.first() {
            self.physicals.get_mut(*handle)?.handles += 1;
            return Ok(*handle);
        }
        let label = std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd()));
        let label = label.map_err(|_| INVALID_VALUE)?.to_string_lossy().into_owned();
        let place = label.split(LABEL).nth(1).and_then(|rest| rest.split(' ').next()).ok_or(INVALID_VALUE)?;
        let device = match place {
            "host" => None,
            index => {
                let found = self.devices.iter().position(|device| device.index.to_string() == index);
                Some(found.ok_or(INVALID_VALUE)?)
            }
        };
        if let Some(ordinal) = device
            && !self.state.memory(self.devices[ordinal].index).join(key)
        {
            return Err(INVALID_VALUE);
        }
        let location = match device {
            Some(ordinal) => Location { kind: DEVICE, id: ordinal as i32 },
            None => Location { kind: *HOSTS.start(), id: 0 },
        };
        let prop = AllocationProp {
            kind: PINNED,
            handle_types: FILE_DESCRIPTOR,
            location,
            security: 0,
            flags: [0; 8],
        };
        let length = file.metadata().map_err(|_| INVALID_VALUE)?.len();
        let content = Content::File(file);
        let physical = Physical { device, length, content, shared: Some(key), prop, handles: 1, mappings: 0 };
        Ok(self.physicals.add(physical))
    }
}

fn key_of(file: &File) -> Outcome<SharedKey> {
    let inode = file.metadata().map_err(|_| INVALID_VALUE)?.ino();
    Ok(SharedKey { inode, offset: 0 })
}

fn create(out: Out<Handle<Physical>>, length: u64, prop: In<AllocationProp>, flags: u64) -> Outcome {
    out.required()?;
    let mut world = world()?;
    let (device, prop) = world.checked_prop(prop)?;
    if length == 0 || !length.is_multiple_of(BLOCK) || flags != 0 {
        return Err(INVALID_VALUE);
    }
    let content = match device {
        Some(ordinal) => {
            world.devices[ordinal].heap.open().ok_or(OUT_OF_MEMORY)?;
            Content::Heap(world.allocate(ordinal, length, Handle::NULL, Use::Handle)?)
        }
        None => Content::File(bytes::memory_file(&format!("{LABEL}host"), length).ok_or(OUT_OF_MEMORY)?),
    };
    let shared = match &content {
        Content::File(file) => Some(key_of(file)?),
        Content::Heap(_) => None,
    };
    let physical = Physical { device, length, content, shared, prop, handles: 1, mappings: 0 };
    out.put(world.physicals.add(physical))
}

export! {
    fn cuMemCreate(out: Out<Handle<Physical>>, length: u64, prop: In<AllocationProp>, flags: u64) {
        create(out, length, prop, flags)
    }

    fn cuMemRelease(handle: Handle<Physical>) {
        let mut world = world()?;
        world.held(handle)?.handles -= 1;
        world.settle(handle)
    }

    fn cuMemGetAllocationGranularity(out: Out<u64>, prop: In<AllocationProp>, option: u32) {
        out.required()?;
        world()?.checked_prop(prop)?;
        // Minimum and recommended.
        if option > 1 { Err(INVALID_VALUE) } else { out.put(BLOCK) }
    }

    fn cuMemGetAllocationPropertiesFromHandle(out: Out<AllocationProp>, handle: Handle<Physical>) {
        out.required()?;
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

    fn cuMemExportToShareableHandle(out: Out<i32>, handle: Handle<Physical>, kind: u32, flags: u64) {
        out.required()?;
        let mut world = world()?;
        // Sharing has to be asked for when the memory is made.
        if world.held(handle)?.prop.handle_types & kind == 0 || !kind.is_power_of_two() || flags != 0 {
            return Err(INVALID_VALUE);
        }
        world.share(handle)?;
        let Content::File(file) = &world.physicals.get(handle)?.content else { return Err(INVALID_VALUE) };
        // The descriptor is the caller's, who closes it.
        let theirs = file.try_clone().map_err(|_| OUT_OF_MEMORY)?;
        out.put(theirs.into_raw_fd())
    }

    fn cuMemImportFromShareableHandle(out: Out<Handle<Physical>>, descriptor: usize, kind: u32) {
        out.required()?;
        let mut world = world()?;
        let descriptor = i32::try_from(descriptor).ok().filter(|number| *number >= 0).ok_or(INVALID_VALUE)?;
        if kind != FILE_DESCRIPTOR {
            return Err(NOT_SUPPORTED);
        }
        // SAFETY: borrowed for the copy only; a number that is no descriptor makes the copy fail.
        let theirs = unsafe { BorrowedFd::borrow_raw(descriptor) };
        let file = File::from(theirs.try_clone_to_owned().map_err(|_| INVALID_VALUE)?);
        out.put(world.import(cuda_shim_device::out_of_the_way(file))?)
    }
}
