//! Recording events.

use cuda_shim_device::{SharedEvent, Waits};

use crate::model::objects::event::Moment;
use crate::model::objects::handle::{EventHandle, StreamHandle};
use crate::model::objects::time::Mark;
use crate::model::operations::streams;
use crate::model::world::World;
use crate::tools::status::{CAPTURED_EVENT, Outcome};

/// Records the end of a stream in an event.
pub fn record(world: &mut World, event: EventHandle, stream: StreamHandle) -> Outcome {
    let latency = streams::latency(world, stream)?;
    let mut mark = match latency {
        Some(latency) => streams::lay_out_event(world, stream, latency)?,
        None => streams::stream_mark(world, stream)?,
    };
    let now = mark.seat.now();
    let waits = if mark.time <= now { Waits::Unseen } else { Waits::No };
    if latency.is_none() {
        mark.time = mark.time.max(now);
    }
    set(world, event, mark, waits)
}

/// Records seat time `time` of a stream in an event.
pub fn record_at(world: &mut World, event: EventHandle, stream: StreamHandle, time: u64) -> Outcome {
    let mut mark = streams::stream_mark(world, stream)?;
    mark.time = time;
    set(world, event, mark, Waits::No)
}

/// The program knows that an event is over.
pub fn seen(world: &mut World, event: EventHandle) -> Outcome {
    if let Moment::Recorded(_, waits @ Waits::Unseen) = &mut world.events.get_mut(event)?.moment {
        *waits = Waits::Seen;
    }
    Ok(())
}

fn set(world: &mut World, event: EventHandle, mark: Mark, waits: Waits) -> Outcome {
    let event = world.events.get_mut(event)?;
    if let Some((shared, _)) = event.shared {
        world.state.record_event(shared, mark.seat, mark.time);
    }
    event.moment = Moment::Recorded(mark, waits);
    Ok(())
}

/// Takes an event away, for other processes as well if it is of this one.
pub fn remove_event(world: &mut World, event: EventHandle) -> Outcome {
    if let Some((shared, true)) = world.events.remove(event)?.shared {
        world.state.end_event(shared);
    }
    Ok(())
}

/// When an event was recorded, if it was, outside of captures.
pub fn recorded(world: &World, event: EventHandle) -> Option<Mark> {
    mark_of(world, event).ok().flatten()
}

/// The event as other processes know it, if one of them recorded it last.
pub fn recorded_elsewhere(world: &World, event: EventHandle) -> Option<SharedEvent> {
    let (shared, _) = world.events.get(event).ok()?.shared?;
    world.state.is_recorded_elsewhere(shared).then_some(shared)
}

/// The ordinal of an event's device.
pub fn device_of(world: &World, event: EventHandle) -> Outcome<usize> {
    world.device_of(world.events.get(event)?.context)
}

pub fn mark_of(world: &World, handle: EventHandle) -> Outcome<Option<Mark>> {
    match &world.events.get(handle)?.moment {
        Moment::Never => Ok(None),
        Moment::Recorded(mark, _) => Ok(Some(mark.clone())),
        Moment::Captured(..) => Err(CAPTURED_EVENT),
    }
}
