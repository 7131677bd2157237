//! Texture and surface objects: what they are made of is checked and kept; no kernel reads through them.
//!
//! # Safety
//! Exports symbols.
#![allow(unsafe_code)]

use crate::array::{Array, Mipmap, format_bytes};
use crate::ffi::{In, Out, Outcome, export};
use crate::status::{INVALID_VALUE, Status};
use crate::table::{Handle, Kind};
use crate::world::{World, world};

/// `CUresourcetype`.
const ARRAY: u32 = 0;
const MIPMAP: u32 = 1;
const LINEAR: u32 = 2;
const PITCHED: u32 = 3;

/// `CUDA_RESOURCE_DESC`: its kind, the words of its union, flags.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Resource {
    kind: u32,
    resource: [u64; 16],
    flags: u32,
}

/// The union for linear and for pitched memory.
#[repr(C)]
#[derive(Clone, Copy)]
struct Linear {
    address: u64,
    format: u32,
    channels: u32,
    /// Bytes; for pitched memory the width in elements, then height and pitch.
    extent: [u64; 3],
}

/// `CUDA_TEXTURE_DESC` and `CUDA_RESOURCE_VIEW_DESC`, which are kept as they come.
type Texturing = [u32; 26];
type View = [u64; 14];

/// A texture object.
pub struct Texture {
    resource: Resource,
    texturing: Texturing,
    view: Option<View>,
}

/// A surface object.
pub struct Surface {
    resource: Resource,
}

impl Kind for Texture {
    const TAG: u64 = 24;
    const WRONG: Status = INVALID_VALUE;
}

impl Kind for Surface {
    const TAG: u64 = 25;
    const WRONG: Status = INVALID_VALUE;
}

impl Resource {
    fn linear(&self) -> Linear {
        let [address, form, extent @ ..] = self.resource;
        let extent = [extent[0], extent[1], extent[2]];
        Linear { address, format: form as u32, channels: (form >> 32) as u32, extent }
    }

    /// Whether what it names is there, and the device's.
    fn check(&self, world: &mut World) -> Outcome {
        let [first, ..] = self.resource;
        match self.kind {
            ARRAY => world.arrays.get(Handle::<Array>::of(first)).map(|_| ()).map_err(|_| INVALID_VALUE),
            MIPMAP => world.mipmaps.get(Handle::<Mipmap>::of(first)).map(|_| ()).map_err(|_| INVALID_VALUE),
            LINEAR | PITCHED => {
                let Linear { address, format, channels, extent: [size, height, pitch] } = self.linear();
                let element = format_bytes(format).filter(|_| matches!(channels, 1 | 2 | 4));
                let element = element.ok_or(INVALID_VALUE)? * u64::from(channels);
                let bytes = if self.kind == LINEAR {
                    Some(size)
                } else {
                    let row = size.checked_mul(element).filter(|row| *row <= pitch);
                    row.and_then(|row| pitch.checked_mul(height.checked_sub(1)?)?.checked_add(row))
                };
                let bytes = bytes.filter(|bytes| *bytes > 0).ok_or(INVALID_VALUE)?;
                if world.reaches(address, bytes, false) { Ok(()) } else { Err(INVALID_VALUE) }
            }
            _ => Err(INVALID_VALUE),
        }
    }
}

export! {
    fn cuTexObjectCreate(
        out: Out<Handle<Texture>>, resource: In<Resource>, texturing: In<Texturing>, view: In<View>,
    ) {
        out.required()?;
        let mut world = world()?;
        world.current()?;
        let (resource, texturing) = (resource.get()?, texturing.get()?);
        resource.check(&mut world)?;
        let view = if view.is_null() { None } else { Some(view.get()?) };
        out.put(world.textures.add(Texture { resource, texturing, view }))
    }

    fn cuTexObjectDestroy(texture: Handle<Texture>) {
        let mut world = world()?;
        if texture.is_null() { Ok(()) } else { world.textures.remove(texture).map(|_| ()) }
    }

    fn cuTexObjectGetResourceDesc(out: Out<Resource>, texture: Handle<Texture>) {
        let world = world()?;
        out.put(world.textures.get(texture)?.resource)
    }

    fn cuTexObjectGetTextureDesc(out: Out<Texturing>, texture: Handle<Texture>) {
        let world = world()?;
        out.put(world.textures.get(texture)?.texturing)
    }

    fn cuTexObjectGetResourceViewDesc(out: Out<View>, texture: Handle<Texture>) {
        let world = world()?;
        out.put(world.textures.get(texture)?.view.ok_or(INVALID_VALUE)?)
    }

    fn cuSurfObjectCreate(out: Out<Handle<Surface>>, resource: In<Resource>) {
        out.required()?;
        let mut world = world()?;
        world.current()?;
        let resource = resource.get()?;
        if resource.kind != ARRAY {
            return Err(INVALID_VALUE);
        }
        resource.check(&mut world)?;
        out.put(world.surfaces.add(Surface { resource }))
    }

    fn cuSurfObjectDestroy(surface: Handle<Surface>) {
        let mut world = world()?;
        if surface.is_null() { Ok(()) } else { world.surfaces.remove(surface).map(|_| ()) }
    }

    fn cuSurfObjectGetResourceDesc(out: Out<Resource>, surface: Handle<Surface>) {
        let world = world()?;
        out.put(world.surfaces.get(surface)?.resource)
    }
}

const _: () =
    assert!(size_of::<Resource>() == 144 && size_of::<Texturing>() == 104 && size_of::<View>() == 112);
