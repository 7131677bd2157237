//! Managed memory: the host reaches it too, and its pages are where they were sent. A real driver moves them one by one,
//! when they are touched; here an allocation moves as a whole, when it is made and when a caller asks.

use crate::bytes;
use crate::capture;
use crate::ffi::{Lane, Out, Outcome, export};
use crate::heap::Use;
use crate::memory::region::{Backing, Region};
use crate::status::{INVALID_VALUE, OUT_OF_MEMORY};
use crate::stream::Stream;
use crate::table::Handle;
use crate::world::{World, world};

/// `CU_MEM_ATTACH_GLOBAL` and `CU_MEM_ATTACH_HOST`.
const ATTACH: std::ops::RangeInclusive<u32> = 1..=2;
/// `CU_MEM_ADVISE_SET_PREFERRED_LOCATION`.
const PREFER: u32 = 3;
/// `CU_DEVICE_CPU`.
const CPU: i32 = -1;
/// `CU_MEM_LOCATION_TYPE_DEVICE`.
const ON_DEVICE: u64 = 1;

/// Where a location of two words is: the device, or the host.
fn device_of(location: u64) -> i32 {
    if location & u64::from(u32::MAX) == ON_DEVICE { (location >> 32) as i32 } else { CPU }
}

fn allocate(out: Out<u64>, size: u64, flags: u32) -> Outcome {
    out.required()?;
    let mut world = world()?;
    let context = world.current()?;
    if size == 0 || !ATTACH.contains(&flags) {
        return Err(INVALID_VALUE);
    }
    capture::forbid_unsafe_call(&mut world)?;
    let ordinal = world.contexts.get(context)?.device;
    // Where the device has no room the pages are the host's.
    let (start, on_host) = match world.allocate(ordinal, size, context, Use::Managed) {
        Ok(start) => (start, false),
        Err(_) => {
            let heap = &mut world.devices[ordinal].heap;
            (heap.place(size, context, Use::Managed, 0).ok_or(OUT_OF_MEMORY)?.address, true)
        }
    };
    let region = Region { start, length: size, context, backing: Backing::Managed { flags, on_host } };
    world.regions.add(region);
    let heap = &world.devices[ordinal].heap;
    let shown = heap.content(start).is_some_and(|(file, offset)| bytes::show(start, size, file, offset));
    if !shown {
        world.free(start)?;
        return Err(OUT_OF_MEMORY);
    }
    // The host writes there without telling.
    world.touch(start, size);
    out.put(start)
}

fn check(world: &mut World, address: u64, count: u64) -> Outcome {
    world.current()?;
    let known = count > 0 && world.regions.find(address).is_some() && world.reaches(address, count, false);
    if known { Ok(()) } else { Err(INVALID_VALUE) }
}

impl World {
    /// Moves the managed memory that begins at `address` as a whole, if the range covers it and there is room.
    fn move_pages(&mut self, address: u64, count: u64, to_host: bool) {
        let Some(Region { start, length, backing: Backing::Managed { on_host, .. }, .. }) =
            self.regions.at(address).copied()
        else {
            return;
        };
        let Some(ordinal) = self.heap_of(start).filter(|_| on_host != to_host && length <= count) else {
            return;
        };
        let physical = length.next_multiple_of(crate::heap::BLOCK);
        if to_host {
            self.release(ordinal, length, physical);
        } else if self.charge_or_trim(ordinal, length, physical).is_err() {
            return;
        }
        self.regions.move_managed(start, to_host);
    }
}

fn advise(address: u64, count: u64, advice: u32, device: i32) -> Outcome {
    if !(1..=6).contains(&advice) {
        return Err(INVALID_VALUE);
    }
    let mut world = world()?;
    check(&mut world, address, count)?;
    if advice == PREFER {
        world.move_pages(address, count, device == CPU);
    }
    Ok(())
}

fn prefetch(lane: Lane, address: u64, count: u64, device: i32, stream: Handle<Stream>) -> Outcome {
    {
        let mut world = world()?;
        check(&mut world, address, count)?;
        world.move_pages(address, count, device == CPU);
    }
    crate::stream::submit(lane, stream, crate::op::Op::Empty).map(|_| ())
}

export! {
    early fn cuMemAllocManaged(out: Out<u64>, size: u64, flags: u32) {
        allocate(out, size, flags)
    }

    fn cuMemAdvise(address: u64, count: u64, advice: u32, device: i32) {
        advise(address, count, advice, device)
    }

    early fn cuMemAdvise_v2(address: u64, count: u64, advice: u32, location: u64) {
        advise(address, count, advice, device_of(location))
    }

    lane fn |lane| cuMemPrefetchAsync / cuMemPrefetchAsync_ptsz (
        address: u64, count: u64, device: i32, stream: Handle<Stream>,
    ) {
        if device != CPU {
            world()?.device(device)?;
        }
        prefetch(lane, address, count, device, stream)
    }

    early lane fn |lane| cuMemPrefetchAsync_v2 / cuMemPrefetchAsync_v2_ptsz (
        address: u64, count: u64, location: u64, flags: u32, stream: Handle<Stream>,
    ) {
        stream.given().map_err(|_| INVALID_VALUE)?;
        if flags != 0 {
            return Err(INVALID_VALUE);
        }
        prefetch(lane, address, count, device_of(location), stream)
    }
}
