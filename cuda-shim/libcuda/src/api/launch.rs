//! Launches of kernels.
//!
//! # Safety
//! Exports symbols.
#![allow(unsafe_code)]

use crate::api::abi::{LaunchConfig, LaunchParams};
use crate::api::export::export;
use crate::model::objects::handle::{Handle, KernelHandle, StreamHandle};
use crate::model::objects::request::Request;
use crate::model::operations::{captures, latency, modules, streams};
use crate::model::world::{Driver, World, driver, world};
use crate::tools::ffi::{In, NullStream};
use crate::tools::status::{INVALID_VALUE, Outcome};

/// `CU_LAUNCH_ATTRIBUTE_COOPERATIVE`.
const COOPERATIVE: u32 = 2;

/// Launches a kernel.
#[inline]
fn launch(null: NullStream, stream: StreamHandle, request: &Request) -> Outcome {
    let driver = driver()?;
    if driver.state.takes_time() {
        let context = |world: &mut World| {
            let stream = streams::stream(world, null, stream)?;
            Ok(world.streams.get(stream)?.context)
        };
        latency::spend_and_load(driver, context, request.kernel, |latency| latency.launch_ns)?;
    }
    enqueue(driver, null, stream, request)
}

/// Waits while the hardware queue is full, until its oldest launch has ended.
#[inline(always)]
fn enqueue(driver: &Driver, null: NullStream, stream: StreamHandle, request: &Request) -> Outcome {
    loop {
        let mut world = driver.world();
        let stream = streams::stream(&mut world, null, stream)?;
        if !world.captures.is_empty() && capture(&mut world, stream, request)? {
            return Ok(());
        }
        let Some((seat, full_until)) = streams::lay_out_launch(&mut world, stream, request)? else {
            return Ok(());
        };
        drop(world);
        seat.wait(full_until);
    }
}

/// Writes a launch down if its stream is capturing; tells whether it did.
#[cold]
fn capture(world: &mut World, stream: StreamHandle, request: &Request) -> Outcome<bool> {
    let context = world.streams.get(stream)?.context;
    let ordinal = world.contexts.get(context)?.device;
    world.kernels.get(request.kernel)?.belongs_in(context)?;
    let op = modules::kernel_op(world, ordinal, request)?;
    captures::intercept(world, stream, op)
}

export! {
    early twin fn |null| cuLaunchKernel / cuLaunchKernel_ptsz (
        kernel: KernelHandle, gx: u32, gy: u32, gz: u32, bx: u32, by: u32, bz: u32, shared: u32,
        stream: StreamHandle, params: u64, extra: u64,
    ) {
        let (grid, block) = ([gx, gy, gz], [bx, by, bz]);
        launch(null, stream, &Request { kernel, grid, block, shared, params, extra, cooperative: false })
    }

    twin fn |null| cuLaunchCooperativeKernel / cuLaunchCooperativeKernel_ptsz (
        kernel: KernelHandle, gx: u32, gy: u32, gz: u32, bx: u32, by: u32, bz: u32, shared: u32,
        stream: StreamHandle, params: u64,
    ) {
        let (grid, block) = ([gx, gy, gz], [bx, by, bz]);
        launch(null, stream, &Request { kernel, grid, block, shared, params, extra: 0, cooperative: true })
    }

    early twin fn |null| cuLaunchKernelEx / cuLaunchKernelEx_ptsz (
        config: In<LaunchConfig>, kernel: KernelHandle, params: u64, extra: u64,
    ) {
        kernel.given().map_err(|_| INVALID_VALUE)?;
        let LaunchConfig { grid, block, shared, stream, attributes, attribute_count } = config.get()?;
        let attributes = attributes.list(attribute_count as usize)?;
        let cooperative = attributes.iter().any(|it| it.id == COOPERATIVE && it.value.0[0] != 0);
        launch(null, stream, &Request { kernel, grid, block, shared, params, extra, cooperative })
    }

    fn cuLaunchCooperativeKernelMultiDevice(list: In<LaunchParams>, count: u32, flags: u32) {
        if count == 0 || flags > 3 {
            return Err(INVALID_VALUE);
        }
        for LaunchParams { kernel, grid, block, shared, stream, params } in list.list(count as usize)? {
            let request = Request { kernel, grid, block, shared, params, extra: 0, cooperative: true };
            launch(NullStream::Legacy, stream, &request)?;
        }
        Ok(())
    }

    fn cuFuncSetBlockShape(kernel: KernelHandle, x: i32, y: i32, z: i32) {
        let mut world = world()?;
        let shape = &mut world.kernels.get_mut(kernel)?.shape;
        if x <= 0 || y <= 0 || z <= 0 {
            return Err(INVALID_VALUE);
        }
        shape.0 = [x as u32, y as u32, z as u32];
        Ok(())
    }

    fn cuFuncSetSharedSize(kernel: KernelHandle, bytes: u32) {
        world()?.kernels.get_mut(kernel)?.shape.1 = bytes;
        Ok(())
    }

    fn cuParamSetSize = cuParamSeti(kernel: KernelHandle, offset: i32, value: u32) {
        // Parameters are not read.
        let _ = (offset, value);
        world()?.kernels.get(kernel).map(|_| ())
    }

    fn cuParamSetf(kernel: KernelHandle, offset: i32, value: f32) {
        let _ = (offset, value);
        world()?.kernels.get(kernel).map(|_| ())
    }

    fn cuParamSetv(kernel: KernelHandle, offset: i32, value: u64, bytes: u32) {
        let _ = (offset, value, bytes);
        world()?.kernels.get(kernel).map(|_| ())
    }

    fn cuLaunch(kernel: KernelHandle) {
        launch_grid(kernel, 1, 1, Handle::NULL)
    }

    fn cuLaunchGrid(kernel: KernelHandle, width: i32, height: i32) {
        launch_grid(kernel, width, height, Handle::NULL)
    }

    fn cuLaunchGridAsync(kernel: KernelHandle, width: i32, height: i32, stream: StreamHandle) {
        launch_grid(kernel, width, height, stream)
    }
}

/// The launch interface of before CUDA 4, which keeps the shape of a launch in the kernel.
fn launch_grid(kernel: KernelHandle, width: i32, height: i32, stream: StreamHandle) -> Outcome {
    let (block, shared) = world()?.kernels.get(kernel)?.shape;
    let grid = [u32::try_from(width).unwrap_or(0), u32::try_from(height).unwrap_or(0), 1];
    let request = Request { kernel, grid, block, shared, params: 0, extra: 0, cooperative: false };
    launch(NullStream::Legacy, stream, &request)
}
