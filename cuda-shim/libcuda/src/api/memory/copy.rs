//! Copies: every form comes to one [`moves::Copy`] with resolved and checked addresses.
//!
//! Bytes move when the call is made; the stream's time says when they would have. A call that promises to
//! have finished waits for that time.
//!
//! # Safety
//! Exports symbols.
#![allow(unsafe_code)]

use crate::api::export::export;
use crate::model::objects::handle::{ArrayHandle, ContextHandle, Handle, StreamHandle};
use crate::model::objects::moves;
use crate::model::objects::op::Op;
use crate::model::operations::copies::{Cuboid, Rect, resolve};
use crate::model::operations::{access, captures, marks, streams, submit};
use crate::model::world::{World, world};
use crate::tools::ffi::{In, NullStream};
use crate::tools::status::{INVALID_VALUE, Outcome};

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

/// Checks one side of a plain copy; tells whether it is host memory.
#[inline]
fn check(world: &mut World, side: Side, address: u64, length: u64, write: bool) -> Outcome<bool> {
    if side != Side::Host && access::heap_of(world, address).is_some() {
        return if access::reaches(world, address, length, write) { Ok(false) } else { Err(INVALID_VALUE) };
    }
    let known = access::knows(world, address);
    let valid = if known {
        access::reaches(world, address, length, write)
    } else {
        side != Side::Device && address != 0
    };
    if valid { Ok(!access::on_device(world, address)) } else { Err(INVALID_VALUE) }
}

/// Gives a copy to a stream and ends the call as it promises.
fn give(null: NullStream, stream: StreamHandle, finish: Finish, copy: Option<moves::Copy>) -> Outcome {
    if finish != Finish::Async {
        let mut world = world()?;
        let target = streams::stream(&mut world, null, stream)?;
        captures::forbid_wait(&mut world, target)?;
    }
    let Some(copy) = copy else { return Ok(()) };
    let mark = submit::submit(null, stream, Op::Copy(copy))?;
    if let (Finish::Waits, Some(mark)) = (finish, mark) {
        marks::wait(&mark);
    }
    Ok(())
}

/// A plain run of bytes: addresses and what they have to be, destination first.
#[inline]
fn line(
    null: NullStream,
    stream: StreamHandle,
    finish: Finish,
    to: (Side, u64),
    from: (Side, u64),
    length: u64,
) -> Outcome {
    let copy = {
        let mut world = world()?;
        streams::stream(&mut world, null, stream)?;
        if length == 0 {
            None
        } else {
            let from_host = check(&mut world, from.0, from.1, length, false)?;
            let to_host = check(&mut world, to.0, to.1, length, true)?;
            Some(moves::Copy::line(to.1, from.1, length, from_host || to_host))
        }
    };
    // Between two places on devices a call that is not asynchronous by name returns early all the same.
    let early = finish == Finish::Waits && copy.is_some_and(|copy| !copy.by_bus);
    give(null, stream, if early { Finish::Returns } else { finish }, copy)
}

fn boxed(null: NullStream, stream: StreamHandle, finish: Finish, cuboid: &Cuboid) -> Outcome {
    let copy = {
        let mut world = world()?;
        streams::stream(&mut world, null, stream)?;
        resolve(&mut world, cuboid)?
    };
    give(null, stream, finish, copy)
}

/// A copy between contexts, which have to be alive.
fn peer(
    null: NullStream,
    stream: StreamHandle,
    finish: Finish,
    to: (u64, ContextHandle),
    from: (u64, ContextHandle),
    length: u64,
) -> Outcome {
    if length > 0 || !to.1.is_null() || !from.1.is_null() {
        let world = world()?;
        world.active(to.1)?;
        world.active(from.1)?;
    }
    line(null, stream, finish, (Side::Device, to.0), (Side::Device, from.0), length)
}

/// Where the bytes of an array from `offset` lie, which must be as many. For no bytes there need be no array.
fn in_array(handle: ArrayHandle, offset: u64, length: u64) -> Outcome<(Side, u64)> {
    let world = world()?;
    if length == 0 && handle.is_null() {
        return Ok((Device, 0));
    }
    let array = world.arrays.get(handle)?;
    let last = offset.checked_add(length).ok_or(INVALID_VALUE)?;
    let all = array.row_bytes().saturating_mul(array.rows()).saturating_mul(array.slices());
    if last <= all { Ok((Device, array.address + offset)) } else { Err(INVALID_VALUE) }
}

const NONE: StreamHandle = Handle::NULL;
use Finish::{Async, Waits};
use Side::{Any, Device, Host};

export! {
    twin fn |null| cuMemcpy / cuMemcpy_ptds (to: u64, from: u64, length: u64) {
        line(null, NONE, Waits, (Any, to), (Any, from), length)
    }
    twin fn |null| cuMemcpyAsync / cuMemcpyAsync_ptsz (to: u64, from: u64, length: u64, stream: StreamHandle) {
        line(null, stream, Async, (Any, to), (Any, from), length)
    }
    twin fn |null| cuMemcpyHtoD_v2 / cuMemcpyHtoD_v2_ptds (to: u64, from: u64, length: u64) {
        line(null, NONE, Waits, (Device, to), (Host, from), length)
    }
    twin fn |null| cuMemcpyHtoDAsync_v2 / cuMemcpyHtoDAsync_v2_ptsz (
        to: u64, from: u64, length: u64, stream: StreamHandle,
    ) {
        line(null, stream, Async, (Device, to), (Host, from), length)
    }
    twin fn |null| cuMemcpyDtoH_v2 / cuMemcpyDtoH_v2_ptds (to: u64, from: u64, length: u64) {
        line(null, NONE, Waits, (Host, to), (Device, from), length)
    }
    twin fn |null| cuMemcpyDtoHAsync_v2 / cuMemcpyDtoHAsync_v2_ptsz (
        to: u64, from: u64, length: u64, stream: StreamHandle,
    ) {
        line(null, stream, Async, (Host, to), (Device, from), length)
    }
    twin fn |null| cuMemcpyDtoD_v2 / cuMemcpyDtoD_v2_ptds (to: u64, from: u64, length: u64) {
        line(null, NONE, Waits, (Device, to), (Device, from), length)
    }
    twin fn |null| cuMemcpyDtoDAsync_v2 / cuMemcpyDtoDAsync_v2_ptsz (
        to: u64, from: u64, length: u64, stream: StreamHandle,
    ) {
        line(null, stream, Async, (Device, to), (Device, from), length)
    }
    twin fn |null| cuMemcpyPeer / cuMemcpyPeer_ptds (
        to: u64, to_context: ContextHandle, from: u64, from_context: ContextHandle, length: u64,
    ) {
        peer(null, NONE, Waits, (to, to_context), (from, from_context), length)
    }
    twin fn |null| cuMemcpyPeerAsync / cuMemcpyPeerAsync_ptsz (
        to: u64, to_context: ContextHandle, from: u64, from_context: ContextHandle, length: u64,
        stream: StreamHandle,
    ) {
        peer(null, stream, Async, (to, to_context), (from, from_context), length)
    }
    twin fn |null| cuMemcpy2D_v2 / cuMemcpy2D_v2_ptds (rect: In<Rect>) {
        boxed(null, NONE, Waits, &rect.get()?.cuboid())
    }
    twin fn |null| cuMemcpy2DUnaligned_v2 / cuMemcpy2DUnaligned_v2_ptds (rect: In<Rect>) {
        boxed(null, NONE, Waits, &rect.get()?.cuboid())
    }
    twin fn |null| cuMemcpy2DAsync_v2 / cuMemcpy2DAsync_v2_ptsz (rect: In<Rect>, stream: StreamHandle) {
        boxed(null, stream, Async, &rect.get()?.cuboid())
    }
    twin fn |null| cuMemcpyAtoH_v2 / cuMemcpyAtoH_v2_ptds (to: u64, from: ArrayHandle, offset: u64, length: u64) {
        line(null, NONE, Waits, (Host, to), in_array(from, offset, length)?, length)
    }
    twin fn |null| cuMemcpyAtoHAsync_v2 / cuMemcpyAtoHAsync_v2_ptsz (
        to: u64, from: ArrayHandle, offset: u64, length: u64, stream: StreamHandle,
    ) {
        line(null, stream, Async, (Host, to), in_array(from, offset, length)?, length)
    }
    twin fn |null| cuMemcpyHtoA_v2 / cuMemcpyHtoA_v2_ptds (to: ArrayHandle, offset: u64, from: u64, length: u64) {
        line(null, NONE, Waits, in_array(to, offset, length)?, (Host, from), length)
    }
    twin fn |null| cuMemcpyHtoAAsync_v2 / cuMemcpyHtoAAsync_v2_ptsz (
        to: ArrayHandle, offset: u64, from: u64, length: u64, stream: StreamHandle,
    ) {
        line(null, stream, Async, in_array(to, offset, length)?, (Host, from), length)
    }
    twin fn |null| cuMemcpyAtoD_v2 / cuMemcpyAtoD_v2_ptds (to: u64, from: ArrayHandle, offset: u64, length: u64) {
        line(null, NONE, Waits, (Device, to), in_array(from, offset, length)?, length)
    }
    twin fn |null| cuMemcpyDtoA_v2 / cuMemcpyDtoA_v2_ptds (to: ArrayHandle, offset: u64, from: u64, length: u64) {
        line(null, NONE, Waits, in_array(to, offset, length)?, (Device, from), length)
    }
    twin fn |null| cuMemcpyAtoA_v2 / cuMemcpyAtoA_v2_ptds (
        to: ArrayHandle, to_offset: u64, from: ArrayHandle, from_offset: u64, length: u64,
    ) {
        line(null, NONE, Waits, in_array(to, to_offset, length)?, in_array(from, from_offset, length)?, length)
    }
    twin fn |null| cuMemcpy3D_v2 / cuMemcpy3D_v2_ptds (cuboid: In<Cuboid>) {
        boxed(null, NONE, Waits, &cuboid.get()?)
    }
    twin fn |null| cuMemcpy3DAsync_v2 / cuMemcpy3DAsync_v2_ptsz (cuboid: In<Cuboid>, stream: StreamHandle) {
        boxed(null, stream, Async, &cuboid.get()?)
    }
}
