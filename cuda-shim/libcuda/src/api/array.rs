//! Arrays and mipmapped arrays: opaque memory with an extent. A level of a mipmapped array is an array too,
//! in memory of its owner.
//!
//! # Safety
//! Exports symbols.
#![allow(unsafe_code)]

use crate::api::export::export;
use crate::model::objects::array::{Array, Extent, Mipmap};
use crate::model::objects::handle::{ArrayHandle, Handle, MipmapHandle};
use crate::model::operations::arrays::{self, extent};
use crate::model::world::world;
use crate::tools::ffi::{In, Out};
use crate::tools::status::{INVALID_VALUE, OUT_OF_MEMORY, Outcome};

/// `CUDA_ARRAY_DESCRIPTOR`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Flat {
    width: u64,
    height: u64,
    format: u32,
    channels: u32,
}

/// Makes an array in the current context.
pub fn create(out: Out<ArrayHandle>, extent: Extent) -> Outcome {
    out.required()?;
    let mut world = world()?;
    world.current()?;
    let (context, address) = arrays::array_memory(&mut world, extent.bytes()?)?;
    let array = world.arrays.add(Array { context, address, extent, owner: Handle::NULL });
    out.put(array)
}

fn create_mipmap(out: Out<MipmapHandle>, extent: Extent, levels: u32) -> Outcome {
    out.required()?;
    let mut world = world()?;
    world.current()?;
    if levels == 0 {
        return Err(INVALID_VALUE);
    }
    extent.bytes()?;
    let extents: Vec<_> = (0..levels.min(extent.most_levels())).map(|level| extent.level(level)).collect();
    let size =
        extents.iter().try_fold(0u64, |sum, extent| sum.checked_add(extent.bytes()?).ok_or(OUT_OF_MEMORY))?;
    let (context, address) = arrays::array_memory(&mut world, size)?;
    let owner = world.mipmaps.add(Mipmap { context, address, levels: Vec::new() });
    let mut next = address;
    for extent in extents {
        let level = world.arrays.add(Array { context, address: next, extent, owner });
        world.mipmaps.get_mut(owner)?.levels.push(level);
        next += extent.bytes()?;
    }
    out.put(owner)
}

export! {
    fn cuArrayCreate_v2(out: Out<ArrayHandle>, flat: In<Flat>) {
        let Flat { width, height, format, channels } = flat.get()?;
        create(out, Extent::flat(width, height, format, channels))
    }

    fn cuArray3DCreate_v2(out: Out<ArrayHandle>, extent: In<Extent>) {
        create(out, extent.get()?)
    }

    early fn cuArrayGetDescriptor_v2(out: Out<Flat>, handle: ArrayHandle) {
        let Extent { width, height, format, channels, .. } = extent(handle)?;
        out.put(Flat { width, height, format, channels })
    }

    early fn cuArray3DGetDescriptor_v2(out: Out<Extent>, handle: ArrayHandle) {
        out.put(extent(handle)?)
    }

    fn cuArrayDestroy(handle: ArrayHandle) {
        let mut world = world()?;
        if !world.arrays.get(handle)?.owner.is_null() {
            return Err(INVALID_VALUE);
        }
        arrays::destroy_array(&mut world, handle)
    }

    fn cuMipmappedArrayCreate(out: Out<MipmapHandle>, extent: In<Extent>, levels: u32) {
        create_mipmap(out, extent.get()?, levels)
    }

    fn cuMipmappedArrayDestroy(handle: MipmapHandle) {
        arrays::destroy_mipmap(&mut *world()?, handle)
    }

    early fn cuMipmappedArrayGetLevel(out: Out<ArrayHandle>, handle: MipmapHandle, level: u32) {
        handle.given()?;
        out.required()?;
        let world = world()?;
        let level = world.mipmaps.get(handle)?.levels.get(level as usize).copied();
        out.put(level.ok_or(INVALID_VALUE)?)
    }
}
