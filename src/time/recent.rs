//! How busy the container has kept a device of late, by what the region says was charged for its launches.

use crate::container::{Container, DeviceRef};
use crate::devices::Devices;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};
use gpuquota_books::lease;
use gpuquota_region::layout;
use gpuquota_region::sys;

/// What is read over a shorter time says little.
const SHORTEST_NS: u64 = 100_000_000;
/// An older reading says nothing of late.
const LONGEST_NS: u64 = 5_000_000_000;

/// The last reading of a device by this process. After a fork the child goes on with its parent's: the words are the same.
struct Reading {
    at_ns: AtomicU64,
    /// GPU time of what was over by then.
    worked_ns: AtomicU64,
    /// Percent until then.
    percent: AtomicU64,
}

static READINGS: [Reading; layout::DEVICES] = [const {
    Reading { at_ns: AtomicU64::new(0), worked_ns: AtomicU64::new(0), percent: AtomicU64::new(0) }
}; layout::DEVICES];

/// The percentage of the time since this process's last question, or of 0.1 s, for which it waits, if it has asked for the
/// first time in a while. `None` where launches are not measured: the container has neither a share nor a lease.
pub fn percent(container: &Container, devices: &Devices, device: DeviceRef) -> Option<u32> {
    let turns = container.header().leases.get(usize::from(device.index))?;
    if devices.share(container, device).is_none() && lease(turns).is_none() {
        return None;
    }
    let last = READINGS.get(usize::from(device.index))?;
    let mut now = sys::monotonic_ns();
    let mut since = now.saturating_sub(last.at_ns.load(Relaxed));
    if since > LONGEST_NS {
        last.at_ns.store(now, Relaxed);
        last.worked_ns.store(worked_ns(device, now), Relaxed);
        sys::sleep_until(now.saturating_add(SHORTEST_NS));
        since = sys::monotonic_ns().saturating_sub(now);
        now = now.saturating_add(since);
    }
    if since >= SHORTEST_NS {
        let worked = worked_ns(device, now);
        // A correction may take back some of what was charged.
        let new = worked.saturating_sub(last.worked_ns.swap(worked, Relaxed));
        last.at_ns.store(now, Relaxed);
        last.percent.store(new.saturating_mul(100).checked_div(since).unwrap_or(0).min(100), Relaxed);
    }
    Some(last.percent.load(Relaxed) as u32)
}

/// The GPU time of what the container had launched and what was over by now. The region's word has what is in flight, too.
fn worked_ns(device: DeviceRef, now: u64) -> u64 {
    let record = device.record;
    let in_flight = record.in_flight_until_ns.load(Relaxed).saturating_sub(now);
    record.gpu_time_ns.load(Relaxed).saturating_sub(in_flight)
}
