//! Copies: every form comes to one [`moves::Copy`] with resolved and checked addresses.

use crate::model::objects::handle::{ArrayHandle, Handle};
use crate::model::objects::moves;
use crate::model::operations::access;
use crate::model::world::World;
use crate::tools::status::{INVALID_VALUE, Outcome};

/// `CUmemorytype`.
const HOST: u32 = 1;
const DEVICE: u32 = 2;
const ARRAY: u32 = 3;
const UNIFIED: u32 = 4;

/// A resolved side: address, pitch, slice, and whether it is host memory.
type Place = (u64, u64, u64, bool);

/// `CUDA_MEMCPY2D`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Rect {
    from_x: u64,
    from_y: u64,
    from_kind: u32,
    from_host: u64,
    from_device: u64,
    from_array: ArrayHandle,
    from_pitch: u64,
    to_x: u64,
    to_y: u64,
    to_kind: u32,
    to_host: u64,
    to_device: u64,
    to_array: ArrayHandle,
    to_pitch: u64,
    width: u64,
    height: u64,
}

/// One side of `CUDA_MEMCPY3D`.
#[repr(C)]
#[derive(Clone, Copy)]
struct End {
    x: u64,
    y: u64,
    z: u64,
    lod: u64,
    kind: u32,
    host: u64,
    device: u64,
    array: ArrayHandle,
    reserved: u64,
    pitch: u64,
    height: u64,
}

/// `CUDA_MEMCPY3D`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Cuboid {
    from: End,
    to: End,
    width: u64,
    height: u64,
    depth: u64,
}

impl Cuboid {
    /// A description of a resolved copy: where it goes, by address.
    pub fn of(copy: &moves::Copy) -> Cuboid {
        let end = |device: u64, pitch: u64, slice: u64| End {
            x: 0,
            y: 0,
            z: 0,
            lod: 0,
            kind: UNIFIED,
            host: 0,
            device,
            array: Handle::NULL,
            reserved: 0,
            pitch,
            height: slice.checked_div(pitch).unwrap_or(0),
        };
        Cuboid {
            from: end(copy.from, copy.from_pitch, copy.from_slice),
            to: end(copy.to, copy.to_pitch, copy.to_slice),
            width: copy.width,
            height: copy.height,
            depth: copy.depth,
        }
    }
}

impl Rect {
    pub fn cuboid(&self) -> Cuboid {
        let end = |x, y, kind, host, device, array, pitch| End {
            x,
            y,
            z: 0,
            lod: 0,
            kind,
            host,
            device,
            array,
            reserved: 0,
            pitch,
            height: 0,
        };
        Cuboid {
            from: end(
                self.from_x,
                self.from_y,
                self.from_kind,
                self.from_host,
                self.from_device,
                self.from_array,
                self.from_pitch,
            ),
            to: end(
                self.to_x,
                self.to_y,
                self.to_kind,
                self.to_host,
                self.to_device,
                self.to_array,
                self.to_pitch,
            ),
            width: self.width,
            height: self.height,
            depth: 1,
        }
    }
}

fn place(world: &mut World, end: &End, extent: [u64; 3], write: bool) -> Option<Place> {
    let [width, height, depth] = extent;
    if end.lod != 0 {
        return None;
    }
    let (base, pitch, rows) = match end.kind {
        HOST => (end.host, end.pitch, end.height),
        DEVICE | UNIFIED => (end.device, end.pitch, end.height),
        ARRAY => {
            let array = world.arrays.get(end.array).ok()?;
            let inside =
                |at: u64, count: u64, size: u64| at.checked_add(count).is_some_and(|last| last <= size);
            let fits = inside(end.x, width, array.row_bytes())
                && inside(end.y, height, array.rows())
                && inside(end.z, depth, array.slices());
            if !fits {
                return None;
            }
            (array.address, array.row_bytes(), array.rows())
        }
        _ => return None,
    };
    // One row needs no pitch, one slice no height.
    let (row_end, last_row) = (end.x.checked_add(width)?, end.y.checked_add(height)?);
    let pitch = if pitch == 0 && last_row <= 1 { row_end } else { pitch };
    let rows = if rows == 0 { last_row } else { rows };
    if pitch < row_end || (depth > 1 && rows < last_row) {
        return None;
    }
    let slice = pitch.checked_mul(rows)?;
    let offset = slice.checked_mul(end.z)?.checked_add(pitch.checked_mul(end.y)?)?.checked_add(end.x)?;
    let address = base.checked_add(offset)?;
    let reach =
        slice.checked_mul(depth - 1)?.checked_add(pitch.checked_mul(height - 1)?)?.checked_add(width)?;
    let known = access::knows(world, address);
    let host = end.kind == HOST || (end.kind == UNIFIED && !known);
    let valid = if known { access::reaches(world, address, reach, write) } else { host && base != 0 };
    let on_bus = host || !access::on_device(world, address);
    valid.then_some((address, pitch, slice, on_bus))
}

/// The copy that a `CUDA_MEMCPY3D` stands for; `None` if it moves nothing.
pub fn resolve(world: &mut World, cuboid: &Cuboid) -> Outcome<Option<moves::Copy>> {
    let extent = [cuboid.width, cuboid.height, cuboid.depth];
    if extent.contains(&0) {
        return Ok(None);
    }
    let from = place(world, &cuboid.from, extent, false).ok_or(INVALID_VALUE)?;
    let to = place(world, &cuboid.to, extent, true).ok_or(INVALID_VALUE)?;
    Ok(Some(moves::Copy {
        to: to.0,
        to_pitch: to.1,
        to_slice: to.2,
        from: from.0,
        from_pitch: from.1,
        from_slice: from.2,
        width: cuboid.width,
        height: cuboid.height,
        depth: cuboid.depth,
        by_bus: from.3 || to.3,
    }))
}
