//! Data that the other files of the share exchange.

/// GPU time per measurement: launches at least this long are always measured; shorter ones add up to it.
pub const SAMPLE_NS: u64 = 1_000_000;

/// Measured launches that one process may have in flight.
pub const MAX_MEASUREMENTS: usize = 64;

/// The assumed cost of a launch before any launch of its key was measured: 1 ms.
pub const UNKNOWN_NS: u64 = 1_000_000;

/// Fractions in which [`Cost::variation`] is counted.
pub(super) const VARIATION_PARTS: u64 = 1024;

/// Up to this mean deviation (1/16 of the mean) one measurement is as good as any other.
const STEADY: u64 = VARIATION_PARTS / 16;

/// The most times that a launch counts towards the next measurement.
const MOST_CREDIT: u64 = 16;

/// The least that a launch counts towards the next measurement: one of at most 192 is measured.
pub(super) const LEAST_CREDIT_NS: u64 = SAMPLE_NS / 128;

/// A launch that may be over this much earlier than expected is looked at earlier.
const LEAST_EARLY_NS: u64 = SAMPLE_NS / 4;

/// What is launched, and where.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Work {
    /// Function and geometry, or graph.
    pub key: u64,
    /// The stream, by a number that no other stream of the process has.
    pub stream: u64,
    /// The context that the stream belongs to; not 0.
    pub context: u64,
    /// Region index of the device.
    pub device: u8,
}

/// What a launch is expected to take.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cost {
    /// Nanoseconds.
    pub ns: u64,
    /// Whether a launch of its key was ever measured.
    pub proven: bool,
    /// The mean deviation of the lengths of its key, in 1/1024 of their mean.
    pub variation: u64,
}

impl Cost {
    /// The cost of a launch whose key was never measured.
    pub const UNKNOWN: Self = Self { ns: UNKNOWN_NS, proven: false, variation: 0 };

    /// How much the launch counts towards the next measurement. The error of unmeasured launches grows with the variation and
    /// falls with the root of the number of measurements: where lengths vary by half, sixteen times as many are measured.
    #[inline]
    pub fn sampling_credit_ns(self) -> u64 {
        let times = self.variation / STEADY;
        self.ns.max(LEAST_CREDIT_NS).saturating_mul(times.saturating_mul(times).clamp(1, MOST_CREDIT))
    }

    /// The uncertainty of the prediction.
    pub(super) fn uncertainty_ns(self) -> u64 {
        if self.proven { self.ns.saturating_mul(self.variation) / VARIATION_PARTS } else { self.ns }
    }

    /// How much earlier than predicted the launch may well be over; 0 where that is not worth a look.
    pub(super) fn early_ns(self) -> u64 {
        let early_ns = self.uncertainty_ns().saturating_mul(2).min(self.ns);
        if self.proven && early_ns > LEAST_EARLY_NS { early_ns } else { 0 }
    }
}

/// The launches that complete with a measured one: itself, and the unmeasured ones since the measured one before it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Covered {
    /// Their predicted time.
    pub ns: u64,
    /// Their weight in flight.
    pub weight: u64,
}

/// The unmeasured launches of a key that a measurement also stands for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Unmeasured {
    /// How many.
    pub count: u64,
    /// When the first of them was launched.
    pub since_ns: u64,
}
