//! Taking time, as calls and front ends do on a machine that says so.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::latency::{Jitter, Latency, Startup};
use crate::liveness::{clock_ns, sleep_until};
use crate::state::State;

/// The host computes in a call and does not sleep; but what takes longer than this is mostly spent in the kernel.
const SLEEPS_NS: u64 = 1_000_000;

impl State {
    /// Has the calling thread take a call's part of the host's time, if calls that concern device `index` take any. The caller
    /// holds no lock that other threads wait for.
    pub fn spend(&self, index: usize, part: impl FnOnce(&Latency) -> u64) {
        if let Some(latency) = self.latency(index) {
            self.pass(latency.jitter, part(latency));
        }
    }

    /// The same for a call that concerns no device.
    pub fn spend_at_start(&self, part: impl FnOnce(&Startup) -> u64) {
        let startup = &self.machine().startup;
        self.pass(startup.jitter, part(startup));
    }

    /// Does the work of a call, which takes the call's part of the host's time if it does not take more anyway.
    pub fn spend_on<T>(
        &self,
        index: usize,
        work: impl FnOnce() -> T,
        part: impl FnOnce(&Latency, &T) -> u64,
    ) -> T {
        let Some(latency) = self.latency(index) else { return work() };
        let begin = clock_ns();
        let done = work();
        be_busy(begin.saturating_add(self.vary(latency.jitter, part(latency, &done))));
        done
    }

    /// What takes time on device `index`, if anything does.
    pub fn latency(&self, index: usize) -> Option<&Latency> {
        self.machine().devices.get(index)?.latency.as_ref()
    }

    /// `ns` with this jitter: other in each process, and the same whenever the same is done again.
    #[inline]
    pub fn vary(&self, jitter: Jitter, ns: u64) -> u64 {
        static STEPS: AtomicU64 = AtomicU64::new(0);
        if jitter.ppm == 0 || ns == 0 {
            return ns;
        }
        jitter.vary(ns, (self.slot() as u64) << 40 | STEPS.fetch_add(1, Relaxed))
    }

    fn pass(&self, jitter: Jitter, ns: u64) {
        let ns = self.vary(jitter, ns);
        if ns > 0 {
            be_busy(clock_ns().saturating_add(ns));
        }
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
