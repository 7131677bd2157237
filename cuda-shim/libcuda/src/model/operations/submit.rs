//! Giving a stream something to do.

use crate::model::objects::handle::StreamHandle;
use crate::model::objects::op::Op;
use crate::model::objects::time::Mark;
use crate::model::operations::{access, captures, stamps, streams};
use crate::model::world::world;
use crate::tools::ffi::NullStream;
use crate::tools::status::Outcome;

/// Gives a stream something to do: captured if the stream is capturing, else laid out and, as far as bytes
/// are concerned, done. Answers when it will be over; `None` if it was captured.
pub fn submit(null: NullStream, handle: StreamHandle, op: Op) -> Outcome<Option<Mark>> {
    let mut world = world()?;
    let stream = streams::stream(&mut world, null, handle)?;
    if captures::intercept(&mut world, stream, op)? {
        return Ok(None);
    }
    match op {
        Op::Host(call) => streams::call_host(&mut world, stream, call, None)?,
        _ => {
            streams::lay_out(&mut world, stream, op.duration(), 0)?;
            access::touch_written(&mut world, &op);
        }
    }
    // Behind values that are still to come, bytes move in their turn.
    let later = match op.as_call() {
        Some(call) if streams::holds_bytes_up(&world, stream)? => Some(call),
        _ => None,
    };
    if let Some(call) = later {
        streams::call_host(&mut world, stream, call, None)?;
    }
    let mark = streams::stream_mark(&world, stream)?;
    let meets_stamps = later.is_none() && stamps::meets_stamps(&mut world, &op);
    drop(world);
    if meets_stamps {
        // Kernels before it are still to write there. Host functions are not waited for: they may wait for the caller.
        stamps::wait(mark.seat, mark.time);
    }
    if later.is_none() {
        op.perform();
    }
    Ok(Some(mark))
}
