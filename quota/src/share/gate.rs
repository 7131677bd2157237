//! The launch loop: one launch from the question whether it may go to its measurement, as a state machine.
//!
//! The caller has the clock, the sleep, the lock around the measurements and the driver. The gate says what to do next:
//!
//! 1. [`Gate::new`], after completing what is over if [`InFlight::is_due`];
//! 2. [`Gate::step`] until the answer is [`Step::Go`]: sleep as told, complete what is over, step again. An observer that
//!    never delays a launch calls [`Gate::force`] instead;
//! 3. [`Gate::begin`], the call of the driver, and [`Gate::end`] with the driver's answer.
//!
//! The preloaded library drives it on the real clock (`src/time/meter.rs`), the tests in virtual time (`tests/share/`).

use super::books::Books;
use super::clock::{self, Admission};
use super::in_flight::InFlight;
use super::measurement::Measurement;
use super::predict::{Estimate, Predictor};
use super::submission::Submission;
use super::types::{Cost, Work};
use super::wait::{Step, Wait, Waited};
use crate::sync::Ordering;

/// The events around one launch, and the process's measurements.
pub trait Recorder {
    /// Two events.
    type Events: Copy + Default;
    /// What the recorder notes when it has recorded the first event.
    type Begun: Copy;

    /// CLOCK_MONOTONIC.
    fn now_ns(&self) -> u64;

    /// Decides which launch is measured next. By default the clock's last bits, spread: they have nothing to do with what is
    /// launched.
    fn random(&mut self, launched_at_ns: u64) -> u64 {
        launched_at_ns.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 44
    }

    /// Events for this launch ([`Measurements::acquire`](super::Measurements::acquire)); `None` if there are none or another
    /// thread uses the measurements.
    fn acquire(&mut self) -> Option<Self::Events>;

    /// Records the first event. `now_ns` is what [`Self::now_ns`] has just answered.
    fn begin(&mut self, events: Self::Events, now_ns: u64) -> Option<Self::Begun>;

    /// Records the second event; answers how the launch reached the device.
    fn end(&mut self, events: Self::Events, begun: Self::Begun) -> Option<Submission>;

    /// Adds the launch to the measurements; false if there is no slot or another thread uses them for too long.
    fn insert(&mut self, measurement: Measurement<Self::Events>, in_flight: &InFlight) -> bool;

    /// Keeps the events for a later launch, or destroys them.
    fn recycle(&mut self, events: Self::Events);

    /// Destroys the events.
    fn destroy(&mut self, events: Self::Events);
}

/// A launch between [`Gate::begin`] and [`Gate::end`].
#[must_use]
pub struct Passage<E, B> {
    submitted_at_ns: u64,
    sample: Option<Sample<E, B>>,
}

/// A launch that is to be measured.
struct Sample<E, B> {
    events: Option<E>,
    begun: Option<B>,
}

/// A launch that asks to go.
pub struct Gate<'p> {
    work: Work,
    cost: Cost,
    /// What it is charged, and how much it should overlap with other streams.
    charge_ns: u64,
    overlaps_ns: u64,
    estimate: Option<&'p Estimate>,
    wait: Wait,
}

impl<'p> Gate<'p> {
    /// A launch at this time.
    #[inline]
    pub fn new(now_ns: u64, work: Work, predictor: &'p Predictor, in_flight: &InFlight) -> Self {
        let estimate = predictor.find(work.key);
        let cost = estimate.map_or(Cost::UNKNOWN, Estimate::cost);
        Self {
            work,
            cost,
            charge_ns: cost.ns,
            overlaps_ns: 0,
            estimate,
            wait: Wait::new(now_ns, cost.proven, in_flight),
        }
    }

    /// What it is expected to take.
    pub fn predicted_ns(&self) -> u64 {
        self.cost.ns
    }

    /// How long it has waited.
    pub fn waited(&self) -> &Waited {
        &self.wait.waited
    }

    /// What to do now; see [`Wait::step`].
    #[inline]
    pub fn step(&mut self, now_ns: u64, in_flight: &InFlight, books: &Books) -> Step {
        if books.agent.lease.is_some() {
            self.price_under_lease(now_ns, in_flight, books);
        } else {
            self.price(now_ns, in_flight);
        }
        self.wait.step(now_ns, self.charge_ns, in_flight, books)
    }

    /// What it is charged if it goes now under a lease: beside others nothing corrects it.
    #[inline(never)]
    fn price_under_lease(&mut self, now_ns: u64, in_flight: &InFlight, books: &Books) {
        if !books.agent.is_beside() {
            return self.price(now_ns, in_flight);
        }
        self.cost = self.estimate.map_or(Cost::UNKNOWN, Estimate::cost_beside);
        (self.charge_ns, self.overlaps_ns) = (in_flight.union.added(self.cost.ns), 0);
    }

    /// What it is charged if it goes now.
    #[inline]
    fn price(&mut self, now_ns: u64, in_flight: &InFlight) {
        if in_flight.streams_overlap(now_ns) {
            (self.charge_ns, self.overlaps_ns) = in_flight.price(now_ns, self.cost.ns, self.work.stream);
        }
    }

    /// Goes, and is charged: virtual time is behind, for so long because the host has not let this process run ([`super::starved`]).
    #[cold]
    pub fn go_behind(&self, now_ns: u64, books: &Books, starved_ns: u64) {
        if let Some(rate) = books.rate {
            clock::charge(books.clock, now_ns.saturating_sub(starved_ns), self.charge_ns, rate);
        }
    }

    /// Goes at once and is charged all the same; returns whether it would have waited for the share.
    pub fn force(&mut self, now_ns: u64, in_flight: &InFlight, books: &Books) -> bool {
        in_flight.admit_over_limit(self.cost.proven);
        self.price(now_ns, in_flight);
        let Some(rate) = books.rate else { return false };
        let admission = clock::admit(books.clock, now_ns, self.charge_ns, rate, 0);
        if admission != Admission::Go {
            clock::charge(books.clock, now_ns, self.charge_ns, rate);
        }
        matches!(admission, Admission::Wait { .. })
    }

    /// The launch goes: writes the prediction down, and records the first event if the launch is to be measured. The call of
    /// the driver and [`Self::end`] follow.
    #[inline]
    pub fn begin<R: Recorder>(
        &self,
        now_ns: u64,
        in_flight: &InFlight,
        books: &Books,
        recorder: &mut R,
    ) -> Passage<R::Events, R::Begun> {
        books.gpu_time_ns.fetch_add(self.charge_ns, Ordering::Relaxed);
        let waited_ns = self.wait.waited.total_ns();
        if waited_ns != 0 {
            in_flight.note_wait(now_ns, waited_ns);
        }
        let noted = books.has_peers || books.agent.lease.is_some();
        let container_until = noted.then_some(books.in_flight_until);
        if in_flight.submit(now_ns, self.cost, self.work.stream, container_until, books.has_peers) {
            return Self::begin_sample(recorder);
        }
        Passage { submitted_at_ns: now_ns, sample: None }
    }

    #[inline(never)]
    fn begin_sample<R: Recorder>(recorder: &mut R) -> Passage<R::Events, R::Begun> {
        let submitted_at_ns = recorder.now_ns();
        let events = recorder.acquire();
        let begun = events.and_then(|events| recorder.begin(events, submitted_at_ns));
        Passage { submitted_at_ns, sample: Some(Sample { events, begun }) }
    }

    /// The driver has answered: records the second event, or undoes the charge of a launch that the driver has not accepted.
    #[inline]
    pub fn end<R: Recorder>(
        &self,
        passage: Passage<R::Events, R::Begun>,
        accepted: bool,
        in_flight: &InFlight,
        books: &Books,
        recorder: &mut R,
    ) {
        let Passage { submitted_at_ns, sample } = passage;
        if !accepted {
            self.cancel(submitted_at_ns, in_flight, books);
            if let Some(events) = sample.and_then(|sample| sample.events) {
                recorder.recycle(events);
            }
            return;
        }
        match sample {
            None => self.skip(submitted_at_ns),
            Some(sample) => self.end_sample(submitted_at_ns, sample, in_flight, books, recorder),
        }
    }

    #[inline(never)]
    fn end_sample<R: Recorder>(
        &self,
        submitted_at_ns: u64,
        sample: Sample<R::Events, R::Begun>,
        in_flight: &InFlight,
        books: &Books,
        recorder: &mut R,
    ) {
        let Sample { events, begun } = sample;
        let submission = events.zip(begun).and_then(|(events, begun)| recorder.end(events, begun));
        let (Some(events), Some(submission)) = (events, submission) else {
            // It went without events.
            in_flight.unmeasured(self.cost.proven);
            self.skip(submitted_at_ns);
            if let Some(events) = events {
                recorder.recycle(events);
            }
            return;
        };
        in_flight.note_measuring(submission.recorded_ns.saturating_sub(submission.began_ns));
        let random = recorder.random(submitted_at_ns);
        let measurement = self.measurement(events, submission, submitted_at_ns, random, in_flight, books);
        if !recorder.insert(measurement, in_flight) {
            measurement.abandon(in_flight, books);
            in_flight.lose();
            recorder.destroy(events);
        }
    }

    /// Counts a launch that is not measured.
    #[inline]
    fn skip(&self, now_ns: u64) {
        if let Some(estimate) = self.estimate {
            estimate.skip(now_ns);
        }
    }

    #[cold]
    fn cancel(&self, submitted_at_ns: u64, in_flight: &InFlight, books: &Books) {
        in_flight.cancel(self.cost, self.work.stream);
        books.cancel(submitted_at_ns, self.charge_ns, self.cost.ns);
    }

    fn measurement<E: Default>(
        &self,
        events: E,
        submission: Submission,
        launched_at_ns: u64,
        random: u64,
        in_flight: &InFlight,
        books: &Books,
    ) -> Measurement<E> {
        let covered = in_flight.submit_measured(launched_at_ns, self.cost, self.work.stream, random);
        let uncertainty_ns = self.cost.uncertainty_ns();
        books.submit_measured(covered, uncertainty_ns);
        Measurement {
            events,
            work: self.work,
            proven: self.cost.proven,
            known: self.estimate.is_some_and(Estimate::is_known),
            launched_at_ns,
            predicted_ns: self.cost.ns,
            covered,
            uncertainty_ns,
            early_ns: self.cost.early_ns(),
            unmeasured: self.estimate.map_or_else(Default::default, Estimate::take_unmeasured),
            submission,
            phase: in_flight.phase(launched_at_ns, self.cost.ns, covered.ns, self.overlaps_ns),
            charged_ns: self.charge_ns,
            lease_until_ns: books.agent.lease.map_or(u64::MAX, |lease| lease.until_ns),
            beside: books.agent.is_beside(),
            idle_ns: books.clock.idle_ns.load(Ordering::Relaxed),
            ..Measurement::default()
        }
    }
}
