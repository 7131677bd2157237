//! Streams: order in time, and what may follow what.
//!
//! # Safety
//! Exports symbols.
#![allow(unsafe_code)]

use std::ffi::c_void;

use crate::api::export::export;
use crate::model::objects::handle::{ContextHandle, EventHandle, StreamHandle};
use crate::model::objects::op::{Function, HostCall, Op};
use crate::model::objects::stream::{Order, PER_THREAD};
use crate::model::operations::submit::submit;
use crate::model::operations::{captures, latency, marks, pools, streams};
use crate::model::world::world;
use crate::tools::ffi::{In, NullStream, Out};
use crate::tools::status::{INVALID_HANDLE, INVALID_VALUE, Outcome};

/// `CU_STREAM_NON_BLOCKING`.
const NON_BLOCKING: u32 = 1;

fn create(out: Out<StreamHandle>, flags: u32, priority: i32) -> Outcome {
    out.required()?;
    let mut world = world()?;
    let context = world.current()?;
    let order = match flags {
        0 => Order::Blocking,
        NON_BLOCKING => Order::Free,
        _ => return Err(INVALID_VALUE),
    };
    let handle = streams::add(&mut world, context, order, priority.clamp(-5, 0))?;
    out.put(handle)
}

export! {
    early fn cuStreamCreate(out: Out<StreamHandle>, flags: u32) {
        create(out, flags, 0)
    }

    early fn cuStreamCreateWithPriority(out: Out<StreamHandle>, flags: u32, priority: i32) {
        create(out, flags, priority)
    }

    early fn cuStreamDestroy = cuStreamDestroy_v2(handle: StreamHandle) {
        handle.given()?;
        let mut world = world()?;
        if handle.raw() <= PER_THREAD || world.streams.get(handle)?.order == Order::Legacy {
            return Err(INVALID_HANDLE);
        }
        captures::forget_stream(&mut world, handle);
        world.streams.remove(handle)?;
        Ok(())
    }

    early twin fn |null| cuStreamGetPriority / cuStreamGetPriority_ptsz (handle: StreamHandle, priority: Out<i32>) {
        priority.required()?;
        let mut world = world()?;
        let handle = streams::stream(&mut world, null, handle)?;
        priority.put(world.streams.get(handle)?.priority)
    }

    early twin fn |null| cuStreamGetFlags / cuStreamGetFlags_ptsz (handle: StreamHandle, flags: Out<u32>) {
        flags.required()?;
        let mut world = world()?;
        let handle = streams::stream(&mut world, null, handle)?;
        flags.put(if world.streams.get(handle)?.order == Order::Free { NON_BLOCKING } else { 0 })
    }

    early twin fn |null| cuStreamGetId / cuStreamGetId_ptsz (handle: StreamHandle, id: Out<u64>) {
        id.required()?;
        let mut world = world()?;
        let handle = streams::stream(&mut world, null, handle)?;
        id.put(world.streams.get(handle)?.id)
    }

    early twin fn |null| cuStreamGetCtx / cuStreamGetCtx_ptsz (handle: StreamHandle, context: Out<ContextHandle>) {
        context.required()?;
        let mut world = world()?;
        let handle = streams::stream(&mut world, null, handle)?;
        context.put(world.streams.get(handle)?.context)
    }

    early twin fn |null| cuStreamGetCtx_v2 / cuStreamGetCtx_v2_ptsz (
        handle: StreamHandle, context: Out<ContextHandle>, green: Out<u64>,
    ) {
        context.required()?;
        let mut world = world()?;
        let handle = streams::stream(&mut world, null, handle)?;
        green.put_if(0);
        context.put(world.streams.get(handle)?.context)
    }

    early fn cuStreamGetGreenCtx(handle: StreamHandle, green: Out<u64>) {
        green.required()?;
        streams::stream(&mut *world()?, NullStream::Legacy, handle)?;
        green.put(0)
    }

    early twin fn |null| cuStreamGetDevice / cuStreamGetDevice_ptsz (handle: StreamHandle, device: Out<i32>) {
        device.required()?;
        let mut world = world()?;
        let handle = streams::stream(&mut world, null, handle)?;
        let context = world.streams.get(handle)?.context;
        device.put(world.contexts.get(context)?.device as i32)
    }

    twin fn |null| cuStreamQuery / cuStreamQuery_ptsz (handle: StreamHandle) {
        latency::spend(|world| streams::device_meant(world, null, handle), |latency| latency.query_ns);
        let mark = {
            let mut world = world()?;
            let handle = streams::stream(&mut world, null, handle)?;
            captures::forbid_wait(&mut world, handle)?;
            streams::stream_mark(&world, handle)?
        };
        marks::ask(&mark)
    }

    twin fn |null| cuStreamSynchronize / cuStreamSynchronize_ptsz (handle: StreamHandle) {
        let mark = {
            let mut world = world()?;
            let handle = streams::stream(&mut world, null, handle)?;
            captures::forbid_wait(&mut world, handle)?;
            let mark = streams::stream_mark(&world, handle)?;
            let context = world.streams.get(handle)?.context;
            pools::trim_pools_of(&mut world, context);
            mark
        };
        marks::wait(&mark);
        Ok(())
    }

    twin fn |null| cuStreamWaitEvent / cuStreamWaitEvent_ptsz (
        handle: StreamHandle, event: EventHandle, flags: u32,
    ) {
        if flags > 1 {
            return Err(INVALID_VALUE);
        }
        let mut world = world()?;
        let handle = streams::stream(&mut world, null, handle)?;
        captures::wait_event(&mut world, handle, event)
    }

    early twin fn |null| cuLaunchHostFunc / cuLaunchHostFunc_ptsz (
        handle: StreamHandle, function: Option<extern "C" fn(*mut c_void)>, data: *mut c_void,
    ) {
        let function = Function::Plain(function.ok_or(INVALID_VALUE)?);
        submit(null, handle, Op::Host(HostCall { function, data: data.expose_provenance() })).map(|_| ())
    }

    early twin fn |null| cuStreamAddCallback / cuStreamAddCallback_ptsz (
        handle: StreamHandle, function: Option<extern "C" fn(u64, i32, *mut c_void)>, data: *mut c_void, flags: u32,
    ) {
        if flags != 0 {
            return Err(INVALID_VALUE);
        }
        let function = Function::Callback(function.ok_or(INVALID_VALUE)?, handle.raw());
        {
            let mut world = world()?;
            let handle = streams::stream(&mut world, null, handle)?;
            captures::forbid_wait(&mut world, handle)?;
        }
        submit(null, handle, Op::Host(HostCall { function, data: data.expose_provenance() })).map(|_| ())
    }

    twin fn |null| cuStreamAttachMemAsync / cuStreamAttachMemAsync_ptsz (
        handle: StreamHandle, address: u64, length: u64, flags: u32,
    ) {
        let _ = (length, flags);
        let mut world = world()?;
        streams::stream(&mut world, null, handle)?;
        world.regions.managed(address).map(|_| ()).ok_or(INVALID_VALUE)
    }

    twin fn |null| cuStreamCopyAttributes / cuStreamCopyAttributes_ptsz (to: StreamHandle, from: StreamHandle) {
        let mut world = world()?;
        streams::stream(&mut world, null, to)?;
        streams::stream(&mut world, null, from).map(|_| ())
    }

    twin fn |null| cuStreamGetAttribute / cuStreamGetAttribute_ptsz (
        handle: StreamHandle, attribute: u32, value: Out<[u64; 8]>,
    ) {
        let mut world = world()?;
        let handle = streams::stream(&mut world, null, handle)?;
        let mut answer = [0; 8];
        // Access policy window, synchronization policy, priority, memory synchronization domains.
        match attribute {
            1 | 3 | 9 | 10 => {}
            8 => answer[0] = world.streams.get(handle)?.priority as u32 as u64,
            _ => return Err(INVALID_VALUE),
        }
        value.put(answer)
    }

    twin fn |null| cuStreamSetAttribute / cuStreamSetAttribute_ptsz (
        handle: StreamHandle, attribute: u32, value: In<i32>,
    ) {
        let mut world = world()?;
        let handle = streams::stream(&mut world, null, handle)?;
        let value = value.get()?;
        match attribute {
            1 | 3 | 9 | 10 => Ok(()),
            8 => {
                world.streams.get_mut(handle)?.priority = value.clamp(-5, 0);
                Ok(())
            }
            _ => Err(INVALID_VALUE),
        }
    }
}
