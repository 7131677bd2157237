//! NVML's figures on processes beside their memory, and the size of a MIG device: cut down to the container's.
//!
//! Drivers 535.113 to 565 put the node's pids into utilisation samples, although they translate the pids of process lists.
//! The library cannot recognise such a sample as the container's, and leaves it out.
//!
//! # Safety
//! This file may use `unsafe` because it rewrites records that NVML has just written successfully.
#![allow(unsafe_code)]

use super::processes::{ProcessRecord, container_device, filtered, is_own};
use super::{SUCCESS, sys};
use crate::hook::hooks;
use core::ffi::{c_uint, c_ulonglong};
use sys::{nvmlDevice_t, nvmlReturn_t};

macro_rules! records_by_pid {
    ($($record:ty),*) => { $(
        impl ProcessRecord for $record {
            fn pid(&self) -> c_uint {
                self.pid
            }

            fn set_bytes(&mut self, _: u64) {}
        }
    )* };
}

records_by_pid!(sys::nvmlProcessUtilizationSample_t, sys::nvmlProcessUtilizationInfo_v1_t);

/// A record of the accounting list, which has nothing but pids.
impl ProcessRecord for c_uint {
    fn pid(&self) -> c_uint {
        *self
    }

    fn set_bytes(&mut self, _: u64) {}
}

/// Leaves the container's samples. Without any NVML answers "not found", and so does this.
fn samples<T: ProcessRecord>(
    device: nvmlDevice_t,
    count: *mut c_uint,
    samples: *mut T,
    answer: nvmlReturn_t,
) -> nvmlReturn_t {
    let answer = filtered(device, count, samples, answer);
    // SAFETY: not null, and NVML or we have just written it.
    let none = answer == SUCCESS && !count.is_null() && !samples.is_null() && unsafe { *count } == 0;
    if none { nvmlReturn_t::NVML_ERROR_NOT_FOUND } else { answer }
}

/// The same, where a structure has the samples.
fn samples_in(
    device: nvmlDevice_t,
    info: *mut sys::nvmlProcessesUtilizationInfo_t,
    answer: nvmlReturn_t,
) -> nvmlReturn_t {
    if answer != SUCCESS || info.is_null() {
        return answer;
    }
    // SAFETY: not null, and NVML has just written it.
    let info = unsafe { &mut *info };
    samples(device, &mut info.processSamplesCount, info.procUtilArray, answer)
}

/// A figure on one process, which the caller may have if the process is the container's.
fn of_process(device: nvmlDevice_t, pid: c_uint, call: impl FnOnce() -> nvmlReturn_t) -> nvmlReturn_t {
    if is_own(device, pid) { call() } else { nvmlReturn_t::NVML_ERROR_NOT_FOUND }
}

/// The same, where the caller writes the pid into the record.
fn of_process_in(
    device: nvmlDevice_t,
    stats: *mut sys::nvmlAccountingStats_v2_t,
    call: impl FnOnce() -> nvmlReturn_t,
) -> nvmlReturn_t {
    if stats.is_null() {
        return call();
    }
    // SAFETY: not null, and the caller passes it to NVML, which reads the pid too.
    of_process(device, unsafe { (*stats).pid }, call)
}

/// Lowers the size of a MIG device, in MiB, to its cap.
fn attributes(
    device: nvmlDevice_t,
    attributes: *mut sys::nvmlDeviceAttributes_t,
    answer: nvmlReturn_t,
) -> nvmlReturn_t {
    if answer == SUCCESS
        && !attributes.is_null()
        && let Some((process, device)) = container_device(device)
        && let Some(cap) = process.scope.devices.memory_cap(device)
    {
        // SAFETY: not null, and NVML has just written it.
        let size = unsafe { &mut (*attributes).memorySizeMB };
        *size = (*size).min(cap >> 20);
    }
    answer
}

hooks! { sys;
    nvmlDeviceGetProcessUtilization: fn(
        device: nvmlDevice_t, utilization: *mut sys::nvmlProcessUtilizationSample_t, count: *mut c_uint,
        last: c_ulonglong
    ) -> nvmlReturn_t = |real| samples(device, count, utilization, real());
    nvmlDeviceGetProcessesUtilizationInfo: fn(
        device: nvmlDevice_t, info: *mut sys::nvmlProcessesUtilizationInfo_t
    ) -> nvmlReturn_t = |real| samples_in(device, info, real());
    nvmlDeviceGetAccountingPids: fn(device: nvmlDevice_t, count: *mut c_uint, pids: *mut c_uint) -> nvmlReturn_t
        = |real| filtered(device, count, pids, real());
    nvmlDeviceGetAccountingStats: fn(
        device: nvmlDevice_t, pid: c_uint, stats: *mut sys::nvmlAccountingStats_t
    ) -> nvmlReturn_t = |real| of_process(device, pid, real);
    nvmlDeviceGetAccountingStats_v2: fn(
        device: nvmlDevice_t, stats: *mut sys::nvmlAccountingStats_v2_t
    ) -> nvmlReturn_t = |real| of_process_in(device, stats, real);
    nvmlDeviceGetAttributes, nvmlDeviceGetAttributes_v2: fn(
        device: nvmlDevice_t, info: *mut sys::nvmlDeviceAttributes_t
    ) -> nvmlReturn_t
        = |real| attributes(device, info, real());
}
