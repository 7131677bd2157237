//! One measured launch, and what the driver says of it.

use super::books::Books;
use super::in_flight::InFlight;
use super::overlap::Phase;
use super::submission::Submission;
use super::types::{Covered, Unmeasured, Work};

/// A launch this much later than twice its prediction is overdue.
const OVERDUE_NS: u64 = 1_000_000;

/// A measured launch, or a slot for one. `E` is the pair of events that the caller measures with.
#[derive(Clone, Copy)]
pub struct Measurement<E> {
    /// Kept for the next launch of the same context.
    pub events: E,
    /// What was launched. Its context is 0 in a slot without events.
    pub work: Work,
    /// Whether its key had been measured before.
    pub proven: bool,
    /// Whether its key had been measured so often that beside others it is charged what it takes alone.
    pub known: bool,
    /// When it was launched.
    pub launched_at_ns: u64,
    /// What it was expected to take.
    pub predicted_ns: u64,
    /// The launches that are over when it is.
    pub covered: Covered,
    /// The uncertainty of the prediction, and how much earlier than predicted it may well be over.
    pub uncertainty_ns: u64,
    pub(super) early_ns: u64,
    /// Unmeasured launches of its key that it stands for.
    pub unmeasured: Unmeasured,
    /// How it reached the device.
    pub submission: Submission,
    /// The end of the lease under which it was launched; u64::MAX without one.
    pub lease_until_ns: u64,
    /// Whether others might be at work on the device when it was launched.
    pub beside: bool,
    /// Which part it has in what is learned of the overlap of streams.
    pub phase: Phase,
    /// By how much virtual time had been found behind until then.
    pub idle_ns: u64,
    /// Whether it is in flight.
    pub(super) in_flight: bool,
    /// The launch after this one: its slot + 1, or 0.
    pub(super) next: u8,
    /// When it began; 0 while that is not known.
    pub(super) began_ns: u64,
    /// What it has been charged so far.
    pub(super) charged_ns: u64,
    /// Whether it set a floor for the prediction of its key.
    pub(super) has_floor: bool,
    /// What launches that ran beside it were charged for the time in which it ran.
    pub(super) prepaid_ns: u64,
}

impl<E: Default> Default for Measurement<E> {
    fn default() -> Self {
        Self {
            events: E::default(),
            work: Work { key: 0, stream: 0, context: 0, device: 0 },
            proven: false,
            known: false,
            launched_at_ns: 0,
            predicted_ns: 0,
            covered: Covered::default(),
            uncertainty_ns: 0,
            early_ns: 0,
            unmeasured: Unmeasured::default(),
            submission: Submission::default(),
            lease_until_ns: 0,
            beside: false,
            phase: Phase::default(),
            idle_ns: 0,
            in_flight: false,
            next: 0,
            began_ns: 0,
            charged_ns: 0,
            has_floor: false,
            prepaid_ns: 0,
        }
    }
}

impl<E> Measurement<E> {
    /// Nobody will learn how long it took: it stays charged as predicted.
    pub fn abandon(&self, in_flight: &InFlight, books: &Books) {
        in_flight.complete(self.covered, self.proven);
        books.complete_measured(self.covered, self.uncertainty_ns);
    }

    pub(super) fn is_overdue(&self, now_ns: u64) -> bool {
        let late = self.covered.ns.saturating_mul(2).saturating_add(OVERDUE_NS);
        now_ns.saturating_sub(self.launched_at_ns) > late
    }
}

/// What the driver says of a measured launch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Observation {
    /// It has not begun, or the driver was not asked.
    Waiting,
    /// It has begun, at this time.
    Running {
        /// CLOCK_MONOTONIC.
        began_ns: u64,
    },
    /// It is over.
    Over {
        /// When it began, if the driver was asked and can tell.
        began_ns: Option<u64>,
        /// The interval between its events; `None` where the driver no longer tells.
        elapsed_ns: Option<u64>,
        /// How far two events lie apart by themselves; 0 while that is not known.
        between_ns: u64,
    },
}
