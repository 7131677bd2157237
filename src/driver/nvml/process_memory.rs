//! The driver's own figure for the memory that this process holds of a device, and what it counts to no process.
//!
//! No other figure than that of NVML's list of processes contains contexts, code and heaps. Its value depends on the
//! driver's branch: in a PID namespace of its own a process cannot recognise its entry before 535.113
//! (`driver::nvml::pids`), and memory is 0 or not available from there to 565. In the initial PID namespace all of them
//! give pids and memory.
//!
//! # Safety
//! This file may use `unsafe` because it calls NVML with pointers to its own locals.
#![allow(unsafe_code)]

use super::{handle, initialise, pids, records, sys};
use crate::uuid::Uuid;
use core::ffi::c_uint;
use gpuquota_region::sys as kernel;
use sys::{nvmlDevice_t, nvmlMemory_t, nvmlProcessInfo_t, nvmlReturn_t};

/// NVML's value for an unknown size.
const NOT_AVAILABLE: u64 = u64::MAX;

/// Bytes of a device that this process holds by the driver's count: 0 if the process is no client of the driver, `None`
/// if the driver does not give the figure.
#[cold]
pub fn of_this_process(uuid: &Uuid) -> Option<u64> {
    let device = if initialise() && pids::of_lists_are_ours() { handle(uuid) } else { None };
    own_memory(device?)
}

fn own_memory(device: nvmlDevice_t) -> Option<u64> {
    // SAFETY: `nvmlProcessInfo_t` is plain data.
    unsafe { records::read(|count, infos| list(device, count, infos), find) }.flatten()
}

/// Bytes of a device that other processes hold by the driver's count. `None` if it does not give the figures.
#[cold]
pub fn of_processes(uuid: &Uuid, pids: &[u32]) -> Option<u64> {
    let device = if initialise() && pids::of_lists_are_ours() { handle(uuid) } else { None }?;
    let sum = |infos: &[nvmlProcessInfo_t]| {
        let theirs = infos.iter().filter(|info| pids.contains(&info.pid)).map(|info| info.usedGpuMemory);
        theirs.filter(|bytes| *bytes != NOT_AVAILABLE).fold(0u64, u64::saturating_add)
    };
    // SAFETY: `nvmlProcessInfo_t` is plain data.
    unsafe { records::read(|count, infos| list(device, count, infos), sum) }
}

/// What a device has given out and NVML counts to no process that it lists. In a PID namespace of its own a process does not see
/// all others in the list, and their memory is among these bytes.
#[derive(Clone, Copy)]
pub struct Unlisted {
    /// These bytes.
    pub bytes: u64,
    /// Processes in the list, without this one.
    pub others: usize,
}

impl Unlisted {
    /// `None` if the driver does not tell, or if what it tells changes all the time.
    #[cold]
    pub fn of(uuid: &Uuid) -> Option<Self> {
        let device = if initialise() { handle(uuid) } else { None }?;
        for _ in 0..3 {
            let before = used(device)?;
            // SAFETY: `nvmlProcessInfo_t` is plain data.
            let listed = unsafe { records::read(|count, infos| list(device, count, infos), sum) };
            let (bytes, others) = listed.flatten()?;
            if used(device)? == before {
                return Some(Self { bytes: before.checked_sub(bytes)?, others });
            }
        }
        None
    }
}

/// What a device has given out.
fn used(device: nvmlDevice_t) -> Option<u64> {
    // SAFETY: `nvmlMemory_t` is plain data.
    let mut memory: nvmlMemory_t = unsafe { core::mem::zeroed() };
    // SAFETY: writes to a local.
    let answer = unsafe { sys::nvmlDeviceGetMemoryInfo::REAL.get()?(device, &mut memory) };
    (answer == super::SUCCESS).then_some(memory.used)
}

/// The sum of the figures, and how many processes other than this one have one.
fn sum(infos: &[nvmlProcessInfo_t]) -> Option<(u64, usize)> {
    let own = kernel::pid();
    let known = |info: &nvmlProcessInfo_t| Some(info.usedGpuMemory).filter(|bytes| *bytes != NOT_AVAILABLE);
    let bytes = infos.iter().try_fold(0u64, |sum, info| sum.checked_add(known(info)?))?;
    Some((bytes, infos.iter().filter(|info| info.pid != own).count()))
}

/// Gets the list by the newest function that NVML has; both have records of the same layout.
fn list(device: nvmlDevice_t, count: &mut c_uint, infos: *mut nvmlProcessInfo_t) -> Option<nvmlReturn_t> {
    if let Some(list) = sys::nvmlDeviceGetComputeRunningProcesses_v3::REAL.get() {
        // SAFETY: there is space for `count` records, and the call passes `count` to NVML.
        return Some(unsafe { list(device, count, infos) });
    }
    let list = sys::nvmlDeviceGetComputeRunningProcesses_v2::REAL.get()?;
    // SAFETY: as above.
    Some(unsafe { list(device, count, infos.cast()) })
}

fn find(infos: &[nvmlProcessInfo_t]) -> Option<u64> {
    let own = kernel::pid();
    match infos.iter().find(|info| info.pid == own).map(|info| info.usedGpuMemory) {
        None => Some(0),
        // A client holds at least its context, so 0 is no true figure.
        Some(0 | NOT_AVAILABLE) => None,
        Some(bytes) => Some(bytes),
    }
}
