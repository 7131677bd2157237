//! Physical memory behind handles: made, held, and shared with other processes by file descriptor.
//!
//! Memory of a device lies in its heap's file; what is exported moves to a file of its own, which its holders
//! share. It is on the device's account until its last handle and its last mapping in any process are gone.
//!
//! # Safety
//! Exports symbols; takes over descriptors that a caller hands out and in.
#![allow(unsafe_code)]

use std::fs::File;
use std::os::fd::{BorrowedFd, IntoRawFd};

use crate::api::export::export;
use crate::model::objects::handle::{Handle, PhysicalHandle};
use crate::model::objects::heap::Use;
use crate::model::objects::physical::{AllocationProp, Content, LABEL, Physical};
use crate::model::objects::region::Backing;
use crate::model::operations::memory;
use crate::model::operations::physicals::{self, FILE_DESCRIPTOR, key_of};
use crate::model::world::world;
use crate::tools::bytes::{self, BLOCK};
use crate::tools::ffi::{In, Out};
use crate::tools::status::{INVALID_VALUE, NOT_SUPPORTED, OUT_OF_MEMORY, Outcome};

fn create(out: Out<PhysicalHandle>, length: u64, prop: In<AllocationProp>, flags: u64) -> Outcome {
    out.required()?;
    let mut world = world()?;
    let (device, prop) = physicals::checked_prop(&world, prop)?;
    if length == 0 || !length.is_multiple_of(BLOCK) || flags != 0 {
        return Err(INVALID_VALUE);
    }
    let content = match device {
        Some(ordinal) => {
            world.devices[ordinal].heap.open().ok_or(OUT_OF_MEMORY)?;
            Content::Heap(memory::allocate(&mut world, ordinal, length, Handle::NULL, Use::Handle)?)
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
    fn cuMemCreate(out: Out<PhysicalHandle>, length: u64, prop: In<AllocationProp>, flags: u64) {
        create(out, length, prop, flags)
    }

    fn cuMemRelease(handle: PhysicalHandle) {
        let mut world = world()?;
        physicals::held(&mut world, handle)?.handles -= 1;
        physicals::free_unused(&mut world, handle)
    }

    fn cuMemGetAllocationGranularity(out: Out<u64>, prop: In<AllocationProp>, option: u32) {
        out.required()?;
        physicals::checked_prop(&*world()?, prop)?;
        // Minimum and recommended.
        if option > 1 { Err(INVALID_VALUE) } else { out.put(BLOCK) }
    }

    fn cuMemGetAllocationPropertiesFromHandle(out: Out<AllocationProp>, handle: PhysicalHandle) {
        out.required()?;
        out.put(physicals::held(&mut *world()?, handle)?.prop)
    }

    fn cuMemRetainAllocationHandle(out: Out<PhysicalHandle>, address: u64) {
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

    fn cuMemExportToShareableHandle(out: Out<i32>, handle: PhysicalHandle, kind: u32, flags: u64) {
        out.required()?;
        let mut world = world()?;
        // Sharing has to be asked for when the memory is made.
        if physicals::held(&mut world, handle)?.prop.handle_types & kind == 0 || !kind.is_power_of_two() || flags != 0 {
            return Err(INVALID_VALUE);
        }
        physicals::share(&mut world, handle)?;
        let Content::File(file) = &world.physicals.get(handle)?.content else { return Err(INVALID_VALUE) };
        // The descriptor is the caller's, who closes it.
        let theirs = file.try_clone().map_err(|_| OUT_OF_MEMORY)?;
        out.put(theirs.into_raw_fd())
    }

    fn cuMemImportFromShareableHandle(out: Out<PhysicalHandle>, descriptor: usize, kind: u32) {
        out.required()?;
        let mut world = world()?;
        let descriptor = i32::try_from(descriptor).ok().filter(|number| *number >= 0).ok_or(INVALID_VALUE)?;
        if kind != FILE_DESCRIPTOR {
            return Err(NOT_SUPPORTED);
        }
        // SAFETY: borrowed for the copy only; a number that is no descriptor makes the copy fail.
        let theirs = unsafe { BorrowedFd::borrow_raw(descriptor) };
        let file = File::from(theirs.try_clone_to_owned().map_err(|_| INVALID_VALUE)?);
        out.put(physicals::import(&mut world, cuda_shim_device::out_of_the_way(file))?)
    }
}
