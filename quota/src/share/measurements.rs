//! The measured launches in flight of one process, and what is charged when they complete.
//!
//! A process keeps them in one table, in the order of their launch, and checks them whenever it launches or waits. The
//! prediction is charged at submission; a completion corrects the charge of the launch itself and of the unmeasured
//! launches that it stands for. Where streams or processes overlap, a completion is charged the time that it occupied
//! the device beyond what was charged before (`share::busy`). A launch that runs much longer than predicted raises the
//! prediction of its key while it runs, so that no more launches of that key are admitted at the old price.

use super::books::Books;
use super::clock::{Correction, Credit};
use super::completion::Completion;
use super::in_flight::InFlight;
use super::measurement::{Measurement, Observation};
use super::overlap::Phase;
use super::predict::Predictor;
use super::submission::Intervals;
use super::types::MAX_MEASUREMENTS;

/// How long to wait before a late launch is checked again: at first, and at most.
const CHECK_NS: (u64, u64) = (100_000, 1_000_000);

/// The measured launches of a process. All-zero bytes: none.
pub struct Measurements<E> {
    slots: [Measurement<E>; MAX_MEASUREMENTS],
    /// The first and the last in flight, in the order of their launch: slot + 1, or 0.
    first: u8,
    last: u8,
    intervals: Intervals,
}

impl<E: Copy + Default> Default for Measurements<E> {
    fn default() -> Self {
        let slots = [Measurement::default(); MAX_MEASUREMENTS];
        Self { slots, first: 0, last: 0, intervals: Intervals::default() }
    }
}

impl<E: Copy> Measurements<E> {
    /// Events for a launch of a context: those of an earlier launch, or new ones. `None` while all slots are taken.
    /// [`Self::insert`] or [`Self::recycle`] follows.
    pub fn acquire(&mut self, context: u64, create: impl FnOnce() -> Option<E>) -> Option<E> {
        let is_idle = |slot: &&mut Measurement<E>| slot.work.context == context && !slot.in_flight;
        if let Some(slot) = self.slots.iter_mut().find(is_idle) {
            slot.work.context = 0;
            return Some(slot.events);
        }
        if self.slots.iter().any(|slot| slot.work.context == 0) { create() } else { None }
    }

    /// Keeps events of a context for a later launch. False if no slot is free.
    pub fn recycle(&mut self, events: E, context: u64) -> bool {
        let Some(slot) = self.slots.iter_mut().find(|slot| slot.work.context == 0) else { return false };
        slot.events = events;
        slot.work.context = context;
        true
    }

    /// Adds a launch that was submitted. False if no slot is free.
    pub fn insert(&mut self, measurement: Measurement<E>, in_flight: &InFlight) -> bool {
        let work = measurement.work;
        let is_beside = |other: &Measurement<E>| {
            other.in_flight && other.work.device == work.device && other.work.stream != work.stream
        };
        if self.slots.iter().any(is_beside) {
            in_flight.note_stream_overlap(measurement.launched_at_ns);
        }
        let mut slots = self.slots.iter_mut().zip(1..);
        let Some((slot, number)) = slots.find(|(slot, _)| slot.work.context == 0) else { return false };
        *slot = Measurement { in_flight: true, next: 0, ..measurement };
        self.link(self.last, number);
        self.last = number;
        true
    }

    /// The launch in a slot, counted from 1.
    fn at(&mut self, number: u8) -> Option<&mut Measurement<E>> {
        self.slots.get_mut(usize::from(number).wrapping_sub(1))
    }

    /// Puts one launch after another, or first.
    fn link(&mut self, before: u8, number: u8) {
        match self.at(before) {
            Some(measurement) => measurement.next = number,
            None => self.first = number,
        }
    }

    /// Puts all launches in flight into the order of their launch again, after a change that was left half done.
    pub fn repair(&mut self) {
        (self.first, self.last) = (0, 0);
        let mut after = (0, 0);
        loop {
            let numbered = self.slots.iter().zip(1u8..).filter(|(slot, _)| slot.in_flight);
            let times = numbered.map(|(slot, number)| (slot.launched_at_ns, number));
            let Some(next) = times.filter(|next| *next > after).min() else { break };
            self.link(after.1, next.1);
            self.last = next.1;
            after = next;
        }
        self.link(after.1, 0);
    }

    /// Takes the launch after `before` out of the order.
    fn unlink(&mut self, before: u8, number: u8) {
        let next = self.at(number).map_or(0, |measurement| {
            measurement.in_flight = false;
            core::mem::take(&mut measurement.next)
        });
        self.link(before, next);
        if self.last == number {
            self.last = before;
        }
    }

    /// A context has another name from now on.
    pub fn rename_context(&mut self, from: u64, to: u64) {
        for slot in self.slots.iter_mut().filter(|slot| slot.work.context == from) {
            slot.work.context = to;
        }
    }

    /// Frees all slots of a context that has gone. What is in flight stays charged as predicted; `abandoned` is called
    /// for each such launch.
    pub fn forget_context(&mut self, context: u64, mut abandoned: impl FnMut(&Measurement<E>)) {
        let (mut before, mut number) = (0, self.first);
        while let Some(measurement) = self.at(number) {
            let next = measurement.next;
            if measurement.work.context == context {
                abandoned(measurement);
                self.unlink(before, number);
            } else {
                before = number;
            }
            number = next;
        }
        for slot in self.slots.iter_mut().filter(|slot| slot.work.context == context) {
            slot.work.context = 0;
        }
    }

    /// Corrects the charges of the launches that are over. `observe` asks the driver about one, and if told so also when it
    /// began; `at` finds the work in flight and the books of a device.
    pub fn complete<'b>(
        &mut self,
        now_ns: u64,
        predictor: &Predictor,
        at: impl Fn(u8) -> Option<(&'b InFlight, Books<'b>)>,
        mut observe: impl FnMut(&Measurement<E>, bool) -> Observation,
    ) {
        let (mut before, mut number, mut blocked) = (0, self.first, BlockedStreams::default());
        let mut devices = 0u64;
        while let Some(measurement) = self.at(number) {
            let (this, next) = (number, measurement.next);
            number = next;
            let Some((in_flight, books)) = at(measurement.work.device) else {
                before = this;
                continue;
            };
            let device = 1u64.wrapping_shl(measurement.work.device.into());
            if devices & device == 0 {
                devices |= device;
                in_flight.begin_check();
            }
            let shared = books.has_peers || in_flight.streams_overlap(now_ns);
            let begun = measurement.began_ns != 0;
            // What the events say contains others' kernels.
            let stays = measurement.known && (measurement.beside || books.agent.is_beside());
            // Within a stream, launches complete in the order of their launch.
            let seen = match blocked.contains(measurement.work.stream) {
                true => Observation::Waiting,
                false => {
                    let unsure = measurement.submission.is_unsure();
                    let asks = match stays {
                        true => in_flight.streams_overlap(now_ns),
                        false => shared || unsure || measurement.is_overdue(now_ns),
                    };
                    observe(measurement, !begun && asks)
                }
            };
            if let (true, Observation::Over { began_ns, elapsed_ns, .. }) = (stays, seen) {
                let began_ns = if begun { Some(measurement.began_ns) } else { began_ns };
                let completion = Completion { measurement: *measurement, began_ns, elapsed_ns, shared };
                self.unlink(before, this);
                completion.keep_charge(predictor, in_flight, &books);
                continue;
            }
            if let Observation::Over { began_ns, elapsed_ns, between_ns } = seen {
                let began_ns = if begun { Some(measurement.began_ns) } else { began_ns };
                let mut completion = Completion { measurement: *measurement, began_ns, elapsed_ns, shared };
                completion.keep_own(&mut self.intervals, between_ns);
                in_flight.lanes.note_gap(between_ns);
                self.unlink(before, this);
                let occupied = completion.charge(now_ns, predictor, in_flight, &books);
                if let (true, Some(began), Some(elapsed)) =
                    (shared, completion.began_ns, completion.elapsed_ns)
                {
                    let device = completion.measurement.work.device;
                    self.prepay(began.saturating_add(elapsed), occupied, device, &books);
                }
                continue;
            }
            before = this;
            blocked.insert(measurement.work.stream);
            if let Observation::Running { began_ns } = seen {
                measurement.began_ns = began_ns;
            }
            if !stays && measurement.began_ns != 0 && measurement.is_overdue(now_ns) {
                let so_far_ns = now_ns.saturating_sub(measurement.began_ns);
                predictor.set_floor(measurement.work.key, so_far_ns);
                measurement.has_floor = true;
            }
            let over_ns = measurement.launched_at_ns.saturating_add(measurement.covered.ns);
            let over_ns = over_ns.saturating_sub(measurement.early_ns);
            let pause_ns = (now_ns.saturating_sub(over_ns) / 16).clamp(CHECK_NS.0, CHECK_NS.1);
            in_flight.check_at(over_ns.max(now_ns.saturating_add(pause_ns)));
        }
    }

    /// A completion was charged `occupied` for a time up to `end_ns`: launches that ran at the same time are not charged for
    /// it again. What they were charged already is given back now, because a credit that comes too late is lost.
    fn prepay(&mut self, end_ns: u64, occupied: u64, device: u8, books: &Books) {
        let intervals = &self.intervals;
        let beside = self.slots.iter_mut().filter(|slot| {
            slot.in_flight
                && slot.work.device == device
                && slot.began_ns != 0
                && matches!(slot.phase, Phase::Single | Phase::Burst(_))
        });
        for measurement in beside {
            let runs_since = intervals.runs_since(&measurement.submission, measurement.began_ns);
            let both = occupied.min(end_ns.saturating_sub(runs_since));
            if both == 0 {
                continue;
            }
            measurement.prepaid_ns = measurement.prepaid_ns.saturating_add(both);
            let back = both.min(measurement.charged_ns);
            measurement.charged_ns = measurement.charged_ns.saturating_sub(back);
            books.correct(Correction {
                charged_at_ns: measurement.launched_at_ns,
                charged_ns: back,
                actual_ns: 0,
                credit: Credit::default(),
            });
        }
    }
}

/// Streams whose oldest launch is not over, as many as fit: for further streams the driver is asked once too often.
#[derive(Default)]
struct BlockedStreams {
    streams: [u64; 8],
    count: usize,
}

impl BlockedStreams {
    fn contains(&self, stream: u64) -> bool {
        self.streams.iter().take(self.count).any(|blocked| *blocked == stream)
    }

    fn insert(&mut self, stream: u64) {
        if self.contains(stream) {
            return;
        }
        if let Some(slot) = self.streams.get_mut(self.count) {
            *slot = stream;
            self.count = self.count.wrapping_add(1);
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::super::types::Work;
    use super::*;
    use std::vec::Vec;

    #[test]
    fn launches_stand_in_their_order_again_after_a_change_that_was_left_half_done() {
        let in_flight = InFlight::default();
        let mut measurements = Measurements::<u64>::default();
        for at in [3, 1, 2] {
            let work = Work { key: 7, stream: 0, context: 5, device: 0 };
            let launch = Measurement { events: at, work, launched_at_ns: at, ..Measurement::default() };
            assert!(measurements.insert(launch, &in_flight));
        }
        // The thread was lost between two stores: the order leads nowhere.
        measurements.first = 0;
        measurements.slots[1].next = 1;
        measurements.repair();
        let mut order = Vec::new();
        measurements.forget_context(5, |measurement| order.push(measurement.events));
        assert_eq!(order, [1, 2, 3]);
        assert_eq!((measurements.first, measurements.last), (0, 0));
        measurements.repair();
        assert_eq!((measurements.first, measurements.last), (0, 0));
    }
}
