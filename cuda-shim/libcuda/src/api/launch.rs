//! Launches of kernels.
//!
//! # Safety
//! Exports symbols.
#![allow(unsafe_code)]

use cuda_shim_device::{DeviceSpec, KernelRule, Latency};

use crate::abi::{LaunchConfig, LaunchParams};
use crate::capture;
use crate::ffi::{In, Lane, Outcome, export};
use crate::kernel::{Duration, Kernel, by_argument, by_blocks, by_load};
use crate::latency;
use crate::occupancy::{blocks_per_sm, threads_of};
use crate::op::{Launch, Op};
use crate::status::{COOPERATIVE_LAUNCH_TOO_LARGE, INVALID_VALUE};
use crate::stream::Stream;
use crate::table::Handle;
use crate::world::{Driver, World, driver, world};

/// What a launch asks for.
#[derive(Clone, Copy)]
pub struct Request {
    pub kernel: Handle<Kernel>,
    pub grid: [u32; 3],
    pub block: [u32; 3],
    pub shared: u32,
    pub params: u64,
    pub extra: u64,
    /// All blocks have to run at once.
    pub cooperative: bool,
}

/// `CU_LAUNCH_ATTRIBUTE_COOPERATIVE`.
const COOPERATIVE: u32 = 2;

impl Request {
    /// What it comes to on a device that can do it.
    #[inline]
    pub fn timing(&self, kernel: &Kernel, spec: &DeviceSpec) -> Outcome<Timing> {
        let Request { grid, block, shared, cooperative, .. } = *self;
        let threads = threads_of(block);
        let in_range = !grid.contains(&0)
            && (1..=1024).contains(&threads)
            && block[2] <= 64
            && grid[1] <= 65_535
            && grid[2] <= 65_535
            && grid[0] <= i32::MAX as u32
            && shared <= spec.shared_per_block_optin;
        if !in_range {
            return Err(INVALID_VALUE);
        }
        if cooperative {
            let blocks = grid.iter().map(|side| u64::from(*side)).product::<u64>();
            if blocks > blocks_per_sm(spec, threads, shared.into()) * u64::from(spec.sm_count) {
                return Err(COOPERATIVE_LAUNCH_TOO_LARGE);
            }
        }
        let duration = match &kernel.duration {
            Duration::Fixed(duration) => *duration,
            Duration::Unknown => by_load(grid, block, spec),
            Duration::ByBlocks(once, each) => by_blocks(*once, *each, grid),
            Duration::ByParameters(rule) => return self.read(rule),
        };
        Ok(Timing { duration, log: 0 })
    }

    /// The same of a kernel whose rule looks at its parameters, as they are now.
    #[cold]
    fn read(&self, rule: &KernelRule) -> Outcome<Timing> {
        let once = match rule.argument {
            Some(number) => by_argument(rule.duration_ns, parameter(self.params, self.extra, number)?),
            None => rule.duration_ns,
        };
        let log = rule.stamps.map_or(Ok(0), |number| parameter(self.params, self.extra, number))?;
        Ok(Timing { duration: by_blocks(once, rule.per_block_ns, self.grid), log })
    }
}

/// How long a launch takes, and where it writes down when that was; 0 for nowhere.
#[derive(Clone, Copy)]
pub struct Timing {
    pub duration: u64,
    pub log: u64,
}

/// `CU_LAUNCH_PARAM_END`, `CU_LAUNCH_PARAM_BUFFER_POINTER`, `CU_LAUNCH_PARAM_BUFFER_SIZE`.
const END: u64 = 0;
const BUFFER: u64 = 1;
const BUFFER_SIZE: u64 = 2;

/// A parameter of 64 bits of a launch. In a buffer all are taken to be as long.
fn parameter(params: u64, extra: u64, number: u8) -> Outcome<u64> {
    if params != 0 {
        let place = In::<u64>::of(params).at(number.into())?;
        return In::<u64>::of(place).get();
    }
    let (mut buffer, mut size, options) = (0, 0, In::<u64>::of(extra));
    for at in 0.. {
        match options.at(2 * at)? {
            END => break,
            BUFFER => buffer = options.at(2 * at + 1)?,
            BUFFER_SIZE => size = In::<u64>::of(options.at(2 * at + 1)?).get()?,
            _ => return Err(INVALID_VALUE),
        }
    }
    if 8 * (u64::from(number) + 1) > size {
        return Err(INVALID_VALUE);
    }
    In::<u64>::of(buffer).at(number.into())
}

impl World {
    /// The work that a request comes to on a device.
    pub fn kernel_op(&self, ordinal: usize, request: &Request) -> Outcome<Op> {
        let timing = request.timing(self.kernels.get(request.kernel)?, &self.devices[ordinal].spec)?;
        let Request { kernel, grid, block, shared, params, extra, .. } = *request;
        Ok(Op::Kernel(Launch { kernel, grid, block, shared, params, extra, timing }))
    }
}

/// Launches a kernel.
#[inline]
fn launch(lane: Lane, stream: Handle<Stream>, request: &Request) -> Outcome {
    let driver = driver()?;
    match driver.latency() {
        None => enqueue(driver, lane, stream, request, None),
        Some(latency) => launch_late(driver, lane, stream, request, latency),
    }
}

/// The same where it takes time.
#[cold]
fn launch_late(
    driver: &Driver,
    lane: Lane,
    stream: Handle<Stream>,
    request: &Request,
    latency: &Latency,
) -> Outcome {
    latency::be_busy(latency.launch_ns);
    enqueue(driver, lane, stream, request, Some(latency))
}

/// Waits while the hardware queue is full, until its oldest launch has ended.
#[inline(always)]
fn enqueue(
    driver: &Driver,
    lane: Lane,
    stream: Handle<Stream>,
    request: &Request,
    latency: Option<&Latency>,
) -> Outcome {
    loop {
        let mut world = driver.world();
        let stream = world.stream(lane, stream)?;
        if !world.captures.is_empty() && capture(&mut world, stream, request)? {
            return Ok(());
        }
        let Some((seat, full_until)) = world.lay_out_launch(stream, request, latency)? else { return Ok(()) };
        drop(world);
        seat.wait(full_until);
    }
}

/// Writes a launch down if its stream is capturing; tells whether it did.
#[cold]
fn capture(world: &mut World, stream: Handle<Stream>, request: &Request) -> Outcome<bool> {
    let context = world.streams.get(stream)?.context;
    let ordinal = world.contexts.get(context)?.device;
    world.kernels.get(request.kernel)?.belongs_in(context)?;
    let op = world.kernel_op(ordinal, request)?;
    capture::intercept(world, stream, op)
}

export! {
    early lane fn |lane| cuLaunchKernel / cuLaunchKernel_ptsz (
        kernel: Handle<Kernel>, gx: u32, gy: u32, gz: u32, bx: u32, by: u32, bz: u32, shared: u32,
        stream: Handle<Stream>, params: u64, extra: u64,
    ) {
        let (grid, block) = ([gx, gy, gz], [bx, by, bz]);
        launch(lane, stream, &Request { kernel, grid, block, shared, params, extra, cooperative: false })
    }

    lane fn |lane| cuLaunchCooperativeKernel / cuLaunchCooperativeKernel_ptsz (
        kernel: Handle<Kernel>, gx: u32, gy: u32, gz: u32, bx: u32, by: u32, bz: u32, shared: u32,
        stream: Handle<Stream>, params: u64,
    ) {
        let (grid, block) = ([gx, gy, gz], [bx, by, bz]);
        launch(lane, stream, &Request { kernel, grid, block, shared, params, extra: 0, cooperative: true })
    }

    early lane fn |lane| cuLaunchKernelEx / cuLaunchKernelEx_ptsz (
        config: In<LaunchConfig>, kernel: Handle<Kernel>, params: u64, extra: u64,
    ) {
        kernel.given().map_err(|_| INVALID_VALUE)?;
        let LaunchConfig { grid, block, shared, stream, attributes, attribute_count } = config.get()?;
        let attributes = attributes.list(attribute_count as usize)?;
        let cooperative = attributes.iter().any(|it| it.id == COOPERATIVE && it.value.0[0] != 0);
        launch(lane, stream, &Request { kernel, grid, block, shared, params, extra, cooperative })
    }

    fn cuLaunchCooperativeKernelMultiDevice(list: In<LaunchParams>, count: u32, flags: u32) {
        if count == 0 || flags > 3 {
            return Err(INVALID_VALUE);
        }
        for LaunchParams { kernel, grid, block, shared, stream, params } in list.list(count as usize)? {
            let request = Request { kernel, grid, block, shared, params, extra: 0, cooperative: true };
            launch(Lane::Legacy, stream, &request)?;
        }
        Ok(())
    }

    fn cuFuncSetBlockShape(kernel: Handle<Kernel>, x: i32, y: i32, z: i32) {
        let mut world = world()?;
        let shape = &mut world.kernels.get_mut(kernel)?.shape;
        if x <= 0 || y <= 0 || z <= 0 {
            return Err(INVALID_VALUE);
        }
        shape.0 = [x as u32, y as u32, z as u32];
        Ok(())
    }

    fn cuFuncSetSharedSize(kernel: Handle<Kernel>, bytes: u32) {
        world()?.kernels.get_mut(kernel)?.shape.1 = bytes;
        Ok(())
    }

    fn cuParamSetSize = cuParamSeti(kernel: Handle<Kernel>, offset: i32, value: u32) {
        // Parameters are not read.
        let _ = (offset, value);
        world()?.kernels.get(kernel).map(|_| ())
    }

    fn cuParamSetf(kernel: Handle<Kernel>, offset: i32, value: f32) {
        let _ = (offset, value);
        world()?.kernels.get(kernel).map(|_| ())
    }

    fn cuParamSetv(kernel: Handle<Kernel>, offset: i32, value: u64, bytes: u32) {
        let _ = (offset, value, bytes);
        world()?.kernels.get(kernel).map(|_| ())
    }

    fn cuLaunch(kernel: Handle<Kernel>) {
        launch_grid(kernel, 1, 1, Handle::NULL)
    }

    fn cuLaunchGrid(kernel: Handle<Kernel>, width: i32, height: i32) {
        launch_grid(kernel, width, height, Handle::NULL)
    }

    fn cuLaunchGridAsync(kernel: Handle<Kernel>, width: i32, height: i32, stream: Handle<Stream>) {
        launch_grid(kernel, width, height, stream)
    }
}

/// The launch interface of before CUDA 4, which keeps the shape of a launch in the kernel.
fn launch_grid(kernel: Handle<Kernel>, width: i32, height: i32, stream: Handle<Stream>) -> Outcome {
    let (block, shared) = world()?.kernels.get(kernel)?.shape;
    let grid = [u32::try_from(width).unwrap_or(0), u32::try_from(height).unwrap_or(0), 1];
    let request = Request { kernel, grid, block, shared, params: 0, extra: 0, cooperative: false };
    launch(Lane::Legacy, stream, &request)
}
