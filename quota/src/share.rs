//! May this launch go now?
//!
//! A share of r percent means: the container's kernels occupy the device for at most r percent of the time. It is
//! held by virtual scheduling (GCRA): one word per device, the *virtual time*, says until when the container has
//! used up what it is entitled to. Admitting a launch of predicted length c moves the word by c/r, in one
//! compare-and-swap; a launch waits until the word is no further ahead of the clock than the burst allows. There is
//! no refill thread and no control loop: debt and credit are in the word, and every process of the container uses
//! the same word. When the launch's true length is known, [`settle`] corrects the word by the difference, so the
//! long-run mean is exact for any predictor. In any window W: `use(W) <= r*W + BURST + one kernel + (actual minus
//! predicted) of what was in flight`.
//!
//! All times are nanoseconds; `now` is CLOCK_MONOTONIC of the caller.

use crate::sync::{AtomicU64, Ordering};
use core::num::NonZeroU64;

/// GPU time that may be used at once after a pause: 10 ms, so that a 1 s window is off by at most one point.
pub const BURST_NS: u64 = 10_000_000;

/// What a launch is taken to cost before it was ever measured: 1 ms.
pub const UNKNOWN_NS: u64 = 1_000_000;

/// A virtual time further ahead than this many of the longest kernels seen explains itself by damage, not by debt.
/// As many launches as one process may have in flight.
const CLAMP_KERNELS: u64 = 64;

/// A share of GPU time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rate(NonZeroU64);

impl Rate {
    /// `percent` of the time, 1 to 99; `None` for 0 and from 100 on, which limit nothing.
    #[must_use]
    pub fn new(percent: u32) -> Option<Self> {
        if percent >= 100 { None } else { NonZeroU64::new(u64::from(percent)).map(Self) }
    }

    /// The wall time in which `gpu_ns` of GPU time may be used.
    #[must_use]
    #[inline]
    pub fn stretch(self, gpu_ns: u64) -> u64 {
        gpu_ns.saturating_mul(100) / self.0
    }
}

/// The words of one device that the share lives in.
#[derive(Clone, Copy)]
pub struct Clock<'a> {
    /// The virtual time.
    pub virtual_time: &'a AtomicU64,
    /// Longest kernel seen.
    pub longest: &'a AtomicU64,
    /// Virtual times that were clamped.
    pub clamped: &'a AtomicU64,
}

/// What a launch is told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Admission {
    /// Go; the prediction is charged.
    Go,
    /// Not before this time; nothing is charged.
    Wait {
        /// When to ask again.
        until_ns: u64,
    },
}

/// Admits a launch predicted to take `cost_ns`, or says when to ask again.
#[inline]
pub fn admit(clock: Clock, now_ns: u64, cost_ns: u64, rate: Rate) -> Admission {
    remember_longest(clock, cost_ns);
    let allowance = rate.stretch(BURST_NS);
    let mut seen = clock.virtual_time.load(Ordering::Acquire);
    loop {
        let base = seen.max(now_ns);
        let ahead = base.saturating_sub(now_ns);
        let (next, admission) = if ahead <= allowance {
            (base.saturating_add(rate.stretch(cost_ns)), Admission::Go)
        } else {
            let longest = clock.longest.load(Ordering::Relaxed);
            let most = allowance.saturating_add(rate.stretch(longest.saturating_mul(CLAMP_KERNELS)));
            if ahead <= most {
                return Admission::Wait { until_ns: base.saturating_sub(allowance) };
            }
            let until_ns = now_ns.saturating_add(most.saturating_sub(allowance));
            (now_ns.saturating_add(most), Admission::Wait { until_ns })
        };
        match clock.virtual_time.compare_exchange(seen, next, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => {
                if admission != Admission::Go {
                    clock.clamped.fetch_add(1, Ordering::Relaxed);
                }
                return admission;
            }
            Err(current) => seen = current,
        }
    }
}

/// Charges a launch that may not wait: it goes now, and later ones wait for it.
pub fn charge(clock: Clock, now_ns: u64, cost_ns: u64, rate: Rate) {
    remember_longest(clock, cost_ns);
    change(clock, |seen| seen.max(now_ns).saturating_add(rate.stretch(cost_ns)));
}

/// Corrects the virtual time once a launch that was charged `predicted_ns` is known to have taken `actual_ns`.
pub fn settle(clock: Clock, predicted_ns: u64, actual_ns: u64, rate: Rate) {
    if let Some(more) = actual_ns.checked_sub(predicted_ns) {
        remember_longest(clock, actual_ns);
        change(clock, |seen| seen.saturating_add(rate.stretch(more)));
    } else {
        let less = predicted_ns.saturating_sub(actual_ns);
        change(clock, |seen| seen.saturating_sub(rate.stretch(less)));
    }
}

fn change(clock: Clock, next: impl Fn(u64) -> u64) {
    let mut seen = clock.virtual_time.load(Ordering::Acquire);
    loop {
        let word = clock.virtual_time;
        match word.compare_exchange(seen, next(seen), Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => return,
            Err(current) => seen = current,
        }
    }
}

#[inline]
fn remember_longest(clock: Clock, cost_ns: u64) {
    if clock.longest.load(Ordering::Relaxed) < cost_ns {
        clock.longest.fetch_max(cost_ns, Ordering::Relaxed);
    }
}

/// How much of the interval `start_ns..end_ns` no other measured work of the container has covered yet: streams
/// and processes that overlap occupy the device once, so what they use is the union of their intervals.
pub fn newly_busy(busy_until: &AtomicU64, start_ns: u64, end_ns: u64) -> u64 {
    let before = busy_until.fetch_max(end_ns, Ordering::AcqRel);
    end_ns.saturating_sub(start_ns.max(before))
}

/// Learned lengths of launches, by key (function and geometry, or graph): a table of fixed size without locks.
/// All-zero bytes are an empty table.
pub struct Predictor {
    entries: [Entry; PREDICTOR_ENTRIES],
}

/// Keys that a [`Predictor`] can tell apart.
pub const PREDICTOR_ENTRIES: usize = 4096;
const PROBES: usize = 8;
const COUNT_BITS: u32 = 16;
/// Measurements after which the mean follows like an exponential average with weight 1/16.
const MOST_WEIGHT: u64 = 16;

struct Entry {
    /// 0 for a free entry.
    key: AtomicU64,
    /// Mean length << 16 | number of measurements (saturating at [`MOST_WEIGHT`]).
    mean: AtomicU64,
}

impl Predictor {
    fn probe(&self, key: u64) -> impl Iterator<Item = &Entry> {
        let start = key as usize % PREDICTOR_ENTRIES;
        let (before, from) = self.entries.split_at_checked(start).unwrap_or((&[], &self.entries));
        from.iter().chain(before).take(PROBES)
    }

    /// Mean measured length of `key`; `None` if it was never measured.
    #[inline]
    pub fn predict(&self, key: u64) -> Option<u64> {
        let key = key | 1;
        let entry = self.probe(key).find(|entry| entry.key.load(Ordering::Relaxed) == key)?;
        let mean = entry.mean.load(Ordering::Relaxed);
        (mean != 0).then_some(mean >> COUNT_BITS)
    }

    /// Takes a measurement in. When the table has no room the key stays unknown, and is measured each time.
    pub fn learn(&self, key: u64, actual_ns: u64) {
        let key = key | 1;
        let Some(entry) = self.probe(key).find(|entry| {
            let current = entry.key.load(Ordering::Relaxed);
            let claim = || entry.key.compare_exchange(0, key, Ordering::AcqRel, Ordering::Acquire);
            current == key || current == 0 && claim().map_or_else(|now| now == key, |_| true)
        }) else {
            return;
        };
        let word = entry.mean.load(Ordering::Relaxed);
        let (mean, count) = (word >> COUNT_BITS, word & ((1 << COUNT_BITS) - 1));
        let count = count.wrapping_add(1).clamp(1, MOST_WEIGHT);
        let weight = NonZeroU64::new(count).unwrap_or(NonZeroU64::MIN);
        let actual_ns = actual_ns.min(u64::MAX >> COUNT_BITS);
        let next = if actual_ns >= mean {
            mean.saturating_add(actual_ns.saturating_sub(mean) / weight)
        } else {
            mean.saturating_sub(mean.saturating_sub(actual_ns) / weight)
        };
        // Two measurements at once: either may win, both are measurements.
        entry.mean.store(next << COUNT_BITS | count, Ordering::Relaxed);
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

#[cfg(test)]
#[path = "share/tests.rs"]
mod tests;
