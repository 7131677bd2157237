//! What a launch that is over has cost, and where that is written down.

use super::busy::Busy;
use super::clock::{self, Clock, Correction, Rate};
use super::flights::Flight;
use super::predict::{Predictor, Spoken};
use super::submission::Queueing;
use super::traffic::{self, Covered, Traffic, take};
use super::turn::Words;
use crate::sync::{AtomicU64, Ordering};

/// From this many times the prediction on, what a launch tells of others is bounded by the time that has passed.
const GROSS: u64 = 16;

/// Shorter than any slice that a driver gives to one process before it turns to another: what took less time did not
/// share it with another process.
const SHORTER_THAN_A_SLICE_NS: u64 = 100_000;

/// What a launch may take longer than expected, besides four times the mean deviation, and not have been interrupted: less
/// than any slice.
const NOISE_NS: u64 = 400_000;

/// By how much processes may differ about when something was: an overlap shorter than this is none.
const CLOCKS_NS: u64 = 5_000;

/// The same for events of one process.
const EVENTS_NS: u64 = 300;

/// Where one device's use is written down.
#[derive(Clone, Copy)]
pub struct Books<'a> {
    /// The container's virtual time.
    pub clock: Clock<'a>,
    /// What the container is known to have occupied.
    pub busy: Busy<'a>,
    /// When all work of the container should be over.
    pub until: &'a AtomicU64,
    /// GPU time charged.
    pub gpu_time_ns: &'a AtomicU64,
    /// What this process has in flight and measures: whoever settles after its death reads it.
    pub pending_ns: &'a AtomicU64,
    /// The share, where there is one.
    pub rate: Option<Rate>,
    /// Whether other processes of the container may be at work.
    pub company: bool,
    /// What is said between the container and the agent.
    pub turns: Words<'a>,
}

impl Books<'_> {
    /// A process has died, and with it what it had on the device. What cannot have run since its last launch is given
    /// back; the rest stays charged as predicted. Runs once per death: it takes what was pending.
    pub fn bury(&self, now_ns: u64, last_launch_ns: u64) {
        let pending = self.pending_ns.swap(0, Ordering::AcqRel);
        take(self.turns.in_flight_ns, pending);
        if self.turns.in_flight_ns.load(Ordering::Relaxed) == 0 {
            self.turns.doubt_ns.store(0, Ordering::Relaxed);
        }
        let ran = now_ns.saturating_sub(last_launch_ns);
        if ran < pending {
            self.correct(Correction {
                charged_at_ns: last_launch_ns,
                charged_ns: pending,
                actual_ns: ran,
                behind_ns: 0,
            });
        }
    }

    /// A launch that was charged just now never was.
    pub(super) fn cancel(&self, now_ns: u64, charged_ns: u64) {
        self.correct(Correction { charged_at_ns: now_ns, charged_ns, actual_ns: 0, behind_ns: 0 });
        traffic::correct(self.until, charged_ns, 0);
    }

    /// What this process had pending is not any more.
    pub(super) fn land(&self, covered: Covered, doubt_ns: u64) {
        take(self.pending_ns, covered.ns);
        take(self.turns.in_flight_ns, covered.ns);
        take(self.turns.doubt_ns, doubt_ns);
    }

    /// This process has measured launches in flight.
    pub(super) fn fly(&self, covered: Covered, doubt_ns: u64) {
        self.pending_ns.fetch_add(covered.ns, Ordering::Relaxed);
        self.turns.in_flight_ns.fetch_add(covered.ns, Ordering::Relaxed);
        self.turns.doubt_ns.fetch_add(doubt_ns, Ordering::Relaxed);
    }

    /// It is known how long something took.
    pub(super) fn correct(&self, correction: Correction) {
        let more = correction.actual_ns.wrapping_sub(correction.charged_ns);
        self.gpu_time_ns.fetch_add(more, Ordering::Relaxed);
        if let Some(rate) = self.rate {
            clock::settle(self.clock, correction, rate);
        }
    }
}

/// A launch that is over.
pub(super) struct Landed<H> {
    pub flight: Flight<H>,
    pub since_ns: Option<u64>,
    pub elapsed_ns: Option<u64>,
    /// Whether others may have been at work at the same time.
    pub shared: bool,
}

impl<H> Landed<H> {
    /// Keeps of the interval between its events what is its own. What the host took comes first.
    pub fn keep_own(&mut self, queueing: &mut Queueing) {
        let Some(interval_ns) = self.elapsed_ns else { return };
        let Flight { key, submission, proven, predicted_ns, .. } = self.flight;
        let without_host = submission.without_host(interval_ns, proven.then_some(predicted_ns));
        let host_ns = interval_ns.saturating_sub(without_host);
        self.since_ns = self.since_ns.map(|since_ns| since_ns.saturating_add(host_ns));
        self.elapsed_ns = Some(queueing.without_queue(key, submission.queued, without_host));
    }

    /// Charges it, and answers how long it occupied the device beyond what was charged before.
    pub fn settle(&self, now_ns: u64, predictor: &Predictor, traffic: &Traffic, books: &Books) -> u64 {
        let flight = &self.flight;
        flight.lose(traffic, books);
        let Some(elapsed) = self.elapsed_ns.map(|elapsed_ns| self.own_ns(elapsed_ns, now_ns)) else {
            return 0;
        };
        if flight.raised {
            predictor.restore(flight.key, flight.proven.then_some(flight.predicted_ns));
        }
        let end_ns = self.since_ns.map_or(now_ns, |since| since.saturating_add(elapsed));
        let held_up = traffic.held_up_ns(flight.launched_at_ns, end_ns);
        // It cannot have been held up for longer than it ran.
        let held_up = if held_up < elapsed { held_up } else { 0 };
        predictor.learn(flight.key, elapsed.saturating_sub(held_up));
        let due = self.due(elapsed, now_ns, traffic, books);
        let (charged, told) = self.spoken(now_ns, due);
        books.correct(Correction {
            charged_at_ns: flight.launched_at_ns,
            charged_ns: flight.paid_ns.saturating_add(charged),
            actual_ns: due.saturating_add(told),
            behind_ns: self.behind(end_ns, books),
        });
        traffic.correct(flight.predicted_ns, elapsed);
        traffic::correct(books.until, flight.predicted_ns, elapsed);
        due
    }

    /// How long it took by itself. What ends when its turn is over may have been interrupted by whoever is next, for a slice
    /// or more.
    fn own_ns(&self, elapsed_ns: u64, now_ns: u64) -> u64 {
        let Flight { proven, predicted_ns, doubt_ns, turn_until_ns, .. } = self.flight;
        let most = predicted_ns.saturating_add(doubt_ns.saturating_mul(4)).saturating_add(NOISE_NS);
        let interrupted = proven && now_ns > turn_until_ns && elapsed_ns > most;
        if interrupted { predicted_ns } else { elapsed_ns }
    }

    /// How long it occupied the device beyond what was charged before.
    fn due(&self, elapsed: u64, now_ns: u64, traffic: &Traffic, books: &Books) -> u64 {
        let mut due = elapsed.saturating_sub(self.flight.prepaid_ns);
        let Some(since) = self.since_ns.filter(|_| self.shared) else { return due };
        let mut share = |busy: Busy, slack| {
            let new = busy.occupy(since, since.saturating_add(elapsed));
            if elapsed.saturating_sub(new) > slack {
                due = due.min(new);
            }
        };
        if traffic.mingles_streams(now_ns) {
            share(traffic.busy.busy(), EVENTS_NS);
        }
        if books.company {
            let alone = elapsed < SHORTER_THAN_A_SLICE_NS;
            share(books.busy, if alone { elapsed } else { CLOCKS_NS });
        }
        due
    }

    /// For how long virtual time was brought up to the clock while it ran on what it was not charged for.
    fn behind(&self, end_ns: u64, books: &Books) -> u64 {
        let flight = &self.flight;
        let unpaid_from = self.since_ns.unwrap_or(flight.launched_at_ns).saturating_add(flight.paid_ns);
        if books.clock.idle_at.load(Ordering::Relaxed) < unpaid_from {
            return 0;
        }
        let behind = books.clock.idle_ns.load(Ordering::Relaxed).saturating_sub(flight.idle_ns);
        behind.min(end_ns.saturating_sub(unpaid_from))
    }

    /// What the launches were charged that this one speaks for, and what they took.
    fn spoken(&self, now_ns: u64, due_ns: u64) -> (u64, u64) {
        let Spoken { count, since_ns } = self.flight.spoken;
        let charged = count.saturating_mul(self.flight.predicted_ns);
        let told = count.saturating_mul(due_ns);
        if told > charged.saturating_mul(GROSS) {
            // Something has changed since: they cannot have taken longer than there was time.
            let passed = now_ns.saturating_sub(since_ns).saturating_sub(due_ns);
            return (charged, told.min(passed.max(charged)));
        }
        (charged, told)
    }
}
