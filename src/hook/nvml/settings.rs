//! Settings of the whole device: a process under a quota may not change them, because other containers share the device.
//!
//! The driver allows these calls to root, and many containers run as root.

use super::sys;
use crate::hook::hooks;
use crate::process::{Quota, quota};
use core::ffi::{c_int, c_uint};
use sys::{nvmlDevice_t, nvmlEnableState_t, nvmlReturn_t};

/// Answers that the caller has no permission, as the driver does.
fn denied(call: impl FnOnce() -> nvmlReturn_t) -> nvmlReturn_t {
    match quota() {
        Quota::On(process) if !process.scope.container.observes() => nvmlReturn_t::NVML_ERROR_NO_PERMISSION,
        Quota::On(_) | Quota::Off | Quota::Closed => call(),
    }
}

hooks! { sys;
    nvmlDeviceSetComputeMode: fn(device: nvmlDevice_t, mode: sys::nvmlComputeMode_t) -> nvmlReturn_t
        = |real| denied(real);
    nvmlDeviceSetPersistenceMode, nvmlDeviceSetEccMode, nvmlDeviceSetAccountingMode,
    nvmlDeviceSetAutoBoostedClocksEnabled: fn(device: nvmlDevice_t, mode: nvmlEnableState_t) -> nvmlReturn_t
        = |real| denied(real);
    nvmlDeviceSetMigMode: fn(device: nvmlDevice_t, mode: c_uint, status: *mut nvmlReturn_t) -> nvmlReturn_t
        = |real| denied(real);
    nvmlDeviceSetGpuOperationMode: fn(device: nvmlDevice_t, mode: sys::nvmlGpuOperationMode_t) -> nvmlReturn_t
        = |real| denied(real);
    nvmlDeviceClearAccountingPids, nvmlDeviceResetGpuLockedClocks, nvmlDeviceResetMemoryLockedClocks,
    nvmlDeviceResetApplicationsClocks: fn(device: nvmlDevice_t) -> nvmlReturn_t = |real| denied(real);
    nvmlDeviceSetPowerManagementLimit: fn(device: nvmlDevice_t, limit: c_uint) -> nvmlReturn_t
        = |real| denied(real);
    nvmlDeviceSetPowerManagementLimit_v2: fn(
        device: nvmlDevice_t, limit: *mut sys::nvmlPowerValue_v2_t
    ) -> nvmlReturn_t = |real| denied(real);
    nvmlDeviceSetGpuLockedClocks, nvmlDeviceSetMemoryLockedClocks, nvmlDeviceSetApplicationsClocks: fn(
        device: nvmlDevice_t, first: c_uint, second: c_uint
    ) -> nvmlReturn_t = |real| denied(real);
    nvmlDeviceSetClockOffsets: fn(device: nvmlDevice_t, info: *mut sys::nvmlClockOffset_t) -> nvmlReturn_t
        = |real| denied(real);
    nvmlDeviceSetGpcClkVfOffset, nvmlDeviceSetMemClkVfOffset: fn(device: nvmlDevice_t, offset: c_int) -> nvmlReturn_t
        = |real| denied(real);
    nvmlDeviceSetMemoryLimits_v1: fn(
        device: nvmlDevice_t, limits: *mut sys::nvmlSetMemoryLimits_v1_t
    ) -> nvmlReturn_t = |real| denied(real);
    nvmlDeviceCreateGpuInstance: fn(
        device: nvmlDevice_t, profile: c_uint, instance: *mut sys::nvmlGpuInstance_t
    ) -> nvmlReturn_t = |real| denied(real);
    nvmlDeviceCreateGpuInstanceWithPlacement: fn(
        device: nvmlDevice_t, profile: c_uint, placement: *const sys::nvmlGpuInstancePlacement_t,
        instance: *mut sys::nvmlGpuInstance_t
    ) -> nvmlReturn_t = |real| denied(real);
    nvmlGpuInstanceDestroy: fn(instance: sys::nvmlGpuInstance_t) -> nvmlReturn_t = |real| denied(real);
    nvmlGpuInstanceCreateComputeInstance: fn(
        instance: sys::nvmlGpuInstance_t, profile: c_uint, compute: *mut sys::nvmlComputeInstance_t
    ) -> nvmlReturn_t = |real| denied(real);
    nvmlGpuInstanceCreateComputeInstanceWithPlacement: fn(
        instance: sys::nvmlGpuInstance_t, profile: c_uint, placement: *const sys::nvmlComputeInstancePlacement_t,
        compute: *mut sys::nvmlComputeInstance_t
    ) -> nvmlReturn_t = |real| denied(real);
    nvmlComputeInstanceDestroy: fn(compute: sys::nvmlComputeInstance_t) -> nvmlReturn_t = |real| denied(real);
    nvmlDeviceModifyDrainState: fn(bus: *mut sys::nvmlPciInfo_t, state: nvmlEnableState_t) -> nvmlReturn_t
        = |real| denied(real);
    nvmlDeviceRemoveGpu: fn(bus: *mut sys::nvmlPciInfo_t) -> nvmlReturn_t = |real| denied(real);
    nvmlDeviceRemoveGpu_v2: fn(
        bus: *mut sys::nvmlPciInfo_t, state: sys::nvmlDetachGpuState_t, link: sys::nvmlPcieLinkState_t
    ) -> nvmlReturn_t = |real| denied(real);
}
