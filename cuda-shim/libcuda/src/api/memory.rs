//! Device memory: what programs ask for by itself.
//!
//! Below: [`pool`] is stream-ordered memory, [`physical`] memory behind handles, which [`vmm`] maps, [`ipc`] is memory of
//! other processes, [`lent`] that of their pools, [`managed`] is reached by the host too, [`host`] is pinned memory, [`copy`]
//! and [`fill`] move and set bytes, `pointer` answers what a pointer is.
//!
//! # Safety
//! Exports symbols.
#![allow(unsafe_code)]

mod copy;
mod fill;
mod host;
mod ipc;
mod lent;
mod managed;
mod physical;
mod pointer;
mod pool;
mod vmm;

use crate::api::export::export;
use crate::model::objects::heap::{UNIT, Use};
use crate::model::operations::{access, captures, contexts, latency, lending, marks, memory};
use crate::model::world::{World, world};
use crate::tools::ffi::Out;
use crate::tools::status::{INVALID_VALUE, NOT_FOUND, OUT_OF_MEMORY, Outcome};

#[inline]
fn allocate(out: Out<u64>, size: u64) -> Outcome {
    latency::spend(|world| world.current_device(), |latency| latency.allocate_ns);
    let mut world = world()?;
    out.required()?;
    let (context, ordinal) = world.current_context().map(|(handle, context)| (handle, context.device))?;
    if size == 0 {
        return Err(INVALID_VALUE);
    }
    captures::forbid_unsafe_call(&mut world)?;
    let address = memory::allocate(&mut world, ordinal, size, context, Use::Plain)?;
    out.put(address)
}

/// Free and total bytes of the current context's device.
#[inline]
pub fn info() -> Outcome<(u64, u64)> {
    latency::spend(|world| world.current_device(), |latency| latency.memory_info_ns);
    let world = world()?;
    let device = &world.devices[world.current_device()?];
    world.state.reap_among_peers();
    Ok((world.state.free_bytes(device.index), device.spec.total_bytes))
}

/// Bytes between the rows of an allocation with a pitch.
pub fn row_of(width: u64, height: u64, element: u32) -> Outcome<u64> {
    if width == 0 || height == 0 || !matches!(element, 4 | 8 | 16) {
        return Err(INVALID_VALUE);
    }
    width.checked_next_multiple_of(UNIT).ok_or(OUT_OF_MEMORY)
}

/// Frees memory once the work of its context is over, as the call promises.
#[inline]
pub fn free(address: u64) -> Outcome {
    let device = |world: &mut World| memory::device_of(world, address).or_else(|_| world.current_device());
    latency::spend(device, |latency| latency.free_ns);
    let (context, mark) = {
        let mut world = world()?;
        if address == 0 {
            return Ok(());
        }
        let own = match memory::callers_own(&mut world, address) {
            Ok(own) => own,
            Err(status) => return lending::give_back_lent(&mut world, address).unwrap_or(Err(status)),
        };
        captures::forbid_unsafe_call(&mut world)?;
        // Memory tells where it belongs, so it can be freed where no context is current.
        let current = world.current_context().map(|(handle, context)| (handle, context.is_quiet()));
        let context = match current {
            Ok((current, quiet)) if own.context == current || world.active(own.context).is_err() => {
                if quiet {
                    return memory::free_at(&mut world, &own);
                }
                current
            }
            _ => own.context,
        };
        match contexts::end_of(&world, context) {
            Ok(mark) => (context, mark),
            Err(_) => return memory::free_at(&mut world, &own),
        }
    };
    marks::wait_as_well(&mark);
    let mut world = world()?;
    contexts::note_over(&mut world, context, &mark);
    let own = memory::callers_own(&mut world, address)?;
    memory::free_at(&mut world, &own)
}

export! {
    early fn cuMemAlloc_v2(out: Out<u64>, size: u64) {
        allocate(out, size)
    }

    fn cuMemAllocPitch_v2(out: Out<u64>, pitch: Out<u64>, width: u64, height: u64, element: u32) {
        out.required()?;
        pitch.required()?;
        let row = row_of(width, height, element)?;
        allocate(out, row.checked_mul(height).ok_or(OUT_OF_MEMORY)?)?;
        pitch.put(row)
    }

    early fn cuMemFree_v2(address: u64) {
        free(address)
    }

    early fn cuMemGetInfo_v2(free: Out<u64>, total: Out<u64>) {
        let (has_free, has_total) = info()?;
        free.put_if(has_free);
        total.put_if(has_total);
        Ok(())
    }

    early fn cuMemGetAddressRange_v2(base: Out<u64>, size: Out<u64>, address: u64) {
        if base.is_null() && size.is_null() {
            return Ok(());
        }
        let mut world = world()?;
        world.current()?;
        let (begin, length) = access::range_of(&mut world, address).ok_or(NOT_FOUND)?;
        base.put_if(begin);
        size.put_if(length);
        Ok(())
    }
}
