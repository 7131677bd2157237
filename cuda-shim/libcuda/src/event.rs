//! Events: moments in a stream, and the time between them.
//!
//! # Safety
//! Exports symbols.
#![allow(unsafe_code)]

use crate::capture::{self, Capture};
use crate::context::Context;
use crate::ffi::{Lane, Out, Outcome, export};
use crate::graph::Node;
use crate::status::{CAPTURED_EVENT, INVALID_HANDLE, INVALID_VALUE, NOT_READY, NOT_SUPPORTED};
use crate::stream::Stream;
use crate::table::{Handle, Kind};
use crate::time::Mark;
use crate::world::{World, world};

/// What an event stands for.
pub enum Moment {
    /// Never recorded: complete, but without a time.
    Never,
    Recorded(Mark),
    /// Recorded while its stream was capturing.
    Captured(Handle<Capture>, Vec<Handle<Node>>),
}

/// An event.
pub struct Event {
    pub context: Handle<Context>,
    flags: u32,
    pub moment: Moment,
}

impl Kind for Event {
    const TAG: u64 = 3;
}

/// `CU_EVENT_DISABLE_TIMING` and `CU_EVENT_INTERPROCESS`.
const NO_TIMING: u32 = 2;
const INTERPROCESS: u32 = 4;
const ALL_FLAGS: u32 = 7;

impl World {
    /// Records the end of a stream in an event.
    pub fn record(&mut self, event: Handle<Event>, stream: Handle<Stream>) -> Outcome {
        let mut mark = self.stream_mark(stream)?;
        mark.time = mark.time.max(mark.seat.now());
        self.events.get_mut(event)?.moment = Moment::Recorded(mark);
        Ok(())
    }
}

impl World {
    /// When an event was recorded, if it was, outside of captures.
    pub fn recorded(&self, event: Handle<Event>) -> Option<Mark> {
        mark_of(self, event).ok().flatten()
    }

    /// Records seat time `time` of a stream in an event.
    pub fn record_at(&mut self, event: Handle<Event>, stream: Handle<Stream>, time: u64) -> Outcome {
        let mut mark = self.stream_mark(stream)?;
        mark.time = time;
        self.events.get_mut(event)?.moment = Moment::Recorded(mark);
        Ok(())
    }
}

fn mark_of(world: &World, handle: Handle<Event>) -> Outcome<Option<Mark>> {
    match &world.events.get(handle)?.moment {
        Moment::Never => Ok(None),
        Moment::Recorded(mark) => Ok(Some(mark.clone())),
        Moment::Captured(..) => Err(CAPTURED_EVENT),
    }
}

fn record(lane: Lane, event: Handle<Event>, stream: Handle<Stream>, flags: u32) -> Outcome {
    if flags > 1 {
        return Err(INVALID_VALUE);
    }
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
        let recorded = |event| mark_of(&world, event)?.ok_or(INVALID_HANDLE);
        (recorded(start)?, recorded(end)?)
    };
    if !from.is_done() || !to.is_done() {
        return Err(NOT_READY);
    }
    let nanoseconds = to.seat.wall_of(to.time) as f64 - from.seat.wall_of(from.time) as f64;
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
        let handle = world.events.add(Event { context, flags, moment: Moment::Never });
        out.put(handle)
    }

    fn cuEventDestroy = cuEventDestroy_v2(event: Handle<Event>) {
        world()?.events.remove(event).map(|_| ())
    }

    lane fn |lane| cuEventRecord / cuEventRecord_ptsz (event: Handle<Event>, stream: Handle<Stream>) {
        record(lane, event, stream, 0)
    }

    lane fn |lane| cuEventRecordWithFlags / cuEventRecordWithFlags_ptsz (
        event: Handle<Event>, stream: Handle<Stream>, flags: u32,
    ) {
        record(lane, event, stream, flags)
    }

    fn cuEventQuery(event: Handle<Event>) {
        let mark = {
            let mut world = world()?;
            capture::forbid_unsafe_call(&mut world)?;
            capture::checked_event(&mut world, event)?;
            mark_of(&world, event)?
        };
        if mark.is_none_or(|mark| mark.is_done()) { Ok(()) } else { Err(NOT_READY) }
    }

    fn cuEventSynchronize(event: Handle<Event>) {
        let mark = {
            let mut world = world()?;
            capture::forbid_unsafe_call(&mut world)?;
            capture::checked_event(&mut world, event)?;
            let context = world.events.get(event)?.context;
            world.trim_pools_of(context);
            mark_of(&world, event)?
        };
        if let Some(mark) = mark {
            mark.wait();
        }
        Ok(())
    }

    fn cuEventElapsedTime = cuEventElapsedTime_v2(milliseconds: Out<f32>, start: Handle<Event>, end: Handle<Event>) {
        elapsed(milliseconds, start, end)
    }

    fn cuIpcGetEventHandle(out: Out<[u8; 64]>, event: Handle<Event>) {
        out.required()?;
        let world = world()?;
        if world.events.get(event)?.flags & INTERPROCESS == 0 {
            return Err(INVALID_HANDLE);
        }
        let mut id = [0; 64];
        id[..8].copy_from_slice(&event.raw().to_le_bytes());
        out.put(id)
    }

    fn cuIpcOpenEventHandle(out: Out<Handle<Event>>, id: crate::abi::IpcHandle) {
        // Events of other processes are a named gap of the simulation.
        let _ = id;
        out.required()?;
        Err(NOT_SUPPORTED)
    }
}
