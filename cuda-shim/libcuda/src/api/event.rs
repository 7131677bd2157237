//! Events: moments in a stream, and the time between them.
//!
//! # Safety
//! Exports symbols.
#![allow(unsafe_code)]

use cuda_shim_device::{SharedEvent, Waits};

use crate::api::export::export;
use crate::model::objects::event::{Event, Moment};
use crate::model::objects::handle::{EventHandle, StreamHandle};
use crate::model::objects::ipc_handle::IpcHandle;
use crate::model::objects::time::Mark;
use crate::model::operations::events::{self, mark_of};
use crate::model::operations::{captures, latency, marks, pools, streams};
use crate::model::world::world;
use crate::tools::ffi::{NullStream, Out};
use crate::tools::status::{INVALID_HANDLE, INVALID_VALUE, NOT_READY, OUT_OF_MEMORY, Outcome};

/// `CU_EVENT_DISABLE_TIMING` and `CU_EVENT_INTERPROCESS`.
const NO_TIMING: u32 = 2;
const INTERPROCESS: u32 = 4;
const ALL_FLAGS: u32 = 7;

/// The first word of an event's handle for other processes.
const MAGIC: u64 = u64::from_le_bytes(*b"simevt\0\x01");

fn record(null: NullStream, event: EventHandle, stream: StreamHandle, flags: u32) -> Outcome {
    if flags > 1 {
        return Err(INVALID_VALUE);
    }
    latency::spend(|world| streams::device_meant(world, null, stream), |latency| latency.record_ns);
    let mut world = world()?;
    let stream = streams::stream(&mut world, null, stream)?;
    if world.events.get(event)?.context != world.streams.get(stream)?.context {
        return Err(INVALID_HANDLE);
    }
    if captures::record_event(&mut world, stream, event, flags == 1)? {
        return Ok(());
    }
    events::record(&mut world, event, stream)
}

fn elapsed(milliseconds: Out<f32>, start: EventHandle, end: EventHandle) -> Outcome {
    milliseconds.required()?;
    let (from, to) = {
        let world = world()?;
        for event in [start, end] {
            if world.events.get(event)?.flags & NO_TIMING != 0 {
                return Err(INVALID_HANDLE);
            }
        }
        let recorded = |event| match &world.events.get(event)?.moment {
            Moment::Recorded(mark, waits) => Ok((mark.clone(), *waits)),
            _ => mark_of(&world, event)?.map(|mark| (mark, Waits::No)).ok_or(INVALID_HANDLE),
        };
        (recorded(start)?, recorded(end)?)
    };
    if !from.0.is_done() || !to.0.is_done() {
        return Err(NOT_READY);
    }
    let wall = |(mark, waits): (Mark, Waits)| mark.seat.wall_of(mark.time, waits) as f64;
    let nanoseconds = wall(to) - wall(from);
    milliseconds.put((nanoseconds / 1e6) as f32)
}

export! {
    fn cuEventCreate(out: Out<EventHandle>, flags: u32) {
        out.required()?;
        let mut world = world()?;
        let context = world.current()?;
        if flags & !ALL_FLAGS != 0 || (flags & INTERPROCESS != 0 && flags & NO_TIMING == 0) {
            return Err(INVALID_VALUE);
        }
        let handle = world.events.add(Event { context, flags, moment: Moment::Never, shared: None });
        out.put(handle)
    }

    early fn cuEventDestroy = cuEventDestroy_v2(event: EventHandle) {
        event.given()?;
        events::remove_event(&mut *world()?, event)
    }

    twin fn |null| cuEventRecord / cuEventRecord_ptsz (event: EventHandle, stream: StreamHandle) {
        record(null, event, stream, 0)
    }

    twin fn |null| cuEventRecordWithFlags / cuEventRecordWithFlags_ptsz (
        event: EventHandle, stream: StreamHandle, flags: u32,
    ) {
        record(null, event, stream, flags)
    }

    early fn cuEventQuery(event: EventHandle) {
        event.given()?;
        latency::spend(|world| events::device_of(world, event), |latency| latency.query_ns);
        let mark = {
            let mut world = world()?;
            captures::forbid_unsafe_call(&mut world)?;
            captures::checked_event(&mut world, event)?;
            if let Some(shared) = events::recorded_elsewhere(&world, event) {
                return if world.state.event_due(shared).is_none() { Ok(()) } else { Err(NOT_READY) };
            }
            mark_of(&world, event)?
        };
        let Some(mark) = mark else { return Ok(()) };
        marks::ask(&mark)?;
        // Another thread may have destroyed the event.
        let _ = events::seen(&mut *world()?, event);
        Ok(())
    }

    early fn cuEventSynchronize(event: EventHandle) {
        event.given()?;
        let mark = {
            let mut world = world()?;
            captures::forbid_unsafe_call(&mut world)?;
            captures::checked_event(&mut world, event)?;
            let context = world.events.get(event)?.context;
            pools::trim_pools_of(&mut world, context);
            if let Some(shared) = events::recorded_elsewhere(&world, event) {
                let state = world.state;
                drop(world);
                state.wait_event(shared);
                return Ok(());
            }
            mark_of(&world, event)?
        };
        let Some(mark) = mark else { return Ok(()) };
        marks::wait(&mark);
        let _ = events::seen(&mut *world()?, event);
        Ok(())
    }

    early fn cuEventElapsedTime = cuEventElapsedTime_v2(milliseconds: Out<f32>, start: EventHandle, end: EventHandle) {
        start.given()?;
        elapsed(milliseconds, start, end)
    }

    early fn cuIpcGetEventHandle(out: Out<IpcHandle>, event: EventHandle) {
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

    early fn cuIpcOpenEventHandle(out: Out<EventHandle>, handle: IpcHandle) {
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
