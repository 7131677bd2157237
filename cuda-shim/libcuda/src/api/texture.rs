//! Texture and surface objects: what they are made of is checked and kept; no kernel reads through them.
//!
//! # Safety
//! Exports symbols.
#![allow(unsafe_code)]

use crate::api::export::export;
use crate::model::objects::array::format_bytes;
use crate::model::objects::handle::{ArrayHandle, MipmapHandle, SurfaceHandle, TextureHandle};
use crate::model::objects::texture::{Linear, Resource, Surface, Texture, Texturing, View};
use crate::model::operations::access;
use crate::model::world::{World, world};
use crate::tools::ffi::{In, Out};
use crate::tools::status::{INVALID_VALUE, Outcome};

/// `CUresourcetype`.
const ARRAY: u32 = 0;
const MIPMAP: u32 = 1;
const LINEAR: u32 = 2;
const PITCHED: u32 = 3;

/// Whether what it names is there, and the device's.
fn check(resource: &Resource, world: &mut World) -> Outcome {
    let [first, ..] = resource.resource;
    match resource.kind {
        ARRAY => world.arrays.get(ArrayHandle::of(first)).map(|_| ()).map_err(|_| INVALID_VALUE),
        MIPMAP => world.mipmaps.get(MipmapHandle::of(first)).map(|_| ()).map_err(|_| INVALID_VALUE),
        LINEAR | PITCHED => {
            let Linear { address, format, channels, extent: [size, height, pitch] } = resource.linear();
            let element = format_bytes(format).filter(|_| matches!(channels, 1 | 2 | 4));
            let element = element.ok_or(INVALID_VALUE)? * u64::from(channels);
            let bytes = if resource.kind == LINEAR {
                Some(size)
            } else {
                let row = size.checked_mul(element).filter(|row| *row <= pitch);
                row.and_then(|row| pitch.checked_mul(height.checked_sub(1)?)?.checked_add(row))
            };
            let bytes = bytes.filter(|bytes| *bytes > 0).ok_or(INVALID_VALUE)?;
            if access::reaches(world, address, bytes, false) { Ok(()) } else { Err(INVALID_VALUE) }
        }
        _ => Err(INVALID_VALUE),
    }
}

export! {
    fn cuTexObjectCreate(
        out: Out<TextureHandle>, resource: In<Resource>, texturing: In<Texturing>, view: In<View>,
    ) {
        out.required()?;
        let mut world = world()?;
        world.current()?;
        let (resource, texturing) = (resource.get()?, texturing.get()?);
        check(&resource, &mut world)?;
        let view = if view.is_null() { None } else { Some(view.get()?) };
        out.put(world.textures.add(Texture { resource, texturing, view }))
    }

    fn cuTexObjectDestroy(texture: TextureHandle) {
        let mut world = world()?;
        if texture.is_null() { Ok(()) } else { world.textures.remove(texture).map(|_| ()) }
    }

    fn cuTexObjectGetResourceDesc(out: Out<Resource>, texture: TextureHandle) {
        let world = world()?;
        out.put(world.textures.get(texture)?.resource)
    }

    fn cuTexObjectGetTextureDesc(out: Out<Texturing>, texture: TextureHandle) {
        let world = world()?;
        out.put(world.textures.get(texture)?.texturing)
    }

    fn cuTexObjectGetResourceViewDesc(out: Out<View>, texture: TextureHandle) {
        let world = world()?;
        out.put(world.textures.get(texture)?.view.ok_or(INVALID_VALUE)?)
    }

    fn cuSurfObjectCreate(out: Out<SurfaceHandle>, resource: In<Resource>) {
        out.required()?;
        let mut world = world()?;
        world.current()?;
        let resource = resource.get()?;
        if resource.kind != ARRAY {
            return Err(INVALID_VALUE);
        }
        check(&resource, &mut world)?;
        out.put(world.surfaces.add(Surface { resource }))
    }

    fn cuSurfObjectDestroy(surface: SurfaceHandle) {
        let mut world = world()?;
        if surface.is_null() { Ok(()) } else { world.surfaces.remove(surface).map(|_| ()) }
    }

    fn cuSurfObjectGetResourceDesc(out: Out<Resource>, surface: SurfaceHandle) {
        let world = world()?;
        out.put(world.surfaces.get(surface)?.resource)
    }
}

const _: () =
    assert!(size_of::<Resource>() == 144 && size_of::<Texturing>() == 104 && size_of::<View>() == 112);
