//! Giving a stream something to do.

use crate::model::objects::handle::StreamHandle;
use crate::model::objects::op::Op;
use crate::model::objects::time::Mark;
use crate::model::operations::{captures, stamps};
use crate::model::world::world;
use crate::tools::ffi::Lane;
use crate::tools::status::Outcome;

/// Gives a stream something to do: captured if the stream is capturing, else laid out and, as far as bytes
/// are concerned, done. Answers when it will be over; `None` if it was captured.
pub fn submit(lane: Lane, handle: StreamHandle, op: Op) -> Outcome<Option<Mark>> {
    let mut world = world()?;
    let stream = world.stream(lane, handle)?;
    if captures::intercept(&mut world, stream, op)? {
        return Ok(None);
    }
    match op {
        Op::Host(call) => world.call_host(stream, call, None)?,
        _ => {
            world.lay_out(stream, op.duration(), 0)?;
            op.touch(&mut world);
        }
    }
    // Behind values that are still to come, bytes move in their turn.
    let later = match op.as_call() {
        Some(call) if world.holds_bytes_up(stream)? => Some(call),
        _ => None,
    };
    if let Some(call) = later {
        world.call_host(stream, call, None)?;
    }
    let mark = world.stream_mark(stream)?;
    let meets_stamps = later.is_none() && world.meets_stamps(&op);
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
