//! Physical memory behind handles.

use std::fs::File;

use cuda_shim_device::SharedKey;

use crate::model::objects::handle::PhysicalKind;
use crate::model::objects::location::Location;
use crate::model::objects::table::Item;

/// What a file of shared memory is called, before the place of its device in the machine, or `host`.
pub const LABEL: &str = "cuda-sim-physical-";

/// `CUmemAllocationProp`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct AllocationProp {
    pub kind: u32,
    pub handle_types: u32,
    pub location: Location,
    pub security: u64,
    pub flags: [u8; 8],
}

/// Where the bytes lie.
pub enum Content {
    /// In the heap of the device, at this address.
    Heap(u64),
    /// In a file of their own.
    File(File),
}

/// Physical memory.
pub struct Physical {
    /// The ordinal of its device; `None` for memory of the host.
    pub device: Option<usize>,
    pub length: u64,
    pub content: Content,
    /// By what other processes know it, once they may.
    pub shared: Option<SharedKey>,
    pub prop: AllocationProp,
    /// Times that callers hold its handle, and mappings.
    pub handles: u32,
    pub mappings: u32,
}

impl Item for Physical {
    type Kind = PhysicalKind;
}

impl Physical {
    /// As what it may be exported: `CUmemAllocationHandleType` bits.
    pub fn handle_types(&self) -> u32 {
        self.prop.handle_types
    }
}
