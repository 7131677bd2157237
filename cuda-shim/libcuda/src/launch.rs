//! Launches of kernels.
//!
//! # Safety
//! Exports symbols.
#![allow(unsafe_code)]

use crate::abi::LaunchConfig;
use crate::capture;
use crate::ffi::{In, Lane, Outcome, export};
use crate::kernel::{Kernel, default_duration};
use crate::op::{Launch, Op};
use crate::status::INVALID_VALUE;
use crate::stream::Stream;
use crate::table::Handle;
use crate::world::world;

/// Threads that one block may have.
const THREADS: u64 = 1024;

#[inline]
fn launch(
    lane: Lane,
    stream: Handle<Stream>,
    kernel: Handle<Kernel>,
    (grid, block): ([u32; 3], [u32; 3]),
) -> Outcome {
    let threads = block.iter().map(|side| u64::from(*side)).product::<u64>();
    if grid.contains(&0) || threads == 0 || threads > THREADS {
        return Err(INVALID_VALUE);
    }
    loop {
        let mut world = world()?;
        let stream = world.stream(lane, stream)?;
        let duration = world.kernels.get(kernel)?.duration.unwrap_or_else(|| default_duration(grid));
        let op = Op::Kernel(Launch { duration });
        if capture::intercept(&mut world, stream, op)? {
            return Ok(());
        }
        let context = world.streams.get(stream)?.context;
        let ordinal = world.contexts.get(context)?.device;
        let seat = world.seat(ordinal)?;
        let device = &world.devices[ordinal];
        let place = device.launches % device.queue.len().max(1);
        let oldest = device.queue.get(place).copied().unwrap_or(0);
        if oldest > 0 && oldest > seat.now() {
            // The queue is full: its oldest launch must end first.
            drop(world);
            seat.wait(oldest);
            continue;
        }
        let (_, end) = world.lay_out(stream, duration, 1)?;
        let device = &mut world.devices[ordinal];
        device.queue[place] = end;
        device.launches += 1;
        return Ok(());
    }
}

export! {
    lane fn |lane| cuLaunchKernel / cuLaunchKernel_ptsz (
        kernel: Handle<Kernel>, gx: u32, gy: u32, gz: u32, bx: u32, by: u32, bz: u32, shared: u32,
        stream: Handle<Stream>, params: usize, extra: usize,
    ) {
        let _ = (shared, params, extra);
        launch(lane, stream, kernel, ([gx, gy, gz], [bx, by, bz]))
    }

    lane fn |lane| cuLaunchCooperativeKernel / cuLaunchCooperativeKernel_ptsz (
        kernel: Handle<Kernel>, gx: u32, gy: u32, gz: u32, bx: u32, by: u32, bz: u32, shared: u32,
        stream: Handle<Stream>, params: usize,
    ) {
        let _ = (shared, params);
        launch(lane, stream, kernel, ([gx, gy, gz], [bx, by, bz]))
    }

    lane fn |lane| cuLaunchKernelEx / cuLaunchKernelEx_ptsz (
        config: In<LaunchConfig>, kernel: Handle<Kernel>, params: usize, extra: usize,
    ) {
        let _ = (params, extra);
        let config = config.get()?;
        launch(lane, Handle::of(config.stream), kernel, (config.grid, config.block))
    }
}
