//! Modes of a device: MIG, ECC, persistence, compute, display, virtualisation.

use cuda_shim_device::mig::is_capable;

use crate::abi::{Answer, Error, Out};
use crate::export::nvml;
use crate::library::{Device, Handle};

/// `nvmlEnableState_t`.
const DISABLED: u32 = 0;
const ENABLED: u32 = 1;

fn constant(device: Handle, place: Out<u32>, value: u32) -> Answer {
    device.device()?;
    place.put(value)
}

fn constants(device: Handle, current: Out<u32>, pending: Out<u32>, value: u32) -> Answer {
    constant(device, current, value)?;
    pending.put(value)
}

/// Most instances of a device.
const MOST_INSTANCES: u32 = 7;

/// The instances of a device that can be split.
fn splittable(device: Device) -> Result<impl Iterator<Item = usize>, Error> {
    if !is_capable(device.spec) {
        return Err(Error::NotSupported);
    }
    Ok(device.state.machine().instances(device.index))
}

nvml! {
    /// Whether the device is split, now and after a reset.
    fn nvmlDeviceGetMigMode(device: Handle, current: Out<u32>, pending: Out<u32>) {
        let mut split = device.device().and_then(splittable)?;
        constants(device, current, pending, split.next().map_or(DISABLED, |_| ENABLED))
    }

    /// Whether a handle is an instance's.
    fn nvmlDeviceIsMigDeviceHandle(device: Handle, is_mig: Out<u32>) {
        is_mig.put(device.any()?.spec.part.is_some().into())
    }

    /// How many instances there can be.
    fn nvmlDeviceGetMaxMigDeviceCount(device: Handle, count: Out<u32>) {
        let split = splittable(device.device()?);
        count.put(if split.is_ok() { MOST_INSTANCES } else { 0 })
    }

    /// The instances that there are.
    fn nvmlDeviceGetMigDeviceHandleByIndex(device: Handle, index: u32, mig: Out<Handle>) {
        let mut split = splittable(device.device()?)?;
        if mig.is_null() || index >= MOST_INSTANCES {
            return Err(Error::InvalidArgument);
        }
        mig.put(Handle::of(split.nth(index as usize).ok_or(Error::NotFound)?))
    }

    /// What an instance is a part of.
    fn nvmlDeviceGetDeviceHandleFromMigDeviceHandle(mig: Handle, device: Out<Handle>) {
        device.put(Handle::of(mig.instance()?.1.of))
    }

    /// The number of an instance's GPU instance.
    fn nvmlDeviceGetGpuInstanceId(device: Handle, number: Out<u32>) {
        number.put(device.instance()?.1.instance)
    }

    /// That of its compute instance: each GPU instance has one.
    fn nvmlDeviceGetComputeInstanceId(device: Handle, number: Out<u32>) {
        device.instance()?;
        number.put(0)
    }

    /// ECC is on.
    fn nvmlDeviceGetEccMode(device: Handle, current: Out<u32>, pending: Out<u32>) {
        constants(device, current, pending, ENABLED)
    }

    /// And has found nothing.
    fn nvmlDeviceGetTotalEccErrors(device: Handle, kind: u32, since: u32, errors: Out<u64>) {
        device.device()?;
        if kind > 1 || since > 1 {
            return Err(Error::InvalidArgument);
        }
        errors.put(0)
    }

    /// The driver stays loaded without clients.
    fn nvmlDeviceGetPersistenceMode(device: Handle, mode: Out<u32>) {
        constant(device, mode, ENABLED)
    }

    /// `NVML_COMPUTEMODE_DEFAULT`: any number of processes.
    fn nvmlDeviceGetComputeMode(device: Handle, mode: Out<u32>) {
        constant(device, mode, 0)
    }

    /// No display is attached.
    fn nvmlDeviceGetDisplayMode(device: Handle, mode: Out<u32>) {
        constant(device, mode, DISABLED)
    }

    /// Nor initialised.
    fn nvmlDeviceGetDisplayActive(device: Handle, active: Out<u32>) {
        constant(device, active, DISABLED)
    }

    /// `NVML_GPU_VIRTUALIZATION_MODE_NONE`: bare metal.
    fn nvmlDeviceGetVirtualizationMode(device: Handle, mode: Out<u32>) {
        constant(device, mode, 0)
    }
}
