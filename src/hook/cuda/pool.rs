//! Stream-ordered memory: the charge is that of its pool.
//!
//! # Safety
//! This file may use `unsafe` because it reads the caller's property records and the out-parameters that the driver
//! has just written successfully.
#![allow(unsafe_code)]

use super::memory::{Site, free};
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

/// The origin of an allocation.
enum Origin {
    /// A pool of a device; the pool's charge contains the allocation.
    Pool(Pool, DeviceRef),
    /// Memory of a device, where the driver does not say which pool it uses.
    Device(DeviceRef),
    /// Host memory, or memory of another process.
    Elsewhere,
}

impl Origin {
    /// The origin of an allocation in a context of device `here`: the named pool, or the current one.
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

/// The device of a pool; `None` for pools of host memory and those of other processes.
fn device_of(memory: Memory<'_>, pool: Pool) -> Option<DeviceRef> {
    match memory.state.arenas.device_of(Arena::Pool(pool as u64)) {
        Some(device) => memory.scope.container.device(device),
        None => identify_default(memory, pool),
    }
}

/// The device of a pool that this process has not created: the pool may be the device's default pool.
#[cold]
fn identify_default(memory: Memory<'_>, pool: Pool) -> Option<DeviceRef> {
    let ordinal = arenas::ordinal_of_default_pool(pool)?;
    let device = memory.scope.of_ordinal(ordinal)?;
    memory.state.arenas.register(Arena::Pool(pool as u64), device.index).then_some(device)
}

/// The program's request for a stream-ordered allocation, from the named pool or from the current one.
struct OrderedRequest {
    pointer: *mut CUdeviceptr,
    bytes: u64,
    pool: Option<Pool>,
    stream: CUstream,
    per_thread: bool,
}

fn allocate(request: &OrderedRequest, call: impl Fn() -> CUresult) -> CUresult {
    // The capture makes it a node of a graph, so it takes no memory now.
    if request.pointer.is_null()
        || request.bytes == 0
        || events::is_capturing(request.stream, request.per_thread)
    {
        return call();
    }
    match Site::here() {
        Site::Charged(memory, place) => allocate_charged(memory, place, request, &call),
        Site::Free => call(),
        Site::Closed => CUresult::OUT_OF_MEMORY,
    }
}

fn allocate_charged(
    memory: Memory<'_>,
    place: Place,
    request: &OrderedRequest,
    call: &impl Fn() -> CUresult,
) -> CUresult {
    let (pool, device) = match Origin::of(memory, place.device, request.pool) {
        Origin::Pool(pool, device) => (pool, device),
        Origin::Device(device) => return allocate_by_size(memory, device, request, call),
        Origin::Elsewhere => return call(),
    };
    let arena = Arena::Pool(pool as u64);
    if !memory.state.arenas.register(arena, device.index) {
        return allocate_by_size(memory, device, request, call);
    }
    let undo = || {
        // SAFETY: not null, which `allocate` checks first, and the driver has just written to it.
        arenas::free_ordered(unsafe { *request.pointer }, request.stream, request.per_thread);
        arena.trim();
    };
    let Some(answer) = memory.take_from_arena(arena, device, request.bytes, call, Some(&undo)) else {
        return allocate_by_size(memory, device, request, call);
    };
    if answer.is_success() {
        let owner = pool as u64;
        let holding = Holding { bytes: request.bytes, device: device.index, journal: 0, owner };
        memory.books().record_holding(request.key(Kind::Pooled), holding);
    }
    answer
}

/// Makes an allocation with a charge of its own.
fn allocate_by_size(
    memory: Memory<'_>,
    device: DeviceRef,
    request: &OrderedRequest,
    call: &impl Fn() -> CUresult,
) -> CUresult {
    let address = || request.key(Kind::Memory).map_or(0, Key::value);
    memory.allocate(Place { context: 0, device }, request.bytes, call, || (address(), request.bytes))
}

impl OrderedRequest {
    /// The key of the memory that the driver has given.
    fn key(&self, kind: Kind) -> Option<Key> {
        // SAFETY: not null, which `allocate` checks first, and the driver has just written to it.
        Key::new(kind, unsafe { *self.pointer })
    }
}

/// A pool was created, and the driver has written its handle to `pool`.
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

/// Destroys a pool. Its living allocations stay, and get charges of their own.
fn destroy(pool: Pool, call: impl FnOnce() -> CUresult) -> CUresult {
    let Quota::On(process) = quota() else { return call() };
    let departure = process.memory().pool_departs(pool as u64);
    let answer = call();
    if answer.is_success() {
        process.memory().pool_was_destroyed(&departure);
    } else {
        process.memory().pool_stays(&departure);
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
        &OrderedRequest { pointer: dptr, bytes: bytes as u64, pool: None, stream, per_thread: false }, real);
    cuMemAllocAsync_ptsz: fn(dptr: *mut CUdeviceptr, bytes: usize, stream: CUstream) -> CUresult = |real| allocate(
        &OrderedRequest { pointer: dptr, bytes: bytes as u64, pool: None, stream, per_thread: true }, real);
    cuMemAllocFromPoolAsync: fn(dptr: *mut CUdeviceptr, bytes: usize, pool: Pool, stream: CUstream) -> CUresult
        = |real| allocate(
        &OrderedRequest { pointer: dptr, bytes: bytes as u64, pool: Some(pool), stream, per_thread: false }, real);
    cuMemAllocFromPoolAsync_ptsz: fn(dptr: *mut CUdeviceptr, bytes: usize, pool: Pool, stream: CUstream) -> CUresult
        = |real| allocate(
        &OrderedRequest { pointer: dptr, bytes: bytes as u64, pool: Some(pool), stream, per_thread: true }, real);
    cuMemFreeAsync, cuMemFreeAsync_ptsz: fn(dptr: CUdeviceptr, stream: CUstream) -> CUresult
        = |real| free(dptr, real);
    cuMemPoolCreate: fn(pool: *mut Pool, properties: *const sys::CUmemPoolProps) -> CUresult
        = |real| created(pool, properties, real());
    cuMemPoolDestroy: fn(pool: Pool) -> CUresult = |real| destroy(pool, real);
    cuMemPoolTrimTo: fn(pool: Pool, keep: usize) -> CUresult = |real| trimmed(pool, real());
    cuMemPoolSetAttribute: fn(pool: Pool, attribute: sys::CUmemPool_attribute, value: *mut c_void) -> CUresult
        = |real| trimmed(pool, real());
}
