//! One launch from the question whether it may go to its measurement.

use super::books::Books;
use super::clock::{self, Admission};
use super::in_flight::InFlight;
use super::measurement::Measurement;
use super::predict::{Estimate, Predictor};
use super::submission::Submission;
use super::types::{Cost, Work};
use super::wait::{Step, Wait};
use crate::sync::Ordering;

/// A launch that asks to go.
pub struct Launch<'p> {
    work: Work,
    cost: Cost,
    estimate: Option<&'p Estimate>,
    /// How it has waited.
    pub wait: Wait,
}

impl<'p> Launch<'p> {
    /// A launch at this time.
    #[inline]
    pub fn new(now_ns: u64, work: Work, predictor: &'p Predictor, in_flight: &InFlight) -> Self {
        let estimate = predictor.find(work.key);
        let cost = estimate.map_or(Cost::UNKNOWN, Estimate::cost);
        Self { work, cost, estimate, wait: Wait::new(now_ns, cost, in_flight) }
    }

    /// What it is charged when it goes.
    pub fn predicted_ns(&self) -> u64 {
        self.cost.ns
    }

    /// What to do now; see [`Wait::step`].
    #[inline]
    pub fn step(&mut self, now_ns: u64, in_flight: &InFlight, books: &Books) -> Step {
        self.wait.step(now_ns, in_flight, books)
    }

    /// Goes at once and is charged all the same; returns whether it would have waited for the share.
    pub fn force(&mut self, now_ns: u64, in_flight: &InFlight, books: &Books) -> bool {
        in_flight.admit_over_limit(self.cost.proven);
        let Some(rate) = books.rate else { return false };
        let waits = clock::admit(books.clock, now_ns, self.cost.ns, rate, 0) != Admission::Go;
        if waits {
            clock::charge(books.clock, now_ns, self.cost.ns, rate);
        }
        waits
    }

    /// It goes: writes the prediction down, and returns whether it is to be measured. If so, [`Self::measurement`] or
    /// [`Self::unmeasured`] follows.
    #[inline]
    pub fn submit(&self, now_ns: u64, in_flight: &InFlight, books: &Books) -> bool {
        books.gpu_time_ns.fetch_add(self.cost.ns, Ordering::Relaxed);
        let waited_ns = self.wait.waited.total_ns();
        if waited_ns != 0 {
            in_flight.note_wait(now_ns, waited_ns);
        }
        let noted = books.has_peers || books.agent.lease.is_some();
        let container_until = noted.then_some(books.in_flight_until);
        let measured =
            in_flight.submit(now_ns, self.cost, self.work.stream, container_until, books.has_peers);
        if let (false, Some(estimate)) = (measured, self.estimate) {
            estimate.skip(now_ns);
        }
        measured
    }

    /// It went without events, although it was to be measured.
    pub fn unmeasured(&self, now_ns: u64, in_flight: &InFlight) {
        in_flight.unmeasured(self.cost.proven);
        if let Some(estimate) = self.estimate {
            estimate.skip(now_ns);
        }
    }

    /// The driver refused it: undoes the charge.
    pub fn cancel(&self, now_ns: u64, in_flight: &InFlight, books: &Books) {
        if !self.cost.proven {
            in_flight.unmeasured(false);
        }
        books.cancel(now_ns, self.cost.ns);
    }

    /// It was launched at this time, between these events. `random` decides which launch is measured next.
    pub fn measurement<E: Default>(
        &self,
        events: E,
        submission: Submission,
        launched_at_ns: u64,
        random: u64,
        in_flight: &InFlight,
        books: &Books,
    ) -> Measurement<E> {
        let covered = in_flight.submit_measured(launched_at_ns, self.cost, random);
        let uncertainty_ns = self.cost.uncertainty_ns();
        books.submit_measured(covered, uncertainty_ns);
        Measurement {
            events,
            work: self.work,
            proven: self.cost.proven,
            launched_at_ns,
            predicted_ns: self.cost.ns,
            covered,
            uncertainty_ns,
            early_ns: self.cost.early_ns(),
            unmeasured: self.estimate.map_or_else(Default::default, Estimate::take_unmeasured),
            submission,
            lease_until_ns: books.agent.lease.map_or(u64::MAX, |lease| lease.until_ns),
            idle_ns: books.clock.idle_ns.load(Ordering::Relaxed),
            ..Measurement::default()
        }
    }
}
