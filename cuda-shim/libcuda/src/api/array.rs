//! Arrays and mipmapped arrays: opaque memory with an extent. A level of a mipmapped array is an array too,
//! in memory of its owner.
//!
//! # Safety
//! Exports symbols.
#![allow(unsafe_code)]

use crate::capture;
use crate::context::Context;
use crate::ffi::{In, Out, Outcome, export};
use crate::heap::Use;
use crate::status::{INVALID_VALUE, OUT_OF_MEMORY};
use crate::table::{Handle, Kind};
use crate::world::{World, world};

/// `CUDA_ARRAY3D_LAYERED` and `CUDA_ARRAY3D_CUBEMAP`.
const LAYERED: u32 = 1;
const CUBEMAP: u32 = 4;

/// `CUDA_ARRAY_DESCRIPTOR`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Flat {
    width: u64,
    height: u64,
    format: u32,
    channels: u32,
}

/// `CUDA_ARRAY3D_DESCRIPTOR`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Extent {
    pub width: u64,
    pub height: u64,
    pub depth: u64,
    pub format: u32,
    pub channels: u32,
    pub flags: u32,
}

/// An array.
pub struct Array {
    pub context: Handle<Context>,
    /// Where its bytes lie, row after row without gaps.
    pub address: u64,
    extent: Extent,
    /// The mipmapped array that it is a level of; null for none.
    owner: Handle<Mipmap>,
}

/// A mipmapped array.
pub struct Mipmap {
    pub context: Handle<Context>,
    address: u64,
    levels: Vec<Handle<Array>>,
}

impl Kind for Array {
    const TAG: u64 = 22;
}

impl Kind for Mipmap {
    const TAG: u64 = 23;
}

/// Bytes per channel of a `CUarray_format`; `None` for formats that are not simulated.
pub fn format_bytes(format: u32) -> Option<u64> {
    match format {
        0x01 | 0x08 | 0xc0..=0xc2 | 0xc6..=0xc8 => Some(1),
        0x02 | 0x09 | 0x10 | 0xc3..=0xc5 | 0xc9..=0xcb => Some(2),
        0x03 | 0x0a | 0x20 => Some(4),
        _ => None,
    }
}

impl Extent {
    /// One or two dimensions.
    pub fn flat(width: u64, height: u64, format: u32, channels: u32) -> Extent {
        Extent { width, height, depth: 0, format, channels, flags: 0 }
    }

    fn element(&self) -> Option<u64> {
        let channels = matches!(self.channels, 1 | 2 | 4).then_some(u64::from(self.channels))?;
        Some(format_bytes(self.format)? * channels)
    }

    /// Bytes of all elements. `OUT_OF_MEMORY` where no number holds them.
    fn bytes(&self) -> Outcome<u64> {
        let element = self.element().filter(|_| self.width > 0).ok_or(INVALID_VALUE)?;
        [self.width, self.height.max(1), self.depth.max(1)]
            .into_iter()
            .try_fold(element, u64::checked_mul)
            .ok_or(OUT_OF_MEMORY)
    }

    /// The extent of a level: halved as often in every direction that is not a count of layers.
    fn level(&self, level: u32) -> Extent {
        let half = |size: u64| if size == 0 { 0 } else { (size >> level).max(1) };
        let depth = if self.flags & (LAYERED | CUBEMAP) != 0 { self.depth } else { half(self.depth) };
        Extent { width: half(self.width), height: half(self.height), depth, ..*self }
    }

    /// The most levels that it can have.
    fn most_levels(&self) -> u32 {
        let depth = if self.flags & (LAYERED | CUBEMAP) != 0 { 1 } else { self.depth };
        self.width.max(self.height).max(depth).max(1).ilog2() + 1
    }
}

impl Array {
    /// Bytes of a row.
    pub fn row_bytes(&self) -> u64 {
        self.extent.width * self.extent.element().unwrap_or(0)
    }

    /// Rows of a slice.
    pub fn rows(&self) -> u64 {
        self.extent.height.max(1)
    }

    /// Slices, or layers.
    pub fn slices(&self) -> u64 {
        self.extent.depth.max(1)
    }
}

impl World {
    /// Takes an array away, and its memory if that is its own.
    pub fn destroy_array(&mut self, handle: Handle<Array>) -> Outcome {
        let array = self.arrays.remove(handle)?;
        if array.owner.is_null() { self.free(array.address) } else { Ok(()) }
    }

    /// Takes a mipmapped array away with its levels and its memory.
    pub fn destroy_mipmap(&mut self, handle: Handle<Mipmap>) -> Outcome {
        let mipmap = self.mipmaps.remove(handle)?;
        for level in mipmap.levels {
            let _ = self.arrays.remove(level);
        }
        self.free(mipmap.address)
    }

    /// Memory for arrays of the current context.
    fn array_memory(&mut self, size: u64) -> Outcome<(Handle<Context>, u64)> {
        let context = self.current()?;
        let ordinal = self.contexts.get(context)?.device;
        capture::forbid_unsafe_call(self)?;
        Ok((context, self.allocate(ordinal, size, context, Use::Internal)?))
    }
}

/// Makes an array in the current context.
pub fn create(out: Out<Handle<Array>>, extent: Extent) -> Outcome {
    out.required()?;
    let mut world = world()?;
    world.current()?;
    let (context, address) = world.array_memory(extent.bytes()?)?;
    let array = world.arrays.add(Array { context, address, extent, owner: Handle::NULL });
    out.put(array)
}

/// The extent of an array.
pub fn extent(handle: Handle<Array>) -> Outcome<Extent> {
    handle.given()?;
    Ok(world()?.arrays.get(handle)?.extent)
}

fn create_mipmap(out: Out<Handle<Mipmap>>, extent: Extent, levels: u32) -> Outcome {
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
    let (context, address) = world.array_memory(size)?;
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
    fn cuArrayCreate_v2(out: Out<Handle<Array>>, flat: In<Flat>) {
        let Flat { width, height, format, channels } = flat.get()?;
        create(out, Extent::flat(width, height, format, channels))
    }

    fn cuArray3DCreate_v2(out: Out<Handle<Array>>, extent: In<Extent>) {
        create(out, extent.get()?)
    }

    early fn cuArrayGetDescriptor_v2(out: Out<Flat>, handle: Handle<Array>) {
        let Extent { width, height, format, channels, .. } = extent(handle)?;
        out.put(Flat { width, height, format, channels })
    }

    early fn cuArray3DGetDescriptor_v2(out: Out<Extent>, handle: Handle<Array>) {
        out.put(extent(handle)?)
    }

    fn cuArrayDestroy(handle: Handle<Array>) {
        let mut world = world()?;
        if !world.arrays.get(handle)?.owner.is_null() {
            return Err(INVALID_VALUE);
        }
        world.destroy_array(handle)
    }

    fn cuMipmappedArrayCreate(out: Out<Handle<Mipmap>>, extent: In<Extent>, levels: u32) {
        create_mipmap(out, extent.get()?, levels)
    }

    fn cuMipmappedArrayDestroy(handle: Handle<Mipmap>) {
        world()?.destroy_mipmap(handle)
    }

    early fn cuMipmappedArrayGetLevel(out: Out<Handle<Array>>, handle: Handle<Mipmap>, level: u32) {
        handle.given()?;
        out.required()?;
        let world = world()?;
        let level = world.mipmaps.get(handle)?.levels.get(level as usize).copied();
        out.put(level.ok_or(INVALID_VALUE)?)
    }
}
