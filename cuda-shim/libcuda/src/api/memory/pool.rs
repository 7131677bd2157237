//! Stream-ordered memory. A pool keeps the physical memory that frees leave it, up to its release threshold
//! from one synchronization to the next.
//!
//! Bytes move in the order of the calls, so memory that was freed in stream order may be dealt out at once.
//!
//! # Safety
//! Exports symbols.
#![allow(unsafe_code)]

use crate::api::export::export;
use crate::model::objects::handle::{PoolHandle, StreamHandle};
use crate::model::objects::location::{AccessDesc, Location};
use crate::model::objects::op::Op;
use crate::model::objects::pool::Pool;
use crate::model::operations::physicals::{FILE_DESCRIPTOR, PINNED};
use crate::model::operations::{captures, graph_memory, lending, memory, pools, streams};
use crate::model::world::{Device, world};
use crate::tools::ffi::{In, NullStream, Out};
use crate::tools::status::{INVALID_VALUE, NOT_SUPPORTED, Outcome};

/// `CU_MEM_ACCESS_FLAGS_PROT_READWRITE`.
const READ_WRITE: u32 = 3;

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

fn allocate(
    null: NullStream,
    out: Out<u64>,
    size: u64,
    pool: Option<PoolHandle>,
    stream: StreamHandle,
) -> Outcome {
    out.required()?;
    let mut world = world()?;
    let stream = streams::stream(&mut world, null, stream)?;
    let context = world.streams.get(stream)?.context;
    let ordinal = world.contexts.get(context)?.device;
    let pool = pool.unwrap_or(world.devices[ordinal].current_pool);
    let ordinal = world.pools.get(pool)?.device;
    let captured = world.streams.get(stream)?.capture.is_some();
    if !captured {
        captures::intercept(&mut world, stream, Op::Empty)?;
    }
    // Nothing is no error here, other than in `cuMemAlloc`, and null can be freed.
    if size == 0 {
        return out.put(0);
    }
    if !captured {
        let address = pools::allocate_from(&mut world, pool, size, context)?;
        return out.put(address);
    }
    // A graph's memory has its address from the beginning, and is a graph's to free.
    let address = graph_memory::place_for_graph(&mut world, ordinal, size, context)?;
    if let Err(status) = captures::intercept(&mut world, stream, Op::Alloc(address, size)) {
        graph_memory::disown_graph_memory(&mut world, address);
        return Err(status);
    }
    out.put(address)
}

fn free(null: NullStream, address: u64, stream: StreamHandle) -> Outcome {
    let mut world = world()?;
    let stream = streams::stream(&mut world, null, stream)?;
    if address == 0 {
        return Ok(());
    }
    if let Some(given_back) = lending::give_back_lent(&mut world, address) {
        return given_back;
    }
    let own = memory::callers_own(&mut world, address)?;
    if captures::intercept(&mut world, stream, Op::Free(address))? {
        return Ok(());
    }
    memory::free_at(&mut world, &own)
}

fn device_pool(out: Out<PoolHandle>, device: i32, pick: impl Fn(&Device) -> PoolHandle) -> Outcome {
    let world = world()?;
    let (_, device) = world.device(device)?;
    out.put(pick(device))
}

export! {
    twin fn |null| cuMemAllocAsync / cuMemAllocAsync_ptsz (out: Out<u64>, size: u64, stream: StreamHandle) {
        allocate(null, out, size, None, stream)
    }

    twin fn |null| cuMemAllocFromPoolAsync / cuMemAllocFromPoolAsync_ptsz (
        out: Out<u64>, size: u64, pool: PoolHandle, stream: StreamHandle,
    ) {
        allocate(null, out, size, Some(pool), stream)
    }

    twin fn |null| cuMemFreeAsync / cuMemFreeAsync_ptsz (address: u64, stream: StreamHandle) {
        free(null, address, stream)
    }

    fn cuMemPoolCreate(out: Out<PoolHandle>, props: In<PoolProps>) {
        out.required()?;
        let mut world = world()?;
        let props = props.get()?;
        if props.allocation != PINNED {
            return Err(INVALID_VALUE);
        }
        let ordinal = pools::located(&world, props.location)?;
        if props.handle_types & !FILE_DESCRIPTOR != 0 {
            return Err(NOT_SUPPORTED);
        }
        let pool = Pool::new(ordinal, false, props.max_size);
        out.put(world.pools.add(Pool { handle_types: props.handle_types, ..pool }))
    }

    fn cuMemPoolDestroy(handle: PoolHandle) {
        let mut world = world()?;
        let pool = world.pools.get(handle)?;
        if pool.is_default {
            return Err(INVALID_VALUE);
        }
        let ordinal = pool.device;
        pools::trim(&mut world, handle, 0);
        let device = &mut world.devices[ordinal];
        if device.current_pool == handle {
            device.current_pool = device.default_pool;
        }
        let index = device.index;
        // What is still allocated is given back when it is freed.
        let pool = world.pools.remove(handle)?;
        pool.borrowed.iter().for_each(|key| world.state.memory(index).part(*key));
        Ok(())
    }

    fn cuMemPoolTrimTo(handle: PoolHandle, keep: u64) {
        let mut world = world()?;
        world.pools.get(handle)?;
        pools::trim(&mut world, handle, keep);
        Ok(())
    }

    fn cuMemPoolSetAttribute(handle: PoolHandle, attribute: u32, value: In<u32>) {
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

    fn cuMemPoolGetAttribute(handle: PoolHandle, attribute: u32, value: Out<u64>) {
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

    fn cuMemPoolSetAccess(handle: PoolHandle, list: In<AccessDesc>, count: u64) {
        let mut world = world()?;
        let home = world.pools.get(handle)?.device;
        for index in 0..count {
            let desc = list.at(index as usize)?;
            let ordinal = pools::located(&world, desc.location)?;
            if !matches!(desc.flags, 0 | 1 | READ_WRITE) || (ordinal == home && desc.flags == 0) {
                return Err(INVALID_VALUE);
            }
            let access = &mut world.pools.get_mut(handle)?.access;
            access.retain(|(known, _)| *known != ordinal);
            access.push((ordinal, desc.flags));
        }
        Ok(())
    }

    fn cuMemPoolGetAccess(flags: Out<u32>, handle: PoolHandle, location: In<Location>) {
        let world = world()?;
        let ordinal = pools::located(&world, location.get()?)?;
        let pool = world.pools.get(handle)?;
        let known = pool.access.iter().find(|(known, _)| *known == ordinal);
        let usual = if ordinal == pool.device { READ_WRITE } else { 0 };
        flags.put(known.map_or(usual, |(_, flags)| *flags))
    }

    fn cuDeviceGetDefaultMemPool(out: Out<PoolHandle>, device: i32) {
        device_pool(out, device, |device| device.default_pool)
    }

    fn cuDeviceGetMemPool(out: Out<PoolHandle>, device: i32) {
        device_pool(out, device, |device| device.current_pool)
    }

    fn cuDeviceSetMemPool(device: i32, handle: PoolHandle) {
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
