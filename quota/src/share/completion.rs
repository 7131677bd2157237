//! What a launch that is over has cost.

use super::books::Books;
use super::busy::Busy;
use super::clock::{Correction, Credit};
use super::in_flight::InFlight;
use super::measurement::Measurement;
use super::overlap::Phase;
use super::predict::Predictor;
use super::submission::{Intervals, Parts, Queue};
use super::types::Unmeasured;
use super::words;
use crate::sync::Ordering;

/// From this many times the prediction on, the charge for unmeasured launches is bounded by the time that has passed.
const GROSS: u64 = 16;

/// Shorter than any time slice of a driver: a kernel that took less did not share its interval with another process.
const SHORTER_THAN_A_SLICE_NS: u64 = 100_000;

/// How much longer than predicted a launch may take, besides four times its uncertainty, without having been interrupted:
/// less than any time slice.
const NOISE_NS: u64 = 400_000;

/// The agent does not see a shorter launch in time that an idle stream gets at the end of a lease: it runs beside the first
/// ones of the next lease.
const SHORTER_THAN_A_LOOK_NS: u64 = 1_000_000;

/// By how much clock readings of two processes may differ: a shorter overlap is none.
const PROCESS_CLOCK_ERROR_NS: u64 = 5_000;

/// The same for two events of one process.
const EVENT_CLOCK_ERROR_NS: u64 = 300;

/// A launch that is over.
pub(super) struct Completion<E> {
    pub measurement: Measurement<E>,
    pub began_ns: Option<u64>,
    pub elapsed_ns: Option<u64>,
    /// Whether other streams or processes may have been at work at the same time.
    pub shared: bool,
}

impl<E> Completion<E> {
    /// Reduces the interval between the events to the launch's own time. The host's part comes first in the interval.
    pub fn keep_own(&mut self, intervals: &mut Intervals, between_ns: u64) {
        let Some(interval_ns) = self.elapsed_ns else { return };
        let Measurement { work, submission, proven, predicted_ns, .. } = &self.measurement;
        let known_ns = proven.then_some(*predicted_ns);
        let interval = (interval_ns, self.began_ns);
        let Parts { host_ns, own_ns } = intervals.parts(work.key, submission, interval, between_ns, known_ns);
        self.began_ns = self.began_ns.map(|began_ns| began_ns.saturating_add(host_ns));
        self.elapsed_ns = Some(own_ns);
    }

    /// Corrects the charge, and returns how long the launch occupied the device beyond what was charged before.
    pub fn charge(&self, now_ns: u64, predictor: &Predictor, in_flight: &InFlight, books: &Books) -> u64 {
        let measurement = &self.measurement;
        let key = measurement.work.key;
        measurement.abandon(in_flight, books);
        let Some(elapsed) = self.elapsed_ns.map(|elapsed_ns| self.uninterrupted_ns(elapsed_ns, now_ns))
        else {
            return 0;
        };
        if measurement.has_floor {
            predictor.clear_floor(key, measurement.proven.then_some(measurement.predicted_ns));
        }
        let end_ns = self.began_ns.map_or(now_ns, |began| began.saturating_add(elapsed));
        let spun = in_flight.spun_ns(measurement.launched_at_ns, end_ns);
        // It cannot have spun for longer than it ran, and has not if it took what its key usually takes.
        let usual = measurement.proven && elapsed < measurement.predicted_ns.saturating_mul(2);
        let spun = if spun < elapsed && !usual { spun } else { 0 };
        predictor.learn(key, elapsed.saturating_sub(spun));
        let due = self.due_ns(elapsed, now_ns, in_flight, books);
        let (charged, actual) = self.of_unmeasured(now_ns, due);
        let launches = measurement.unmeasured.count.saturating_add(1);
        in_flight.union.learn(elapsed.saturating_mul(launches), due.saturating_mul(launches));
        books.correct(Correction {
            charged_at_ns: measurement.launched_at_ns,
            charged_ns: measurement.charged_ns.saturating_add(charged),
            actual_ns: due.saturating_add(actual),
            credit: self.credit(end_ns, books),
        });
        in_flight.shift_end(measurement.predicted_ns, elapsed);
        words::shift(books.in_flight_until, measurement.predicted_ns, elapsed);
        due
    }

    /// Beside others it stays charged what its key takes alone. What the events say contains others' kernels, but tells that
    /// it did not take longer, and which part of it other streams of this process share.
    pub fn keep_charge(&self, predictor: &Predictor, in_flight: &InFlight, books: &Books) {
        let Measurement { work, predicted_ns, uncertainty_ns, charged_ns, launched_at_ns, phase, .. } =
            self.measurement;
        self.measurement.abandon(in_flight, books);
        if self.measurement.has_floor {
            predictor.clear_floor(work.key, Some(predicted_ns));
        }
        let Some(elapsed) = self.elapsed_ns else { return };
        predictor.learn_beside(work.key, elapsed);
        let Some(began) = self.began_ns.filter(|_| phase != Phase::Between) else { return };
        // Others' kernels come first: it waited for them.
        let most_ns = predicted_ns.saturating_add(uncertainty_ns);
        let (ended, own_ns) = (began.saturating_add(elapsed), elapsed.min(most_ns));
        let new = in_flight.busy.busy().occupy(ended.saturating_sub(own_ns), ended);
        if phase == Phase::First {
            return;
        }
        in_flight.union.learn(own_ns, new);
        if phase == Phase::Single {
            let actual_ns = predicted_ns.saturating_mul(new).checked_div(own_ns).unwrap_or(predicted_ns);
            let credit = Credit::default();
            books.correct(Correction { charged_at_ns: launched_at_ns, charged_ns, actual_ns, credit });
        }
    }

    /// How long it took by itself. The driver may have interrupted a launch that ended after its lease for the next
    /// container, for a time slice or more.
    fn uninterrupted_ns(&self, elapsed_ns: u64, now_ns: u64) -> u64 {
        let Measurement { proven, predicted_ns, uncertainty_ns, lease_until_ns, .. } = self.measurement;
        let most = predicted_ns.saturating_add(uncertainty_ns.saturating_mul(4)).saturating_add(NOISE_NS);
        let interrupted = now_ns > lease_until_ns && (elapsed_ns > most || self.outlasts_lease());
        if proven && interrupted { predicted_ns } else { elapsed_ns }
    }

    /// Whether it was to end after its lease, unseen by the agent. What it took is no part of this: else it would show that
    /// launches take less than they do.
    fn outlasts_lease(&self) -> bool {
        let Measurement { submission, predicted_ns, launched_at_ns, lease_until_ns, .. } = self.measurement;
        let is_unseen = submission.queue == Queue::Idle && predicted_ns < SHORTER_THAN_A_LOOK_NS;
        is_unseen && launched_at_ns.saturating_add(predicted_ns) > lease_until_ns
    }

    /// How long it occupied the device beyond what was charged before.
    fn due_ns(&self, elapsed: u64, now_ns: u64, in_flight: &InFlight, books: &Books) -> u64 {
        let mut due = elapsed.saturating_sub(self.measurement.prepaid_ns);
        let Some(began) = self.began_ns.filter(|_| self.shared) else { return due };
        let mut occupy = |busy: Busy, slack| {
            let new = busy.occupy(began, began.saturating_add(elapsed));
            if elapsed.saturating_sub(new) > slack {
                due = due.min(new);
            }
        };
        let phase = self.measurement.phase;
        if phase != Phase::Between && (phase != Phase::Single || in_flight.streams_overlap(now_ns)) {
            occupy(in_flight.busy.busy(), EVENT_CLOCK_ERROR_NS);
        }
        if books.has_peers {
            let alone = elapsed < SHORTER_THAN_A_SLICE_NS;
            occupy(books.busy, if alone { elapsed } else { PROCESS_CLOCK_ERROR_NS });
        }
        match phase {
            Phase::Single => due,
            Phase::Burst(expected) => {
                let predicted_ns = self.measurement.predicted_ns;
                in_flight.overlap.learn(predicted_ns, expected, elapsed.saturating_sub(due));
                due
            }
            Phase::First | Phase::Between => self.as_charged(elapsed),
        }
    }

    /// What a launch that took `elapsed` would have been charged, if one of the predicted length is charged what this one was.
    fn as_charged(&self, elapsed: u64) -> u64 {
        let Measurement { charged_ns, predicted_ns, .. } = &self.measurement;
        charged_ns.saturating_mul(elapsed).checked_div(*predicted_ns).unwrap_or(elapsed)
    }

    /// The time by which virtual time was brought up to the clock while the launch ran beyond what it was charged.
    fn credit(&self, end_ns: u64, books: &Books) -> Credit {
        let measurement = &self.measurement;
        let began_ns = self.began_ns.unwrap_or(measurement.launched_at_ns);
        let unpaid_from = began_ns.saturating_add(measurement.charged_ns);
        if books.clock.idle_at.load(Ordering::Relaxed) < unpaid_from {
            return Credit::default();
        }
        Credit { since_ns: measurement.idle_ns, most_ns: end_ns.saturating_sub(unpaid_from) }
    }

    /// The charge for the unmeasured launches that it stands for, and the time that they took.
    fn of_unmeasured(&self, now_ns: u64, due_ns: u64) -> (u64, u64) {
        let Unmeasured { count, since_ns } = self.measurement.unmeasured;
        let charged = match self.measurement.phase {
            Phase::Single => count.saturating_mul(self.measurement.predicted_ns),
            // Beside others each was charged a part of the prediction.
            _ => count.saturating_mul(self.measurement.charged_ns),
        };
        let actual = count.saturating_mul(due_ns);
        if actual > charged.saturating_mul(GROSS) {
            // The length has changed since: they cannot have taken longer than the time that has passed.
            let passed = now_ns.saturating_sub(since_ns).saturating_sub(due_ns);
            return (charged, actual.min(passed.max(charged)));
        }
        (charged, actual)
    }
}
