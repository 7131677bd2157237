//! How long will a launch take?
//!
//! A table of fixed size and without locks holds a mean length by key (function and geometry, or graph). Unmeasured
//! launches are corrected when the next measured launch of the same key completes: its error is multiplied by the
//! number of launches since the previous measurement. Whether a launch is measured does not depend on how long it takes,
//! so the sum of all charges is right on average for lengths of any distribution, also while they change; the prediction
//! itself only shapes the short run.
//!
//! Beside other containers nothing corrects a charge: the events say when others' kernels ran, too. There a launch is charged a
//! mean of many more measurements, and only many intervals together tell that a key takes less than it did.

use super::types::{Cost, Unmeasured, VARIATION_PARTS};
use super::words::remainder;
use crate::sync::{AtomicU64, Ordering};
use core::num::NonZeroU64;

/// Keys that a [`Predictor`] holds at a time.
pub const PREDICTOR_ENTRIES: usize = 4096;
const PROBES: usize = 8;

/// Number of measurements from which on the mean is an exponential average with weight 1/16.
const MOST_WEIGHT: u64 = 16;
const DEVIATION_BITS: u32 = 12;
const COUNT_BITS: u32 = 12;
const MEAN_SHIFT: u32 = DEVIATION_BITS + COUNT_BITS;

const fn mask(bits: u32) -> u64 {
    (1 << bits) - 1
}

/// Measurements that differ by no more than this count as equal: events are no more exact.
const NOISE_NS: u64 = 500;

/// Beside others nothing corrects a charge, so it is a mean of more measurements: of so many, with their number in so many
/// bits and the mean in 256ths of a nanosecond.
const MOST_LONG_WEIGHT: u64 = 1024;
const LONG_COUNT_BITS: u32 = 11;
const LONG_FRACTION_BITS: u32 = 8;

/// Intervals of launches beside others contain others' kernels. So many together tell whether a key takes less than it did.
const BESIDE: u64 = 128;
const BESIDE_BITS: u32 = 8;
/// Their mean has to be so much less than the learned one, besides the mean deviation.
const BESIDE_NOISE_NS: u64 = 10_000;

/// Learned lengths of launches. All-zero bytes are an empty table.
pub struct Predictor {
    entries: [Estimate; PREDICTOR_ENTRIES],
}

/// The learned length of one key, in a cache line.
#[repr(align(64))]
pub struct Estimate {
    /// 0 for a free entry.
    key: AtomicU64,
    /// Mean length | mean deviation | number of measurements, saturating at [`MOST_WEIGHT`]. 0: no measurement yet.
    mean: AtomicU64,
    /// Launches not measured since the last measured one.
    unmeasured: AtomicU64,
    /// When the first of these was launched.
    since_ns: AtomicU64,
    /// Mean length of more measurements | their number, saturating at [`MOST_LONG_WEIGHT`].
    long: AtomicU64,
    /// The sum of the last intervals beside others | how many they are.
    beside: AtomicU64,
}

impl Default for Predictor {
    fn default() -> Self {
        let word = || AtomicU64::new(0);
        let empty = |_| Estimate {
            key: word(),
            mean: word(),
            unmeasured: word(),
            since_ns: word(),
            long: word(),
            beside: word(),
        };
        Self { entries: core::array::from_fn(empty) }
    }
}

impl Predictor {
    #[inline]
    fn probe(&self, key: u64) -> impl Iterator<Item = &Estimate> {
        let start = remainder(key, PREDICTOR_ENTRIES);
        let (before, from) = self.entries.split_at_checked(start).unwrap_or((&[], &self.entries));
        from.iter().chain(before).take(PROBES)
    }

    /// The estimate of `key`; `None` if the key was never measured, or has been evicted.
    #[inline]
    pub fn find(&self, key: u64) -> Option<&Estimate> {
        let key = key | 1;
        let found = self.probe(key).find(|estimate| estimate.key.load(Ordering::Relaxed) == key)?;
        (found.mean.load(Ordering::Relaxed) != 0).then_some(found)
    }

    /// Learns from a measurement. A full table evicts another key.
    pub fn learn(&self, key: u64, actual_ns: u64) {
        if let Some(estimate) = self.entry(key | 1) {
            estimate.learn(actual_ns);
        }
    }

    /// Learns from the interval of a launch beside others: its key takes no longer than such intervals do on average.
    pub fn learn_beside(&self, key: u64, most_ns: u64) {
        if let Some(estimate) = self.find(key) {
            estimate.learn_beside(most_ns);
        }
    }

    /// A launch of `key` has been running for `so_far_ns` and is not over: until the next measurement, launches of this key
    /// are predicted to last at least so long.
    pub fn set_floor(&self, key: u64, so_far_ns: u64) {
        if let Some(estimate) = self.entry(key | 1) {
            estimate.set_floor(so_far_ns);
        }
    }

    /// Undoes [`Self::set_floor`]: the mean is again what it was when the launch was submitted.
    pub fn clear_floor(&self, key: u64, mean_ns: Option<u64>) {
        if let Some(estimate) = self.entry(key | 1) {
            estimate.lower(mean_ns.unwrap_or(0));
        }
    }

    /// The entry of a key; a free or evicted entry if the key has none.
    fn entry(&self, key: u64) -> Option<&Estimate> {
        let found = self.probe(key).find(|estimate| {
            let current = estimate.key.load(Ordering::Relaxed);
            let claim = || estimate.key.compare_exchange(0, key, Ordering::AcqRel, Ordering::Acquire);
            current == key || current == 0 && claim().map_or_else(|now| now == key, |_| true)
        });
        found.or_else(|| self.evict(key))
    }

    /// Gives one of the entries in which `key` may lie to it, picked by the key's high bits.
    #[cold]
    fn evict(&self, key: u64) -> Option<&Estimate> {
        let estimate = self.probe(key).nth(remainder(key >> 32, PROBES))?;
        let before = estimate.key.load(Ordering::Relaxed);
        estimate.mean.store(0, Ordering::Relaxed);
        estimate.unmeasured.store(0, Ordering::Relaxed);
        estimate.long.store(0, Ordering::Relaxed);
        estimate.beside.store(0, Ordering::Relaxed);
        let replaced = estimate.key.compare_exchange(before, key, Ordering::AcqRel, Ordering::Acquire);
        replaced.is_ok().then_some(estimate)
    }
}

impl Estimate {
    /// What a launch is expected to take.
    #[inline]
    pub fn cost(&self) -> Cost {
        let word = self.mean.load(Ordering::Relaxed);
        Cost { ns: word >> MEAN_SHIFT, proven: true, variation: word >> COUNT_BITS & mask(DEVIATION_BITS) }
    }

    /// Whether it was measured often enough to be believed where nothing corrects it.
    pub(super) fn is_known(&self) -> bool {
        self.mean.load(Ordering::Relaxed) & mask(COUNT_BITS) == MOST_WEIGHT
    }

    /// The same beside others.
    pub fn cost_beside(&self) -> Cost {
        let (cost, ns) = (self.cost(), self.long_ns());
        Cost { ns: if ns == 0 { cost.ns } else { ns }, ..cost }
    }

    fn long_ns(&self) -> u64 {
        self.long.load(Ordering::Relaxed) >> (LONG_COUNT_BITS + LONG_FRACTION_BITS)
    }

    /// Counts a launch that was not measured.
    #[inline]
    pub fn skip(&self, now_ns: u64) {
        if self.unmeasured.fetch_add(1, Ordering::Relaxed) == 0 {
            self.since_ns.store(now_ns, Ordering::Relaxed);
        }
    }

    /// A launch is measured: takes the unmeasured launches that it stands for.
    pub fn take_unmeasured(&self) -> Unmeasured {
        let count = self.unmeasured.swap(0, Ordering::Relaxed);
        Unmeasured { count, since_ns: self.since_ns.load(Ordering::Relaxed) }
    }

    fn set_floor(&self, so_far_ns: u64) {
        let word = self.mean.load(Ordering::Relaxed);
        let mean = so_far_ns.min(u64::MAX >> MEAN_SHIFT);
        if word >> MEAN_SHIFT < mean {
            self.mean.store(mean << MEAN_SHIFT | word & mask(MEAN_SHIFT), Ordering::Relaxed);
        }
    }

    fn lower(&self, mean_ns: u64) {
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
        let away = away.saturating_mul(VARIATION_PARTS).checked_div(mean).unwrap_or(0);
        let deviation = toward(deviation, away.min(mask(DEVIATION_BITS)), weight);
        // Of two measurements at the same moment either may win: both are measurements.
        self.mean.store(mean << MEAN_SHIFT | deviation << COUNT_BITS | count, Ordering::Relaxed);
        self.learn_long(actual_ns, self.cost(), count);
    }

    /// The long mean follows at once where the short one, of so many measurements, has left it by more than lengths vary. A
    /// first measurement is often too long, and counts until there is another one.
    fn learn_long(&self, actual_ns: u64, short: Cost, short_count: u64) {
        if short_count <= 2 {
            self.store_long(actual_ns << LONG_FRACTION_BITS, 1);
            return;
        }
        let most_away = short.uncertainty_ns().saturating_add(NOISE_NS);
        if short_count == MOST_WEIGHT && self.long_ns().abs_diff(short.ns) > most_away {
            self.store_long(short.ns << LONG_FRACTION_BITS, short_count);
            return;
        }
        let word = self.long.load(Ordering::Relaxed);
        let count = (word & mask(LONG_COUNT_BITS)).saturating_add(1).min(MOST_LONG_WEIGHT);
        let weight = NonZeroU64::new(count).unwrap_or(NonZeroU64::MIN);
        let mean = toward(word >> LONG_COUNT_BITS, actual_ns << LONG_FRACTION_BITS, weight);
        self.store_long(mean, count);
    }

    fn store_long(&self, mean: u64, count: u64) {
        self.long.store(mean << LONG_COUNT_BITS | count, Ordering::Relaxed);
    }

    /// A single interval of a key whose lengths vary says nothing, not even if it is short: others only lengthen it.
    fn learn_beside(&self, most_ns: u64) {
        let word = self.beside.load(Ordering::Relaxed);
        let sum = (word >> BESIDE_BITS).saturating_add(most_ns.min(u64::MAX >> MEAN_SHIFT));
        let count = (word & mask(BESIDE_BITS)).saturating_add(1);
        if count < BESIDE {
            self.beside.store(sum << BESIDE_BITS | count, Ordering::Relaxed);
            return;
        }
        self.beside.store(0, Ordering::Relaxed);
        let (cost, most_ns) = (self.cost_beside(), sum / BESIDE);
        if most_ns.saturating_add(BESIDE_NOISE_NS).saturating_add(cost.uncertainty_ns()) < cost.ns {
            self.lower(most_ns);
            self.store_long(most_ns << LONG_FRACTION_BITS, 1);
        }
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
