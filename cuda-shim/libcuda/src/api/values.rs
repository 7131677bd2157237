//! Values in memory that streams write and wait for. A value is really written when its time in the stream has come, and a
//! wait ends when the memory says so. What follows it is laid out in time as if it had not waited; bytes, which otherwise
//! move when the call is made, then move in their turn.
//!
//! # Safety
//! Exports symbols.
#![allow(unsafe_code)]

use crate::api::export::export;
use crate::model::objects::handle::StreamHandle;
use crate::model::objects::op::{Function, HostCall, Op};
use crate::model::objects::value::{ANY_ZERO_BIT, Value};
use crate::model::operations::access;
use crate::model::operations::submit::submit;
use crate::model::world::world;
use crate::tools::ffi::{In, NullStream};
use crate::tools::status::{INVALID_VALUE, Outcome};

/// `CU_STREAM_WAIT_VALUE_FLUSH`, which asks for nothing here, and the four comparisons.
const FLUSH: u32 = 1 << 30;

/// `CU_STREAM_WRITE_VALUE_NO_MEMORY_BARRIER`.
const NO_BARRIER: u32 = 1;

/// Most operations of one batch.
const MOST: u32 = 256;

/// Refuses a value that the device does not reach.
fn check(value: &Value, write: bool) -> Outcome {
    let mut world = world()?;
    let aligned = value.address.is_multiple_of(value.bytes());
    if !aligned || !access::reaches(&mut world, value.address, value.bytes(), write) {
        return Err(INVALID_VALUE);
    }
    if write {
        access::touch(&mut world, value.address, value.bytes());
    }
    Ok(())
}

/// What there is to do, checked.
fn to_write(value: Value, flags: u32) -> Outcome<Function> {
    check(&value, true)?;
    if flags & !NO_BARRIER == 0 { Ok(Function::Write(value)) } else { Err(INVALID_VALUE) }
}

fn to_wait(value: Value, flags: u32) -> Outcome<Function> {
    check(&value, false)?;
    let how = flags & !FLUSH;
    if how <= ANY_ZERO_BIT { Ok(Function::Await(value, how)) } else { Err(INVALID_VALUE) }
}

fn give(null: NullStream, stream: StreamHandle, function: Function) -> Outcome {
    submit(null, stream, Op::Host(HostCall { function, data: 0 })).map(|_| ())
}

/// Items are `CUstreamBatchMemOpParams`: the operation, address, value and flags, each in a word of its own.
fn batch(null: NullStream, stream: StreamHandle, count: u32, items: In<[u64; 6]>, flags: u32) -> Outcome {
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
    functions.into_iter().try_for_each(|function| give(null, stream, function))
}

export! {
    twin fn |null| cuStreamWaitValue32_v2 / cuStreamWaitValue32_v2_ptsz (
        stream: StreamHandle, address: u64, value: u32, flags: u32,
    ) {
        give(null, stream, to_wait(Value { address, value: value.into(), wide: false }, flags)?)
    }

    twin fn |null| cuStreamWaitValue64_v2 / cuStreamWaitValue64_v2_ptsz (
        stream: StreamHandle, address: u64, value: u64, flags: u32,
    ) {
        give(null, stream, to_wait(Value { address, value, wide: true }, flags)?)
    }

    twin fn |null| cuStreamWriteValue32_v2 / cuStreamWriteValue32_v2_ptsz (
        stream: StreamHandle, address: u64, value: u32, flags: u32,
    ) {
        give(null, stream, to_write(Value { address, value: value.into(), wide: false }, flags)?)
    }

    twin fn |null| cuStreamWriteValue64_v2 / cuStreamWriteValue64_v2_ptsz (
        stream: StreamHandle, address: u64, value: u64, flags: u32,
    ) {
        give(null, stream, to_write(Value { address, value, wide: true }, flags)?)
    }

    twin fn |null| cuStreamBatchMemOp_v2 / cuStreamBatchMemOp_v2_ptsz (
        stream: StreamHandle, count: u32, items: In<[u64; 6]>, flags: u32,
    ) {
        batch(null, stream, count, items, flags)
    }
}
