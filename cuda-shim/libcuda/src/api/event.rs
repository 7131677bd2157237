//! Events: moments in a stream, and the time between them.
//!
//! # Safety
//! Exports symbols.
#![allow(unsafe_code)]

use cuda_shim_device::SharedEvent;

use crate::abi::IpcHandle;
use crate::capture::{self, Capture};
use crate::context::Context;
use crate::ffi::{Lane, Out, Outcome, export};
use crate::graph::Node;
use crate::latency;
use crate::status::{CAPTURED_EVENT, INVALID_HANDLE, INVALID_VALUE, NOT_READY, OUT_OF_MEMORY};
use crate::stream::Stream;
use crate::table::{Handle, Kind};
use crate::time::Mark;
use crate::world::{World, world};

/// What an event stands for.
pub enum Moment {
    /// Never recorded: complete, but without a time.
    Never,
    /// And whether its stream had nothing to do then: it comes when its process has its turn at the device.
    Recorded(Mark, bool),
    /// Recorded while its stream was capturing.
    Captured(Handle<Capture>, Vec<Handle<Node>>),
}

/// An event.
pub struct Event {
    pub context: Handle<Context>,
    flags: u32,
    pub moment: Moment,
    /// Its place among the events that several processes know, and whether it is of this process.
    shared: Option<(SharedEvent, bool)>,
}

impl Kind for Event {
    const TAG: u64 = 3;
}

/// `CU_EVENT_DISABLE_TIMING` and `CU_EVENT_INTERPROCESS`.
const NO_TIMING: u32 = 2;
const INTERPROCESS: u32 = 4;
const ALL_FLAGS: u32 = 7;
/// The first word of an event's handle for other processes.
const MAGIC: u64 = u64::from_le_bytes(*b"simevt\0\x01");

impl World {
    /// Records the end of a stream in an event.
    pub fn record(&mut self, event: Handle<Event>, stream: Handle<Stream>) -> Outcome {
        if let Some(latency) = self.latency() {
            let mark = self.lay_out_event(stream, latency)?;
            let idle = mark.time <= mark.seat.now();
            return self.set(event, mark, idle);
        }
        let mut mark = self.stream_mark(stream)?;
        let now = mark.seat.now();
        let idle = mark.time <= now;
        mark.time = mark.time.max(now);
        self.set(event, mark, idle)
    }

    /// Records seat time `time` of a stream in an event.
    pub fn record_at(&mut self, event: Handle<Event>, stream: Handle<Stream>, time: u64) -> Outcome {
        let mut mark = self.stream_mark(stream)?;
        mark.time = time;
        self.set(event, mark, false)
    }

    fn set(&mut self, event: Handle<Event>, mark: Mark, idle: bool) -> Outcome {
        let event = self.events.get_mut(event)?;
        if let Some((shared, _)) = event.shared {
            self.state.record_event(shared, mark.seat, mark.time);
        }
        event.moment = Moment::Recorded(mark, idle);
        Ok(())
    }

    /// Takes an event away, for other processes as well if it is of this one.
    pub fn remove_event(&mut self, event: Handle<Event>) -> Outcome {
        if let Some((shared, true)) = self.events.remove(event)?.shared {
            self.state.end_event(shared);
        }
        Ok(())
    }

    /// When an event was recorded, if it was, outside of captures.
    pub fn recorded(&self, event: Handle<Event>) -> Option<Mark> {
        mark_of(self, event).ok().flatten()
    }

    /// The event as other processes know it, if one of them recorded it last.
    pub fn recorded_elsewhere(&self, event: Handle<Event>) -> Option<SharedEvent> {
        let (shared, _) = self.events.get(event).ok()?.shared?;
        self.state.is_recorded_elsewhere(shared).then_some(shared)
    }
}

fn mark_of(world: &World, handle: Handle<Event>) -> Outcome<Option<Mark>> {
    match &world.events.get(handle)?.moment {
        Moment::Never => Ok(None),
        Moment::Recorded(mark, _) => Ok(Some(mark.clone())),
        Moment::Captured(..) => Err(CAPTURED_EVENT),
    }
}

fn record(lane: Lane, event: Handle<Event>, stream: Handle<Stream>, flags: u32) -> Outcome {
    if flags > 1 {
        return Err(INVALID_VALUE);
    }
    latency::spend(|latency| latency.record_ns);
    let mut world = world()?;
    let stream = world.stream(lane, stream)?;
    if world.events.get(event)?.context != world.streams.get(stream)?.context {
        return Err(INVALID_HANDLE);
    }
    if capture::record_event(&mut world, stream, event, flags == 1)? {
        return Ok(());
    }
    world.record(event, stream)
}

fn elapsed(milliseconds: Out<f32>, start: Handle<Event>, end: Handle<Event>) -> Outcome {
    milliseconds.required()?;
    let (from, to) = {
        let world = world()?;
        for event in [start, end] {
            if world.events.get(event)?.flags & NO_TIMING != 0 {
                return Err(INVALID_HANDLE);
            }
        }
        let recorded = |event| match &world.events.get(event)?.moment {
            Moment::Recorded(mark, idle) => Ok((mark.clone(), *idle)),
            _ => mark_of(&world, event)?.map(|mark| (mark, false)).ok_or(INVALID_HANDLE),
        };
        (recorded(start)?, recorded(end)?)
    };
    if !from.0.is_done() || !to.0.is_done() {
        return Err(NOT_READY);
    }
    let wall = |(mark, idle): (Mark, bool)| mark.seat.wall_of(mark.time, idle) as f64;
    let nanoseconds = wall(to) - wall(from);
    milliseconds.put((nanoseconds / 1e6) as f32)
}

export! {
    fn cuEventCreate(out: Out<Handle<Event>>, flags: u32) {
        out.required()?;
        let mut world = world()?;
        let context = world.current()?;
        if flags & !ALL_FLAGS != 0 || (flags & INTERPROCESS != 0 && flags & NO_TIMING == 0) {
            return Err(INVALID_VALUE);
        }
        let handle = world.events.add(Event { context, flags, moment: Moment::Never, shared: None });
        out.put(handle)
    }

    early fn cuEventDestroy = cuEventDestroy_v2(event: Handle<Event>) {
        event.given()?;
        world()?.remove_event(event)
    }

    lane fn |lane| cuEventRecord / cuEventRecord_ptsz (event: Handle<Event>, stream: Handle<Stream>) {
        record(lane, event, stream, 0)
    }

    lane fn |lane| cuEventRecordWithFlags / cuEventRecordWithFlags_ptsz (
        event: Handle<Event>, stream: Handle<Stream>, flags: u32,
    ) {
        record(lane, event, stream, flags)
    }

    early fn cuEventQuery(event: Handle<Event>) {
        event.given()?;
        latency::spend(|latency| latency.query_ns);
        let mark = {
            let mut world = world()?;
            capture::forbid_unsafe_call(&mut world)?;
            capture::checked_event(&mut world, event)?;
            if let Some(shared) = world.recorded_elsewhere(event) {
                return if world.state.event_due(shared).is_none() { Ok(()) } else { Err(NOT_READY) };
            }
            mark_of(&world, event)?
        };
        mark.map_or(Ok(()), |mark| mark.ask())
    }

    early fn cuEventSynchronize(event: Handle<Event>) {
        event.given()?;
        let mark = {
            let mut world = world()?;
            capture::forbid_unsafe_call(&mut world)?;
            capture::checked_event(&mut world, event)?;
            let context = world.events.get(event)?.context;
            world.trim_pools_of(context);
            if let Some(shared) = world.recorded_elsewhere(event) {
                let state = world.state;
                drop(world);
                state.wait_event(shared);
                return Ok(());
            }
            mark_of(&world, event)?
        };
        if let Some(mark) = mark {
            mark.wait();
        }
        Ok(())
    }

    early fn cuEventElapsedTime = cuEventElapsedTime_v2(milliseconds: Out<f32>, start: Handle<Event>, end: Handle<Event>) {
        start.given()?;
        elapsed(milliseconds, start, end)
    }

    early fn cuIpcGetEventHandle(out: Out<IpcHandle>, event: Handle<Event>) {
        out.required()?;
        let mut world = world()?;
        let known = world.events.get(event)?;
        if known.flags & INTERPROCESS == 0 {
            return Err(INVALID_HANDLE);
        }
        let shared = match known.shared {
            Some((shared, _)) => shared,
            None => {
                let ordinal = world.active(known.context)?.device;
                let shared = world.state.make_event(world.devices[ordinal].index).ok_or(OUT_OF_MEMORY)?;
                if let Moment::Recorded(mark, _) = &known.moment {
                    world.state.record_event(shared, mark.seat, mark.time);
                }
                world.events.get_mut(event)?.shared = Some((shared, true));
                shared
            }
        };
        out.put(IpcHandle::of([MAGIC, shared.index as u64, shared.row as u64, shared.generation, 0, 0]))
    }

    early fn cuIpcOpenEventHandle(out: Out<Handle<Event>>, handle: IpcHandle) {
        out.required()?;
        let mut world = world()?;
        let context = world.current()?;
        let [magic, index, row, generation, ..] = handle.words();
        let shared = SharedEvent { index: index as usize, row: row as usize, generation };
        if magic != MAGIC || !world.state.is_event(shared) {
            return Err(INVALID_VALUE);
        }
        let flags = NO_TIMING | INTERPROCESS;
        let event = Event { context, flags, moment: Moment::Never, shared: Some((shared, false)) };
        let event = world.events.add(event);
        out.put(event)
    }
}
