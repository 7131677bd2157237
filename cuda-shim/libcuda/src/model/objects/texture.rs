//! Texture and surface objects.

use crate::model::objects::handle::{SurfaceKind, TextureKind};
use crate::model::objects::table::Item;

/// `CUDA_TEXTURE_DESC` and `CUDA_RESOURCE_VIEW_DESC`, which are kept as they come.
pub type Texturing = [u32; 26];

pub type View = [u64; 14];

/// `CUDA_RESOURCE_DESC`: its kind, the words of its union, flags.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Resource {
    pub kind: u32,
    pub resource: [u64; 16],
    flags: u32,
}

/// The union for linear and for pitched memory.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Linear {
    pub address: u64,
    pub format: u32,
    pub channels: u32,
    /// Bytes; for pitched memory the width in elements, then height and pitch.
    pub extent: [u64; 3],
}

/// A texture object.
pub struct Texture {
    pub resource: Resource,
    pub texturing: Texturing,
    pub view: Option<View>,
}

impl Item for Texture {
    type Kind = TextureKind;
}

/// A surface object.
pub struct Surface {
    pub resource: Resource,
}

impl Item for Surface {
    type Kind = SurfaceKind;
}

impl Resource {
    /// What it says of linear or pitched memory.
    pub fn linear(&self) -> Linear {
        let [address, form, extent @ ..] = self.resource;
        let extent = [extent[0], extent[1], extent[2]];
        Linear { address, format: form as u32, channels: (form >> 32) as u32, extent }
    }
}
