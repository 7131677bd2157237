//! `CLOCK_MONOTONIC`, read by the processor's own counter between two calls of the kernel's clock, which cost twice
//! as much. Whoever holds a [`Clock`] reads it alone.
//!
//! The counter's rate is measured between two such calls and believed for a millisecond after the second: wrong by
//! what a millisecond can drift, some ten nanoseconds, and never running backwards. Where the counter is not what it
//! should be (another rate than before, or none), every reading is the kernel's.
//!
//! # Safety
//! Reads the time-stamp counter.
#![allow(unsafe_code)]

use crate::liveness::clock_ns;

/// For how long a measured rate is believed, and how long it has to be measured.
const BELIEVED_NS: u64 = 1_000_000;
const MEASURED_NS: u64 = 100_000;

/// A reader of the clock.
#[derive(Default)]
pub struct Clock {
    /// What the counter and the clock showed when they were last read together.
    ticks: u64,
    ns: u64,
    /// Nanoseconds per tick, times 2^32, and for how many ticks they are believed; both 0 where it is not known.
    rate: u64,
    believed: u64,
    last: u64,
}

impl Clock {
    /// Nanoseconds of `CLOCK_MONOTONIC`.
    #[inline]
    pub fn now(&mut self) -> u64 {
        let passed = ticks().wrapping_sub(self.ticks);
        let now = if passed < self.believed {
            self.ns + ((u128::from(passed) * u128::from(self.rate)) >> 32) as u64
        } else {
            self.read()
        };
        self.last = self.last.max(now);
        self.last
    }

    #[cold]
    fn read(&mut self) -> u64 {
        let (ns, ticks) = (clock_ns(), ticks());
        let (passed, counted) = (ns.saturating_sub(self.ns), ticks.wrapping_sub(self.ticks));
        // A stretch that is too short tells too little: the one that began before goes on.
        if passed < MEASURED_NS && self.ns != 0 {
            return ns;
        }
        let rate = ((u128::from(passed) << 32) / u128::from(counted.max(1))) as u64;
        // A counter ticks between one and ten times in a nanosecond, and always at the same rate.
        let plausible = (1 << 32) / 10..=1 << 32;
        let steady = self.rate == 0 || rate.abs_diff(self.rate) < self.rate / 1000;
        let believed = plausible.contains(&rate) && steady && self.ns != 0;
        self.believed =
            if believed { ((u128::from(BELIEVED_NS) << 32) / u128::from(rate)) as u64 } else { 0 };
        (self.ticks, self.ns, self.rate) = (ticks, ns, if believed { rate } else { 0 });
        ns
    }
}

#[cfg(target_arch = "x86_64")]
#[inline]
fn ticks() -> u64 {
    // SAFETY: every processor of this architecture has the counter.
    unsafe { core::arch::x86_64::_rdtsc() }
}

#[cfg(not(target_arch = "x86_64"))]
fn ticks() -> u64 {
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_shows_what_the_kernels_clock_shows_and_never_runs_backwards() {
        let mut clock = Clock::default();
        let (mut last, end) = (0, clock_ns() + 20 * BELIEVED_NS);
        loop {
            let (before, now, after) = (clock_ns(), clock.now(), clock_ns());
            assert!(now >= last && now + 20_000 > before && now < after + 20_000, "{before} {now} {after}");
            last = now;
            if after > end {
                break;
            }
        }
    }
}
