//! Streams: order in time, and what may follow what.
//!
//! # Safety
//! Exports symbols.
#![allow(unsafe_code)]

use std::ffi::c_void;

use cuda_shim_device::{Latency, Seat, SharedEvent, clock_ns};

use crate::capture::{self, Capture};
use crate::context::{self, Context};
use crate::event::Event;
use crate::ffi::{Lane, Out, Outcome, export};
use crate::graph::Node;
use crate::hostfn::{self, Function, HostCall};
use crate::latency;
use crate::launch::{Request, Timing};
use crate::op::Op;
use crate::stamps;
use crate::status::{INVALID_CONTEXT, INVALID_HANDLE, INVALID_VALUE};
use crate::table::{Handle, Kind};
use crate::thread;
use crate::time::{Mark, Timeline};
use crate::world::{World, world};

/// How a stream stands to the legacy stream of its context.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// It is the legacy stream.
    Legacy,
    /// It and the legacy stream wait for each other.
    Blocking,
    /// They do not.
    Free,
}

/// A stream.
pub struct Stream {
    pub context: Handle<Context>,
    pub order: Order,
    pub id: u64,
    priority: i32,
    line: Timeline,
    /// Whether an event was the last thing in it; only known where that matters.
    behind_event: bool,
    pub capture: Option<Handle<Capture>>,
    /// While capturing: what the next node will depend on.
    pub leaves: Vec<Handle<Node>>,
}

impl Kind for Stream {
    const TAG: u64 = 2;
}

/// `CU_STREAM_NON_BLOCKING`.
const NON_BLOCKING: u32 = 1;
const LEGACY: u64 = 1;
const PER_THREAD: u64 = 2;

impl Stream {
    fn new(context: Handle<Context>, order: Order, id: u64, priority: i32) -> Stream {
        Stream {
            context,
            order,
            id,
            priority,
            line: Timeline::default(),
            behind_event: false,
            capture: None,
            leaves: Vec::new(),
        }
    }

    /// The seat time before which nothing new may begin here, by the rules of the legacy stream.
    #[inline]
    fn after(&self, context: &Context) -> u64 {
        match self.order {
            Order::Legacy => context.legacy_tail.max(context.blocking.tail),
            Order::Blocking => self.line.tail.max(context.legacy_tail),
            Order::Free => self.line.tail,
        }
    }

    /// When a kernel or a graph begins here that is launched now, with what a front end takes before it.
    fn begin(&self, context: &Context, now: u64, latency: &Latency) -> u64 {
        let gap = if self.behind_event { latency.gap_after_event_ns } else { latency.gap_ns };
        (self.after(context) + gap).max(now + latency.dispatch_ns)
    }

    /// Notes work here until `end`.
    #[inline]
    fn extend(&mut self, context: &mut Context, end: u64) {
        self.line.tail = self.line.tail.max(end);
        match self.order {
            Order::Legacy => context.legacy_tail = context.legacy_tail.max(end),
            Order::Blocking => context.blocking.tail = context.blocking.tail.max(end),
            Order::Free => {}
        }
        context.all.tail = context.all.tail.max(end);
    }

    /// The legacy stream of a context.
    pub fn legacy(context: Handle<Context>, id: u64) -> Stream {
        Stream::new(context, Order::Legacy, id, 0)
    }
}

impl World {
    /// The stream that a handle means in a call of `lane`.
    #[inline]
    pub fn stream(&mut self, lane: Lane, handle: Handle<Stream>) -> Outcome<Handle<Stream>> {
        match (handle.raw(), lane) {
            (LEGACY, _) | (0, Lane::Legacy) => Ok(self.current_context()?.1.legacy),
            (PER_THREAD, _) | (0, Lane::PerThread) => self.per_thread_stream(),
            _ => {
                let stream = self.streams.get(handle)?;
                context::alive(self, stream.context)?;
                Ok(handle)
            }
        }
    }

    fn per_thread_stream(&mut self) -> Outcome<Handle<Stream>> {
        let current = self.current()?;
        let thread = thread::id();
        let known = self.contexts.get(current)?.per_thread.iter().find(|(owner, _)| *owner == thread);
        if let Some((_, handle)) = known {
            return Ok(*handle);
        }
        let id = self.new_id();
        let handle = self.streams.add(Stream::new(current, Order::Blocking, id, 0));
        self.contexts.get_mut(current)?.per_thread.push((thread, handle));
        Ok(handle)
    }

    /// Lays out work of `duration` at the end of a stream, by the rules of the legacy stream; `kernels` is
    /// how many kernels keep the device busy over it, 0 for work that does not. Start and end in seat time.
    #[inline]
    pub fn lay_out(&mut self, handle: Handle<Stream>, duration: u64, kernels: u64) -> Outcome<(u64, u64)> {
        let (seat, after) = self.turn(handle)?;
        let mut work = seat.work(&mut self.clock);
        let start = after.max(work.now());
        if kernels > 0 {
            work.busy(start, start + duration, kernels);
        }
        drop(work);
        self.extend(handle, start + duration)?;
        self.streams.get_mut(handle)?.behind_event = false;
        Ok((start, start + duration))
    }

    /// Lays out one kernel, unless the hardware queue of the device is full: then answers the seat and the time
    /// there at which its oldest launch ends.
    #[inline(always)]
    pub fn lay_out_launch(
        &mut self,
        handle: Handle<Stream>,
        request: &Request,
        latency: Option<&Latency>,
    ) -> Outcome<Option<(&'static Seat, u64)>> {
        let stream = self.streams.get_mut(handle)?;
        let context = self.contexts.get_mut(stream.context)?;
        let device = self.devices.get_mut(context.device).ok_or(INVALID_CONTEXT)?;
        let seat = device.seat.ok_or(INVALID_CONTEXT)?;
        let kernel = self.kernels.get(request.kernel)?;
        kernel.belongs_in(stream.context)?;
        let Timing { duration, log } = request.timing(kernel, &device.spec)?;
        let place = device.launches;
        let oldest = device.queue.get_mut(place).ok_or(INVALID_VALUE)?;
        let mut work = seat.work(&mut self.clock);
        let now = work.now();
        if *oldest > now {
            return Ok(Some((seat, *oldest)));
        }
        let (start, end) = match latency {
            None => {
                let start = stream.after(context).max(now);
                (start, work.run(start, duration))
            }
            Some(latency) => {
                let start = stream.begin(context, now, latency);
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
            self.note_stamp(ordinal, start, end, log);
            self.settle_stamps_of(ordinal, now);
        }
        Ok(None)
    }

    /// Lays out a graph of this `length`, not before `after`, in which kernels are `busy` at these times
    /// after its begin. Answers its begin.
    pub fn lay_out_graph(
        &mut self,
        handle: Handle<Stream>,
        after: u64,
        busy: &[(u64, u64)],
        kernels: u64,
        length: u64,
    ) -> Outcome<u64> {
        let latency = self.latency();
        let stream = self.streams.get_mut(handle)?;
        let context = self.contexts.get_mut(stream.context)?;
        let seat = self.devices.get(context.device).and_then(|device| device.seat).ok_or(INVALID_CONTEXT)?;
        let mut work = seat.work(&mut self.clock);
        let now = work.now();
        let begin = match latency {
            None => stream.after(context).max(now),
            Some(latency) => stream.begin(context, now, latency),
        };
        let start = begin.max(after);
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
    pub fn lay_out_event(&mut self, handle: Handle<Stream>, latency: &Latency) -> Outcome<Mark> {
        let (seat, after) = self.turn(handle)?;
        let time = (after + latency.event_ns).max(seat.work(&mut self.clock).now());
        self.extend(handle, time)?;
        self.streams.get_mut(handle)?.behind_event = true;
        self.stream_mark(handle)
    }

    /// The seat of a stream, and the seat time before which nothing new in it may begin.
    #[inline]
    fn turn(&self, handle: Handle<Stream>) -> Outcome<(&'static Seat, u64)> {
        let stream = self.streams.get(handle)?;
        let context = self.contexts.get(stream.context)?;
        Ok((self.seat(context.device)?, stream.after(context)))
    }

    /// Says that a stream has work until `end`.
    #[inline]
    pub fn extend(&mut self, handle: Handle<Stream>, end: u64) -> Outcome {
        let stream = self.streams.get_mut(handle)?;
        stream.extend(self.contexts.get_mut(stream.context)?, end);
        Ok(())
    }

    /// The end of everything that a stream waits for or has to do.
    pub fn stream_mark(&self, handle: Handle<Stream>) -> Outcome<Mark> {
        let stream = self.streams.get(handle)?;
        let context = self.contexts.get(stream.context)?;
        let seat = self.seat(context.device)?;
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
    pub fn follow(&mut self, handle: Handle<Stream>, mark: &Mark) -> Outcome {
        let stream = self.streams.get(handle)?;
        let seat = self.seat(self.contexts.get(stream.context)?.device)?;
        let time = if std::ptr::eq(seat, mark.seat) {
            mark.time
        } else {
            // Another device's time: what remains there is what remains here, as far as can be known.
            seat.now() + mark.time.saturating_sub(mark.seat.now())
        };
        self.streams.get_mut(handle)?.line.join(time, &mark.hosts);
        self.extend(handle, time)
    }

    /// Makes a stream wait for an event of another process, for as long as that is known to take.
    pub fn follow_elsewhere(&mut self, handle: Handle<Stream>, event: SharedEvent) -> Outcome {
        let Some(due) = self.state.event_due(event) else { return Ok(()) };
        let seat = self.seat(self.contexts.get(self.streams.get(handle)?.context)?.device)?;
        self.extend(handle, seat.now() + due.saturating_sub(clock_ns()))
    }

    /// Whether a stream has values before it that are still to come.
    #[inline]
    pub fn holds_bytes_up(&self, handle: Handle<Stream>) -> Outcome<bool> {
        Ok(self.stream_mark(handle)?.hosts.iter().any(|host| host.holds_bytes_up()))
    }

    /// Has a host function run at the end of a stream.
    pub fn call_host(&mut self, handle: Handle<Stream>, call: HostCall, time: Option<u64>) -> Outcome {
        let mut due = self.stream_mark(handle)?;
        if let Some(time) = time {
            due.time = time;
        }
        let time = due.time;
        let op = [hostfn::enqueue(call, due)];
        let stream = self.streams.get_mut(handle)?;
        stream.line.join(time, &op);
        let order = stream.order;
        let context = self.contexts.get_mut(stream.context)?;
        if order != Order::Free {
            context.blocking.join(0, &op);
        }
        context.all.join(time, &op);
        Ok(())
    }
}

/// Gives a stream something to do: captured if the stream is capturing, else laid out and, as far as bytes
/// are concerned, done. Answers when it will be over; `None` if it was captured.
pub fn submit(lane: Lane, handle: Handle<Stream>, op: Op) -> Outcome<Option<Mark>> {
    let mut world = world()?;
    let stream = world.stream(lane, handle)?;
    if capture::intercept(&mut world, stream, op)? {
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

fn create(out: Out<Handle<Stream>>, flags: u32, priority: i32) -> Outcome {
    out.required()?;
    let mut world = world()?;
    let context = world.current()?;
    let order = match flags {
        0 => Order::Blocking,
        NON_BLOCKING => Order::Free,
        _ => return Err(INVALID_VALUE),
    };
    let id = world.new_id();
    let handle = world.streams.add(Stream::new(context, order, id, priority.clamp(-5, 0)));
    out.put(handle)
}

export! {
    early fn cuStreamCreate(out: Out<Handle<Stream>>, flags: u32) {
        create(out, flags, 0)
    }

    early fn cuStreamCreateWithPriority(out: Out<Handle<Stream>>, flags: u32, priority: i32) {
        create(out, flags, priority)
    }

    early fn cuStreamDestroy = cuStreamDestroy_v2(handle: Handle<Stream>) {
        handle.given()?;
        let mut world = world()?;
        if handle.raw() <= PER_THREAD || world.streams.get(handle)?.order == Order::Legacy {
            return Err(INVALID_HANDLE);
        }
        capture::forget_stream(&mut world, handle);
        world.streams.remove(handle)?;
        Ok(())
    }

    early lane fn |lane| cuStreamGetPriority / cuStreamGetPriority_ptsz (handle: Handle<Stream>, priority: Out<i32>) {
        priority.required()?;
        let mut world = world()?;
        let handle = world.stream(lane, handle)?;
        priority.put(world.streams.get(handle)?.priority)
    }

    early lane fn |lane| cuStreamGetFlags / cuStreamGetFlags_ptsz (handle: Handle<Stream>, flags: Out<u32>) {
        flags.required()?;
        let mut world = world()?;
        let handle = world.stream(lane, handle)?;
        flags.put(if world.streams.get(handle)?.order == Order::Free { NON_BLOCKING } else { 0 })
    }

    early lane fn |lane| cuStreamGetId / cuStreamGetId_ptsz (handle: Handle<Stream>, id: Out<u64>) {
        id.required()?;
        let mut world = world()?;
        let handle = world.stream(lane, handle)?;
        id.put(world.streams.get(handle)?.id)
    }

    early lane fn |lane| cuStreamGetCtx / cuStreamGetCtx_ptsz (handle: Handle<Stream>, context: Out<Handle<Context>>) {
        context.required()?;
        let mut world = world()?;
        let handle = world.stream(lane, handle)?;
        context.put(world.streams.get(handle)?.context)
    }

    early lane fn |lane| cuStreamGetCtx_v2 / cuStreamGetCtx_v2_ptsz (
        handle: Handle<Stream>, context: Out<Handle<Context>>, green: Out<u64>,
    ) {
        context.required()?;
        let mut world = world()?;
        let handle = world.stream(lane, handle)?;
        green.put_if(0);
        context.put(world.streams.get(handle)?.context)
    }

    early fn cuStreamGetGreenCtx(handle: Handle<Stream>, green: Out<u64>) {
        green.required()?;
        world()?.stream(Lane::Legacy, handle)?;
        green.put(0)
    }

    early lane fn |lane| cuStreamGetDevice / cuStreamGetDevice_ptsz (handle: Handle<Stream>, device: Out<i32>) {
        device.required()?;
        let mut world = world()?;
        let handle = world.stream(lane, handle)?;
        let context = world.streams.get(handle)?.context;
        device.put(world.contexts.get(context)?.device as i32)
    }

    lane fn |lane| cuStreamQuery / cuStreamQuery_ptsz (handle: Handle<Stream>) {
        latency::spend(|latency| latency.query_ns);
        let mark = {
            let mut world = world()?;
            let handle = world.stream(lane, handle)?;
            capture::forbid_wait(&mut world, handle)?;
            world.stream_mark(handle)?
        };
        mark.ask()
    }

    lane fn |lane| cuStreamSynchronize / cuStreamSynchronize_ptsz (handle: Handle<Stream>) {
        let mark = {
            let mut world = world()?;
            let handle = world.stream(lane, handle)?;
            capture::forbid_wait(&mut world, handle)?;
            let mark = world.stream_mark(handle)?;
            let context = world.streams.get(handle)?.context;
            world.trim_pools_of(context);
            mark
        };
        mark.wait();
        Ok(())
    }

    lane fn |lane| cuStreamWaitEvent / cuStreamWaitEvent_ptsz (
        handle: Handle<Stream>, event: Handle<Event>, flags: u32,
    ) {
        if flags > 1 {
            return Err(INVALID_VALUE);
        }
        let mut world = world()?;
        let handle = world.stream(lane, handle)?;
        capture::wait_event(&mut world, handle, event)
    }

    early lane fn |lane| cuLaunchHostFunc / cuLaunchHostFunc_ptsz (
        handle: Handle<Stream>, function: Option<extern "C" fn(*mut c_void)>, data: *mut c_void,
    ) {
        let function = Function::Plain(function.ok_or(INVALID_VALUE)?);
        submit(lane, handle, Op::Host(HostCall { function, data: data.expose_provenance() })).map(|_| ())
    }

    early lane fn |lane| cuStreamAddCallback / cuStreamAddCallback_ptsz (
        handle: Handle<Stream>, function: Option<extern "C" fn(u64, i32, *mut c_void)>, data: *mut c_void, flags: u32,
    ) {
        if flags != 0 {
            return Err(INVALID_VALUE);
        }
        let function = Function::Callback(function.ok_or(INVALID_VALUE)?, handle.raw());
        {
            let mut world = world()?;
            let handle = world.stream(lane, handle)?;
            capture::forbid_wait(&mut world, handle)?;
        }
        submit(lane, handle, Op::Host(HostCall { function, data: data.expose_provenance() })).map(|_| ())
    }

    lane fn |lane| cuStreamAttachMemAsync / cuStreamAttachMemAsync_ptsz (
        handle: Handle<Stream>, address: u64, length: u64, flags: u32,
    ) {
        let _ = (length, flags);
        let mut world = world()?;
        world.stream(lane, handle)?;
        world.regions.managed(address).map(|_| ()).ok_or(INVALID_VALUE)
    }

    lane fn |lane| cuStreamCopyAttributes / cuStreamCopyAttributes_ptsz (to: Handle<Stream>, from: Handle<Stream>) {
        let mut world = world()?;
        world.stream(lane, to)?;
        world.stream(lane, from).map(|_| ())
    }

    lane fn |lane| cuStreamGetAttribute / cuStreamGetAttribute_ptsz (
        handle: Handle<Stream>, attribute: u32, value: Out<[u64; 8]>,
    ) {
        let mut world = world()?;
        let handle = world.stream(lane, handle)?;
        let mut answer = [0; 8];
        // Access policy window, synchronization policy, priority, memory synchronization domains.
        match attribute {
            1 | 3 | 9 | 10 => {}
            8 => answer[0] = world.streams.get(handle)?.priority as u32 as u64,
            _ => return Err(INVALID_VALUE),
        }
        value.put(answer)
    }

    lane fn |lane| cuStreamSetAttribute / cuStreamSetAttribute_ptsz (
        handle: Handle<Stream>, attribute: u32, value: crate::ffi::In<i32>,
    ) {
        let mut world = world()?;
        let handle = world.stream(lane, handle)?;
        let value = value.get()?;
        match attribute {
            1 | 3 | 9 | 10 => Ok(()),
            8 => {
                world.streams.get_mut(handle)?.priority = value.clamp(-5, 0);
                Ok(())
            }
            _ => Err(INVALID_VALUE),
        }
    }
}
