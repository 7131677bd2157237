//! Structures of the CUDA API as callers lay them out, where no room has them to itself.

use crate::model::objects::handle::{KernelHandle, StreamHandle};
use crate::model::objects::location::{AccessDesc, Location};
use crate::tools::ffi::In;

/// `CUctxCreateParams`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct CtxCreateParams {
    pub affinity: u64,
    pub affinity_count: i32,
    pub interop: u64,
}

/// `CUdevprop`.
#[repr(C)]
#[derive(Clone, Copy)]
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
#[repr(C)]
#[derive(Clone, Copy)]
pub struct LaunchConfig {
    pub grid: [u32; 3],
    pub block: [u32; 3],
    pub shared: u32,
    pub stream: StreamHandle,
    pub attributes: In<LaunchAttribute>,
    pub attribute_count: u32,
}

/// `CUlaunchAttribute`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct LaunchAttribute {
    pub id: u32,
    pub reserved: u32,
    pub value: AttributeValue,
}

/// `CUlaunchAttributeValue`.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
pub struct AttributeValue(pub [u32; 16]);

/// `CUDA_LAUNCH_PARAMS`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct LaunchParams {
    pub kernel: KernelHandle,
    pub grid: [u32; 3],
    pub block: [u32; 3],
    pub shared: u32,
    pub stream: StreamHandle,
    pub params: u64,
}

/// `CUDA_KERNEL_NODE_PARAMS_v1`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct KernelParams {
    pub kernel: KernelHandle,
    pub grid: [u32; 3],
    pub block: [u32; 3],
    pub shared: u32,
    pub params: u64,
    pub extra: u64,
}

/// `CUDA_KERNEL_NODE_PARAMS_v2`, and v3 likewise.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct KernelParams2 {
    pub first: KernelParams,
    pub kernel: KernelHandle,
    pub context: u64,
}

/// `CUDA_MEMSET_NODE_PARAMS`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct MemsetParams {
    pub to: u64,
    pub pitch: u64,
    pub value: u32,
    pub element: u32,
    pub width: u64,
    pub height: u64,
}

/// `CUDA_HOST_NODE_PARAMS`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct HostParams {
    pub function: Option<extern "C" fn(*mut std::ffi::c_void)>,
    pub data: u64,
}

/// `CUDA_MEM_ALLOC_NODE_PARAMS`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct MemAllocParams {
    pub allocation: u32,
    pub handle_types: u32,
    pub location: Location,
    pub security: u64,
    pub max_size: u64,
    pub usage: u16,
    pub reserved: [u8; 54],
    pub access: *const AccessDesc,
    pub access_count: u64,
    pub size: u64,
    pub address: u64,
}

impl MemAllocParams {
    /// What can be told of an allocation afterwards.
    pub fn of(address: u64, size: u64) -> MemAllocParams {
        MemAllocParams {
            allocation: 1,
            handle_types: 0,
            location: Location { kind: 1, id: 0 },
            security: 0,
            max_size: 0,
            usage: 0,
            reserved: [0; 54],
            access: std::ptr::null(),
            access_count: 0,
            size,
            address,
        }
    }
}

/// `CUDA_GRAPH_INSTANTIATE_PARAMS`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct InstantiateParams {
    pub flags: u64,
    pub stream: StreamHandle,
    pub error_node: u64,
    pub result: u32,
}

/// `CUgraphExecUpdateResultInfo`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct UpdateResult {
    pub result: u32,
    pub error_node: u64,
    pub error_from: u64,
}

/// The head of `CUgraphNodeParams`; what follows depends on `kind`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct NodeParams<T> {
    pub kind: u32,
    pub reserved: [u32; 3],
    pub params: T,
}

/// The part of `CUgraphNodeParams` for a copy, before its `CUDA_MEMCPY3D`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct CopyParams<T> {
    pub flags: i32,
    pub reserved: i32,
    pub context: u64,
    pub copy: T,
}
