//! Values in memory that streams write and wait for. A value is really written when its time in the stream has come, and a
//! wait ends when the memory says so. What follows it is laid out in time as if it had not waited; bytes, which otherwise
//! move when the call is made, then move in their turn.
//!
//! # Safety
//! Exports symbols.
#![allow(unsafe_code)]

use crate::bytes;
use crate::ffi::{In, Lane, Outcome, export};
use crate::hostfn::{Function, HostCall};
use crate::op::Op;
use crate::status::INVALID_VALUE;
use crate::stream::{Stream, submit};
use crate::table::Handle;
use crate::world::world;

/// `CU_STREAM_WAIT_VALUE_FLUSH`, which asks for nothing here, and the four comparisons.
const FLUSH: u32 = 1 << 30;
const AT_LEAST: u32 = 0;
const EQUAL: u32 = 1;
const ANY_BIT: u32 = 2;
const ANY_ZERO_BIT: u32 = 3;
/// `CU_STREAM_WRITE_VALUE_NO_MEMORY_BARRIER`.
const NO_BARRIER: u32 = 1;
/// Most operations of one batch.
const MOST: u32 = 256;

/// A value at an address, of 32 or 64 bits.
#[derive(Clone, Copy)]
pub struct Value {
    address: u64,
    value: u64,
    wide: bool,
}

impl Value {
    fn bytes(&self) -> u64 {
        if self.wide { 8 } else { 4 }
    }

    /// Stores it.
    pub fn write(&self) {
        bytes::copy(self.address, (&raw const self.value).expose_provenance() as u64, self.bytes());
    }

    /// Whether the memory compares to it in this way.
    pub fn holds(&self, how: u32) -> bool {
        let mut found = 0u64;
        bytes::copy((&raw mut found).expose_provenance() as u64, self.address, self.bytes());
        let (found, mask) = if self.wide { (found, u64::MAX) } else { (found, u64::from(u32::MAX)) };
        match how {
            // Cyclic: a counter may run over.
            AT_LEAST if self.wide => (found.wrapping_sub(self.value) as i64) >= 0,
            AT_LEAST => (found.wrapping_sub(self.value) as u32 as i32) >= 0,
            EQUAL => found == self.value & mask,
            ANY_BIT => found & self.value & mask != 0,
            _ => !(found | self.value) & mask != 0,
        }
    }

    /// Whether the device reaches it.
    fn check(&self, write: bool) -> Outcome {
        let mut world = world()?;
        let aligned = self.address.is_multiple_of(self.bytes());
        if !aligned || !world.reaches(self.address, self.bytes(), write) {
            return Err(INVALID_VALUE);
        }
        if write {
            world.touch(self.address, self.bytes());
        }
        Ok(())
    }
}

/// What there is to do, checked.
fn to_write(value: Value, flags: u32) -> Outcome<Function> {
    value.check(true)?;
    if flags & !NO_BARRIER == 0 { Ok(Function::Write(value)) } else { Err(INVALID_VALUE) }
}

fn to_wait(value: Value, flags: u32) -> Outcome<Function> {
    value.check(false)?;
    let how = flags & !FLUSH;
    if how <= ANY_ZERO_BIT { Ok(Function::Await(value, how)) } else { Err(INVALID_VALUE) }
}

fn give(lane: Lane, stream: Handle<Stream>, function: Function) -> Outcome {
    submit(lane, stream, Op::Host(HostCall { function, data: 0 })).map(|_| ())
}

/// Items are `CUstreamBatchMemOpParams`: the operation, address, value and flags, each in a word of its own.
fn batch(lane: Lane, stream: Handle<Stream>, count: u32, items: In<[u64; 6]>, flags: u32) -> Outcome {
    if flags != 0 || count > MOST {
        return Err(INVALID_VALUE);
    }
    let mut functions = Vec::new();
    for at in 0..count as usize {
        let [head, address, value, value_flags, ..] = items.at(at)?;
        let (operation, value_flags) = (head as u32, value_flags as u32);
        let value = Value { address, value, wide: matches!(operation, 4 | 5) };
        match operation {
            1 | 4 => functions.push(to_wait(value, value_flags)?),
            2 | 5 => functions.push(to_write(value, value_flags)?),
            // Writes are seen at once.
            3 | 6 => {}
            _ => return Err(INVALID_VALUE),
        }
    }
    functions.into_iter().try_for_each(|function| give(lane, stream, function))
}

export! {
    lane fn |lane| cuStreamWaitValue32_v2 / cuStreamWaitValue32_v2_ptsz (
        stream: Handle<Stream>, address: u64, value: u32, flags: u32,
    ) {
        give(lane, stream, to_wait(Value { address, value: value.into(), wide: false }, flags)?)
    }

    lane fn |lane| cuStreamWaitValue64_v2 / cuStreamWaitValue64_v2_ptsz (
        stream: Handle<Stream>, address: u64, value: u64, flags: u32,
    ) {
        give(lane, stream, to_wait(Value { address, value, wide: true }, flags)?)
    }

    lane fn |lane| cuStreamWriteValue32_v2 / cuStreamWriteValue32_v2_ptsz (
        stream: Handle<Stream>, address: u64, value: u32, flags: u32,
    ) {
        give(lane, stream, to_write(Value { address, value: value.into(), wide: false }, flags)?)
    }

    lane fn |lane| cuStreamWriteValue64_v2 / cuStreamWriteValue64_v2_ptsz (
        stream: Handle<Stream>, address: u64, value: u64, flags: u32,
    ) {
        give(lane, stream, to_write(Value { address, value, wide: true }, flags)?)
    }

    lane fn |lane| cuStreamBatchMemOp_v2 / cuStreamBatchMemOp_v2_ptsz (
        stream: Handle<Stream>, count: u32, items: In<[u64; 6]>, flags: u32,
    ) {
        batch(lane, stream, count, items, flags)
    }
}
