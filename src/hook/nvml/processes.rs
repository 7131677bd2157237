//! The processes of the container, as its tools read them: with pids of the caller's namespace and the bytes of the books.
//!
//! Processes, pids and sizes in a driver's list depend on its branch (`driver::nvml::process_memory`). So the library makes
//! the list of compute processes from the region. In every other list it leaves the driver's records of the container's
//! processes, and corrects their sizes.
//!
//! # Safety
//! This file may use `unsafe` because it writes to the caller's arrays within the count that the caller gave, and
//! rewrites records that NVML has just written successfully.
#![allow(unsafe_code)]

use super::{SUCCESS, sys, target};
use crate::container::DeviceRef;
use crate::container::holders::{self, Holder};
use crate::devices::Target;
use crate::driver::nvml::instances;
use crate::hook::hooks;
use crate::process::{Process, Quota, quota};
use core::ffi::c_uint;
use sys::{nvmlDevice_t, nvmlProcessInfo_t, nvmlProcessInfo_v1_t, nvmlProcessInfo_v2_t, nvmlReturn_t};

/// A record of some list of processes.
pub(super) trait ProcessRecord {
    /// The pid.
    fn pid(&self) -> c_uint;
    /// Corrects the size.
    fn set_bytes(&mut self, bytes: u64);
}

/// A record that the library makes itself.
trait NewRecord: ProcessRecord {
    /// The record of a process; `instance` has the numbers of its instance.
    fn new(pid: c_uint, bytes: u64, instance: [c_uint; 2]) -> Self;
}

macro_rules! records {
    ($($record:ty),*) => { $(
        impl ProcessRecord for $record {
            fn pid(&self) -> c_uint {
                self.pid
            }

            fn set_bytes(&mut self, bytes: u64) {
                self.usedGpuMemory = bytes;
            }
        }
    )* };
}

records!(nvmlProcessInfo_v1_t, nvmlProcessInfo_v2_t, sys::nvmlProcessDetail_v1_t);

impl NewRecord for nvmlProcessInfo_v1_t {
    fn new(pid: c_uint, bytes: u64, _: [c_uint; 2]) -> Self {
        Self { pid, usedGpuMemory: bytes }
    }
}

impl NewRecord for nvmlProcessInfo_v2_t {
    fn new(pid: c_uint, bytes: u64, [gpu, compute]: [c_uint; 2]) -> Self {
        Self { pid, usedGpuMemory: bytes, gpuInstanceId: gpu, computeInstanceId: compute }
    }
}

/// The device, if the view shows its slice; `None` where tools see the whole device.
pub(super) fn container_device(device: nvmlDevice_t) -> Option<(&'static Process, DeviceRef)> {
    let Quota::On(process) = quota() else { return None };
    let Target::One(device) = target(process, device, 0)? else { return None };
    process.scope.devices.shows_slice(&process.scope.container, device).then_some((process, device))
}

/// Calls `visit` with each process of the container on a device, or on the instances of a split device, and the process's
/// instance, until `visit` returns false. Answers whether the view shows the slice; of a split device: all its instances'.
fn each_own(device: nvmlDevice_t, visit: &mut dyn FnMut(Holder, [c_uint; 2]) -> bool) -> bool {
    let Quota::On(process) = quota() else { return false };
    if !matches!(target(process, device, 0), Some(Target::Split)) {
        return each_own_of(device, visit);
    }
    let (mut some, mut all, mut more) = (false, true, true);
    instances::each(device, &mut |instance| {
        let shown = each_own_of(instance, &mut |holder, numbers| {
            more = more && visit(holder, numbers);
            more
        });
        some |= shown;
        all &= shown;
    });
    some && all
}

fn each_own_of(device: nvmlDevice_t, visit: &mut dyn FnMut(Holder, [c_uint; 2]) -> bool) -> bool {
    let Some((process, own)) = container_device(device) else { return false };
    let numbers = instances::numbers(device);
    holders::each(&process.scope.container, own, &mut |holder| visit(holder, numbers));
    true
}

/// The bytes that the process with this pid holds of a device; the inner `None` if the container has no such process, the
/// outer `None` where tools see the whole device.
fn held_by(device: nvmlDevice_t, pid: c_uint) -> Option<Option<u64>> {
    let mut held = None;
    let shown = each_own(device, &mut |holder, _| {
        held = (holder.pid == pid).then(|| holder.bytes());
        held.is_none()
    });
    shown.then_some(held)
}

/// The list of compute processes. As in all of NVML's lists, a call with too small an array gets the size that it needs.
fn compute<T: NewRecord>(
    device: nvmlDevice_t,
    count: *mut c_uint,
    infos: *mut T,
    call: impl FnOnce() -> nvmlReturn_t,
) -> nvmlReturn_t {
    if count.is_null() || !each_own(device, &mut |_, _| false) {
        return call();
    }
    // SAFETY: not null, and the caller gives it to NVML, which reads it too.
    let capacity = unsafe { *count } as usize;
    if infos.is_null() && capacity > 0 {
        return call();
    }
    let answer = call();
    if answer != SUCCESS && answer != nvmlReturn_t::NVML_ERROR_INSUFFICIENT_SIZE {
        return answer;
    }
    let mut found = 0usize;
    each_own(device, &mut |holder, instance| {
        if found < capacity {
            // SAFETY: below the count that the caller gave, in an array that is not null.
            unsafe { infos.wrapping_add(found).write(T::new(holder.pid, holder.bytes(), instance)) };
        }
        found = found.saturating_add(1);
        true
    });
    // SAFETY: not null.
    unsafe { *count = found as c_uint };
    if found > capacity { nvmlReturn_t::NVML_ERROR_INSUFFICIENT_SIZE } else { SUCCESS }
}

/// Moves the entries that shall stay to the front. Answers their number.
pub(super) fn keep<T>(entries: &mut [T], mut stays: impl FnMut(&mut T) -> bool) -> usize {
    let mut kept = 0usize;
    for at in 0..entries.len() {
        if !entries.get_mut(at).is_some_and(&mut stays) {
            continue;
        }
        if let Some((front, [from, ..])) = entries.split_at_mut_checked(at)
            && let Some(to) = front.get_mut(kept)
        {
            core::mem::swap(to, from);
        }
        kept = kept.saturating_add(1);
    }
    kept
}

/// Leaves the driver's records of the container's processes, and corrects their sizes. Answers their number.
pub(super) fn keep_own<T: ProcessRecord>(device: nvmlDevice_t, entries: &mut [T]) -> usize {
    keep(entries, |entry| match held_by(device, entry.pid()) {
        None => true,
        Some(None) => false,
        Some(Some(bytes)) => {
            entry.set_bytes(bytes);
            true
        }
    })
}

/// Filters a list that the driver has written.
fn filtered<T: ProcessRecord>(
    device: nvmlDevice_t,
    count: *mut c_uint,
    infos: *mut T,
    answer: nvmlReturn_t,
) -> nvmlReturn_t {
    if answer == SUCCESS && !count.is_null() && !infos.is_null() {
        // SAFETY: not null, and NVML has just written `count` entries.
        unsafe {
            let entries = core::slice::from_raw_parts_mut(infos, *count as usize);
            *count = keep_own(device, entries) as c_uint;
        }
    }
    answer
}

/// The same for a list within a structure.
fn filtered_in(
    device: nvmlDevice_t,
    list: *mut sys::nvmlProcessDetailList_t,
    answer: nvmlReturn_t,
) -> nvmlReturn_t {
    if answer == SUCCESS && !list.is_null() {
        // SAFETY: not null, and NVML has just written it.
        let list = unsafe { &mut *list };
        return filtered(device, &mut list.numProcArrayEntries, list.procArray, answer);
    }
    answer
}

hooks! { sys;
    nvmlDeviceGetComputeRunningProcesses: fn(
        device: nvmlDevice_t, count: *mut c_uint, infos: *mut nvmlProcessInfo_v1_t
    ) -> nvmlReturn_t = |real| compute(device, count, infos, real);
    nvmlDeviceGetComputeRunningProcesses_v2: fn(
        device: nvmlDevice_t, count: *mut c_uint, infos: *mut nvmlProcessInfo_v2_t
    ) -> nvmlReturn_t = |real| compute(device, count, infos, real);
    nvmlDeviceGetComputeRunningProcesses_v3: fn(
        device: nvmlDevice_t, count: *mut c_uint, infos: *mut nvmlProcessInfo_t
    ) -> nvmlReturn_t = |real| compute(device, count, infos, real);
    nvmlDeviceGetGraphicsRunningProcesses: fn(
        device: nvmlDevice_t, count: *mut c_uint, infos: *mut nvmlProcessInfo_v1_t
    ) -> nvmlReturn_t = |real| filtered(device, count, infos, real());
    nvmlDeviceGetGraphicsRunningProcesses_v2: fn(
        device: nvmlDevice_t, count: *mut c_uint, infos: *mut nvmlProcessInfo_v2_t
    ) -> nvmlReturn_t = |real| filtered(device, count, infos, real());
    nvmlDeviceGetGraphicsRunningProcesses_v3: fn(
        device: nvmlDevice_t, count: *mut c_uint, infos: *mut nvmlProcessInfo_t
    ) -> nvmlReturn_t = |real| filtered(device, count, infos, real());
    nvmlDeviceGetMPSComputeRunningProcesses: fn(
        device: nvmlDevice_t, count: *mut c_uint, infos: *mut nvmlProcessInfo_v1_t
    ) -> nvmlReturn_t = |real| filtered(device, count, infos, real());
    nvmlDeviceGetMPSComputeRunningProcesses_v2: fn(
        device: nvmlDevice_t, count: *mut c_uint, infos: *mut nvmlProcessInfo_v2_t
    ) -> nvmlReturn_t = |real| filtered(device, count, infos, real());
    nvmlDeviceGetMPSComputeRunningProcesses_v3: fn(
        device: nvmlDevice_t, count: *mut c_uint, infos: *mut nvmlProcessInfo_t
    ) -> nvmlReturn_t = |real| filtered(device, count, infos, real());
    nvmlDeviceGetRunningProcessDetailList: fn(
        device: nvmlDevice_t, list: *mut sys::nvmlProcessDetailList_t
    ) -> nvmlReturn_t = |real| filtered_in(device, list, real());
}
