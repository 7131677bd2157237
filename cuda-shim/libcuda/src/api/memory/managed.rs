//! Managed memory: the host reaches it too, and its pages are where they were sent. A real driver moves them one by one,
//! when they are touched; here an allocation moves as a whole, when it is made and when a caller asks.

use crate::api::export::export;
use crate::model::objects::handle::StreamHandle;
use crate::model::objects::heap::Use;
use crate::model::objects::op::Op;
use crate::model::objects::region::{Advice, Backing, NOWHERE, Region};
use crate::model::operations::submit::submit;
use crate::model::operations::{access, captures, managed, memory};
use crate::model::world::{World, world};
use crate::tools::bytes;
use crate::tools::ffi::{In, NullStream, Out};
use crate::tools::status::{INVALID_VALUE, OUT_OF_MEMORY, Outcome};

/// `CU_MEM_ATTACH_GLOBAL` and `CU_MEM_ATTACH_HOST`.
const ATTACH: std::ops::RangeInclusive<u32> = 1..=ATTACH_HOST;
const ATTACH_HOST: u32 = 2;

/// `CU_DEVICE_CPU`.
const CPU: i32 = -1;

/// `CU_MEM_LOCATION_TYPE_DEVICE`, and those of the host: `_HOST`, `_HOST_NUMA` and `_HOST_NUMA_CURRENT`.
const ON_DEVICE: u32 = 1;
const ON_HOST: std::ops::RangeInclusive<u32> = 2..=4;

/// Where a location of two words is, its type and a number: the device, or the host.
fn device_of(location: u64) -> Outcome<i32> {
    match location as u32 {
        ON_DEVICE => {
            let device = (location >> 32) as i32;
            world()?.device(device).map(|_| device)
        }
        kind if ON_HOST.contains(&kind) => Ok(CPU),
        _ => Err(INVALID_VALUE),
    }
}

/// Whether an advice says where: the preferred location, and who shall have access.
fn says_where(advice: u32) -> bool {
    matches!(advice, 3 | 5 | 6)
}

fn allocate(out: Out<u64>, size: u64, flags: u32) -> Outcome {
    out.required()?;
    let mut world = world()?;
    let context = world.current()?;
    if size == 0 || !ATTACH.contains(&flags) {
        return Err(INVALID_VALUE);
    }
    captures::forbid_unsafe_call(&mut world)?;
    let ordinal = world.contexts.get(context)?.device;
    // Where the device has no room the pages are the host's, and where they are attached to the host.
    let on_device = match flags {
        ATTACH_HOST => None,
        _ => memory::allocate(&mut world, ordinal, size, context, Use::Managed).ok(),
    };
    let (start, on_host) = match on_device {
        Some(start) => (start, false),
        None => {
            let heap = &mut world.devices[ordinal].heap;
            (heap.place(size, context, Use::Managed, 0).ok_or(OUT_OF_MEMORY)?.address, true)
        }
    };
    let backing = Backing::Managed { flags, on_host, advice: Advice::default() };
    let region = Region { start, length: size, context, backing };
    world.regions.add(region);
    let heap = &world.devices[ordinal].heap;
    let shown = heap.content(start).is_some_and(|(file, offset)| bytes::show(start, size, file, offset));
    if !shown {
        memory::free(&mut world, start)?;
        return Err(OUT_OF_MEMORY);
    }
    // The host writes there without telling.
    access::touch(&mut world, start, size);
    out.put(start)
}

fn check(world: &mut World, address: u64, count: u64) -> Outcome {
    world.current()?;
    let known =
        count > 0 && world.regions.find(address).is_some() && access::reaches(world, address, count, false);
    if known { Ok(()) } else { Err(INVALID_VALUE) }
}

/// `CU_MEM_ADVISE_*`: each is set by an odd number and taken back by the next.
fn advise(address: u64, count: u64, advice: u32, device: i32) -> Outcome {
    if !(1..=6).contains(&advice) {
        return Err(INVALID_VALUE);
    }
    let mut world = world()?;
    check(&mut world, address, count)?;
    if says_where(advice) && device != CPU {
        world.device(device)?;
    }
    if let Some(known) = world.regions.advice_of(address) {
        match advice {
            1 | 2 => known.read_mostly = advice == 1,
            3 => known.preferred = device,
            4 => known.preferred = NOWHERE,
            5 => known.accessed_by |= bit(device),
            _ => known.accessed_by &= !bit(device),
        }
    }
    if advice == 3 {
        managed::move_pages(&mut world, address, count, device == CPU);
    }
    Ok(())
}

fn bit(device: i32) -> u64 {
    u32::try_from(device).ok().and_then(|device| 1u64.checked_shl(device)).unwrap_or(0)
}

/// Tells one of `CUmem_range_attribute` of managed memory, in `size` bytes.
fn range_attribute(out: Out<i32>, size: u64, attribute: u32, address: u64, count: u64) -> Outcome {
    out.required()?;
    let mut world = world()?;
    check(&mut world, address, count)?;
    let advice = *world.regions.advice_of(address).ok_or(INVALID_VALUE)?;
    let location = |device| match device {
        NOWHERE => (0, 0),
        CPU => (2, 0),
        device => (ON_DEVICE as i32, device),
    };
    let value = match attribute {
        1 => i32::from(advice.read_mostly),
        2 => advice.preferred,
        3 => {
            if size == 0 || !size.is_multiple_of(4) {
                return Err(INVALID_VALUE);
            }
            let devices = (0..64).filter(|device| advice.accessed_by & bit(*device) != 0);
            out.put_all(devices.chain(std::iter::repeat(NOWHERE)).take((size / 4) as usize));
            return Ok(());
        }
        4 => advice.prefetched,
        5 => location(advice.preferred).0,
        6 => location(advice.preferred).1,
        7 => location(advice.prefetched).0,
        8 => location(advice.prefetched).1,
        _ => return Err(INVALID_VALUE),
    };
    if size == 4 { out.put(value) } else { Err(INVALID_VALUE) }
}

fn prefetch(null: NullStream, address: u64, count: u64, device: i32, stream: StreamHandle) -> Outcome {
    check(&mut *world()?, address, count)?;
    submit(null, stream, Op::Empty)?;
    let mut world = world()?;
    if let Some(advice) = world.regions.advice_of(address) {
        advice.prefetched = device;
    }
    managed::move_pages(&mut world, address, count, device == CPU);
    Ok(())
}

export! {
    early fn cuMemAllocManaged(out: Out<u64>, size: u64, flags: u32) {
        allocate(out, size, flags)
    }

    fn cuMemAdvise(address: u64, count: u64, advice: u32, device: i32) {
        advise(address, count, advice, device)
    }

    early fn cuMemAdvise_v2(address: u64, count: u64, advice: u32, location: u64) {
        let device = if says_where(advice) { device_of(location)? } else { CPU };
        advise(address, count, advice, device)
    }

    fn cuMemRangeGetAttribute(out: Out<i32>, size: u64, attribute: u32, address: u64, count: u64) {
        range_attribute(out, size, attribute, address, count)
    }

    fn cuMemRangeGetAttributes(
        outs: In<Out<i32>>, sizes: In<u64>, attributes: In<u32>, length: u64, address: u64, count: u64,
    ) {
        if length == 0 {
            return Err(INVALID_VALUE);
        }
        for at in 0..length as usize {
            range_attribute(outs.at(at)?, sizes.at(at)?, attributes.at(at)?, address, count)?;
        }
        Ok(())
    }

    twin fn |null| cuMemPrefetchAsync / cuMemPrefetchAsync_ptsz (
        address: u64, count: u64, device: i32, stream: StreamHandle,
    ) {
        if device != CPU {
            world()?.device(device)?;
        }
        prefetch(null, address, count, device, stream)
    }

    early twin fn |null| cuMemPrefetchAsync_v2 / cuMemPrefetchAsync_v2_ptsz (
        address: u64, count: u64, location: u64, flags: u32, stream: StreamHandle,
    ) {
        if address == 0 || flags != 0 {
            return Err(INVALID_VALUE);
        }
        prefetch(null, address, count, device_of(location)?, stream)
    }
}
