//! Contexts: primary ones, which a device has one of and which are counted, and those that clients create.
//!
//! # Safety
//! Exports symbols.
#![allow(unsafe_code)]

use crate::api::abi::CtxCreateParams;
use crate::api::export::export;
use crate::model::objects::context::Context;
use crate::model::objects::handle::ContextHandle;
use crate::model::objects::thread;
use crate::model::operations::{captures, contexts, latency, marks, pools, private_tables};
use crate::model::world::{World, driver, world};
use crate::tools::ffi::{In, Out};
use crate::tools::status::{
    INVALID_CONTEXT, INVALID_DEVICE, INVALID_VALUE, NOT_SUPPORTED, Outcome, PEER_ACCESS_ALREADY_ENABLED,
    PEER_ACCESS_NOT_ENABLED, PRIMARY_CONTEXT_ACTIVE, UNSUPPORTED_LIMIT,
};

/// Flags that a context may be created with (`CU_CTX_FLAGS_MASK`).
const FLAGS_MASK: u32 = 0xff;

/// `CUstream` priorities go from 0 to this.
const GREATEST_PRIORITY: i32 = -5;

/// Waits for a context's work, then ends it. Its private data goes first, while the handle still means it.
fn end(handle: ContextHandle) -> Outcome {
    let mark = contexts::end_of(&*world()?, handle)?;
    marks::wait(&mark);
    private_tables::context_gone(handle);
    contexts::deactivate(&mut *world()?, handle)
}

fn release_primary(device: i32) -> Outcome {
    let handle = {
        let mut world = world()?;
        let (ordinal, handle) = contexts::primary_of(&world, device)?;
        let retained = &mut world.devices[ordinal].retained;
        *retained = retained.checked_sub(1).ok_or(INVALID_CONTEXT)?;
        if *retained > 0 {
            return Ok(());
        }
        handle
    };
    end(handle)
}

fn set_primary_flags(device: i32, flags: u32) -> Outcome {
    let mut world = world()?;
    let (ordinal, handle) = contexts::primary_of(&world, device)?;
    if flags & !FLAGS_MASK != 0 {
        return Err(INVALID_VALUE);
    }
    world.devices[ordinal].primary_flags = flags;
    world.contexts.get_mut(handle)?.flags = flags;
    Ok(())
}

fn create(out: Out<ContextHandle>, flags: u32, device: i32) -> Outcome {
    out.required()?;
    let (ordinal, _) = world()?.device(device)?;
    if flags & !FLAGS_MASK != 0 {
        return Err(INVALID_VALUE);
    }
    latency::spend(|_| Ok(ordinal), |latency| latency.context_ns);
    let mut world = world()?;
    let handle = world.contexts.add(Context::new(ordinal, false, flags));
    if let Err(status) = contexts::activate(&mut world, handle) {
        let _ = world.contexts.remove(handle);
        return Err(status);
    }
    thread::push(handle)?;
    out.put(handle)
}

fn synchronize(handle: ContextHandle) -> Outcome {
    let mark = {
        let mut world = world()?;
        captures::forbid_context_wait(&mut world, handle)?;
        let mark = contexts::end_of(&world, handle)?;
        pools::trim_pools_of(&mut world, handle);
        mark
    };
    marks::wait(&mark);
    contexts::note_over(&mut *world()?, handle, &mark);
    Ok(())
}

fn or_current(world: &World, handle: ContextHandle) -> Outcome<ContextHandle> {
    if handle.is_null() { world.current() } else { world.active(handle).map(|_| handle) }
}

export! {
    fn cuDevicePrimaryCtxRetain(out: Out<ContextHandle>, device: i32) {
        out.required()?;
        let (ordinal, is_new) = {
            let world = world()?;
            let ordinal = contexts::primary_of(&world, device)?.0;
            (ordinal, world.devices[ordinal].retained == 0)
        };
        if is_new {
            latency::spend(|_| Ok(ordinal), |latency| latency.context_ns);
        }
        let mut world = world()?;
        let (ordinal, handle) = contexts::primary_of(&world, device)?;
        if world.devices[ordinal].retained == 0 {
            world.contexts.get_mut(handle)?.flags = world.devices[ordinal].primary_flags;
            contexts::activate(&mut world, handle)?;
        }
        world.devices[ordinal].retained += 1;
        out.put(handle)
    }

    fn cuDevicePrimaryCtxRelease = cuDevicePrimaryCtxRelease_v2(device: i32) {
        release_primary(device)
    }

    fn cuDevicePrimaryCtxReset = cuDevicePrimaryCtxReset_v2(device: i32) {
        let handle = {
            let mut world = world()?;
            let (ordinal, handle) = contexts::primary_of(&world, device)?;
            if !world.contexts.get(handle)?.active {
                return Ok(());
            }
            world.devices[ordinal].retained = 0;
            handle
        };
        end(handle)
    }

    fn cuDevicePrimaryCtxSetFlags(device: i32, flags: u32) {
        // Before CUDA 11 the flags of a context that is there could not be changed.
        let active = {
            let world = world()?;
            let (_, handle) = contexts::primary_of(&world, device)?;
            world.contexts.get(handle)?.active
        };
        if active { Err(PRIMARY_CONTEXT_ACTIVE) } else { set_primary_flags(device, flags) }
    }

    fn cuDevicePrimaryCtxSetFlags_v2(device: i32, flags: u32) {
        set_primary_flags(device, flags)
    }

    early fn cuDevicePrimaryCtxGetState(device: i32, flags: Out<u32>, active: Out<i32>) {
        flags.required()?;
        let world = world()?;
        let (ordinal, handle) = contexts::primary_of(&world, device)?;
        flags.put(world.devices[ordinal].primary_flags)?;
        active.put(i32::from(world.contexts.get(handle)?.active))
    }

    fn cuCtxCreate = cuCtxCreate_v2(out: Out<ContextHandle>, flags: u32, device: i32) {
        create(out, flags, device)
    }

    fn cuCtxCreate_v3(out: Out<ContextHandle>, affinity: In<u64>, count: i32, flags: u32, device: i32) {
        // Execution affinity needs MPS.
        if count != 0 && !affinity.is_null() {
            return Err(NOT_SUPPORTED);
        }
        create(out, flags, device)
    }

    fn cuCtxCreate_v4(out: Out<ContextHandle>, params: In<CtxCreateParams>, flags: u32, device: i32) {
        if !params.is_null() && params.get()?.affinity_count != 0 {
            return Err(NOT_SUPPORTED);
        }
        create(out, flags, device)
    }

    early fn cuCtxDestroy = cuCtxDestroy_v2(handle: ContextHandle) {
        handle.given().map_err(|_| INVALID_VALUE)?;
        if world()?.active(handle)?.primary {
            return Err(INVALID_CONTEXT);
        }
        end(handle)?;
        if thread::current() == handle {
            thread::pop()?;
        }
        Ok(())
    }

    fn cuCtxAttach(out: Out<ContextHandle>, flags: u32) {
        if flags != 0 {
            return Err(INVALID_VALUE);
        }
        out.put(world()?.current()?)
    }

    fn cuCtxDetach(handle: ContextHandle) {
        world()?.active(handle)?;
        Ok(())
    }

    fn cuCtxPushCurrent = cuCtxPushCurrent_v2(handle: ContextHandle) {
        handle.given().map_err(|_| INVALID_VALUE)?;
        world()?.contexts.get(handle)?;
        thread::push(handle)
    }

    fn cuCtxPopCurrent = cuCtxPopCurrent_v2(out: Out<ContextHandle>) {
        world()?;
        let popped = thread::pop()?;
        out.put_if(popped);
        Ok(())
    }

    fn cuCtxSetCurrent(handle: ContextHandle) {
        let world = world()?;
        if !handle.is_null() {
            world.contexts.get(handle)?;
        }
        thread::set_current(handle);
        Ok(())
    }

    fn cuCtxGetCurrent(out: Out<ContextHandle>) {
        driver()?;
        out.put(thread::current())
    }

    early fn cuCtxGetDevice(device: Out<i32>) {
        device.required()?;
        let world = world()?;
        let handle = thread::current();
        device.put(world.contexts.get(handle)?.device as i32)
    }

    early fn cuCtxGetDevice_v2(device: Out<i32>, handle: ContextHandle) {
        device.required()?;
        let world = world()?;
        let handle = if handle.is_null() { thread::current() } else { handle };
        device.put(world.contexts.get(handle)?.device as i32)
    }

    early fn cuCtxGetFlags(flags: Out<u32>) {
        flags.required()?;
        let world = world()?;
        let handle = world.current()?;
        flags.put(world.contexts.get(handle)?.flags)
    }

    fn cuCtxSetFlags(flags: u32) {
        let mut world = world()?;
        let handle = world.current()?;
        if flags & !FLAGS_MASK != 0 {
            return Err(INVALID_VALUE);
        }
        world.contexts.get_mut(handle)?.flags = flags;
        Ok(())
    }

    early fn cuCtxGetId(handle: ContextHandle, id: Out<u64>) {
        id.required()?;
        let world = world()?;
        let handle = or_current(&world, handle)?;
        id.put(world.contexts.get(handle)?.id)
    }

    fn cuCtxSynchronize() {
        let handle = world()?.current()?;
        synchronize(handle)
    }

    fn cuCtxSynchronize_v2(handle: ContextHandle) {
        let handle = or_current(&*world()?, handle)?;
        synchronize(handle)
    }

    fn cuCtxSetLimit(limit: u32, value: u64) {
        let mut world = world()?;
        let handle = world.current()?;
        let context = world.contexts.get_mut(handle)?;
        let place = context.limits.get_mut(limit as usize).ok_or(UNSUPPORTED_LIMIT)?;
        *place = value;
        Ok(())
    }

    fn cuCtxGetLimit(value: Out<u64>, limit: u32) {
        value.required()?;
        let world = world()?;
        let handle = world.current()?;
        value.put(*world.contexts.get(handle)?.limits.get(limit as usize).ok_or(UNSUPPORTED_LIMIT)?)
    }

    fn cuCtxGetCacheConfig(config: Out<u32>) {
        let world = world()?;
        let handle = world.current()?;
        config.put(world.contexts.get(handle)?.cache_config)
    }

    fn cuCtxSetCacheConfig(config: u32) {
        let mut world = world()?;
        let handle = world.current()?;
        world.contexts.get_mut(handle)?.cache_config = config;
        Ok(())
    }

    fn cuCtxGetSharedMemConfig(config: Out<u32>) {
        let world = world()?;
        let handle = world.current()?;
        config.put(world.contexts.get(handle)?.shared_config)
    }

    fn cuCtxSetSharedMemConfig(config: u32) {
        let mut world = world()?;
        let handle = world.current()?;
        world.contexts.get_mut(handle)?.shared_config = config;
        Ok(())
    }

    fn cuCtxGetApiVersion(handle: ContextHandle, version: Out<u32>) {
        let world = world()?;
        or_current(&world, handle)?;
        version.put(3020)
    }

    fn cuCtxGetStreamPriorityRange(least: Out<i32>, greatest: Out<i32>) {
        world()?.current()?;
        least.put_if(0);
        greatest.put_if(GREATEST_PRIORITY);
        Ok(())
    }

    fn cuCtxResetPersistingL2Cache() {
        world()?.current().map(|_| ())
    }

    fn cuCtxGetExecAffinity(affinity: Out<u64>, kind: u32) {
        affinity.required()?;
        world()?.current()?;
        let _ = kind;
        Err(NOT_SUPPORTED)
    }

    fn cuCtxEnablePeerAccess(peer: ContextHandle, flags: u32) {
        let mut world = world()?;
        let handle = world.current()?;
        let peer = world.active(peer)?.device;
        let context = world.contexts.get_mut(handle)?;
        if flags != 0 {
            return Err(INVALID_VALUE);
        }
        if peer == context.device {
            return Err(INVALID_DEVICE);
        }
        if context.peers.contains(&peer) {
            return Err(PEER_ACCESS_ALREADY_ENABLED);
        }
        context.peers.push(peer);
        Ok(())
    }

    fn cuCtxDisablePeerAccess(peer: ContextHandle) {
        let mut world = world()?;
        let handle = world.current()?;
        let peer = world.active(peer)?.device;
        let peers = &mut world.contexts.get_mut(handle)?.peers;
        let place = peers.iter().position(|known| *known == peer);
        peers.remove(place.ok_or(PEER_ACCESS_NOT_ENABLED)?);
        Ok(())
    }
}
