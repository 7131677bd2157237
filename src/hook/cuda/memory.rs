//! Device memory by address: allocations, which are charged, and frees.
//!
//! # Safety
//! This file may use `unsafe` because it reads the out-parameters that the driver has just written successfully.
#![allow(unsafe_code)]

use crate::devices::Place;
use crate::driver::cuda::{CUdeviceptr, CUresult, managed};
use crate::driver::sys::cuda as sys;
use crate::hook::hooks;
use crate::memory::Memory;
use crate::memory::holdings::{Key, Kind};
use crate::memory::ops::Decision;
use crate::process::{Quota, quota, quota_unchecked};
use core::ffi::c_uint;

/// The charge of an allocation, by the calling thread's context.
pub(super) enum Site {
    /// This process pays for it, in a context of a device.
    Charged(Memory<'static>, Place),
    /// It is free: this process has no quota, or the region has no record left for the device.
    Free,
    /// The library cannot keep the quota, so it refuses the allocation.
    Closed,
}

impl Site {
    /// The site of the calling thread.
    #[inline(always)]
    pub fn here() -> Self {
        match quota_unchecked() {
            Quota::On(process) => match process.scope.place() {
                Some(place) => Self::Charged(process.memory(), place),
                None => Self::Free,
            },
            Quota::Off => Self::Free,
            Quota::Closed => Self::Closed,
        }
    }

    /// The decision on an allocation of `bytes` here, and the owner of its holding.
    #[inline(always)]
    pub fn admit(self, bytes: u64) -> (Decision<'static>, u64) {
        match self {
            Self::Charged(memory, place) => (memory.admit(place.device, bytes), place.context),
            Self::Free => (Decision::PassThrough, 0),
            Self::Closed => (Decision::Refused, 0),
        }
    }
}

/// Carries out a decision: makes the call that was granted, and records the holding under the key that `key` reads.
#[inline(always)]
pub(super) fn allocate_as_decided(
    decision: Decision<'_>,
    owner: u64,
    call: impl Fn() -> CUresult,
    key: impl FnOnce() -> Option<Key>,
) -> CUresult {
    let grant = match decision {
        Decision::PassThrough => return call(),
        Decision::Refused => return CUresult::OUT_OF_MEMORY,
        Decision::Granted(grant) => grant,
    };
    let answer = grant.call(call);
    if answer.is_success() {
        grant.commit(key(), owner);
    } else {
        grant.roll_back();
    }
    answer
}

/// Allocates `bytes` in the calling thread's context; `handle` reads the handle after the call.
pub(super) fn allocate_with_handle(
    kind: Kind,
    bytes: u64,
    call: impl Fn() -> CUresult,
    handle: impl FnOnce() -> u64,
) -> CUresult {
    let (decision, owner) = Site::here().admit(bytes);
    allocate_as_decided(decision, owner, call, || Key::new(kind, handle()))
}

/// Allocates `bytes`; the driver writes the address to `pointer`, in 64 bits, or in 32 in the first driver API.
#[inline(always)]
fn allocate<T: Copy + Into<u64> + TryFrom<u64>>(
    pointer: *mut T,
    bytes: u64,
    call: impl Fn() -> CUresult,
) -> CUresult {
    if pointer.is_null() || bytes == 0 {
        return call();
    }
    let site = Site::here();
    if let Site::Charged(memory, place) = site
        && memory.scope.container.spills()
    {
        return allocate_or_spill(memory, place, pointer, bytes, &call);
    }
    match site {
        Site::Charged(memory, place) => memory.allocate(place, bytes, call, || {
            // SAFETY: not null, and read only after the driver has written to it.
            (unsafe { *pointer }.into(), bytes)
        }),
        Site::Free => call(),
        Site::Closed => CUresult::OUT_OF_MEMORY,
    }
}

/// The same where memory may be oversubscribed.
#[cold]
pub(super) fn allocate_or_spill<T: Copy + Into<u64> + TryFrom<u64>>(
    memory: Memory<'_>,
    place: Place,
    pointer: *mut T,
    bytes: u64,
    call: &dyn Fn() -> CUresult,
) -> CUresult {
    // SAFETY: not null, and where the driver would write.
    let write = |address| T::try_from(address).map(|address| unsafe { *pointer = address }).is_ok();
    let on_host = || managed::allocate_on_host(bytes, write);
    let (answer, spillable) = memory.admit_or_spill(place.device, bytes, call, on_host);
    match spillable {
        Some(spillable) if answer.is_success() => {
            // SAFETY: not null, and the driver or we have just written to it.
            return spillable.commit(memory, unsafe { *pointer }.into(), bytes, place.context);
        }
        Some(spillable) => spillable.roll_back(),
        None => {}
    }
    answer
}

/// Frees memory that has a handle.
pub(super) fn release(kind: Kind, handle: u64, call: impl FnOnce() -> CUresult) -> CUresult {
    match quota() {
        Quota::On(process) => process.memory().free(Key::new(kind, handle), call),
        Quota::Off | Quota::Closed => call(),
    }
}

/// Frees memory by address, in stream order or not.
#[inline(always)]
pub(super) fn free(pointer: u64, call: impl FnOnce() -> CUresult) -> CUresult {
    match quota() {
        Quota::On(process) => process.memory().free_by_address(pointer, call),
        Quota::Off | Quota::Closed => call(),
    }
}

hooks! { sys;
    cuMemAlloc: fn(dptr: *mut c_uint, bytes: c_uint) -> CUresult = |real| allocate(dptr, bytes.into(), real);
    cuMemAlloc_v2: fn(dptr: *mut CUdeviceptr, bytes: usize) -> CUresult
        = |real| allocate(dptr, bytes as u64, real);
    cuMemFree: fn(dptr: c_uint) -> CUresult = |real| free(u64::from(dptr), real);
    cuMemFree_v2: fn(dptr: CUdeviceptr) -> CUresult = |real| free(dptr, real);
}
