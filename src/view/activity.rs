//! How busy the container keeps a device. What others do there is theirs.

use crate::container::DeviceRef;
use crate::container::holders;
use crate::devices::Scope;
use crate::driver::nvml::samples::{self, Engine, Percentages};
use crate::driver::sys::nvml::nvmlDevice_t;
use crate::time::recent;
use gpuquota_region::sys;

/// Drivers close a sample at least once a second.
const WINDOW_US: u64 = 1_100_000;

/// How busy the container kept each engine of a device over the last second: the sum of the driver's samples of its
/// processes. Where the driver does not tell them, the library knows that a container without a process at a device did
/// nothing, and what the multiprocessors did where it measures launches; the rest is unknown.
pub fn own(scope: &Scope, device: DeviceRef, handle: nvmlDevice_t) -> Percentages {
    let container = &scope.container;
    let since_us = (sys::realtime_ns() / 1_000).saturating_sub(WINDOW_US);
    let each_pid = &mut |add: &mut dyn FnMut(u32)| {
        holders::each_pid(container, &mut |pid| {
            add(pid);
            true
        });
    };
    if let Some(told) = samples::of_processes(handle, since_us, each_pid) {
        return told;
    }
    let mut idle = true;
    holders::each(container, device, &mut |_| {
        idle = false;
        false
    });
    if idle {
        return [Some(0); 6];
    }
    let mut measured: Percentages = [None; 6];
    if let Some(processors) = measured.get_mut(Engine::Processors as usize) {
        *processors = recent::percent(container, &scope.devices, device);
    }
    measured
}
