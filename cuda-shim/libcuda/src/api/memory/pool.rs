//! Stream-ordered memory. A pool keeps the physical memory that frees leave it, up to its release threshold
//! from one synchronization to the next.
//!
//! Bytes move in the order of the calls, so memory that was freed in stream order may be dealt out at once.
//!
//! # Safety
//! Exports symbols.
#![allow(unsafe_code)]

use std::fs::File;

use crate::capture;
use crate::context::Context;
use crate::ffi::{In, Lane, Out, Outcome, export};
use crate::heap::Use;
use crate::memory::physical::FILE_DESCRIPTOR;
use crate::op::Op;
use crate::status::{INVALID_VALUE, NOT_SUPPORTED, OUT_OF_MEMORY, Status};
use crate::stream::Stream;
use crate::table::{Handle, Kind};
use crate::world::{World, world};

/// `CU_MEM_LOCATION_TYPE_DEVICE` and `CU_MEM_ALLOCATION_TYPE_PINNED`.
const DEVICE: u32 = 1;
const PINNED: u32 = 1;
/// `CU_MEM_ACCESS_FLAGS_PROT_READWRITE`.
const READ_WRITE: u32 = 3;

/// A memory pool.
pub struct Pool {
    pub device: usize,
    is_default: bool,
    /// Its part of the heap for small allocations, once it has one.
    purse: Option<usize>,
    /// The three reuse policies.
    reuse: [u32; 3],
    threshold: u64,
    /// Most bytes that it may hold; 0 for no limit.
    limit: u64,
    /// Bytes that allocations asked for.
    used: u64,
    used_high: u64,
    /// Physical bytes that it holds, and how many of them serve no allocation.
    reserved: u64,
    reserved_high: u64,
    idle: u64,
    /// Other devices that may reach it: ordinal and flags.
    access: Vec<(usize, u32)>,
    /// As what it may be exported: `CUmemAllocationHandleType` bits.
    pub handle_types: u32,
    /// The memory of the process whose pool it is, if that is another one: nothing is allocated from it here.
    pub lender: Option<File>,
}

impl Kind for Pool {
    const TAG: u64 = 20;
    const WRONG: Status = INVALID_VALUE;
}

impl Pool {
    fn new(device: usize, is_default: bool, limit: u64) -> Pool {
        Pool {
            device,
            is_default,
            purse: None,
            reuse: [1; 3],
            threshold: 0,
            limit,
            used: 0,
            used_high: 0,
            reserved: 0,
            reserved_high: 0,
            idle: 0,
            access: Vec::new(),
            handle_types: 0,
            lender: None,
        }
    }

    /// A device's own pool.
    pub fn default_of(device: usize) -> Pool {
        Pool::new(device, true, 0)
    }

    /// A pool of another process.
    pub fn of_lender(device: usize, memory: File) -> Pool {
        Pool { lender: Some(memory), ..Pool::new(device, false, 0) }
    }

    /// Takes back an allocation and the physical bytes that came free with it.
    pub fn give(&mut self, size: u64, physical: u64) {
        self.used -= size;
        self.idle += physical;
    }

    fn take(&mut self, size: u64, physical: u64, fresh: u64) {
        self.used += size;
        self.used_high = self.used_high.max(self.used);
        self.idle -= physical - fresh;
        self.reserved += fresh;
        self.reserved_high = self.reserved_high.max(self.reserved);
    }
}

/// `CUmemLocation`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Location {
    pub kind: u32,
    pub id: i32,
}

/// `CUmemPoolProps`, as far as it is read.
#[repr(C)]
#[derive(Clone, Copy)]
struct PoolProps {
    allocation: u32,
    handle_types: u32,
    location: Location,
    security: u64,
    max_size: u64,
}

/// `CUmemAccessDesc`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct AccessDesc {
    pub location: Location,
    pub flags: u32,
}

impl World {
    /// The ordinal of a location, which must be a device.
    pub fn located(&self, location: Location) -> Outcome<usize> {
        if location.kind != DEVICE {
            return Err(INVALID_VALUE);
        }
        self.device(location.id).map(|(ordinal, _)| ordinal)
    }

    fn allocate_from(&mut self, handle: Handle<Pool>, size: u64, context: Handle<Context>) -> Outcome<u64> {
        let pool = self.pools.get(handle)?;
        let ordinal = pool.device;
        if pool.lender.is_some() {
            return Err(INVALID_VALUE);
        }
        let purse = match pool.purse {
            Some(purse) => purse,
            None => {
                let purse = self.devices[ordinal].heap.new_purse();
                self.pools.get_mut(handle)?.purse = Some(purse);
                purse
            }
        };
        let heap = &mut self.devices[ordinal].heap;
        let placed = heap.place(size, context, Use::Pool(handle), purse).ok_or(OUT_OF_MEMORY)?;
        let charged = self.charge_for(handle, size, placed.physical);
        if charged.is_err() {
            self.devices[ordinal].heap.remove(placed.address);
        }
        charged.map(|()| placed.address)
    }

    /// Charges what a pool's idle memory does not cover.
    fn charge_for(&mut self, handle: Handle<Pool>, size: u64, physical: u64) -> Outcome {
        let pool = self.pools.get(handle)?;
        let ordinal = pool.device;
        let fresh = physical.saturating_sub(pool.idle);
        if pool.limit != 0 && pool.reserved.saturating_add(fresh) > pool.limit {
            return Err(OUT_OF_MEMORY);
        }
        if self.charge(ordinal, size, fresh).is_err() {
            self.trim_pools(ordinal, |_| 0);
            self.charge(ordinal, size, physical)?;
            self.pools.get_mut(handle)?.take(size, physical, physical);
            return Ok(());
        }
        self.pools.get_mut(handle)?.take(size, physical, fresh);
        Ok(())
    }

    /// Gives back what a pool holds beyond `keep` bytes and does not use; how much that was.
    fn trim(&mut self, handle: Handle<Pool>, keep: u64) -> u64 {
        let Ok(pool) = self.pools.get_mut(handle) else { return 0 };
        let surplus = pool.idle.min(pool.reserved.saturating_sub(keep));
        pool.idle -= surplus;
        pool.reserved -= surplus;
        let ordinal = pool.device;
        if surplus > 0 {
            self.release(ordinal, 0, surplus);
        }
        surplus
    }

    /// Trims the pools of a device, each to what `keep` says; how much that gave back.
    pub fn trim_pools(&mut self, ordinal: usize, keep: impl Fn(&Pool) -> u64) -> u64 {
        let due: Vec<_> = self
            .pools
            .iter()
            .filter(|(_, pool)| pool.device == ordinal && pool.idle > 0)
            .map(|(handle, pool)| (handle, keep(pool)))
            .collect();
        due.into_iter().map(|(handle, keep)| self.trim(handle, keep)).sum()
    }

    /// A synchronization in a context: the pools of its device go back to their thresholds.
    pub fn trim_pools_of(&mut self, context: Handle<Context>) {
        if let Ok(context) = self.contexts.get(context) {
            let ordinal = context.device;
            self.trim_pools(ordinal, |pool| pool.threshold);
        }
    }
}

fn allocate(
    lane: Lane,
    out: Out<u64>,
    size: u64,
    pool: Option<Handle<Pool>>,
    stream: Handle<Stream>,
) -> Outcome {
    out.required()?;
    let mut world = world()?;
    let stream = world.stream(lane, stream)?;
    let context = world.streams.get(stream)?.context;
    let ordinal = world.contexts.get(context)?.device;
    let pool = pool.unwrap_or(world.devices[ordinal].current_pool);
    let ordinal = world.pools.get(pool)?.device;
    let captured = world.streams.get(stream)?.capture.is_some();
    if !captured {
        capture::intercept(&mut world, stream, Op::Empty)?;
    }
    // Nothing is no error here, other than in `cuMemAlloc`, and null can be freed.
    if size == 0 {
        return out.put(0);
    }
    if !captured {
        let address = world.allocate_from(pool, size, context)?;
        return out.put(address);
    }
    // A graph's memory has its address from the beginning, and is a graph's to free.
    let address = world.place_for_graph(ordinal, size, context)?;
    if let Err(status) = capture::intercept(&mut world, stream, Op::Alloc(address, size)) {
        world.disown_graph_memory(address);
        return Err(status);
    }
    out.put(address)
}

fn free(lane: Lane, address: u64, stream: Handle<Stream>) -> Outcome {
    let mut world = world()?;
    let stream = world.stream(lane, stream)?;
    if address == 0 {
        return Ok(());
    }
    if let Some(given_back) = world.give_back_lent(address) {
        return given_back;
    }
    let own = world.callers_own(address)?;
    if capture::intercept(&mut world, stream, Op::Free(address))? {
        return Ok(());
    }
    world.free_at(&own)
}

fn device_pool(
    out: Out<Handle<Pool>>,
    device: i32,
    pick: impl Fn(&crate::world::Device) -> Handle<Pool>,
) -> Outcome {
    let world = world()?;
    let (_, device) = world.device(device)?;
    out.put(pick(device))
}

export! {
    lane fn |lane| cuMemAllocAsync / cuMemAllocAsync_ptsz (out: Out<u64>, size: u64, stream: Handle<Stream>) {
        allocate(lane, out, size, None, stream)
    }

    lane fn |lane| cuMemAllocFromPoolAsync / cuMemAllocFromPoolAsync_ptsz (
        out: Out<u64>, size: u64, pool: Handle<Pool>, stream: Handle<Stream>,
    ) {
        allocate(lane, out, size, Some(pool), stream)
    }

    lane fn |lane| cuMemFreeAsync / cuMemFreeAsync_ptsz (address: u64, stream: Handle<Stream>) {
        free(lane, address, stream)
    }

    fn cuMemPoolCreate(out: Out<Handle<Pool>>, props: In<PoolProps>) {
        out.required()?;
        let mut world = world()?;
        let props = props.get()?;
        if props.allocation != PINNED {
            return Err(INVALID_VALUE);
        }
        let ordinal = world.located(props.location)?;
        if props.handle_types & !FILE_DESCRIPTOR != 0 {
            return Err(NOT_SUPPORTED);
        }
        let pool = Pool::new(ordinal, false, props.max_size);
        out.put(world.pools.add(Pool { handle_types: props.handle_types, ..pool }))
    }

    fn cuMemPoolDestroy(handle: Handle<Pool>) {
        let mut world = world()?;
        let pool = world.pools.get(handle)?;
        if pool.is_default {
            return Err(INVALID_VALUE);
        }
        let ordinal = pool.device;
        world.trim(handle, 0);
        let device = &mut world.devices[ordinal];
        if device.current_pool == handle {
            device.current_pool = device.default_pool;
        }
        // What is still allocated is given back when it is freed.
        world.pools.remove(handle).map(|_| ())
    }

    fn cuMemPoolTrimTo(handle: Handle<Pool>, keep: u64) {
        let mut world = world()?;
        world.pools.get(handle)?;
        world.trim(handle, keep);
        Ok(())
    }

    fn cuMemPoolSetAttribute(handle: Handle<Pool>, attribute: u32, value: In<u32>) {
        let mut world = world()?;
        let pool = world.pools.get_mut(handle)?;
        match attribute {
            1..=3 => pool.reuse[attribute as usize - 1] = value.get()?,
            4 => pool.threshold = u64::from(value.get()?) | u64::from(value.at(1)?) << 32,
            // High marks can be set to zero only, which lowers them to what is there now.
            6 | 8 if value.get()? != 0 || value.at(1)? != 0 => return Err(INVALID_VALUE),
            6 => pool.reserved_high = pool.reserved,
            8 => pool.used_high = pool.used,
            _ => return Err(INVALID_VALUE),
        }
        Ok(())
    }

    fn cuMemPoolGetAttribute(handle: Handle<Pool>, attribute: u32, value: Out<u64>) {
        let world = world()?;
        let pool = world.pools.get(handle)?;
        match attribute {
            1..=3 => value.cast::<u32>().put(pool.reuse[attribute as usize - 1]),
            4 => value.put(pool.threshold),
            5 => value.put(pool.reserved),
            6 => value.put(pool.reserved_high),
            7 => value.put(pool.used),
            8 => value.put(pool.used_high),
            _ => Err(INVALID_VALUE),
        }
    }

    fn cuMemPoolSetAccess(handle: Handle<Pool>, list: In<AccessDesc>, count: u64) {
        let mut world = world()?;
        let home = world.pools.get(handle)?.device;
        for index in 0..count {
            let desc = list.at(index as usize)?;
            let ordinal = world.located(desc.location)?;
            if !matches!(desc.flags, 0 | 1 | READ_WRITE) || (ordinal == home && desc.flags == 0) {
                return Err(INVALID_VALUE);
            }
            let access = &mut world.pools.get_mut(handle)?.access;
            access.retain(|(known, _)| *known != ordinal);
            access.push((ordinal, desc.flags));
        }
        Ok(())
    }

    fn cuMemPoolGetAccess(flags: Out<u32>, handle: Handle<Pool>, location: In<Location>) {
        let world = world()?;
        let ordinal = world.located(location.get()?)?;
        let pool = world.pools.get(handle)?;
        let known = pool.access.iter().find(|(known, _)| *known == ordinal);
        let usual = if ordinal == pool.device { READ_WRITE } else { 0 };
        flags.put(known.map_or(usual, |(_, flags)| *flags))
    }

    fn cuDeviceGetDefaultMemPool(out: Out<Handle<Pool>>, device: i32) {
        device_pool(out, device, |device| device.default_pool)
    }

    fn cuDeviceGetMemPool(out: Out<Handle<Pool>>, device: i32) {
        device_pool(out, device, |device| device.current_pool)
    }

    fn cuDeviceSetMemPool(device: i32, handle: Handle<Pool>) {
        let mut world = world()?;
        let (ordinal, _) = world.device(device)?;
        let pool = world.pools.get(handle)?;
        if pool.device != ordinal || pool.lender.is_some() {
            return Err(INVALID_VALUE);
        }
        world.devices[ordinal].current_pool = handle;
        Ok(())
    }
}
