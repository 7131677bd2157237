//! What calls take of their host's time and a device's front end of its streams', on a machine that says so.

use cuda_shim_device::{Latency, clock_ns};

use crate::model::world::driver;

/// Has a call take its part of the host's time, if calls take any.
#[inline]
pub fn spend(part: impl FnOnce(&Latency) -> u64) {
    if let Ok(driver) = driver()
        && let Some(latency) = driver.latency()
    {
        be_busy(part(latency));
    }
}

/// The host computes in a call: it does not sleep, and holds no lock that other threads wait for.
#[cold]
pub fn be_busy(ns: u64) {
    let until = clock_ns().saturating_add(ns);
    while clock_ns() < until {
        std::hint::spin_loop();
    }
}
