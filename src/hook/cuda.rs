//! The hooks of the CUDA driver API, by subject.

pub mod array;
pub mod external;
pub mod graph;
pub mod info;
pub mod launch;
pub mod life;
pub mod managed;
pub mod memory;
pub mod module;
pub mod pitch;
pub mod pool;
pub mod resolve;
pub mod sharing;
pub mod vmm;
pub mod wait;

use super::Missing;
use crate::driver::cuda::CUresult;

impl Missing for CUresult {
    const MISSING: Self = Self::CUDA_ERROR_NOT_SUPPORTED;
}
