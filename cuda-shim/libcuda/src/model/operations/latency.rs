//! What calls take of their host's time and a device's front end of its streams', on a device that says so.

use cuda_shim_device::Latency;

use crate::model::objects::handle::{ContextHandle, KernelHandle};
use crate::model::world::{Driver, World, driver};
use crate::tools::status::Outcome;

/// Has a call take its part of the host's time, if calls take any on the device that it concerns: `device` finds that one's
/// ordinal. A call that concerns none will fail, and takes nothing. The caller does not hold the world.
#[inline]
pub fn spend(device: impl FnOnce(&mut World) -> Outcome<usize>, part: impl FnOnce(&Latency) -> u64) {
    if let Ok(driver) = driver()
        && driver.state.takes_time()
        && let Ok(index) = find(driver, device)
    {
        driver.state.spend(index, part);
    }
}

/// Does the work of a call, which takes its part of the host's time if it does not take more anyway.
pub fn spend_on<T>(
    driver: &Driver,
    device: impl FnOnce(&mut World) -> Outcome<usize>,
    work: impl FnOnce() -> T,
    part: impl FnOnce(&Latency) -> u64,
) -> T {
    match find(driver, device) {
        Ok(index) => driver.state.spend_on(index, work, |latency, _| part(latency)),
        Err(_) => work(),
    }
}

/// The place in the machine of the device that is found.
#[cold]
fn find(driver: &Driver, device: impl FnOnce(&mut World) -> Outcome<usize>) -> Outcome<usize> {
    let mut world = driver.world();
    let ordinal = device(&mut world)?;
    Ok(world.device(ordinal as i32)?.1.index)
}

/// The same for a call that first loads a kernel into the context that `context` finds, if it is not there yet.
#[cold]
pub fn spend_and_load(
    driver: &Driver,
    context: impl FnOnce(&mut World) -> Outcome<ContextHandle>,
    kernel: KernelHandle,
    part: impl FnOnce(&Latency) -> u64,
) -> Outcome {
    let mut world = driver.world();
    let context = context(&mut world)?;
    let ordinal = world.device_of(context)?;
    let Some(latency) = world.latency(ordinal) else { return Ok(()) };
    let takes = part(latency) + late_loading(&mut world, kernel, context, latency)?;
    let index = world.devices[ordinal].index;
    drop(world);
    driver.state.spend(index, |_| takes);
    Ok(())
}

/// What a launch takes more because code is loaded only then; nothing the next time.
fn late_loading(
    world: &mut World,
    kernel: KernelHandle,
    context: ContextHandle,
    latency: &Latency,
) -> Outcome<u64> {
    let context = world.contexts.get(context)?.id;
    let kernel = world.kernels.get_mut(kernel)?;
    if !kernel.loaded.load(context) {
        return Ok(0);
    }
    let code = match (world.modules.get_mut(kernel.module), world.libraries.get_mut(kernel.library)) {
        (Ok(module), _) => &mut module.loaded,
        (_, Ok(library)) => &mut library.loaded,
        _ => return Ok(latency.function_launch_ns),
    };
    let is_first = code.load(context);
    Ok(latency.function_launch_ns + if is_first { latency.module_launch_ns } else { 0 })
}
