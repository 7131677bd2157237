//! Structs of the public headers that cross the border by pointer.

/// `CUDA_CTX_CREATE_PARAMS`, its beginning.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct CtxCreateParams {
    pub affinity: u64,
    pub affinity_count: i32,
}

/// `CUipcMemHandle`.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct IpcHandle(pub [u8; 64]);

/// `CUdevprop`.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct DeviceProperties {
    pub max_threads_per_block: i32,
    pub max_threads_dim: [i32; 3],
    pub max_grid_size: [i32; 3],
    pub shared_per_block: i32,
    pub constant_bytes: i32,
    pub warp_size: i32,
    pub pitch: i32,
    pub registers_per_block: i32,
    pub clock_rate: i32,
    pub texture_alignment: i32,
}

/// `CUlaunchConfig`.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct LaunchConfig {
    pub grid: [u32; 3],
    pub block: [u32; 3],
    pub shared: u32,
    pub stream: u64,
    pub attributes: u64,
    pub attribute_count: u32,
}
