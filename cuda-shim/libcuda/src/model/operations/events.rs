//! Recording events.

use cuda_shim_device::SharedEvent;

use crate::model::objects::event::Moment;
use crate::model::objects::handle::{EventHandle, StreamHandle};
use crate::model::objects::time::Mark;
use crate::model::world::World;
use crate::tools::status::{CAPTURED_EVENT, Outcome};

impl World {
    /// Records the end of a stream in an event.
    pub fn record(&mut self, event: EventHandle, stream: StreamHandle) -> Outcome {
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
    pub fn record_at(&mut self, event: EventHandle, stream: StreamHandle, time: u64) -> Outcome {
        let mut mark = self.stream_mark(stream)?;
        mark.time = time;
        self.set(event, mark, false)
    }

    fn set(&mut self, event: EventHandle, mark: Mark, idle: bool) -> Outcome {
        let event = self.events.get_mut(event)?;
        if let Some((shared, _)) = event.shared {
            self.state.record_event(shared, mark.seat, mark.time);
        }
        event.moment = Moment::Recorded(mark, idle);
        Ok(())
    }

    /// Takes an event away, for other processes as well if it is of this one.
    pub fn remove_event(&mut self, event: EventHandle) -> Outcome {
        if let Some((shared, true)) = self.events.remove(event)?.shared {
            self.state.end_event(shared);
        }
        Ok(())
    }

    /// When an event was recorded, if it was, outside of captures.
    pub fn recorded(&self, event: EventHandle) -> Option<Mark> {
        mark_of(self, event).ok().flatten()
    }

    /// The event as other processes know it, if one of them recorded it last.
    pub fn recorded_elsewhere(&self, event: EventHandle) -> Option<SharedEvent> {
        let (shared, _) = self.events.get(event).ok()?.shared?;
        self.state.is_recorded_elsewhere(shared).then_some(shared)
    }
}

pub fn mark_of(world: &World, handle: EventHandle) -> Outcome<Option<Mark>> {
    match &world.events.get(handle)?.moment {
        Moment::Never => Ok(None),
        Moment::Recorded(mark, _) => Ok(Some(mark.clone())),
        Moment::Captured(..) => Err(CAPTURED_EVENT),
    }
}
