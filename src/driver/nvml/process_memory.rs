//! The driver's own figure for the memory that this process holds of a device.
//!
//! No other figure than that of NVML's list of processes contains contexts, code and heaps. Its value depends on the
//! driver's branch (measured, and read from the open kernel modules):
//!
//! | driver | in a PID namespace of its own |
//! |---|---|
//! | before 535.113 | pids are the host's: the library cannot recognise its own entry |
//! | 535.113 to 565 | pids are the namespace's, memory is 0 or not available |
//! | from 570 | pids are the namespace's, memory is given |
//!
//! In the initial PID namespace all of them give pids and memory.
//!
//! # Safety
//! This file may use `unsafe` because it calls NVML with pointers to its own locals.
#![allow(unsafe_code)]

use super::{SUCCESS, handle, initialise, sys};
use crate::uuid::Uuid;
use core::ffi::c_uint;
use core::sync::atomic::{AtomicU8, Ordering::Relaxed};
use gpuquota_region::sys as kernel;
use sys::{nvmlDevice_t, nvmlProcessInfo_t, nvmlReturn_t};

/// NVML's value for an unknown size.
const NOT_AVAILABLE: u64 = u64::MAX;
/// A list of so many processes fits on the stack; a longer one needs a mapping.
const FEW: usize = 48;

/// Bytes of a device that this process holds by the driver's count: 0 if the process is no client of the driver, `None`
/// if the driver does not give the figure.
#[cold]
pub fn of_this_process(uuid: &Uuid) -> Option<u64> {
    let device = if initialise() && pids_are_ours() { handle(uuid) } else { None };
    own_memory(device?)
}

fn own_memory(device: nvmlDevice_t) -> Option<u64> {
    // SAFETY: plain data.
    let mut few: [nvmlProcessInfo_t; FEW] = unsafe { core::mem::zeroed() };
    let mut count = FEW as c_uint;
    match list(device, &mut count, few.as_mut_ptr()) {
        Some(nvmlReturn_t::NVML_SUCCESS) => find(few.iter().take(count as usize)),
        Some(nvmlReturn_t::NVML_ERROR_INSUFFICIENT_SIZE) => own_memory_among_many(device, count),
        _ => None,
    }
}

fn own_memory_among_many(device: nvmlDevice_t, count: c_uint) -> Option<u64> {
    // More processes may start between the two calls.
    let capacity = (count as usize).saturating_add(FEW).min(1 << 16);
    let bytes = capacity.wrapping_mul(size_of::<nvmlProcessInfo_t>());
    let Ok(memory) = kernel::map_private(bytes) else { return None };
    let mut count = capacity as c_uint;
    let figure = match list(device, &mut count, memory.cast()) {
        Some(nvmlReturn_t::NVML_SUCCESS) => {
            // SAFETY: the mapping is as large, zeroed, and NVML has written the first `count` records.
            let many = unsafe { core::slice::from_raw_parts(memory.cast::<nvmlProcessInfo_t>(), capacity) };
            find(many.iter().take(count as usize))
        }
        _ => None,
    };
    kernel::unmap_private(memory, bytes);
    figure
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

fn find<'i>(mut infos: impl Iterator<Item = &'i nvmlProcessInfo_t>) -> Option<u64> {
    let own = kernel::pid();
    match infos.find(|info| info.pid == own).map(|info| info.usedGpuMemory) {
        None => Some(0),
        // A client holds at least its context, so 0 is no true figure.
        Some(0 | NOT_AVAILABLE) => None,
        Some(bytes) => Some(bytes),
    }
}

/// Whether NVML gives pids of this process's PID namespace.
fn pids_are_ours() -> bool {
    /// 0: not found out yet; 1: yes; 2: no.
    static STATE: AtomicU8 = AtomicU8::new(0);
    if STATE.load(Relaxed) == 0 {
        let ours =
            kernel::in_first_pid_namespace() || driver_version().is_some_and(|version| version >= (535, 113));
        STATE.store(if ours { 1 } else { 2 }, Relaxed);
    }
    STATE.load(Relaxed) == 1
}

/// The first two numbers of the driver's version.
fn driver_version() -> Option<(u32, u32)> {
    let mut text = [0u8; 80];
    // SAFETY: writes to a local, whose length is passed along.
    let answer = unsafe { sys::nvmlSystemGetDriverVersion::REAL.get()?(text.as_mut_ptr().cast(), 80) };
    let mut numbers = text.split(|byte| !byte.is_ascii_digit()).map(|digits| {
        digits.iter().fold(0u32, |number, digit| number.wrapping_mul(10).wrapping_add(u32::from(digit & 15)))
    });
    (answer == SUCCESS).then_some((numbers.next()?, numbers.next()?))
}
