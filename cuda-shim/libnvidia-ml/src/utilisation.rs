//! Samples of how busy a device is.

use std::sync::OnceLock;
use std::time::{SystemTime, UNIX_EPOCH};

use cuda_shim_device::clock_ns;

use crate::library::Device;

/// The sample period.
pub const PERIOD_NS: u64 = 1_000_000_000 / 6;
pub const PERIOD_US: u32 = (PERIOD_NS / 1000) as u32;
/// Samples that are kept.
pub const KEPT: u64 = 5;

/// A closed sample.
pub struct Closed {
    /// Microseconds since 1970.
    pub time_stamp: u64,
    /// Nanoseconds by process, named by pid and PID namespace.
    pub busy: Vec<((u32, u64), u64)>,
}

/// The closed samples that are kept, the oldest first.
pub fn closed(device: &Device) -> impl DoubleEndedIterator<Item = Closed> {
    let last = clock_ns() / PERIOD_NS;
    (last.saturating_sub(KEPT)..last).map(|number| {
        let (from, to) = (number * PERIOD_NS, (number + 1) * PERIOD_NS);
        Closed { time_stamp: since_1970_us(to), busy: device.state.busy(device.index, from, to) }
    })
}

impl Closed {
    /// Percent of the period in which the device worked.
    pub fn percent(&self) -> u32 {
        let busy: u64 = self.busy.iter().map(|(_, busy)| busy).sum();
        (busy.min(PERIOD_NS) * 100 / PERIOD_NS) as u32
    }
}

/// Share of the last sample period in which the device and its instances worked, in percent.
pub fn percent(device: &Device) -> u32 {
    let places = [device.index].into_iter().chain(device.instances());
    let busy: u32 = places
        .filter_map(|index| {
            let spec = device.state.machine().devices.get(index)?;
            closed(&Device { state: device.state, index, spec }).next_back()
        })
        .map(|sample| sample.percent())
        .sum();
    busy.min(100)
}

/// The same of an instant of [`clock_ns`]: always the same for the same instant.
pub fn since_1970_us(clock: u64) -> u64 {
    static SINCE: OnceLock<u64> = OnceLock::new();
    let since = SINCE.get_or_init(|| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64);
        now.saturating_sub(clock_ns())
    });
    (since + clock) / 1000
}
