//! Stream-ordered memory: charged by what its pool holds.
//!
//! # Safety
//! This room may use `unsafe` because it reads the caller's property records and the out-parameters that the driver
//! has just written successfully, and asks the driver about handles that it gave.
#![allow(unsafe_code)]

use super::memory::allocation;
use super::{
    CUdevice, CUdeviceptr, CUresult, CUstream, cuDeviceGetDefaultMemPool, cuDeviceGetMemPool,
    cuMemPoolGetAttribute, hooks, is_capturing, ordinal_of, sys,
};
use crate::account::Verdict;
use crate::device::Place;
use crate::holdings::{Holding, Key, Kind};
use crate::kept::Name;
use crate::process::{Process, Quota, quota};
use core::ffi::c_void;
use core::ptr::null_mut;

type Pool = sys::CUmemoryPool;

/// Bytes that a pool holds and, of these, that its allocations use.
pub fn held_and_used(pool: u64) -> Option<(u64, u64)> {
    let ask = cuMemPoolGetAttribute::REAL.get()?;
    let get = |attribute| {
        let mut value = 0u64;
        // SAFETY: a pool that the driver knows, or it answers with an error; both attributes are 64-bit numbers.
        let answer = unsafe { ask(pool as Pool, attribute, (&raw mut value).cast()) };
        answer.is_success().then_some(value)
    };
    Some((get(sys::CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT)?, get(sys::CU_MEMPOOL_ATTR_USED_MEM_CURRENT)?))
}

/// Makes a pool give back what it does not use.
pub fn trim(pool: u64) {
    if let Some(trim) = cuMemPoolTrimTo::REAL.get() {
        // SAFETY: as above.
        unsafe { trim(pool as Pool, 0) };
    }
}

/// Where an allocation comes from.
enum From {
    /// A pool of a device, which is charged for it.
    Pool(Pool, u8),
    /// Memory of a device, by a driver that tells nothing of its pool.
    Device(u8),
    /// Host memory, or another process's.
    Elsewhere,
}

/// Where an allocation in a context of device `here` comes from: the pool that is named, or the current one.
fn origin(process: &Process, here: u8, named: Option<Pool>) -> From {
    match named {
        Some(pool) => match device_of(process, pool) {
            Some(device) => From::Pool(pool, device),
            None if cuDeviceGetDefaultMemPool::REAL.get().is_none() => From::Device(here),
            None => From::Elsewhere,
        },
        None => current_pool().map_or(From::Device(here), |pool| From::Pool(pool, here)),
    }
}

fn current_pool() -> Option<Pool> {
    let mut pool: Pool = null_mut();
    // SAFETY: writes a handle to a local.
    unsafe { cuDeviceGetMemPool::REAL.get()?(&mut pool, super::current_device()) }
        .is_success()
        .then_some(pool)
}

/// The device whose memory a pool deals out; `None` for pools of host memory and those of other processes.
fn device_of(process: &Process, pool: Pool) -> Option<u8> {
    process.keeper_device(Name::Pool(pool as u64)).or_else(|| learn_default(process, pool))
}

/// A pool that nobody of this process has created may be a device's own.
#[cold]
fn learn_default(process: &Process, pool: Pool) -> Option<u8> {
    let ask = cuDeviceGetDefaultMemPool::REAL.get()?;
    let is_own = |ordinal: &CUdevice| {
        let mut own: Pool = null_mut();
        // SAFETY: writes a handle to a local.
        unsafe { ask(&mut own, *ordinal) }.is_success() && own == pool
    };
    let ordinal = (0..super::device_count()).find(is_own)?;
    let device = process.known.of_ordinal(process, ordinal)?;
    process.know_keeper(Name::Pool(pool as u64), device).then_some(device)
}

/// A stream-ordered allocation, from the pool that is named or from the current one.
struct Ordered {
    pointer: *mut CUdeviceptr,
    bytes: u64,
    pool: Option<Pool>,
    stream: CUstream,
    per_thread: bool,
}

fn allocate(asked: &Ordered, call: impl Fn() -> CUresult) -> CUresult {
    // Captured, it becomes a node of a graph and takes no memory here.
    if asked.pointer.is_null() || asked.bytes == 0 || is_capturing(asked.stream, asked.per_thread) {
        return call();
    }
    allocation(&call, |process, place| charged(process, place, asked, &call))
}

fn charged(process: &Process, place: Place, asked: &Ordered, call: &impl Fn() -> CUresult) -> CUresult {
    // SAFETY: not null, which is looked at first, and the driver has just written to it.
    let given = |kind| Key::new(kind, unsafe { *asked.pointer });
    let by_size = |device| process.allocate(device, asked.bytes, call, || (given(Kind::Memory), 0));
    let (pool, device) = match origin(process, place.device, asked.pool) {
        From::Pool(pool, device) => (pool, device),
        From::Device(device) => return by_size(device),
        From::Elsewhere => return call(),
    };
    let name = Name::Pool(pool as u64);
    if !process.know_keeper(name, device) {
        return by_size(device);
    }
    let undo = || give_back(asked, pool);
    let Some(answer) = process.take_from_keeper(name, device, asked.bytes, call, Some(&undo)) else {
        return by_size(device);
    };
    if answer.is_success() {
        process
            .note(given(Kind::Pooled), Holding { bytes: asked.bytes, device, lane: 0, owner: pool as u64 });
    }
    answer
}

/// Undoes an allocation that made its pool grow too much.
#[cold]
fn give_back(asked: &Ordered, pool: Pool) {
    let own = if asked.per_thread { cuMemFreeAsync_ptsz::REAL.get() } else { None };
    if let Some(free) = own.or_else(|| cuMemFreeAsync::REAL.get()) {
        // SAFETY: the driver has just given it, in this stream, and nobody else was told.
        unsafe { free(*asked.pointer, asked.stream) };
    }
    trim(pool as u64);
}

/// A free in stream order, of memory that may also have come otherwise.
fn free(pointer: CUdeviceptr, call: impl FnOnce() -> CUresult) -> CUresult {
    let Quota::On(process) = quota() else { return call() };
    process.free_any(pointer, call)
}

/// A pool is created; the driver writes its handle to `pool`.
fn created(pool: *mut Pool, properties: *const sys::CUmemPoolProps, answer: CUresult) -> CUresult {
    if answer.is_success()
        && !properties.is_null()
        && let Quota::On(process) = quota()
    {
        // SAFETY: the driver has read the one and written the other.
        let (ordinal, pool) = unsafe { (ordinal_of(&(*properties).location), *pool) };
        if let Some(device) = ordinal.and_then(|ordinal| process.known.of_ordinal(process, ordinal)) {
            process.know_keeper(Name::Pool(pool as u64), device);
        }
    }
    answer
}

/// A pool is destroyed. What is still allocated from it lives on, and is then charged by itself.
fn destroy(pool: Pool, call: impl FnOnce() -> CUresult) -> CUresult {
    let Quota::On(process) = quota() else { return call() };
    let device = process.keeper_device(Name::Pool(pool as u64));
    let answer = call();
    if let Some(device) = device.filter(|_| answer.is_success()) {
        process.charge_each_of_pool(device, pool as u64);
        process.forget_keeper(Name::Pool(pool as u64));
    }
    answer
}

/// After a call that may have made pools give something back.
pub(super) fn then_settle(answer: CUresult) -> CUresult {
    if let Quota::On(process) = quota() {
        process.settle_stale_keepers();
    }
    answer
}

fn trimmed(pool: Pool, answer: CUresult) -> CUresult {
    if let Quota::On(process) = quota() {
        process.settle_keeper(Name::Pool(pool as u64));
    }
    answer
}

hooks! { super::super::LIBCUDA, sys;
    cuMemAllocAsync: fn(dptr: *mut CUdeviceptr, bytes: usize, stream: CUstream) -> CUresult = |real| allocate(
        &Ordered { pointer: dptr, bytes: bytes as u64, pool: None, stream, per_thread: false }, real);
    cuMemAllocAsync_ptsz: fn(dptr: *mut CUdeviceptr, bytes: usize, stream: CUstream) -> CUresult = |real| allocate(
        &Ordered { pointer: dptr, bytes: bytes as u64, pool: None, stream, per_thread: true }, real);
    cuMemAllocFromPoolAsync: fn(dptr: *mut CUdeviceptr, bytes: usize, pool: Pool, stream: CUstream) -> CUresult
        = |real| allocate(
        &Ordered { pointer: dptr, bytes: bytes as u64, pool: Some(pool), stream, per_thread: false }, real);
    cuMemAllocFromPoolAsync_ptsz: fn(dptr: *mut CUdeviceptr, bytes: usize, pool: Pool, stream: CUstream) -> CUresult
        = |real| allocate(
        &Ordered { pointer: dptr, bytes: bytes as u64, pool: Some(pool), stream, per_thread: true }, real);
    cuMemFreeAsync, cuMemFreeAsync_ptsz: fn(dptr: CUdeviceptr, stream: CUstream) -> CUresult = |real| free(dptr, real);
    cuMemPoolCreate: fn(pool: *mut Pool, properties: *const sys::CUmemPoolProps) -> CUresult
        = |real| created(pool, properties, real());
    cuMemPoolDestroy: fn(pool: Pool) -> CUresult = |real| destroy(pool, real);
    cuMemPoolTrimTo: fn(pool: Pool, keep: usize) -> CUresult = |real| trimmed(pool, real());
    cuMemPoolSetAttribute: fn(pool: Pool, attribute: sys::CUmemPool_attribute, value: *mut c_void) -> CUresult
        = |real| trimmed(pool, real());
}
