//! Occupancy: how many blocks of a kernel a device holds at once.
//!
//! # Safety
//! Exports symbols.
#![allow(unsafe_code)]

use cuda_shim_device::DeviceSpec;

use crate::api::abi::LaunchConfig;
use crate::api::export::export;
use crate::model::objects::handle::KernelHandle;
use crate::model::objects::occupancy::{RESERVED, WARP, blocks_per_sm, threads_of};
use crate::model::world::world;
use crate::tools::ffi::{In, Out};
use crate::tools::status::{INVALID_VALUE, Outcome};

/// Most threads of a block.
const MOST: i32 = 1024;

/// Blocks of a cluster that any kernel may have.
const PORTABLE_CLUSTER: i32 = 8;

/// Shared memory of a block as a function of its size: `CUoccupancyB2DSize`.
type SharedOf = Option<extern "C" fn(i32) -> usize>;

/// The spec of the current device, for a question about `kernel`.
fn spec_for(kernel: KernelHandle) -> Outcome<DeviceSpec> {
    let world = world()?;
    let ordinal = world.current_device()?;
    world.kernels.get(kernel)?;
    Ok(world.devices[ordinal].spec.clone())
}

fn max_active(blocks: Out<i32>, kernel: KernelHandle, threads: i32, shared: u64, flags: u32) -> Outcome {
    blocks.required()?;
    let spec = spec_for(kernel)?;
    if threads <= 0 || flags > 1 {
        return Err(INVALID_VALUE);
    }
    blocks.put(if threads > MOST { 0 } else { blocks_per_sm(&spec, threads as u64, shared) as i32 })
}

/// The block size with most threads at once, the larger one of equals, and the grid that fills the device.
fn best(
    grid: Out<i32>,
    block: Out<i32>,
    kernel: KernelHandle,
    shared_of: SharedOf,
    shared: u64,
    limit: i32,
) -> Outcome {
    grid.required()?;
    block.required()?;
    let spec = spec_for(kernel)?;
    let limit = if (1..MOST).contains(&limit) { limit } else { MOST };
    let blocks =
        |size: i32| blocks_per_sm(&spec, size as u64, shared_of.map_or(shared, |of| of(size) as u64)) as i32;
    let sizes = (WARP as i32..=limit).rev().filter(|size| *size == limit || size % WARP as i32 == 0);
    let best = sizes.map(|size| (blocks(size) * size, size)).reduce(|a, b| if b.0 > a.0 { b } else { a });
    let (_, size) = best.unwrap_or((0, limit));
    block.put(size)?;
    grid.put(blocks(size) * spec.sm_count as i32)
}

export! {
    fn cuOccupancyMaxActiveBlocksPerMultiprocessor(
        blocks: Out<i32>, kernel: KernelHandle, threads: i32, shared: u64,
    ) {
        max_active(blocks, kernel, threads, shared, 0)
    }

    fn cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(
        blocks: Out<i32>, kernel: KernelHandle, threads: i32, shared: u64, flags: u32,
    ) {
        max_active(blocks, kernel, threads, shared, flags)
    }

    fn cuOccupancyMaxPotentialBlockSize(
        grid: Out<i32>, block: Out<i32>, kernel: KernelHandle, shared_of: SharedOf, shared: u64, limit: i32,
    ) {
        best(grid, block, kernel, shared_of, shared, limit)
    }

    fn cuOccupancyMaxPotentialBlockSizeWithFlags(
        grid: Out<i32>, block: Out<i32>, kernel: KernelHandle, shared_of: SharedOf, shared: u64, limit: i32,
        flags: u32,
    ) {
        if flags > 1 {
            return Err(INVALID_VALUE);
        }
        best(grid, block, kernel, shared_of, shared, limit)
    }

    fn cuOccupancyAvailableDynamicSMemPerBlock(shared: Out<u64>, kernel: KernelHandle, blocks: i32, threads: i32) {
        shared.required()?;
        let spec = spec_for(kernel)?;
        if blocks <= 0 || threads <= 0 || blocks as u64 > blocks_per_sm(&spec, threads as u64, 0) {
            return Err(INVALID_VALUE);
        }
        let share = u64::from(spec.shared_per_sm) / blocks as u64;
        shared.put(share.saturating_sub(RESERVED).min(spec.shared_per_block_optin.into()))
    }

    early fn cuOccupancyMaxPotentialClusterSize(size: Out<i32>, kernel: KernelHandle, config: In<LaunchConfig>) {
        size.required()?;
        spec_for(kernel)?;
        config.get()?;
        size.put(PORTABLE_CLUSTER)
    }

    early fn cuOccupancyMaxActiveClusters(clusters: Out<i32>, kernel: KernelHandle, config: In<LaunchConfig>) {
        const CLUSTER_DIMENSION: u32 = 4;
        clusters.required()?;
        let spec = spec_for(kernel)?;
        let config = config.get()?;
        let mut cluster = 1;
        for attribute in config.attributes.list(config.attribute_count as usize)? {
            if attribute.id == CLUSTER_DIMENSION {
                cluster = attribute.value.0[..3].iter().map(|side| u64::from(*side)).product::<u64>().max(1);
            }
        }
        let blocks = blocks_per_sm(&spec, threads_of(config.block), config.shared.into()) * u64::from(spec.sm_count);
        clusters.put((blocks / cluster) as i32)
    }
}
