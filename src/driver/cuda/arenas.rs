//! Arenas: memory that the driver keeps for later, in stream-ordered pools and in the graphs of a device.
//!
//! # Safety
//! This file may use `unsafe` because it queries pools, graphs and nodes that the driver gave, with pointers to its own
//! locals.
#![allow(unsafe_code)]

use super::{CUdevice, CUdeviceptr, CUresult, CUstream, current_device, device_count, ordinal_of, sys};
use core::ffi::c_void;
use core::ptr::null_mut;
use gpuquota_quota::arena::Usage;
use gpuquota_region::sys as kernel;

pub use sys::{CUgraph, CUmemoryPool as Pool};

/// The library leaves a graph of more nodes uncounted.
const MAX_NODES: usize = 1 << 20;
/// The search for nodes follows graphs within graphs to this depth.
const MAX_DEPTH: u32 = 8;

/// An arena, as the driver identifies it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Arena {
    /// A pool, by handle.
    Pool(u64),
    /// The graphs of a device, by its ordinal.
    Graphs(u8),
}

impl Arena {
    /// The arena as one word that is not 0. Handles are pointers and so never odd.
    pub fn word(self) -> u64 {
        match self {
            Self::Pool(handle) => handle,
            Self::Graphs(ordinal) => u64::from(ordinal) << 1 | 1,
        }
    }

    /// The arena of such a word.
    pub fn of(word: u64) -> Option<Self> {
        match word {
            0 => None,
            word if word & 1 == 1 => Some(Self::Graphs((word >> 1) as u8)),
            handle => Some(Self::Pool(handle)),
        }
    }

    /// The bytes that it holds and uses, by the driver's count.
    pub fn usage(self) -> Option<Usage> {
        match self {
            Self::Pool(handle) => pool_usage(handle as Pool),
            Self::Graphs(ordinal) => graph_usage(ordinal.into()),
        }
    }

    /// Whether a trim may give anything back. Graphs keep freed memory mapped for their next launch, and a driver counts
    /// mapped memory as used.
    pub fn may_shrink(self) -> bool {
        self.usage().is_none_or(|Usage { held, used }| match self {
            Self::Pool(_) => held > used,
            Self::Graphs(_) => held > 0,
        })
    }

    /// Gives the driver back all memory that no allocation uses.
    pub fn trim(self) {
        match self {
            Self::Pool(handle) => {
                if let Some(trim) = sys::cuMemPoolTrimTo::REAL.get() {
                    // SAFETY: for a handle that is no pool the driver answers with an error.
                    unsafe { trim(handle as Pool, 0) };
                }
            }
            Self::Graphs(ordinal) => {
                if let Some(trim) = sys::cuDeviceGraphMemTrim::REAL.get() {
                    // SAFETY: takes a number.
                    unsafe { trim(ordinal.into()) };
                }
            }
        }
    }
}

fn pool_usage(pool: Pool) -> Option<Usage> {
    let query = sys::cuMemPoolGetAttribute::REAL.get()?;
    let get = |attribute| {
        let mut value = 0u64;
        // SAFETY: for a handle that is no pool the driver answers with an error; both attributes are 64-bit numbers.
        let answer = unsafe { query(pool, attribute, (&raw mut value).cast::<c_void>()) };
        answer.is_success().then_some(value)
    };
    let held = get(sys::CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT)?;
    Some(Usage { held, used: get(sys::CU_MEMPOOL_ATTR_USED_MEM_CURRENT)? })
}

fn graph_usage(ordinal: CUdevice) -> Option<Usage> {
    let query = sys::cuDeviceGetGraphMemAttribute::REAL.get()?;
    let get = |attribute| {
        let mut value = 0u64;
        // SAFETY: both attributes are 64-bit numbers.
        let answer = unsafe { query(ordinal, attribute, (&raw mut value).cast::<c_void>()) };
        answer.is_success().then_some(value)
    };
    let held = get(sys::CU_GRAPH_MEM_ATTR_RESERVED_MEM_CURRENT)?;
    Some(Usage { held, used: get(sys::CU_GRAPH_MEM_ATTR_USED_MEM_CURRENT)? })
}

/// The current pool of the calling thread's device: the source of allocations that name no pool.
pub fn current_pool() -> Option<Pool> {
    let mut pool: Pool = null_mut();
    // SAFETY: writes a handle to a local.
    let answer = unsafe { sys::cuDeviceGetMemPool::REAL.get()?(&mut pool, current_device()) };
    answer.is_success().then_some(pool)
}

/// Whether the driver can say which pool is a device's default.
pub fn knows_default_pools() -> bool {
    sys::cuDeviceGetDefaultMemPool::REAL.get().is_some()
}

/// The device whose default pool this is.
pub fn ordinal_of_default_pool(pool: Pool) -> Option<CUdevice> {
    let query = sys::cuDeviceGetDefaultMemPool::REAL.get()?;
    let is_default = |ordinal: &CUdevice| {
        let mut default: Pool = null_mut();
        // SAFETY: writes a handle to a local.
        unsafe { query(&mut default, *ordinal) }.is_success() && default == pool
    };
    (0..device_count()).find(is_default)
}

/// Frees an allocation in stream order. The driver has just given it in this stream, and the program has not seen it.
pub fn free_ordered(pointer: CUdeviceptr, stream: CUstream, per_thread: bool) {
    let own = if per_thread { sys::cuMemFreeAsync_ptsz::REAL.get() } else { None };
    if let Some(free) = own.or_else(|| sys::cuMemFreeAsync::REAL.get()) {
        // SAFETY: memory that the driver has just given, in a stream that the caller is using.
        let _: CUresult = unsafe { free(pointer, stream) };
    }
}

/// The allocation nodes of a graph.
#[derive(Clone, Copy, Default)]
pub struct GraphAllocations {
    /// Bytes of all of them.
    pub bytes: u64,
    /// Their device: in practice one device for all of them.
    pub ordinal: CUdevice,
}

/// The allocation nodes of a graph and of the graphs in it; `None` if it has none.
pub fn graph_allocations(graph: CUgraph) -> Option<GraphAllocations> {
    allocations(graph, 0)
}

fn allocations(graph: CUgraph, depth: u32) -> Option<GraphAllocations> {
    let list = sys::cuGraphGetNodes::REAL.get()?;
    let mut count = 0usize;
    // SAFETY: without an array for the nodes the driver only writes their number to a local.
    if !unsafe { list(graph, null_mut(), &mut count) }.is_success() || count == 0 || count > MAX_NODES {
        return None;
    }
    let bytes = count.wrapping_mul(size_of::<sys::CUgraphNode>());
    let memory = kernel::map_private(bytes).ok()?;
    // SAFETY: the mapping has space for `count` nodes.
    let listed = unsafe { list(graph, memory.cast(), &mut count) }.is_success();
    let mut sum = GraphAllocations::default();
    for at in 0..if listed { count } else { 0 } {
        // SAFETY: the driver has written `count` nodes there.
        let node = unsafe { memory.cast::<sys::CUgraphNode>().wrapping_add(at).read() };
        let Some(node) = allocations_of(node, depth) else { continue };
        sum = GraphAllocations { bytes: sum.bytes.saturating_add(node.bytes), ordinal: node.ordinal };
    }
    kernel::unmap_private(memory, bytes);
    (sum.bytes > 0).then_some(sum)
}

fn allocations_of(node: sys::CUgraphNode, depth: u32) -> Option<GraphAllocations> {
    let mut kind = sys::CU_GRAPH_NODE_TYPE_EMPTY;
    // SAFETY: a node of a graph that the driver gave; writes an integer to a local.
    if !unsafe { sys::cuGraphNodeGetType::REAL.get()?(node, &mut kind) }.is_success() {
        return None;
    }
    match kind {
        sys::CU_GRAPH_NODE_TYPE_MEM_ALLOC => {
            // SAFETY: plain data; the driver fills it.
            let mut parameters: sys::CUDA_MEM_ALLOC_NODE_PARAMS = unsafe { core::mem::zeroed() };
            // SAFETY: writes to a local.
            let answer = unsafe { sys::cuGraphMemAllocNodeGetParams::REAL.get()?(node, &mut parameters) };
            let ordinal = ordinal_of(&parameters.poolProps.location).filter(|_| answer.is_success())?;
            Some(GraphAllocations { bytes: parameters.bytesize as u64, ordinal })
        }
        sys::CU_GRAPH_NODE_TYPE_GRAPH if depth < MAX_DEPTH => {
            let mut child = null_mut();
            // SAFETY: writes a handle to a local.
            let answer = unsafe { sys::cuGraphChildGraphNodeGetGraph::REAL.get()?(node, &mut child) };
            if answer.is_success() { allocations(child, depth.saturating_add(1)) } else { None }
        }
        _ => None,
    }
}
