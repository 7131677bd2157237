//! Copies: every form comes to one [`op::Copy`] with resolved and checked addresses.
//!
//! Bytes move when the call is made; the stream's time says when they would have. A call that promises to
//! have finished waits for that time.
//!
//! # Safety
//! Exports symbols.
#![allow(unsafe_code)]

use crate::array::Array;
use crate::capture;
use crate::context::Context;
use crate::ffi::{In, Lane, Outcome, export};
use crate::op::{self, Op};
use crate::status::INVALID_VALUE;
use crate::stream::{self, Stream};
use crate::table::Handle;
use crate::world::{World, world};

/// `CUmemorytype`.
const HOST: u32 = 1;
const DEVICE: u32 = 2;
const ARRAY: u32 = 3;
const UNIFIED: u32 = 4;

/// What a pointer of a plain copy has to be.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Host,
    Device,
    /// Whatever it is: the address tells.
    Any,
}

/// How a call ends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Finish {
    /// In the stream that was given.
    Async,
    /// When the bytes have arrived.
    Waits,
    /// At once, in the default stream.
    Returns,
}

/// `CUDA_MEMCPY2D`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Rect {
    from_x: u64,
    from_y: u64,
    from_kind: u32,
    from_host: u64,
    from_device: u64,
    from_array: Handle<Array>,
    from_pitch: u64,
    to_x: u64,
    to_y: u64,
    to_kind: u32,
    to_host: u64,
    to_device: u64,
    to_array: Handle<Array>,
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
    array: Handle<Array>,
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
    pub fn of(copy: &op::Copy) -> Cuboid {
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
    fn cuboid(&self) -> Cuboid {
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

/// A resolved side: address, pitch, slice, and whether it is host memory.
type Place = (u64, u64, u64, bool);

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
    let known = world.knows(address);
    let host = end.kind == HOST || (end.kind == UNIFIED && !known);
    let valid = if known { world.reaches(address, reach, write) } else { host && base != 0 };
    let on_bus = host || !world.on_device(address);
    valid.then_some((address, pitch, slice, on_bus))
}

/// The copy that a `CUDA_MEMCPY3D` stands for; `None` if it moves nothing.
pub fn resolve(world: &mut World, cuboid: &Cuboid) -> Outcome<Option<op::Copy>> {
    let extent = [cuboid.width, cuboid.height, cuboid.depth];
    if extent.contains(&0) {
        return Ok(None);
    }
    let from = place(world, &cuboid.from, extent, false).ok_or(INVALID_VALUE)?;
    let to = place(world, &cuboid.to, extent, true).ok_or(INVALID_VALUE)?;
    Ok(Some(op::Copy {
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

/// Checks one side of a plain copy; tells whether it is host memory.
#[inline]
fn check(world: &mut World, side: Side, address: u64, length: u64, write: bool) -> Outcome<bool> {
    if side != Side::Host && world.heap_of(address).is_some() {
        return if world.reaches(address, length, write) { Ok(false) } else { Err(INVALID_VALUE) };
    }
    let known = world.knows(address);
    let valid =
        if known { world.reaches(address, length, write) } else { side != Side::Device && address != 0 };
    if valid { Ok(!world.on_device(address)) } else { Err(INVALID_VALUE) }
}

/// Gives a copy to a stream and ends the call as it promises.
fn give(lane: Lane, stream: Handle<Stream>, finish: Finish, copy: Option<op::Copy>) -> Outcome {
    if finish != Finish::Async {
        let mut world = world()?;
        let target = world.stream(lane, stream)?;
        capture::forbid_wait(&mut world, target)?;
    }
    let Some(copy) = copy else { return Ok(()) };
    let mark = stream::submit(lane, stream, Op::Copy(copy))?;
    if let (Finish::Waits, Some(mark)) = (finish, mark) {
        mark.wait();
    }
    Ok(())
}

/// A plain run of bytes: addresses and what they have to be, destination first.
#[inline]
fn line(
    lane: Lane,
    stream: Handle<Stream>,
    finish: Finish,
    to: (Side, u64),
    from: (Side, u64),
    length: u64,
) -> Outcome {
    let copy = {
        let mut world = world()?;
        world.stream(lane, stream)?;
        if length == 0 {
            None
        } else {
            let from_host = check(&mut world, from.0, from.1, length, false)?;
            let to_host = check(&mut world, to.0, to.1, length, true)?;
            Some(op::Copy::line(to.1, from.1, length, from_host || to_host))
        }
    };
    // Between two places on devices a call that is not asynchronous by name returns early all the same.
    let early = finish == Finish::Waits && copy.is_some_and(|copy| !copy.by_bus);
    give(lane, stream, if early { Finish::Returns } else { finish }, copy)
}

fn boxed(lane: Lane, stream: Handle<Stream>, finish: Finish, cuboid: &Cuboid) -> Outcome {
    let copy = {
        let mut world = world()?;
        world.stream(lane, stream)?;
        resolve(&mut world, cuboid)?
    };
    give(lane, stream, finish, copy)
}

/// A copy between contexts, which have to be alive.
fn peer(
    lane: Lane,
    stream: Handle<Stream>,
    finish: Finish,
    to: (u64, Handle<Context>),
    from: (u64, Handle<Context>),
    length: u64,
) -> Outcome {
    if length > 0 || !to.1.is_null() || !from.1.is_null() {
        let world = world()?;
        world.active(to.1)?;
        world.active(from.1)?;
    }
    line(lane, stream, finish, (Side::Device, to.0), (Side::Device, from.0), length)
}

/// Where the bytes of an array from `offset` lie, which must be as many. For no bytes there need be no array.
fn in_array(handle: Handle<Array>, offset: u64, length: u64) -> Outcome<(Side, u64)> {
    let world = world()?;
    if length == 0 && handle.is_null() {
        return Ok((Device, 0));
    }
    let array = world.arrays.get(handle)?;
    let last = offset.checked_add(length).ok_or(INVALID_VALUE)?;
    let all = array.row_bytes().saturating_mul(array.rows()).saturating_mul(array.slices());
    if last <= all { Ok((Device, array.address + offset)) } else { Err(INVALID_VALUE) }
}

const NONE: Handle<Stream> = Handle::NULL;
use Finish::{Async, Waits};
use Side::{Any, Device, Host};

export! {
    lane fn |lane| cuMemcpy / cuMemcpy_ptds (to: u64, from: u64, length: u64) {
        line(lane, NONE, Waits, (Any, to), (Any, from), length)
    }
    lane fn |lane| cuMemcpyAsync / cuMemcpyAsync_ptsz (to: u64, from: u64, length: u64, stream: Handle<Stream>) {
        line(lane, stream, Async, (Any, to), (Any, from), length)
    }
    lane fn |lane| cuMemcpyHtoD_v2 / cuMemcpyHtoD_v2_ptds (to: u64, from: u64, length: u64) {
        line(lane, NONE, Waits, (Device, to), (Host, from), length)
    }
    lane fn |lane| cuMemcpyHtoDAsync_v2 / cuMemcpyHtoDAsync_v2_ptsz (
        to: u64, from: u64, length: u64, stream: Handle<Stream>,
    ) {
        line(lane, stream, Async, (Device, to), (Host, from), length)
    }
    lane fn |lane| cuMemcpyDtoH_v2 / cuMemcpyDtoH_v2_ptds (to: u64, from: u64, length: u64) {
        line(lane, NONE, Waits, (Host, to), (Device, from), length)
    }
    lane fn |lane| cuMemcpyDtoHAsync_v2 / cuMemcpyDtoHAsync_v2_ptsz (
        to: u64, from: u64, length: u64, stream: Handle<Stream>,
    ) {
        line(lane, stream, Async, (Host, to), (Device, from), length)
    }
    lane fn |lane| cuMemcpyDtoD_v2 / cuMemcpyDtoD_v2_ptds (to: u64, from: u64, length: u64) {
        line(lane, NONE, Waits, (Device, to), (Device, from), length)
    }
    lane fn |lane| cuMemcpyDtoDAsync_v2 / cuMemcpyDtoDAsync_v2_ptsz (
        to: u64, from: u64, length: u64, stream: Handle<Stream>,
    ) {
        line(lane, stream, Async, (Device, to), (Device, from), length)
    }
    lane fn |lane| cuMemcpyPeer / cuMemcpyPeer_ptds (
        to: u64, to_context: Handle<Context>, from: u64, from_context: Handle<Context>, length: u64,
    ) {
        peer(lane, NONE, Waits, (to, to_context), (from, from_context), length)
    }
    lane fn |lane| cuMemcpyPeerAsync / cuMemcpyPeerAsync_ptsz (
        to: u64, to_context: Handle<Context>, from: u64, from_context: Handle<Context>, length: u64,
        stream: Handle<Stream>,
    ) {
        peer(lane, stream, Async, (to, to_context), (from, from_context), length)
    }
    lane fn |lane| cuMemcpy2D_v2 / cuMemcpy2D_v2_ptds (rect: In<Rect>) {
        boxed(lane, NONE, Waits, &rect.get()?.cuboid())
    }
    lane fn |lane| cuMemcpy2DUnaligned_v2 / cuMemcpy2DUnaligned_v2_ptds (rect: In<Rect>) {
        boxed(lane, NONE, Waits, &rect.get()?.cuboid())
    }
    lane fn |lane| cuMemcpy2DAsync_v2 / cuMemcpy2DAsync_v2_ptsz (rect: In<Rect>, stream: Handle<Stream>) {
        boxed(lane, stream, Async, &rect.get()?.cuboid())
    }
    lane fn |lane| cuMemcpyAtoH_v2 / cuMemcpyAtoH_v2_ptds (to: u64, from: Handle<Array>, offset: u64, length: u64) {
        line(lane, NONE, Waits, (Host, to), in_array(from, offset, length)?, length)
    }
    lane fn |lane| cuMemcpyAtoHAsync_v2 / cuMemcpyAtoHAsync_v2_ptsz (
        to: u64, from: Handle<Array>, offset: u64, length: u64, stream: Handle<Stream>,
    ) {
        line(lane, stream, Async, (Host, to), in_array(from, offset, length)?, length)
    }
    lane fn |lane| cuMemcpyHtoA_v2 / cuMemcpyHtoA_v2_ptds (to: Handle<Array>, offset: u64, from: u64, length: u64) {
        line(lane, NONE, Waits, in_array(to, offset, length)?, (Host, from), length)
    }
    lane fn |lane| cuMemcpyHtoAAsync_v2 / cuMemcpyHtoAAsync_v2_ptsz (
        to: Handle<Array>, offset: u64, from: u64, length: u64, stream: Handle<Stream>,
    ) {
        line(lane, stream, Async, in_array(to, offset, length)?, (Host, from), length)
    }
    lane fn |lane| cuMemcpyAtoD_v2 / cuMemcpyAtoD_v2_ptds (to: u64, from: Handle<Array>, offset: u64, length: u64) {
        line(lane, NONE, Waits, (Device, to), in_array(from, offset, length)?, length)
    }
    lane fn |lane| cuMemcpyDtoA_v2 / cuMemcpyDtoA_v2_ptds (to: Handle<Array>, offset: u64, from: u64, length: u64) {
        line(lane, NONE, Waits, in_array(to, offset, length)?, (Device, from), length)
    }
    lane fn |lane| cuMemcpyAtoA_v2 / cuMemcpyAtoA_v2_ptds (
        to: Handle<Array>, to_offset: u64, from: Handle<Array>, from_offset: u64, length: u64,
    ) {
        line(lane, NONE, Waits, in_array(to, to_offset, length)?, in_array(from, from_offset, length)?, length)
    }
    lane fn |lane| cuMemcpy3D_v2 / cuMemcpy3D_v2_ptds (cuboid: In<Cuboid>) {
        boxed(lane, NONE, Waits, &cuboid.get()?)
    }
    lane fn |lane| cuMemcpy3DAsync_v2 / cuMemcpy3DAsync_v2_ptsz (cuboid: In<Cuboid>, stream: Handle<Stream>) {
        boxed(lane, stream, Async, &cuboid.get()?)
    }
}
