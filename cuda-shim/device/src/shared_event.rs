//! Events that several processes know: which seat's time they stand for. Under the device's schedule lock.

use crate::layout::{Device, SHARED_EVENTS, SharedEventCells};
use crate::liveness::clock_ns;
use crate::seat::{Seat, wait_until_due};
use crate::state::State;

/// An event in the state. It means nothing any more once the process that made it has ended it, or itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SharedEvent {
    /// The device's place in the machine.
    pub index: usize,
    /// The row, and how often it was dealt out before.
    pub row: usize,
    /// As above.
    pub generation: u64,
}

impl SharedEvent {
    fn cells(self, state: &State) -> Option<&'static SharedEventCells> {
        let cells = state.layout().devices.get(self.index)?.events.get(self.row)?;
        (cells.owner.get() != 0 && cells.generation.get() == self.generation).then_some(cells)
    }
}

impl State {
    /// A new event of this process at device `index`. `None` if there is no room for another.
    pub fn make_event(&self, index: usize) -> Option<SharedEvent> {
        let _held = self.schedule(index);
        let events = &self.layout().devices[index].events;
        let row = (0..SHARED_EVENTS).find(|row| events[*row].owner.get() == 0)?;
        let cells = &events[row];
        cells.recorder.set(0);
        cells.owner.set(self.slot() as u64 + 1);
        Some(SharedEvent { index, row, generation: cells.generation.get() })
    }

    /// Whether an event still is one.
    pub fn is_event(&self, event: SharedEvent) -> bool {
        event.cells(self).is_some()
    }

    /// Ends an event of this process.
    pub fn end_event(&self, event: SharedEvent) {
        let _held = self.schedule(event.index);
        if let Some(cells) = event.cells(self) {
            end(cells);
        }
    }

    /// Has an event stand for seat time `time` of `seat`.
    pub fn record_event(&self, event: SharedEvent, seat: &Seat, time: u64) {
        let _held = self.schedule(event.index);
        if let Some(cells) = event.cells(self) {
            cells.seat.set(seat.number() as u64);
            cells.time.set(time);
            cells.recorder.set(self.slot() as u64 + 1);
        }
    }

    /// Whether another process recorded an event last.
    pub fn is_recorded_elsewhere(&self, event: SharedEvent) -> bool {
        let recorder = event.cells(self).map_or(0, |cells| cells.recorder.get());
        recorder != 0 && recorder != self.slot() as u64 + 1
    }

    /// The wall time at which an event will have come if nobody adds work; `None` if it has. What nobody
    /// recorded, and what a process that is gone did, has come.
    pub fn event_due(&self, event: SharedEvent) -> Option<u64> {
        let _held = self.schedule(event.index);
        let cells = event.cells(self)?;
        let recorder = cells.recorder.get().checked_sub(1)?;
        self.bring_up(event.index, clock_ns());
        let seat = self.seated(event.index).into_iter().find(|(_, slot)| *slot as u64 == recorder)?;
        if seat.0 as u64 != cells.seat.get() {
            None
        } else {
            self.due_of(event.index, seat.0, cells.time.get())
        }
    }

    /// Waits until an event has come.
    pub fn wait_event(&self, event: SharedEvent) {
        wait_until_due(|| self.event_due(event));
    }

    /// Ends the events of a dead process. Under the schedule lock.
    pub(crate) fn end_events_of(&self, device: &Device, slot: usize) {
        device.events.iter().filter(|cells| cells.owner.get() == slot as u64 + 1).for_each(end);
    }
}

fn end(cells: &SharedEventCells) {
    cells.generation.add(1);
    cells.owner.set(0);
}
