//! What one process has under way on one device: how much may be in flight, and which launch is measured.
//!
//! Measured are: launches of a key that was never measured, those of a millisecond or more, all while several streams
//! or processes have work in flight (what overlaps is charged once, so it must be known), and of the rest one per
//! millisecond of predicted GPU time, picked at random. Where lengths vary one measurement tells less, so there are
//! more; and very short launches count as longer than they are, so that one of at most 192 is measured.

use super::busy::Own;
use super::flights::FLIGHTS;
use super::predict::Cost;
use crate::sync::{AtomicU64, Ordering};

/// A launch at least this long is always measured; shorter ones add up to it.
pub const SEGMENT_NS: u64 = 1_000_000;

/// Predicted GPU time that a process may have in flight on a device before its next launch waits for the oldest.
pub const MOST_IN_FLIGHT_NS: u64 = 4 * SEGMENT_NS;

/// What a launch counts at least in flight.
const LEAST_WEIGHT_NS: u64 = SEGMENT_NS / 128;
/// What a launch counts in flight where all are measured: there are so many places for them.
const MINGLED_WEIGHT_NS: u64 = MOST_IN_FLIGHT_NS / (FLIGHTS as u64 - 8);

/// How long after the last overlap work is still taken to overlap.
const MINGLED_NS: u64 = 1_000_000_000;

/// How long a launch waits for room in flight while nothing lands.
pub const PATIENCE_NS: u64 = 100_000_000;

/// What lands within this time after a launch went may have waited for it.
const AT_ONCE_NS: u64 = 1_000_000;

/// By how much predicted ends may differ and still be one.
const SLACK_NS: u64 = 1_000;

/// What one process has under way on one device. All-zero bytes: nothing.
#[derive(Default)]
#[repr(align(64))]
pub struct Traffic {
    /// Launches since the last measured one.
    loose: AtomicU64,
    /// How far these must come for the next launch to be measured, in grains.
    threshold: AtomicU64,
    /// Weight of the launches that measured ones in flight will tell of.
    flying: AtomicU64,
    /// Of that, what belongs to the last one.
    last: AtomicU64,
    /// Launches in flight of keys that were never measured.
    unproven: AtomicU64,
    /// When to look for a landing; 0 while nothing is in flight.
    look_at: AtomicU64,
    /// Landings so far.
    landed: AtomicU64,
    /// Landings when somebody gave up waiting for one, + 1.
    stuck: AtomicU64,
    /// When a launch last went that had waited, and for how long.
    late_at: AtomicU64,
    late_by: AtomicU64,
    /// The stream of the last launch, and when what is in it should be over.
    lane: AtomicU64,
    lane_until: AtomicU64,
    /// The same for all other streams.
    others_until: AtomicU64,
    /// When all of it should be over, one after the other.
    until: AtomicU64,
    /// Until when work of several streams is taken to overlap,
    streams_until: AtomicU64,
    /// and with that of other processes.
    company_until: AtomicU64,
    /// What streams of this process occupied.
    pub(super) busy: Own,
}

/// The launches that a measured one tells of: those before it since the last, and itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Covered {
    /// Their predicted time.
    pub ns: u64,
    /// What they count in flight.
    pub weight: u64,
}

/// Launches since the last measured one, in one word: their weight, their predicted time, and how far they are on the
/// way to the next measured one, the latter two in grains of 64 ns. A word lasts for one or two milliseconds.
#[derive(Clone, Copy)]
struct Loose(u64);

impl Loose {
    const GRAIN: u32 = 6;
    const WAY_BITS: u32 = 20;
    const NS_BITS: u32 = 22;

    #[inline]
    fn of(ns: u64, least_weight: u64, way: u64) -> Self {
        let weight = ns.max(least_weight);
        let field = |ns: u64, bits: u32| (ns >> Self::GRAIN).min((1 << bits) / 4);
        let way = field(way, Self::WAY_BITS);
        let ns = field(ns, Self::NS_BITS) << Self::WAY_BITS;
        let weight = field(weight, Self::NS_BITS) << (Self::WAY_BITS + Self::NS_BITS);
        Self(weight | ns | way)
    }

    fn way(self) -> u64 {
        self.0 & ((1 << Self::WAY_BITS) - 1)
    }

    fn covered(self) -> Covered {
        let ns = self.0 >> Self::WAY_BITS & ((1 << Self::NS_BITS) - 1);
        Covered { ns: ns << Self::GRAIN, weight: self.0 >> (Self::WAY_BITS + Self::NS_BITS) << Self::GRAIN }
    }
}

impl Traffic {
    /// Whether a launch must wait for one in flight to land: without a bound a process queues seconds of work before
    /// the first is settled. Of keys never measured one launch flies at a time; the answer "no" claims its place.
    #[inline]
    pub fn is_crowded(&self, now_ns: u64, proven: bool) -> bool {
        let flying = self.flying.load(Ordering::Relaxed);
        if flying > MOST_IN_FLIGHT_NS
            && (flying > self.last.load(Ordering::Relaxed) || self.left_ns(now_ns) > SEGMENT_NS)
        {
            return true;
        }
        !proven && self.unproven.compare_exchange(0, 1, Ordering::Relaxed, Ordering::Relaxed).is_err()
    }

    /// When a single long launch has so little left that the next one may go.
    pub(super) fn opens_at(&self, now_ns: u64) -> Option<u64> {
        let alone = self.flying.load(Ordering::Relaxed) <= self.last.load(Ordering::Relaxed);
        alone
            .then(|| now_ns.saturating_add(self.left_ns(now_ns)).saturating_sub(SEGMENT_NS))
            .filter(|at| *at > now_ns)
    }

    /// How long what is in flight should take, one after the other.
    #[inline]
    fn left_ns(&self, now_ns: u64) -> u64 {
        self.until.load(Ordering::Relaxed).saturating_sub(now_ns)
    }

    /// As the answer "no" of [`Self::is_crowded`], given unasked.
    pub fn squeeze_in(&self, proven: bool) {
        if !proven {
            self.unproven.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// When to look for a landing, if any is due at all.
    #[inline]
    pub fn next_look(&self) -> Option<u64> {
        Some(self.look_at.load(Ordering::Relaxed)).filter(|at| *at != 0)
    }

    /// Whether it is time to look for landings.
    #[inline]
    pub fn is_due(&self, now_ns: u64) -> bool {
        self.next_look().is_some_and(|at| at <= now_ns)
    }

    /// A landing is expected at this time.
    pub(super) fn look_at(&self, over_ns: u64) {
        let earlier = |at: u64| (at == 0 || at > over_ns).then_some(over_ns);
        let _ = self.look_at.fetch_update(Ordering::Relaxed, Ordering::Relaxed, earlier);
    }

    /// All that is in flight is being looked at.
    pub(super) fn looked(&self) {
        self.look_at.store(0, Ordering::Relaxed);
    }

    /// Landings so far.
    pub fn landed(&self) -> u64 {
        self.landed.load(Ordering::Relaxed)
    }

    /// Whether nothing has landed since somebody gave up waiting for it.
    pub fn is_stuck(&self) -> bool {
        self.stuck.load(Ordering::Relaxed) == self.landed().wrapping_add(1)
    }

    /// Whether nothing is in flight.
    pub fn is_idle(&self) -> bool {
        self.flying.load(Ordering::Relaxed) == 0
    }

    /// Nothing lands: perhaps it cannot before a launch that waits for it.
    pub fn give_up(&self) {
        self.stuck.store(self.landed().wrapping_add(1), Ordering::Relaxed);
    }

    /// A launch goes that has waited.
    pub(super) fn late(&self, now_ns: u64, waited_ns: u64) {
        self.late_at.store(now_ns, Ordering::Relaxed);
        self.late_by.store(waited_ns, Ordering::Relaxed);
    }

    /// How long a launch has been held up by us that was over at `end_ns`: if it was there before another one began
    /// to wait, and was over as soon as that one was there, it had waited for it.
    pub(super) fn held_up_ns(&self, launched_at_ns: u64, end_ns: u64) -> u64 {
        let (at, by) = (self.late_at.load(Ordering::Relaxed), self.late_by.load(Ordering::Relaxed));
        let released = end_ns.saturating_add(AT_ONCE_NS / 8) > at && end_ns.saturating_sub(at) < AT_ONCE_NS;
        if released && launched_at_ns.saturating_add(by) <= at { by } else { 0 }
    }

    /// Notes a launch into stream `lane`, and answers whether it is to be measured. `container_until` is the word in
    /// which all processes of the container note when their work should be over, where there are others.
    #[inline]
    pub fn depart(
        &self,
        now_ns: u64,
        cost: Cost,
        lane: u64,
        container_until: Option<&AtomicU64>,
        company: bool,
    ) -> bool {
        // Words of this process alone are not added to in one step: of threads that come at once one may be missed,
        // and then a launch goes unmeasured that could have been.
        let own = self.until.load(Ordering::Relaxed).max(now_ns).saturating_add(cost.ns);
        self.until.store(own, Ordering::Relaxed);
        let ends = container_until.map(|word| extend(word, now_ns, cost.ns));
        if company && ends.is_some_and(|ends| ends > own.saturating_add(SLACK_NS)) {
            self.company_until.store(now_ns.saturating_add(MINGLED_NS), Ordering::Relaxed);
        }
        if self.enter(now_ns, cost.ns, lane) {
            self.mingle_streams(now_ns);
        }
        if self.is_certain(now_ns, cost) {
            return true;
        }
        let loose = Loose(self.loose.load(Ordering::Relaxed));
        let step = Loose::of(cost.ns, LEAST_WEIGHT_NS, cost.way());
        if loose.way().saturating_add(step.way()) >= self.threshold.load(Ordering::Relaxed) {
            return true;
        }
        self.loose.store(loose.0.wrapping_add(step.0), Ordering::Relaxed);
        false
    }

    /// Whether a launch is measured whatever came before it.
    #[inline]
    fn is_certain(&self, now_ns: u64, cost: Cost) -> bool {
        !cost.proven || cost.way() >= SEGMENT_NS || self.mingles(now_ns)
    }

    /// Whether another stream has work that is not over.
    #[inline]
    fn enter(&self, now_ns: u64, cost_ns: u64, lane: u64) -> bool {
        let (was, until) = (self.lane.load(Ordering::Relaxed), self.lane_until.load(Ordering::Relaxed));
        let begins = if was == lane {
            until.max(now_ns)
        } else {
            self.others_until.fetch_max(until, Ordering::Relaxed);
            self.lane.store(lane, Ordering::Relaxed);
            now_ns
        };
        self.lane_until.store(begins.saturating_add(cost_ns), Ordering::Relaxed);
        self.others_until.load(Ordering::Relaxed) > now_ns
    }

    /// Work of several streams overlaps.
    pub(super) fn mingle_streams(&self, now_ns: u64) {
        self.streams_until.store(now_ns.saturating_add(MINGLED_NS), Ordering::Relaxed);
    }

    /// Whether work of several streams overlaps now or did so lately.
    #[inline]
    pub fn mingles_streams(&self, now_ns: u64) -> bool {
        self.streams_until.load(Ordering::Relaxed) > now_ns
    }

    /// The same of several streams or processes.
    #[inline]
    pub fn mingles(&self, now_ns: u64) -> bool {
        self.mingles_streams(now_ns) || self.company_until.load(Ordering::Relaxed) > now_ns
    }

    /// A launch is measured: what it tells of is in flight from now on. The next one is due between half and one and
    /// a half segments on, by `random`: no rhythm of the program's own is then measured always at the same beat.
    pub fn fly(&self, now_ns: u64, cost: Cost, random: u64) -> Covered {
        // What is certain to be measured does not take the turn of what is picked.
        let before = if self.is_certain(now_ns, cost) {
            self.loose.fetch_and((1 << Loose::WAY_BITS) - 1, Ordering::Relaxed)
        } else {
            let next = (SEGMENT_NS / 2).saturating_add(random % SEGMENT_NS);
            self.threshold.store(Loose::of(0, 0, next).way(), Ordering::Relaxed);
            self.loose.swap(0, Ordering::Relaxed)
        };
        let before = Loose(before).covered();
        let weight = cost.ns.max(if self.mingles(now_ns) { MINGLED_WEIGHT_NS } else { LEAST_WEIGHT_NS });
        let covered =
            Covered { ns: before.ns.saturating_add(cost.ns), weight: before.weight.saturating_add(weight) };
        self.flying.fetch_add(covered.weight, Ordering::Relaxed);
        self.last.store(covered.weight, Ordering::Relaxed);
        self.look_at(now_ns.saturating_add(covered.ns).saturating_sub(cost.early_ns()));
        covered
    }

    /// A measured launch is over, or will never be heard of again.
    pub fn land(&self, covered: Covered, proven: bool) {
        take(&self.flying, covered.weight);
        if !proven {
            take(&self.unproven, 1);
        }
        self.landed.fetch_add(1, Ordering::Relaxed);
    }

    /// A launch that was to be measured cannot be.
    pub fn resign(&self, proven: bool) {
        self.loose.store(0, Ordering::Relaxed);
        if !proven {
            take(&self.unproven, 1);
        }
    }

    /// Moves the time at which this process's work should be over: it took another time than predicted.
    pub(super) fn correct(&self, predicted_ns: u64, actual_ns: u64) {
        correct(&self.until, predicted_ns, actual_ns);
    }
}

/// Appends work to a word that says when work should be over; answers its new value.
fn extend(until: &AtomicU64, now_ns: u64, cost_ns: u64) -> u64 {
    let next = |seen: u64| seen.max(now_ns).saturating_add(cost_ns);
    let change = |seen| Some(next(seen));
    until.fetch_update(Ordering::Relaxed, Ordering::Relaxed, change).map_or(0, next)
}

/// Moves such a word by what a launch took more or less than predicted.
pub(super) fn correct(until: &AtomicU64, predicted_ns: u64, actual_ns: u64) {
    let change = |seen: u64| Some(seen.saturating_add(actual_ns).saturating_sub(predicted_ns));
    let _ = until.fetch_update(Ordering::Relaxed, Ordering::Relaxed, change);
}

/// Takes an amount from a word, or what there is.
pub(super) fn take(word: &AtomicU64, amount: u64) {
    let rest = |now: u64| Some(now.saturating_sub(amount));
    let _ = word.fetch_update(Ordering::Relaxed, Ordering::Relaxed, rest);
}

#[cfg(all(test, not(loom)))]
mod tests;
