//! The GPU time of a container without a share: nothing measures its launches, and NVML counts for how much of its sample
//! periods this process kept a device busy.
//!
//! On an H200 with driver 580 a period is 200 ms, the figure is that of the last one alone, in whole percent, rounded down.
//! So the library asks more often than that, with launches and waits: the percentage counts for the time since the sample
//! before. What a program does after its last call of these is not seen. Where NVML does not tell, nothing is counted.

use crate::container::DeviceRef;
use crate::devices::Scope;
use crate::driver::nvml::samples;
use crate::lock::{Ask, Lock};
use crate::uuid::Uuid;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use gpuquota_region::layout::DEVICES;
use gpuquota_region::sys::{self, KeepErrno};

/// Shorter than a sample period of any driver.
const PAUSE_NS: u64 = 100_000_000;
/// A sample tells nothing of the time that is longer ago than this, unless it says that the device was busy all the time.
const FAR_US: u64 = 1_000_000;
/// At most so many calls pass without a look at the clock.
const MOST_CALLS: u32 = 64;

/// All-zero bytes: nothing was counted yet.
pub struct Counted {
    /// Calls before the next look at the clock.
    left: AtomicU32,
    /// How many there were before the last one.
    calls: AtomicU32,
    /// When NVML was last asked, CLOCK_MONOTONIC nanoseconds.
    asked_at_ns: AtomicU64,
    /// The devices that this process has used, one bit each.
    used: AtomicU32,
    /// Up to when the time of each device is counted, microseconds since 1970; 0: it is not.
    until_us: [AtomicU64; DEVICES],
    asking: Lock,
}

impl Counted {
    /// A launch, or a wait that is over.
    #[inline(always)]
    pub fn call(&self, scope: &Scope) {
        match self.left.load(Relaxed).checked_sub(1) {
            // Threads that store at the same time lose a call or two, which only delays the next look.
            Some(left) => self.left.store(left, Relaxed),
            None => self.look(scope),
        }
    }

    #[cold]
    #[inline(never)]
    fn look(&self, scope: &Scope) {
        let now = sys::monotonic_coarse_ns();
        if now.saturating_sub(self.asked_at_ns.load(Relaxed)) < PAUSE_NS {
            let calls = self.calls.load(Relaxed).saturating_mul(2).clamp(1, MOST_CALLS);
            self.calls.store(calls, Relaxed);
            self.left.store(calls, Relaxed);
            return;
        }
        self.calls.store(0, Relaxed);
        let _errno = KeepErrno::new();
        let Some(_asking) = self.asking.try_lock_or_repair(Ask::Kernel, || {}) else { return };
        self.asked_at_ns.store(now, Relaxed);
        if let Some(place) = scope.place() {
            self.used.fetch_or(1u32.checked_shl(place.device.index.into()).unwrap_or(0), Relaxed);
        }
        let used = self.used.load(Relaxed);
        let devices =
            (0..DEVICES as u8).filter(|index| used.checked_shr((*index).into()).unwrap_or(0) & 1 != 0);
        devices.filter_map(|index| scope.container.device(index)).for_each(|device| self.count(device));
    }

    fn count(&self, device: DeviceRef) {
        let Some(until) = self.until_us.get(usize::from(device.index)) else { return };
        let since_us = until.load(Relaxed);
        let now_us = sys::realtime_ns() / 1_000;
        if since_us == 0 || since_us > now_us {
            until.store(now_us, Relaxed);
            return;
        }
        match samples::of_this_process(&Uuid::of(device.record), since_us) {
            Some(Some((at_us, percent))) => {
                until.store(at_us.min(now_us), Relaxed);
                let busy_ns = busy_ns(at_us.min(now_us).saturating_sub(since_us), percent);
                device.record.gpu_time_ns.fetch_add(busy_ns, Relaxed);
            }
            // No new sample yet; or none with this process, which did nothing.
            Some(None) if now_us.saturating_sub(since_us) > FAR_US => until.store(now_us, Relaxed),
            Some(None) | None => {}
        }
    }
}

/// For how long a device was busy in a time at whose end a sample of `percent` was closed. The figure is rounded down: a half
/// more is right on the average.
fn busy_ns(passed_us: u64, percent: u32) -> u64 {
    let (passed_us, halves) = match percent {
        0 => return 0,
        1..99 => (passed_us.min(FAR_US), u64::from(percent) * 2 + 1),
        _ => (passed_us, 200),
    };
    passed_us.saturating_mul(halves).saturating_mul(5)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentage_counts_for_the_time_since_the_sample_before() {
        assert_eq!(busy_ns(200_000, 0), 0);
        assert_eq!(busy_ns(200_000, 30), 61_000_000, "30.5% of 200 ms");
        assert_eq!(busy_ns(200_000, 99), 200_000_000);
        assert_eq!(busy_ns(200_000, 100), 200_000_000);
        assert_eq!(busy_ns(60_000_000, 50), 505_000_000, "of one second");
        assert_eq!(busy_ns(60_000_000, 100), 60_000_000_000, "a long kernel");
    }
}
