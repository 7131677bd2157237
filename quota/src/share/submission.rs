//! Which part of the interval between a launch's events is the launch's own.
//!
//! An event on an idle stream is over at once, so the interval after it contains the time that the host then takes to
//! launch. Behind other work it contains the time that the device takes to go from one launch to the next instead. No
//! driver tells how much that is; it is learned from launches that were measured both ways.

use super::words::remainder;

/// In a call as short as this the kernel may well begin before the call ends; on average, in the middle of it.
const SHORT_CALL_NS: u64 = 1_000;

/// A launch call that takes longer than this was held up.
const LONG_CALL_NS: u64 = 50_000;

/// The least time for which any kernel has the device.
const LEAST_NS: u64 = 500;

/// The difference is not learned from launches longer than this: they vary by more.
const SHORT_NS: u64 = 200_000;

/// The largest difference between a queued launch and the same launch alone, in nanoseconds; a larger one has another reason.
const MOST_MORE_NS: i64 = 4_000;

/// Keys whose length alone is remembered.
const KEYS: usize = 64;

/// Number of measurements alone from which on a key can be compared.
const ENOUGH: u64 = 4;

/// The weight of one comparison, and of one measurement alone, as a shift.
const COMPARISON: u32 = 6;
const MEASUREMENT: u32 = 3;

/// How a measured launch reached the device.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Submission {
    /// The part of the interval that the host took to launch it, at the beginning and at most. 0 where it was queued.
    pub host_ns: u64,
    /// Whether the stream had work before it.
    pub queued: bool,
}

/// How long a key takes alone.
#[derive(Clone, Copy, Default)]
struct Alone {
    key: u64,
    mean_ns: u64,
    count: u64,
}

/// By how much queued launches of a process seem longer. All-zero bytes: nothing is known.
#[derive(Clone, Copy)]
pub struct Queueing {
    alone: [Alone; KEYS],
    /// In `1 << COMPARISON` parts of a nanosecond.
    more: i64,
}

impl Default for Queueing {
    fn default() -> Self {
        Self { alone: [Alone::default(); KEYS], more: 0 }
    }
}

impl Submission {
    /// The interval without the host's part. A call of usual length ends before the kernel begins. During a longer one the
    /// kernel may have run (the thread was stopped after the launch) or not (before it): then it took as long as predicted
    /// (`known_ns`), as far as that is possible. The first launch of a kernel takes long because the driver loads its
    /// code, which comes before.
    pub fn without_host(self, elapsed_ns: u64, known_ns: Option<u64>) -> u64 {
        let host_ns = if self.host_ns < SHORT_CALL_NS { self.host_ns / 2 } else { self.host_ns };
        let least = elapsed_ns.saturating_sub(host_ns).max(LEAST_NS.min(elapsed_ns));
        match known_ns {
            Some(known_ns) if self.host_ns > LONG_CALL_NS => known_ns.max(least).min(elapsed_ns),
            _ => least,
        }
    }
}

impl Queueing {
    /// The interval of a launch without the time by which it seems longer because it was queued; learns from the interval.
    pub fn without_queue(&mut self, key: u64, queued: bool, interval_ns: u64) -> u64 {
        let Some(alone) = self.alone.get_mut(remainder(key, KEYS)) else { return interval_ns };
        if !queued {
            alone.learn(key, interval_ns);
            return interval_ns;
        }
        if alone.key == key && alone.count >= ENOUGH && alone.mean_ns < SHORT_NS {
            let more_ns = interval_ns.cast_signed().saturating_sub(alone.mean_ns.cast_signed());
            if more_ns.abs() <= 2 * MOST_MORE_NS {
                let toward = (more_ns << COMPARISON).saturating_sub(self.more) >> COMPARISON;
                self.more = self
                    .more
                    .saturating_add(toward)
                    .clamp(-MOST_MORE_NS << COMPARISON, MOST_MORE_NS << COMPARISON);
            }
        }
        let more_ns = u64::try_from(self.more >> COMPARISON).unwrap_or(0);
        interval_ns.saturating_sub(more_ns).max(LEAST_NS.min(interval_ns))
    }
}

impl Alone {
    fn learn(&mut self, key: u64, interval_ns: u64) {
        if self.key != key {
            *self = Self { key, mean_ns: interval_ns, count: 0 };
        }
        let away = interval_ns.cast_signed().saturating_sub(self.mean_ns.cast_signed());
        self.mean_ns = self.mean_ns.saturating_add_signed(away >> MEASUREMENT);
        self.count = self.count.saturating_add(1);
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
