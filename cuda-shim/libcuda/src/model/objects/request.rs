//! What a launch of a kernel asks for, and how long it takes.

use cuda_shim_device::{DeviceSpec, KernelRule};

use crate::model::objects::handle::KernelHandle;
use crate::model::objects::kernel::{Duration, Kernel, by_argument, by_blocks, by_load};
use crate::model::objects::occupancy::{blocks_per_sm, threads_of};
use crate::model::objects::op::Timing;
use crate::tools::ffi::In;
use crate::tools::status::{COOPERATIVE_LAUNCH_TOO_LARGE, INVALID_VALUE, Outcome};

/// `CU_LAUNCH_PARAM_END`, `CU_LAUNCH_PARAM_BUFFER_POINTER`, `CU_LAUNCH_PARAM_BUFFER_SIZE`.
const END: u64 = 0;
const BUFFER: u64 = 1;
const BUFFER_SIZE: u64 = 2;

/// What a launch asks for.
#[derive(Clone, Copy)]
pub struct Request {
    pub kernel: KernelHandle,
    pub grid: [u32; 3],
    pub block: [u32; 3],
    pub shared: u32,
    pub params: u64,
    pub extra: u64,
    /// All blocks have to run at once.
    pub cooperative: bool,
}

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
