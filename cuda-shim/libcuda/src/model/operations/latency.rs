//! What calls take of their host's time and a device's front end of its streams', on a machine that says so.

use cuda_shim_device::Latency;

use crate::model::objects::handle::KernelHandle;
use crate::model::world::{World, driver};
use crate::tools::status::Outcome;

/// Has a call take its part of the host's time, if calls take any. The caller does not hold the world.
#[inline]
pub fn spend(part: impl FnOnce(&Latency) -> u64) {
    if let Ok(driver) = driver() {
        driver.state.spend(part);
    }
}

/// Whether calls take any time at all.
pub fn are_simulated() -> bool {
    driver().is_ok_and(|driver| driver.latency().is_some())
}

/// What a launch takes more because code is loaded only then; nothing the next time.
pub fn late_loading(world: &mut World, kernel: KernelHandle, latency: &Latency) -> Outcome<u64> {
    let kernel = world.kernels.get_mut(kernel)?;
    if std::mem::replace(&mut kernel.loaded, true) {
        return Ok(0);
    }
    let loaded = match (world.modules.get_mut(kernel.module), world.libraries.get_mut(kernel.library)) {
        (Ok(module), _) => &mut module.loaded,
        (_, Ok(library)) => &mut library.loaded,
        _ => return Ok(latency.function_launch_ns),
    };
    let first = !std::mem::replace(loaded, true);
    Ok(latency.function_launch_ns + if first { latency.module_launch_ns } else { 0 })
}
