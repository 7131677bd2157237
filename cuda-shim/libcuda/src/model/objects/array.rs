//! Arrays and mipmapped arrays: opaque memory with an extent. A level of a mipmapped array is an array too, in memory of its
//! owner.

use crate::model::objects::handle::{ArrayHandle, ArrayKind, ContextHandle, MipmapHandle, MipmapKind};
use crate::model::objects::table::Item;
use crate::tools::status::{INVALID_VALUE, OUT_OF_MEMORY, Outcome};

/// `CUDA_ARRAY3D_LAYERED` and `CUDA_ARRAY3D_CUBEMAP`.
const LAYERED: u32 = 1;
const CUBEMAP: u32 = 4;

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
    pub context: ContextHandle,
    /// Where its bytes lie, row after row without gaps.
    pub address: u64,
    pub extent: Extent,
    /// The mipmapped array that it is a level of; null for none.
    pub owner: MipmapHandle,
}

impl Item for Array {
    type Kind = ArrayKind;
}

/// A mipmapped array.
pub struct Mipmap {
    pub context: ContextHandle,
    pub address: u64,
    pub levels: Vec<ArrayHandle>,
}

impl Item for Mipmap {
    type Kind = MipmapKind;
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
    pub fn bytes(&self) -> Outcome<u64> {
        let element = self.element().filter(|_| self.width > 0).ok_or(INVALID_VALUE)?;
        [self.width, self.height.max(1), self.depth.max(1)]
            .into_iter()
            .try_fold(element, u64::checked_mul)
            .ok_or(OUT_OF_MEMORY)
    }

    /// The extent of a level: halved as often in every direction that is not a count of layers.
    pub fn level(&self, level: u32) -> Extent {
        let half = |size: u64| if size == 0 { 0 } else { (size >> level).max(1) };
        let depth = if self.flags & (LAYERED | CUBEMAP) != 0 { self.depth } else { half(self.depth) };
        Extent { width: half(self.width), height: half(self.height), depth, ..*self }
    }

    /// The most levels that it can have.
    pub fn most_levels(&self) -> u32 {
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
