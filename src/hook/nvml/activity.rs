//! NVML's figures on single processes beside their memory, and the size of a MIG device: cut down to the container's.
//!
//! The library leaves out samples whose pids it cannot recognise (`driver::nvml::pids`).
//!
//! # Safety
//! This file may use `unsafe` because it rewrites records that NVML has just written successfully.
#![allow(unsafe_code)]

use super::processes::{container_device, keep};
use super::utilisation::sees_own_work;
use super::{SUCCESS, sys};
use crate::container::holders;
use crate::driver::nvml::pids;
use crate::hook::hooks;
use core::ffi::{c_uint, c_ulonglong};
use sys::{nvmlDevice_t, nvmlReturn_t};

/// A record that names a process.
trait OfProcess {
    fn pid(&self) -> c_uint;
}

macro_rules! records_by_pid {
    ($($record:ty),*) => { $(
        impl OfProcess for $record {
            fn pid(&self) -> c_uint {
                self.pid
            }
        }
    )* };
}

records_by_pid!(
    sys::nvmlProcessUtilizationSample_t,
    sys::nvmlProcessUtilizationInfo_v1_t,
    sys::nvmlEncoderSessionInfo_t,
    sys::nvmlFBCSessionInfo_t
);

/// A record of the accounting list, which has nothing but pids.
impl OfProcess for c_uint {
    fn pid(&self) -> c_uint {
        *self
    }
}

/// Whether the caller may see what a process does: it belongs to the container, or tools see the whole device.
fn is_own(device: nvmlDevice_t, pid: c_uint) -> bool {
    let Some(process) = sees_own_work(device) else { return true };
    let mut found = false;
    holders::each_pid(&process.scope.container, &mut |own| {
        found = own == pid;
        !found
    });
    found
}

/// Leaves the records of the container's processes.
fn own<T: OfProcess>(
    device: nvmlDevice_t,
    count: *mut c_uint,
    records: *mut T,
    answer: nvmlReturn_t,
) -> nvmlReturn_t {
    if answer == SUCCESS && !count.is_null() && !records.is_null() && sees_own_work(device).is_some() {
        // SAFETY: not null, and NVML has just written `count` entries.
        unsafe {
            let entries = core::slice::from_raw_parts_mut(records, *count as usize);
            *count = keep(entries, |record| is_own(device, record.pid())) as c_uint;
        }
    }
    answer
}

/// Leaves the container's samples. Without any NVML answers "not found", and so does this.
fn samples<T: OfProcess>(
    device: nvmlDevice_t,
    count: *mut c_uint,
    samples: *mut T,
    answer: nvmlReturn_t,
) -> nvmlReturn_t {
    if answer == SUCCESS && sees_own_work(device).is_some() && !pids::of_samples_are_ours() {
        return nvmlReturn_t::NVML_ERROR_NOT_FOUND;
    }
    let answer = own(device, count, samples, answer);
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
    nvmlDeviceGetEncoderSessions: fn(
        device: nvmlDevice_t, count: *mut c_uint, sessions: *mut sys::nvmlEncoderSessionInfo_t
    ) -> nvmlReturn_t = |real| own(device, count, sessions, real());
    nvmlDeviceGetFBCSessions: fn(
        device: nvmlDevice_t, count: *mut c_uint, sessions: *mut sys::nvmlFBCSessionInfo_t
    ) -> nvmlReturn_t = |real| own(device, count, sessions, real());
    nvmlDeviceGetAccountingPids: fn(device: nvmlDevice_t, count: *mut c_uint, pids: *mut c_uint) -> nvmlReturn_t
        = |real| own(device, count, pids, real());
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
