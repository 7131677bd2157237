//! What the driver itself says that this process holds of a device.
//!
//! NVML's list of processes is the one figure that contains contexts, code and heaps. What it is worth depends on the
//! driver (measured and read from the open kernel modules, by branch):
//!
//! | driver | in a PID namespace of its own |
//! |---|---|
//! | before 535.113 | pids are the host's: no entry can be told to be ours |
//! | 535.113 to 565 | pids are ours, memory is 0 or not available |
//! | from 570 | pids and memory are ours |
//!
//! In the initial PID namespace all of them tell.
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

/// NVML's value for what it does not know.
const NOT_AVAILABLE: u64 = u64::MAX;
/// Processes that are looked through without asking the kernel for room.
const FEW: usize = 48;

/// Bytes of a device that this process holds, as the driver has them; 0 if the driver does not know it as a client, `None`
/// if the driver does not tell.
#[cold]
pub fn of_this_process(uuid: &Uuid) -> Option<u64> {
    let device = if initialise() && pids_are_ours() { handle(uuid) } else { None };
    look(device?)
}

fn look(device: nvmlDevice_t) -> Option<u64> {
    // SAFETY: plain data.
    let mut few: [nvmlProcessInfo_t; FEW] = unsafe { core::mem::zeroed() };
    let mut count = FEW as c_uint;
    match list(device, &mut count, few.as_mut_ptr()) {
        Some(nvmlReturn_t::NVML_SUCCESS) => find(few.iter().take(count as usize)),
        Some(nvmlReturn_t::NVML_ERROR_INSUFFICIENT_SIZE) => look_at_many(device, count),
        _ => None,
    }
}

fn look_at_many(device: nvmlDevice_t, count: c_uint) -> Option<u64> {
    // Others may come in between.
    let room = (count as usize).saturating_add(FEW).min(1 << 16);
    let bytes = room.wrapping_mul(size_of::<nvmlProcessInfo_t>());
    let Ok(memory) = kernel::map_private(bytes) else { return None };
    let mut count = room as c_uint;
    let figure = match list(device, &mut count, memory.cast()) {
        Some(nvmlReturn_t::NVML_SUCCESS) => {
            // SAFETY: the mapping is as large, zeroed, and NVML has written the first `count` records.
            let many = unsafe { core::slice::from_raw_parts(memory.cast::<nvmlProcessInfo_t>(), room) };
            find(many.iter().take(count as usize))
        }
        _ => None,
    };
    kernel::unmap_private(memory, bytes);
    figure
}

/// The list by its newest function; both have records of the same layout.
fn list(device: nvmlDevice_t, count: &mut c_uint, infos: *mut nvmlProcessInfo_t) -> Option<nvmlReturn_t> {
    if let Some(list) = sys::nvmlDeviceGetComputeRunningProcesses_v3::REAL.get() {
        // SAFETY: room for `count` records, which NVML is told.
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
        // A client holds its context at least.
        Some(0 | NOT_AVAILABLE) => None,
        Some(bytes) => Some(bytes),
    }
}

/// Whether NVML's pids are those that this process calls itself by.
fn pids_are_ours() -> bool {
    /// 0: not asked yet; 1: yes; 2: no.
    static KNOWN: AtomicU8 = AtomicU8::new(0);
    if KNOWN.load(Relaxed) == 0 {
        let ours =
            kernel::in_first_pid_namespace() || driver_version().is_some_and(|version| version >= (535, 113));
        KNOWN.store(if ours { 1 } else { 2 }, Relaxed);
    }
    KNOWN.load(Relaxed) == 1
}

/// The first two numbers of the driver's version.
fn driver_version() -> Option<(u32, u32)> {
    let mut text = [0u8; 80];
    // SAFETY: writes to a local, whose length is passed along.
    let told = unsafe { sys::nvmlSystemGetDriverVersion::REAL.get()?(text.as_mut_ptr().cast(), 80) };
    let mut numbers = text.split(|byte| !byte.is_ascii_digit()).map(|digits| {
        digits.iter().fold(0u32, |number, digit| number.wrapping_mul(10).wrapping_add(u32::from(digit & 15)))
    });
    (told == SUCCESS).then_some((numbers.next()?, numbers.next()?))
}
