//! How many blocks of a kernel a device holds at once.

use cuda_shim_device::DeviceSpec;

pub const WARP: u64 = 32;

/// Shared memory that the driver keeps of every block.
pub const RESERVED: u64 = 1024;

/// Threads of a block.
pub fn threads_of(block: [u32; 3]) -> u64 {
    block.iter().map(|side| u64::from(*side)).product()
}

/// Blocks of this size that one multiprocessor holds.
pub fn blocks_per_sm(spec: &DeviceSpec, threads: u64, shared: u64) -> u64 {
    let by_threads = u64::from(spec.threads_per_sm) / threads.max(1).next_multiple_of(WARP);
    let by_shared = u64::from(spec.shared_per_sm) / shared.saturating_add(RESERVED);
    let fits = shared <= u64::from(spec.shared_per_block_optin);
    if fits { by_threads.min(by_shared).min(spec.blocks_per_sm.into()) } else { 0 }
}
