//! What one process has in flight on one device: how much that may be, and which launch is measured.
//!
//! Measured are: launches of a key that was never measured; launches of a millisecond or more; all launches while several
//! processes have work in flight, because overlapping time is charged once and must be known; while several streams have,
//! bursts of them (`share::overlap`); and of the rest one per millisecond of predicted GPU time, picked at random. Where lengths vary a measurement tells less, so more
//! launches are measured; very short launches count as longer than they are, so that one of at most 192 is measured.

use super::busy::BusyWords;
use super::lanes::Lanes;
use super::overlap::{Overlap, Phase};
use super::types::{Cost, Covered, MAX_MEASUREMENTS, SAMPLE_NS};
use super::union::Union;
use super::words;
use crate::sync::{AtomicU64, Ordering};

/// Predicted GPU time that a process may have in flight on a device before its next launch waits for the oldest.
pub const MOST_IN_FLIGHT_NS: u64 = 4 * SAMPLE_NS;

/// The least weight of a launch in flight.
const LEAST_WEIGHT_NS: u64 = SAMPLE_NS / 128;
/// The same where all launches are measured: the table has so many slots for them.
const LEAST_MEASURED_WEIGHT_NS: u64 = MOST_IN_FLIGHT_NS / (MAX_MEASUREMENTS as u64 - 8);

/// How long after the last overlap work is still taken to overlap.
const OVERLAP_NS: u64 = 1_000_000_000;

/// How long a launch waits for room in flight while nothing completes.
pub const PATIENCE_NS: u64 = 100_000_000;

/// A kernel that ends within this time after a launch may have spun for it.
const AT_ONCE_NS: u64 = 1_000_000;

/// While streams overlap, launches at least this long are all measured: what that takes is a hundredth of them on a card.
const LONG_NS: u64 = 250_000;

/// Shorter ones are measured, too, where they are this many times as long as the calls before a measured launch take. The
/// calls before it are a third of what measuring it takes.
const MEASURING_TIMES: u64 = 300;

/// The weight of one measured launch in what is known of these calls, as a shift.
const MEASURING_WEIGHT: u32 = 3;

/// So long after a launch that was not measured, others may still run beside such a one.
const UNMEASURED_NS: u64 = 50_000_000;

/// By how much two predicted ends may differ and still count as one.
const SLACK_NS: u64 = 1_000;

/// What one process has in flight on one device. All-zero bytes: nothing.
#[derive(Default)]
#[repr(align(64))]
pub struct InFlight {
    /// Launches since the last measured one.
    unsampled: AtomicU64,
    /// The sampling credit at which the next launch is measured, in grains.
    threshold: AtomicU64,
    /// Weight of the launches that measured ones in flight cover.
    weight: AtomicU64,
    /// Of that, the part of the last measured one.
    last_weight: AtomicU64,
    /// Launches in flight of keys that were never measured.
    unproven: AtomicU64,
    /// When to check for a completion; 0 while nothing measured is in flight.
    check_at: AtomicU64,
    /// Completions so far.
    completions: AtomicU64,
    /// Number of completions at which a launch gave up waiting for another one, + 1.
    stalled: AtomicU64,
    /// When a launch was last submitted after a wait, and how long it had waited.
    late_at: AtomicU64,
    late_by: AtomicU64,
    /// When the work of each stream should be over.
    pub(super) lanes: Lanes,
    /// When all of it should be over, one after the other.
    until: AtomicU64,
    /// Until when work of several streams is taken to overlap.
    streams_overlap_until: AtomicU64,
    /// Until when launches that are not measured may run beside others in other streams.
    unmeasured_until: AtomicU64,
    /// Until when work is taken to overlap with that of other processes.
    peers_overlap_until: AtomicU64,
    /// How long the calls before a measured launch take.
    measuring_ns: AtomicU64,
    /// How its own streams overlap, while they do.
    pub(super) overlap: Overlap,
    /// What its launches have added while it had the device to itself.
    pub(super) union: Union,
    /// When streams of this process occupied the device.
    pub(super) busy: BusyWords,
}

/// Launches since the last measured one, in one word: their weight, their predicted time and their sampling credit, in
/// grains of 64 ns. A word lasts for one or two milliseconds of launches.
#[derive(Clone, Copy)]
struct Unsampled(u64);

impl Unsampled {
    const GRAIN: u32 = 6;
    const CREDIT_BITS: u32 = 20;
    const NS_BITS: u32 = 22;

    #[inline]
    fn of(ns: u64, least_weight: u64, credit: u64) -> Self {
        let weight = ns.max(least_weight);
        let field = |ns: u64, bits: u32| (ns >> Self::GRAIN).min((1 << bits) / 4);
        let credit = field(credit, Self::CREDIT_BITS);
        let ns = field(ns, Self::NS_BITS) << Self::CREDIT_BITS;
        let weight = field(weight, Self::NS_BITS) << (Self::CREDIT_BITS + Self::NS_BITS);
        Self(weight | ns | credit)
    }

    fn credit(self) -> u64 {
        self.0 & ((1 << Self::CREDIT_BITS) - 1)
    }

    fn covered(self) -> Covered {
        let ns = self.0 >> Self::CREDIT_BITS & ((1 << Self::NS_BITS) - 1);
        let weight = self.0 >> (Self::CREDIT_BITS + Self::NS_BITS);
        Covered { ns: ns << Self::GRAIN, weight: weight << Self::GRAIN }
    }
}

impl InFlight {
    /// Whether a launch must wait for another one to complete: without a bound a process queues seconds of work before
    /// the first completion. Of keys never measured one launch is in flight at a time; the answer "no" claims its place.
    #[inline]
    pub fn is_full(&self, now_ns: u64, proven: bool) -> bool {
        let weight = self.weight.load(Ordering::Relaxed);
        if weight > MOST_IN_FLIGHT_NS
            && (weight > self.last_weight.load(Ordering::Relaxed) || self.left_ns(now_ns) > SAMPLE_NS)
        {
            return true;
        }
        !proven && self.unproven.compare_exchange(0, 1, Ordering::Relaxed, Ordering::Relaxed).is_err()
    }

    /// When a single long launch has so little left that the next one may be submitted.
    pub(super) fn has_room_at(&self, now_ns: u64) -> Option<u64> {
        let alone = self.weight.load(Ordering::Relaxed) <= self.last_weight.load(Ordering::Relaxed);
        alone
            .then(|| now_ns.saturating_add(self.left_ns(now_ns)).saturating_sub(SAMPLE_NS))
            .filter(|at| *at > now_ns)
    }

    /// How long the work in flight should take, one after the other.
    #[inline]
    fn left_ns(&self, now_ns: u64) -> u64 {
        self.until.load(Ordering::Relaxed).saturating_sub(now_ns)
    }

    /// Claims what the answer "no" of [`Self::is_full`] claims, whether there is room or not.
    pub fn admit_over_limit(&self, proven: bool) {
        if !proven {
            self.unproven.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Gives up what launches have claimed that are not in flight.
    pub(super) fn drop_claims(&self) {
        self.unproven.store(0, Ordering::Relaxed);
    }

    /// When to check for a completion, if a measured launch is in flight.
    #[inline]
    pub fn next_check(&self) -> Option<u64> {
        Some(self.check_at.load(Ordering::Relaxed)).filter(|at| *at != 0)
    }

    /// Whether it is time to check for completions.
    #[inline]
    pub fn is_due(&self, now_ns: u64) -> bool {
        self.next_check().is_some_and(|at| at <= now_ns)
    }

    /// A completion is expected at this time.
    pub(super) fn check_at(&self, over_ns: u64) {
        let earlier = |at: u64| (at == 0 || at > over_ns).then_some(over_ns);
        let _ = self.check_at.fetch_update(Ordering::Relaxed, Ordering::Relaxed, earlier);
    }

    /// A check of all measured launches begins; it calls [`Self::check_at`] for each that is not over.
    pub(super) fn begin_check(&self) {
        self.check_at.store(0, Ordering::Relaxed);
    }

    /// Completions so far.
    pub fn completions(&self) -> u64 {
        self.completions.load(Ordering::Relaxed)
    }

    /// Whether nothing has completed since a launch gave up waiting for that.
    pub fn is_stalled(&self) -> bool {
        self.stalled.load(Ordering::Relaxed) == self.completions().wrapping_add(1)
    }

    /// Whether no measured launch is in flight.
    pub fn is_idle(&self) -> bool {
        self.weight.load(Ordering::Relaxed) == 0
    }

    /// A launch gives up waiting for a completion: the work in flight may itself wait for a launch.
    pub fn mark_stalled(&self) {
        self.stalled.store(self.completions().wrapping_add(1), Ordering::Relaxed);
    }

    /// A launch is submitted that has waited.
    pub(super) fn note_wait(&self, now_ns: u64, waited_ns: u64) {
        self.late_at.store(now_ns, Ordering::Relaxed);
        self.late_by.store(waited_ns, Ordering::Relaxed);
    }

    /// For how long a kernel that ended at `end_ns` spun for a launch that had to wait. A heuristic: if the kernel was
    /// launched before that launch began to wait, and ended within a millisecond of its submission, it spun for it, and
    /// that time is not its length.
    pub(super) fn spun_ns(&self, launched_at_ns: u64, end_ns: u64) -> u64 {
        let (at, by) = (self.late_at.load(Ordering::Relaxed), self.late_by.load(Ordering::Relaxed));
        let released = end_ns.saturating_add(AT_ONCE_NS / 8) > at && end_ns.saturating_sub(at) < AT_ONCE_NS;
        if released && launched_at_ns.saturating_add(by) <= at { by } else { 0 }
    }

    /// Submits a launch, and returns whether it is to be measured. `container_until` is the word in which all processes of
    /// the container note when their work should be over, where others read it.
    #[inline]
    pub fn submit(
        &self,
        now_ns: u64,
        cost: Cost,
        stream: u64,
        container_until: Option<&AtomicU64>,
        has_peers: bool,
    ) -> bool {
        // Only this process reads these words, and they are not added to atomically: of two threads at the same moment one
        // may be lost, and then a launch goes unmeasured that could have been measured.
        let own = self.until.load(Ordering::Relaxed).max(now_ns).saturating_add(cost.ns);
        self.until.store(own, Ordering::Relaxed);
        let ends = container_until.map(|word| words::append(word, now_ns, cost.ns));
        if has_peers && ends.is_some_and(|ends| ends > own.saturating_add(SLACK_NS)) {
            self.peers_overlap_until.store(now_ns.saturating_add(OVERLAP_NS), Ordering::Relaxed);
        }
        if self.lanes.append(now_ns, cost.ns, stream) {
            self.note_stream_overlap(now_ns);
        }
        if self.is_certain(now_ns, cost) {
            return true;
        }
        let unsampled = Unsampled(self.unsampled.load(Ordering::Relaxed));
        let step = Unsampled::of(cost.ns, LEAST_WEIGHT_NS, cost.sampling_credit_ns());
        if unsampled.credit().saturating_add(step.credit()) >= self.threshold.load(Ordering::Relaxed) {
            return true;
        }
        self.unsampled.store(unsampled.0.wrapping_add(step.0), Ordering::Relaxed);
        if self.streams_overlap(now_ns) {
            self.unmeasured_until.store(now_ns.saturating_add(UNMEASURED_NS), Ordering::Relaxed);
        }
        false
    }

    /// Whether a launch is measured whatever came before it.
    #[inline]
    fn is_certain(&self, now_ns: u64, cost: Cost) -> bool {
        !cost.proven || cost.sampling_credit_ns() >= SAMPLE_NS || self.measures(now_ns, cost.ns)
    }

    /// Whether a launch is measured because work overlaps: all are while processes overlap, and of streams those of a burst and
    /// the long ones.
    #[inline]
    fn measures(&self, now_ns: u64, cost_ns: u64) -> bool {
        if self.peers_overlap(now_ns) {
            return true;
        }
        self.streams_overlap(now_ns) && (self.is_long(cost_ns) || self.overlap.is_burst())
    }

    /// Whether measuring a launch takes next to nothing beside it.
    #[inline]
    fn is_long(&self, cost_ns: u64) -> bool {
        let measuring_ns = self.measuring_ns.load(Ordering::Relaxed);
        cost_ns >= LONG_NS.min(measuring_ns.saturating_mul(MEASURING_TIMES))
    }

    /// The calls before a measured launch took so long. One in a thousand threads is stopped within them.
    pub(super) fn note_measuring(&self, took_ns: u64) {
        let before = self.measuring_ns.load(Ordering::Relaxed);
        let most = before.saturating_mul(2).max(1_000);
        let step = took_ns.min(most).cast_signed().saturating_sub(before.cast_signed()) >> MEASURING_WEIGHT;
        self.measuring_ns.store(before.saturating_add_signed(step), Ordering::Relaxed);
    }

    /// What a launch is charged while streams overlap, and how much it should overlap.
    #[inline]
    pub(super) fn price(&self, now_ns: u64, cost_ns: u64, stream: u64) -> (u64, u64) {
        let overlaps_ns = self.lanes.overlaps_ns(now_ns, cost_ns, stream);
        let charge_ns = cost_ns.saturating_sub(self.overlap.scale(overlaps_ns));
        (if self.measures_all(now_ns, cost_ns) { cost_ns } else { charge_ns }, overlaps_ns)
    }

    /// Work of several streams overlaps.
    pub(super) fn note_stream_overlap(&self, now_ns: u64) {
        if !self.streams_overlap(now_ns) {
            self.overlap.begin_burst();
        }
        self.streams_overlap_until.store(now_ns.saturating_add(OVERLAP_NS), Ordering::Relaxed);
    }

    /// Whether work of several streams overlaps now or did so lately.
    #[inline]
    pub fn streams_overlap(&self, now_ns: u64) -> bool {
        self.streams_overlap_until.load(Ordering::Relaxed) > now_ns
    }

    /// Whether work of several processes overlaps now or did so lately.
    #[inline]
    fn peers_overlap(&self, now_ns: u64) -> bool {
        self.peers_overlap_until.load(Ordering::Relaxed) > now_ns
    }

    /// A measured launch was submitted: which part it has in what is learned of the overlap.
    pub(super) fn phase(&self, now_ns: u64, cost_ns: u64, covered_ns: u64, overlaps_ns: u64) -> Phase {
        if !self.streams_overlap(now_ns) || self.measures_all(now_ns, cost_ns) {
            return Phase::Single;
        }
        self.overlap.next(covered_ns, overlaps_ns)
    }

    /// Whether all launches are measured that a launch may overlap with.
    fn measures_all(&self, now_ns: u64, cost_ns: u64) -> bool {
        let only_long = self.is_long(cost_ns) && self.unmeasured_until.load(Ordering::Relaxed) <= now_ns;
        only_long || self.peers_overlap(now_ns)
    }

    /// A measured launch was submitted: it and the launches that it covers are in flight from now on. The next one is due
    /// between half and one and a half samples later, by `random`, so that the rhythm of a program does not decide which
    /// of its launches are measured.
    pub fn submit_measured(&self, now_ns: u64, cost: Cost, stream: u64, random: u64) -> Covered {
        self.lanes.append_events(stream);
        // A launch that is certain to be measured leaves the sampling credit alone.
        let before = if self.is_certain(now_ns, cost) {
            self.unsampled.fetch_and((1 << Unsampled::CREDIT_BITS) - 1, Ordering::Relaxed)
        } else {
            let next = (SAMPLE_NS / 2).saturating_add(random % SAMPLE_NS);
            self.threshold.store(Unsampled::of(0, 0, next).credit(), Ordering::Relaxed);
            self.unsampled.swap(0, Ordering::Relaxed)
        };
        let before = Unsampled(before).covered();
        let least = if self.measures(now_ns, cost.ns) { LEAST_MEASURED_WEIGHT_NS } else { LEAST_WEIGHT_NS };
        let weight = before.weight.saturating_add(cost.ns.max(least));
        let covered = Covered { ns: before.ns.saturating_add(cost.ns), weight };
        self.weight.fetch_add(covered.weight, Ordering::Relaxed);
        self.last_weight.store(covered.weight, Ordering::Relaxed);
        self.check_at(now_ns.saturating_add(covered.ns).saturating_sub(cost.early_ns()));
        covered
    }

    /// A measured launch is over, or is no longer measured.
    pub fn complete(&self, covered: Covered, proven: bool) {
        words::subtract(&self.weight, covered.weight);
        if !proven {
            words::subtract(&self.unproven, 1);
        }
        self.completions.fetch_add(1, Ordering::Relaxed);
    }

    /// A launch that was submitted is not measured although it was to be: what runs beside it adds less than it seems to.
    pub(super) fn lose(&self) {
        if self.overlap.is_burst() {
            self.overlap.begin_burst();
        }
    }

    /// A launch that was to be measured could not be.
    pub fn unmeasured(&self, proven: bool) {
        self.lose();
        self.unsampled.store(0, Ordering::Relaxed);
        if !proven {
            words::subtract(&self.unproven, 1);
        }
    }

    /// The driver has refused a launch.
    #[cold]
    pub(super) fn cancel(&self, cost: Cost, stream: u64) {
        self.lanes.take_back(cost.ns, stream);
        if !cost.proven {
            words::subtract(&self.unproven, 1);
        }
        self.shift_end(cost.ns, 0);
    }

    /// Moves the time at which this process's work should be over: a launch took another time than predicted.
    pub(super) fn shift_end(&self, predicted_ns: u64, actual_ns: u64) {
        words::shift(&self.until, predicted_ns, actual_ns);
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
