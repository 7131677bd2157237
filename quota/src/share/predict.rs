//! How long will a launch take?
//!
//! A mean by key (function and geometry, or graph) in a table of fixed size without locks. Prediction shapes only the
//! short run: what a measured launch took is settled to the nanosecond, and a launch that was not measured is settled
//! by the next measured one of its key, which speaks for all since the one before it. Which launch is measured does
//! not depend on how long it takes, so what is charged is right on average for lengths of any distribution, also when
//! they change.

use super::traffic::SEGMENT_NS;
use crate::sync::{AtomicU64, Ordering};
use core::num::NonZeroU64;

/// What a launch is taken to cost before one of its key was ever measured: 1 ms.
pub const UNKNOWN_NS: u64 = 1_000_000;

/// Keys that a [`Predictor`] can tell apart at a time.
pub const PREDICTOR_ENTRIES: usize = 4096;
const PROBES: usize = 8;

/// Measurements after which the mean follows like an exponential average with weight 1/16.
const MOST_WEIGHT: u64 = 16;
/// Fractions in which the mean deviation is kept; the most that it can be is four times the mean.
const PARTS: u64 = 1024;
const DEVIATION_BITS: u32 = 12;
const COUNT_BITS: u32 = 12;
const MEAN_SHIFT: u32 = DEVIATION_BITS + COUNT_BITS;
/// Up to this mean deviation (1/16 of the mean) one measurement is as good as any other.
const STEADY: u64 = PARTS / 16;
/// The most that a launch counts for on the way to the next measured one.
const MOST_TIMES: u64 = 16;

const fn mask(bits: u32) -> u64 {
    (1 << bits) - 1
}

/// Measurements this far apart may be of the same length: events tell no better.
const NOISE_NS: u64 = 500;

/// A launch that may be over this much earlier than expected is looked at before.
const LEAST_EARLY_NS: u64 = SEGMENT_NS / 4;

/// What a very short launch counts as: one of at most 192 is measured.
const LEAST_WAY_NS: u64 = SEGMENT_NS / 128;

/// What a launch is expected to take.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cost {
    /// Nanoseconds.
    pub ns: u64,
    /// Whether a launch of its key was ever measured.
    pub proven: bool,
    /// How far lengths of its key lie from their mean, on average, in 1/1024 of it.
    pub variation: u64,
}

impl Cost {
    /// How far it goes towards the next measured launch. The error of what is not measured grows with the variation,
    /// and falls with the root of the number of measurements: where lengths vary by half, there are sixteen times as
    /// many of them.
    #[inline]
    pub fn way(self) -> u64 {
        let times = self.variation / STEADY;
        self.ns.max(LEAST_WAY_NS).saturating_mul(times.saturating_mul(times).clamp(1, MOST_TIMES))
    }

    /// By how much it may be wrong.
    pub(super) fn doubt_ns(self) -> u64 {
        if self.proven { self.ns.saturating_mul(self.variation) / PARTS } else { self.ns }
    }

    /// How much earlier than expected it may well be over, where that is worth a look.
    pub(super) fn early_ns(self) -> u64 {
        let early_ns = self.doubt_ns().saturating_mul(2).min(self.ns);
        if self.proven && early_ns > LEAST_EARLY_NS { early_ns } else { 0 }
    }

    /// Of a key that was never measured.
    pub const UNKNOWN: Self = Self { ns: UNKNOWN_NS, proven: false, variation: 0 };
}

/// Launches that a measured one speaks for, besides itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Spoken {
    /// How many.
    pub count: u64,
    /// When the first of them was launched.
    pub since_ns: u64,
}

/// Learned lengths of launches. All-zero bytes are an empty table.
pub struct Predictor {
    entries: [Known; PREDICTOR_ENTRIES],
}

/// What is known of one key.
pub struct Known {
    /// 0 for a free entry.
    key: AtomicU64,
    /// Mean length | mean deviation | number of measurements, saturating at [`MOST_WEIGHT`]. 0: none yet.
    mean: AtomicU64,
    /// Launches not measured since the last measured one.
    unmeasured: AtomicU64,
    /// When the first of these was launched.
    since_ns: AtomicU64,
}

impl Default for Predictor {
    fn default() -> Self {
        let word = || AtomicU64::new(0);
        let empty = |_| Known { key: word(), mean: word(), unmeasured: word(), since_ns: word() };
        Self { entries: core::array::from_fn(empty) }
    }
}

impl Predictor {
    fn probe(&self, key: u64) -> impl Iterator<Item = &Known> {
        let start = key as usize % PREDICTOR_ENTRIES;
        let (before, from) = self.entries.split_at_checked(start).unwrap_or((&[], &self.entries));
        from.iter().chain(before).take(PROBES)
    }

    /// What is known of `key`; `None` if it was never measured, or forgotten.
    #[inline]
    pub fn find(&self, key: u64) -> Option<&Known> {
        let key = key | 1;
        let known = self.probe(key).find(|known| known.key.load(Ordering::Relaxed) == key)?;
        (known.mean.load(Ordering::Relaxed) != 0).then_some(known)
    }

    /// Takes a measurement in. Where the table has no room, another key is forgotten.
    pub fn learn(&self, key: u64, actual_ns: u64) {
        if let Some(known) = self.entry(key | 1) {
            known.learn(actual_ns);
        }
    }

    /// A launch of `key` has been running for `so_far_ns` and is not over.
    pub fn raise(&self, key: u64, so_far_ns: u64) {
        if let Some(known) = self.entry(key | 1) {
            known.raise(so_far_ns);
        }
    }

    /// What [`Self::raise`] did is undone: the mean is what it was when the launch went.
    pub fn restore(&self, key: u64, mean_ns: Option<u64>) {
        if let Some(known) = self.entry(key | 1) {
            known.restore(mean_ns.unwrap_or(0));
        }
    }

    /// The entry of a key, made if need be.
    fn entry(&self, key: u64) -> Option<&Known> {
        let known = self.probe(key).find(|known| {
            let current = known.key.load(Ordering::Relaxed);
            let claim = || known.key.compare_exchange(0, key, Ordering::AcqRel, Ordering::Acquire);
            current == key || current == 0 && claim().map_or_else(|now| now == key, |_| true)
        });
        known.or_else(|| self.replace(key))
    }

    /// One of the entries that `key` may have, by lot.
    #[cold]
    fn replace(&self, key: u64) -> Option<&Known> {
        let known = self.probe(key).nth((key >> 32) as usize % PROBES)?;
        let before = known.key.load(Ordering::Relaxed);
        known.mean.store(0, Ordering::Relaxed);
        known.unmeasured.store(0, Ordering::Relaxed);
        let replaced = known.key.compare_exchange(before, key, Ordering::AcqRel, Ordering::Acquire);
        replaced.is_ok().then_some(known)
    }
}

impl Known {
    /// What a launch is expected to take.
    #[inline]
    pub fn cost(&self) -> Cost {
        let word = self.mean.load(Ordering::Relaxed);
        Cost { ns: word >> MEAN_SHIFT, proven: true, variation: word >> COUNT_BITS & mask(DEVIATION_BITS) }
    }

    /// A launch went unmeasured.
    #[inline]
    pub fn skip(&self, now_ns: u64) {
        if self.unmeasured.fetch_add(1, Ordering::Relaxed) == 0 {
            self.since_ns.store(now_ns, Ordering::Relaxed);
        }
    }

    /// A launch is measured: the others that it speaks for.
    pub fn speak(&self) -> Spoken {
        let count = self.unmeasured.swap(0, Ordering::Relaxed);
        Spoken { count, since_ns: self.since_ns.load(Ordering::Relaxed) }
    }

    /// Until the next measurement a launch is taken to last at least so long.
    fn raise(&self, so_far_ns: u64) {
        let word = self.mean.load(Ordering::Relaxed);
        let mean = so_far_ns.min(u64::MAX >> MEAN_SHIFT);
        if word >> MEAN_SHIFT < mean {
            self.mean.store(mean << MEAN_SHIFT | word & mask(MEAN_SHIFT), Ordering::Relaxed);
        }
    }

    fn restore(&self, mean_ns: u64) {
        let word = self.mean.load(Ordering::Relaxed);
        if word >> MEAN_SHIFT > mean_ns {
            self.mean.store(mean_ns << MEAN_SHIFT | word & mask(MEAN_SHIFT), Ordering::Relaxed);
        }
    }

    fn learn(&self, actual_ns: u64) {
        let word = self.mean.load(Ordering::Relaxed);
        let (mean, deviation) = (word >> MEAN_SHIFT, word >> COUNT_BITS & mask(DEVIATION_BITS));
        let count = (word & mask(COUNT_BITS)).wrapping_add(1).clamp(1, MOST_WEIGHT);
        let weight = NonZeroU64::new(count).unwrap_or(NonZeroU64::MIN);
        let actual_ns = actual_ns.clamp(1, u64::MAX >> MEAN_SHIFT);
        let mean = if count == 1 { actual_ns } else { toward(mean, actual_ns, weight) };
        let away = actual_ns.abs_diff(mean).saturating_sub(NOISE_NS);
        let away = away.saturating_mul(PARTS).checked_div(mean).unwrap_or(0);
        let deviation = toward(deviation, away.min(mask(DEVIATION_BITS)), weight);
        // Two measurements at once: either may win, both are measurements.
        self.mean.store(mean << MEAN_SHIFT | deviation << COUNT_BITS | count, Ordering::Relaxed);
    }
}

/// One step of `1/weight` from `value` to `target`.
fn toward(value: u64, target: u64, weight: NonZeroU64) -> u64 {
    if target >= value {
        value.saturating_add(target.saturating_sub(value) / weight)
    } else {
        value.saturating_sub(value.saturating_sub(target) / weight)
    }
}

/// Mixes words into a key: a multiply-rotate hash, good enough for pointers and geometries.
#[must_use]
#[inline]
pub fn key(words: &[u64]) -> u64 {
    words.iter().fold(0x9E37_79B9_7F4A_7C15, |hash: u64, word| {
        let mixed = (hash ^ word).wrapping_mul(0xD6E8_FEB8_6659_FD93);
        mixed ^ mixed >> 32
    })
}

#[cfg(all(test, not(loom)))]
mod tests;
