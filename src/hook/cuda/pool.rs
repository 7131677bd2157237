//! Stream-ordered memory: charged by what its pool holds.
//!
//! # Safety
//! This file may use `unsafe` because it reads the caller's property records and the out-parameters that the driver
//! has just written successfully.
#![allow(unsafe_code)]

use super::memory::{Site, allocate_as_decided, free};
use crate::container::DeviceRef;
use crate::devices::Place;
use crate::driver::cuda::arenas::{self, Arena, Pool};
use crate::driver::cuda::{CUdeviceptr, CUresult, CUstream, events, ordinal_of};
use crate::driver::sys::cuda as sys;
use crate::hook::hooks;
use crate::memory::Memory;
use crate::memory::holdings::{Holding, Key, Kind};
use crate::process::{Quota, quota};
use core::ffi::c_void;

/// Where an allocation comes from.
enum Origin {
    /// A pool of a device, which is charged for it.
    Pool(Pool, DeviceRef),
    /// Memory of a device, by a driver that tells nothing of its pool.
    Device(DeviceRef),
    /// Host memory, or another process's.
    Elsewhere,
}

impl Origin {
    /// Of an allocation in a context of device `here`: the pool that is named, or the current one.
    fn of(memory: Memory<'_>, here: DeviceRef, named: Option<Pool>) -> Self {
        match named {
            Some(pool) => match device_of(memory, pool) {
                Some(device) => Self::Pool(pool, device),
                None if !arenas::knows_default_pools() => Self::Device(here),
                None => Self::Elsewhere,
            },
            None => arenas::current_pool().map_or(Self::Device(here), |pool| Self::Pool(pool, here)),
        }
    }
}

/// The device whose memory a pool deals out; `None` for pools of host memory and those of other processes.
fn device_of(memory: Memory<'_>, pool: Pool) -> Option<DeviceRef> {
    match memory.state.arenas.device_of(Arena::Pool(pool as u64)) {
        Some(device) => memory.scope.container.device(device),
        None => learn_default(memory, pool),
    }
}

/// A pool that nobody of this process has created may be a device's own.
#[cold]
fn learn_default(memory: Memory<'_>, pool: Pool) -> Option<DeviceRef> {
    let ordinal = arenas::ordinal_of_default_pool(pool)?;
    let device = memory.scope.of_ordinal(ordinal)?;
    memory.state.arenas.register(Arena::Pool(pool as u64), device.index).then_some(device)
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
    if asked.pointer.is_null() || asked.bytes == 0 || events::is_capturing(asked.stream, asked.per_thread) {
        return call();
    }
    match Site::here() {
        Site::Charged(memory, place) => charged(memory, place, asked, &call),
        Site::Free => call(),
        Site::Closed => CUresult::OUT_OF_MEMORY,
    }
}

fn charged(memory: Memory<'_>, place: Place, asked: &Ordered, call: &impl Fn() -> CUresult) -> CUresult {
    let (pool, device) = match Origin::of(memory, place.device, asked.pool) {
        Origin::Pool(pool, device) => (pool, device),
        Origin::Device(device) => return by_size(memory, device, asked, call),
        Origin::Elsewhere => return call(),
    };
    let arena = Arena::Pool(pool as u64);
    if !memory.state.arenas.register(arena, device.index) {
        return by_size(memory, device, asked, call);
    }
    let undo = || {
        // SAFETY: not null, which is looked at first, and the driver has just written to it.
        arenas::free_ordered(unsafe { *asked.pointer }, asked.stream, asked.per_thread);
        arena.trim();
    };
    let Some(answer) = memory.take_from_arena(arena, device, asked.bytes, call, Some(&undo)) else {
        return by_size(memory, device, asked, call);
    };
    if answer.is_success() {
        let owner = pool as u64;
        let holding = Holding { bytes: asked.bytes, device: device.index, journal: 0, owner };
        memory.books().record_holding(asked.key(Kind::Pooled), holding);
    }
    answer
}

/// An allocation that is charged for itself.
fn by_size(memory: Memory<'_>, device: DeviceRef, asked: &Ordered, call: &impl Fn() -> CUresult) -> CUresult {
    allocate_as_decided(memory.admit(device, asked.bytes), 0, call, || asked.key(Kind::Memory))
}

impl Ordered {
    /// The key of what the driver has given.
    fn key(&self, kind: Kind) -> Option<Key> {
        // SAFETY: not null, which is looked at first, and the driver has just written to it.
        Key::new(kind, unsafe { *self.pointer })
    }
}

/// A pool is created; the driver writes its handle to `pool`.
fn created(pool: *mut Pool, properties: *const sys::CUmemPoolProps, answer: CUresult) -> CUresult {
    if answer.is_success()
        && !properties.is_null()
        && let Quota::On(process) = quota()
    {
        // SAFETY: the driver has read the one and written the other.
        let (ordinal, pool) = unsafe { (ordinal_of(&(*properties).location), *pool) };
        let device = ordinal.and_then(|ordinal| process.scope.of_ordinal(ordinal));
        if let Some(device) = device {
            process.memory().state.arenas.register(Arena::Pool(pool as u64), device.index);
        }
    }
    answer
}

/// A pool is destroyed. What is still allocated from it lives on, and is then charged by itself.
fn destroy(pool: Pool, call: impl FnOnce() -> CUresult) -> CUresult {
    let answer = call();
    if answer.is_success()
        && let Quota::On(process) = quota()
    {
        process.memory().pool_was_destroyed(pool as u64);
    }
    answer
}

fn trimmed(pool: Pool, answer: CUresult) -> CUresult {
    if let Quota::On(process) = quota() {
        let memory = process.memory();
        memory.state.arenas.update_charge(memory.books(), Arena::Pool(pool as u64));
    }
    answer
}

hooks! { sys;
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
    cuMemFreeAsync, cuMemFreeAsync_ptsz: fn(dptr: CUdeviceptr, stream: CUstream) -> CUresult
        = |real| free(dptr, real);
    cuMemPoolCreate: fn(pool: *mut Pool, properties: *const sys::CUmemPoolProps) -> CUresult
        = |real| created(pool, properties, real());
    cuMemPoolDestroy: fn(pool: Pool) -> CUresult = |real| destroy(pool, real);
    cuMemPoolTrimTo: fn(pool: Pool, keep: usize) -> CUresult = |real| trimmed(pool, real());
    cuMemPoolSetAttribute: fn(pool: Pool, attribute: sys::CUmemPool_attribute, value: *mut c_void) -> CUresult
        = |real| trimmed(pool, real());
}
