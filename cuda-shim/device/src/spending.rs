//! Taking time, as calls and front ends do on a machine that says so.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::latency::Latency;
use crate::liveness::{clock_ns, sleep_until};
use crate::state::State;

/// The host computes in a call and does not sleep; but what takes longer than this is mostly spent in the kernel.
const SLEEPS_NS: u64 = 1_000_000;

impl State {
    /// Has the calling thread take its part of the host's time, if calls take any. The caller holds no lock that other
    /// threads wait for.
    #[inline]
    pub fn spend(&self, part: impl FnOnce(&Latency) -> u64) {
        if let Some(latency) = &self.machine().latency {
            let ns = self.vary(latency, part(latency));
            if ns > 0 {
                be_busy(clock_ns().saturating_add(ns));
            }
        }
    }

    /// Does the work of a call, which takes the call's part of the host's time if it does not take more anyway.
    pub fn spend_on<T>(&self, work: impl FnOnce() -> T, part: impl FnOnce(&Latency, &T) -> u64) -> T {
        let Some(latency) = &self.machine().latency else { return work() };
        let begin = clock_ns();
        let done = work();
        be_busy(begin.saturating_add(self.vary(latency, part(latency, &done))));
        done
    }

    /// `ns` with the machine's jitter: other in each process, and the same whenever the same is done again.
    #[inline]
    pub fn vary(&self, latency: &Latency, ns: u64) -> u64 {
        static STEPS: AtomicU64 = AtomicU64::new(0);
        if latency.jitter_ppm == 0 || ns == 0 {
            return ns;
        }
        latency.vary(ns, (self.slot() as u64) << 40 | STEPS.fetch_add(1, Relaxed))
    }
}

#[cold]
fn be_busy(until: u64) {
    if until > clock_ns().saturating_add(SLEEPS_NS) {
        while clock_ns() < until {
            sleep_until(until);
        }
    }
    while clock_ns() < until {
        std::hint::spin_loop();
    }
}
