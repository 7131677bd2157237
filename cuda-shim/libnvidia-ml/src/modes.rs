//! Modes of a device: MIG, ECC, accounting, persistence, compute, display, virtualisation.

use crate::abi::{Answer, Error, Out};
use crate::library::Handle;

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

nvml! {
    /// MIG is off, now and after a reset.
    fn nvmlDeviceGetMigMode(device: Handle, current: Out<u32>, pending: Out<u32>) {
        constants(device, current, pending, DISABLED)
    }

    /// No handle is a MIG device's.
    fn nvmlDeviceIsMigDeviceHandle(device: Handle, is_mig: Out<u32>) {
        constant(device, is_mig, 0)
    }

    /// No MIG devices.
    fn nvmlDeviceGetMaxMigDeviceCount(device: Handle, count: Out<u32>) {
        constant(device, count, 0)
    }

    /// So none at any index.
    fn nvmlDeviceGetMigDeviceHandleByIndex(device: Handle, _index: u32, mig: Out<Handle>) {
        device.device()?;
        if mig.is_null() { Err(Error::InvalidArgument) } else { Err(Error::NotFound) }
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

    /// The driver keeps no account of ended processes.
    fn nvmlDeviceGetAccountingMode(device: Handle, mode: Out<u32>) {
        constant(device, mode, DISABLED)
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
