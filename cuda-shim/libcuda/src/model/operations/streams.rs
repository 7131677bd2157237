//! Laying out work in streams, by the rules of the legacy stream.

use cuda_shim_device::{Latency, Seat, SharedEvent, clock_ns};

use crate::model::objects::handle::{ContextHandle, StreamHandle};
use crate::model::objects::op::{HostCall, Timing};
use crate::model::objects::request::Request;
use crate::model::objects::stream::{LEGACY, Order, PER_THREAD, Stream};
use crate::model::objects::thread;
use crate::model::objects::time::Mark;
use crate::model::operations::{host, stamps};
use crate::model::world::World;
use crate::tools::ffi::NullStream;
use crate::tools::status::{CONTEXT_IS_DESTROYED, INVALID_CONTEXT, INVALID_VALUE, Outcome};

/// A stream handle's context must be alive for anything to run there.
pub fn alive(world: &World, handle: ContextHandle) -> Outcome {
    world.active(handle).map(|_| ()).map_err(|_| CONTEXT_IS_DESTROYED)
}

/// The stream that a handle means in a call of `null`.
#[inline]
pub fn stream(world: &mut World, null: NullStream, handle: StreamHandle) -> Outcome<StreamHandle> {
    match (handle.raw(), null) {
        (LEGACY, _) | (0, NullStream::Legacy) => Ok(world.current_context()?.1.legacy),
        (PER_THREAD, _) | (0, NullStream::PerThread) => per_thread_stream(world),
        _ => {
            let stream = world.streams.get(handle)?;
            alive(world, stream.context)?;
            Ok(handle)
        }
    }
}

/// The ordinal of a stream's device.
pub fn device_of(world: &World, handle: StreamHandle) -> Outcome<usize> {
    world.device_of(world.streams.get(handle)?.context)
}

/// What takes time on a stream's device, if anything does.
#[inline]
pub fn latency(world: &World, handle: StreamHandle) -> Outcome<Option<&'static Latency>> {
    if world.state.takes_time() { Ok(world.latency(device_of(world, handle)?)) } else { Ok(None) }
}

/// The ordinal of the device of the stream that a handle means in a call of `null`.
pub fn device_meant(world: &mut World, null: NullStream, handle: StreamHandle) -> Outcome<usize> {
    let stream = stream(world, null, handle)?;
    device_of(world, stream)
}

/// A new stream of a context.
pub fn add(world: &mut World, context: ContextHandle, order: Order, priority: i32) -> Outcome<StreamHandle> {
    let id = world.new_id();
    let ordinal = world.contexts.get(context)?.device;
    let mut stream = Stream::new(context, order, id, priority);
    let device = world.devices.get_mut(ordinal).ok_or(INVALID_CONTEXT)?;
    stream.lane = device.streams_made.checked_rem(device.lanes.len()).unwrap_or(0);
    device.streams_made += 1;
    Ok(world.streams.add(stream))
}

fn per_thread_stream(world: &mut World) -> Outcome<StreamHandle> {
    let current = world.current()?;
    let thread = thread::id();
    let known = world.contexts.get(current)?.per_thread.iter().find(|(owner, _)| *owner == thread);
    if let Some((_, handle)) = known {
        return Ok(*handle);
    }
    let handle = add(world, current, Order::Blocking, 0)?;
    world.contexts.get_mut(current)?.per_thread.push((thread, handle));
    Ok(handle)
}

/// Lays out work of `duration` at the end of a stream, by the rules of the legacy stream; `kernels` is
/// how many kernels keep the device busy over it, 0 for work that does not. Start and end in seat time.
#[inline]
pub fn lay_out(world: &mut World, handle: StreamHandle, duration: u64, kernels: u64) -> Outcome<(u64, u64)> {
    let (seat, after) = seat_and_start(world, handle)?;
    let mut work = seat.work(&mut world.clock);
    let stream = world.streams.get_mut(handle)?;
    let ordinal = world.contexts.get(stream.context)?.device;
    let start = stream.queue(&mut world.devices[ordinal].lanes, after.max(work.now()));
    if kernels > 0 {
        work.busy(start, start + duration, kernels);
    }
    drop(work);
    extend(world, handle, start + duration)?;
    world.streams.get_mut(handle)?.behind_event = false;
    Ok((start, start + duration))
}

/// Lays out one kernel, unless the hardware queue of the device is full: then answers the seat and the time
/// there at which its oldest launch ends.
#[inline(always)]
pub fn lay_out_launch(
    world: &mut World,
    handle: StreamHandle,
    request: &Request,
) -> Outcome<Option<(&'static Seat, u64)>> {
    let stream = world.streams.get_mut(handle)?;
    let context = world.contexts.get_mut(stream.context)?;
    let device = world.devices.get_mut(context.device).ok_or(INVALID_CONTEXT)?;
    let seat = device.seat.ok_or(INVALID_CONTEXT)?;
    let kernel = world.kernels.get(request.kernel)?;
    kernel.belongs_in(stream.context)?;
    let Timing { duration, log } = request.timing(kernel, &device.spec)?;
    let place = device.launches;
    let oldest = device.queue.get_mut(place).ok_or(INVALID_VALUE)?;
    let mut work = seat.work(&mut world.clock);
    let now = work.now();
    if *oldest > now {
        return Ok(Some((seat, *oldest)));
    }
    let (start, end) = match &device.spec.latency {
        None => {
            let start = stream.after(context).max(now);
            (start, work.run(start, duration))
        }
        Some(latency) => {
            let begin = stream.begin(context, now, world.state, latency);
            let start = stream.queue(&mut device.lanes, begin);
            work.busy_apart(start, start + duration, 1);
            stream.behind_event = false;
            (start, start + duration)
        }
    };
    *oldest = end;
    device.launches = if place + 1 == device.queue.len() { 0 } else { place + 1 };
    stream.extend(context, end);
    if log != 0 {
        let ordinal = context.device;
        drop(work);
        stamps::note_stamp(world, ordinal, start, end, log);
        stamps::write_due_of(world, ordinal, now);
    }
    Ok(None)
}

/// Lays out a graph of this `length`, not before `after`, in which kernels are `busy` at these times
/// after its begin. Answers its begin.
pub fn lay_out_graph(
    world: &mut World,
    handle: StreamHandle,
    after: u64,
    busy: &[(u64, u64)],
    kernels: u64,
    length: u64,
) -> Outcome<u64> {
    let stream = world.streams.get_mut(handle)?;
    let context = world.contexts.get_mut(stream.context)?;
    let device = world.devices.get_mut(context.device).ok_or(INVALID_CONTEXT)?;
    let seat = device.seat.ok_or(INVALID_CONTEXT)?;
    let mut work = seat.work(&mut world.clock);
    let now = work.now();
    let latency = &device.spec.latency;
    let begin = match latency {
        None => stream.after(context).max(now),
        Some(latency) => stream.begin(context, now, world.state, latency),
    };
    let start = stream.queue(&mut device.lanes, begin.max(after));
    for (index, (begin, end)) in busy.iter().enumerate() {
        let (begin, end, kernels) = (start + begin, start + end, if index == 0 { kernels } else { 0 });
        match latency {
            None => work.busy(begin, end, kernels),
            Some(_) => work.busy_apart(begin, end, kernels),
        }
    }
    drop(work);
    stream.behind_event = false;
    stream.extend(context, start + length);
    Ok(start)
}

/// When an event is over that is recorded in a stream now: it takes of the stream's time.
pub fn lay_out_event(world: &mut World, handle: StreamHandle, latency: &Latency) -> Outcome<Mark> {
    let (seat, after) = seat_and_start(world, handle)?;
    let takes = world.state.vary(latency.jitter, latency.event_ns);
    let time = (after + takes).max(seat.work(&mut world.clock).now());
    let stream = world.streams.get_mut(handle)?;
    stream.behind_event = true;
    let ordinal = world.contexts.get(stream.context)?.device;
    let time = stream.queue(&mut world.devices[ordinal].lanes, time);
    extend(world, handle, time)?;
    stream_mark(world, handle)
}

/// The seat of a stream, and the seat time before which nothing new in it may begin.
#[inline]
fn seat_and_start(world: &World, handle: StreamHandle) -> Outcome<(&'static Seat, u64)> {
    let stream = world.streams.get(handle)?;
    let context = world.contexts.get(stream.context)?;
    Ok((world.seat(context.device)?, stream.after(context)))
}

/// Says that a stream has work until `end`.
#[inline]
pub fn extend(world: &mut World, handle: StreamHandle, end: u64) -> Outcome {
    let stream = world.streams.get_mut(handle)?;
    stream.extend(world.contexts.get_mut(stream.context)?, end);
    Ok(())
}

/// The end of everything that a stream waits for or has to do.
pub fn stream_mark(world: &World, handle: StreamHandle) -> Outcome<Mark> {
    let stream = world.streams.get(handle)?;
    let context = world.contexts.get(stream.context)?;
    let seat = world.seat(context.device)?;
    let mut mark = stream.line.mark(seat);
    match stream.order {
        Order::Legacy => {
            mark.time = mark.time.max(context.blocking.tail);
            mark.hosts.extend(context.blocking.hosts.iter().cloned());
        }
        Order::Blocking => mark.time = mark.time.max(context.legacy_tail),
        Order::Free => {}
    }
    Ok(mark)
}

/// Makes a stream wait for `mark`.
pub fn follow(world: &mut World, handle: StreamHandle, mark: &Mark) -> Outcome {
    let stream = world.streams.get(handle)?;
    let seat = world.seat(world.contexts.get(stream.context)?.device)?;
    let time = if std::ptr::eq(seat, mark.seat) {
        mark.time
    } else {
        // Another device's time: what remains there is what remains here, as far as can be known.
        seat.now() + mark.time.saturating_sub(mark.seat.now())
    };
    world.streams.get_mut(handle)?.line.join(time, &mark.hosts);
    extend(world, handle, time)
}

/// Makes a stream wait for an event of another process, for as long as that is known to take.
pub fn follow_elsewhere(world: &mut World, handle: StreamHandle, event: SharedEvent) -> Outcome {
    let Some(due) = world.state.event_due(event) else { return Ok(()) };
    let seat = world.seat(world.contexts.get(world.streams.get(handle)?.context)?.device)?;
    extend(world, handle, seat.now() + due.saturating_sub(clock_ns()))
}

/// Whether a stream has values before it that are still to come.
#[inline]
pub fn holds_bytes_up(world: &World, handle: StreamHandle) -> Outcome<bool> {
    Ok(stream_mark(world, handle)?.hosts.iter().any(|host| host.holds_bytes_up()))
}

/// Has a host function run at the end of a stream.
pub fn call_host(world: &mut World, handle: StreamHandle, call: HostCall, time: Option<u64>) -> Outcome {
    let mut due = stream_mark(world, handle)?;
    if let Some(time) = time {
        due.time = time;
    }
    let time = due.time;
    let op = [host::enqueue(call, due)];
    let stream = world.streams.get_mut(handle)?;
    stream.line.join(time, &op);
    let order = stream.order;
    let context = world.contexts.get_mut(stream.context)?;
    if order != Order::Free {
        context.blocking.join(0, &op);
    }
    context.all.join(time, &op);
    Ok(())
}
