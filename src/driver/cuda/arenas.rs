//! Arenas: memory that the driver keeps for later, in stream-ordered pools and in the graphs of a device.
//!
//! # Safety
//! This file may use `unsafe` because it asks the driver about pools, graphs and nodes that it gave, into its own locals.
#![allow(unsafe_code)]

use super::{CUdevice, CUdeviceptr, CUresult, CUstream, current_device, device_count, ordinal_of, sys};
use core::ffi::c_void;
use core::ptr::null_mut;
use gpuquota_region::sys as kernel;

pub use sys::{CUgraph, CUmemoryPool as Pool};

/// Nodes of a graph that are looked through at most, children included.
const MOST_NODES: usize = 1 << 20;
/// Graphs within graphs that are followed.
const DEPTH: u32 = 8;

/// What keeps memory, as the driver names it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Arena {
    /// A pool, by handle.
    Pool(u64),
    /// The graphs of a device, by its ordinal.
    Graphs(u8),
}

/// Bytes of an arena.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Usage {
    /// What it holds.
    pub held: u64,
    /// What of that its allocations use.
    pub used: u64,
}

impl Arena {
    /// As one word that is not 0: handles are pointers, so never odd.
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

    /// What it holds and uses, as the driver has it.
    pub fn usage(self) -> Option<Usage> {
        match self {
            Self::Pool(handle) => pool_usage(handle as Pool),
            Self::Graphs(ordinal) => graph_usage(ordinal.into()),
        }
    }

    /// Whether a trim may give anything back. Memory of graphs that was freed stays mapped for their next launch, and a
    /// driver counts as used what is mapped.
    pub fn may_spare(self) -> bool {
        self.usage().is_none_or(|Usage { held, used }| match self {
            Self::Pool(_) => held > used,
            Self::Graphs(_) => held > 0,
        })
    }

    /// Makes it give back what it does not use.
    pub fn trim(self) {
        match self {
            Self::Pool(handle) => {
                if let Some(trim) = sys::cuMemPoolTrimTo::REAL.get() {
                    // SAFETY: a pool that the driver knows, or it answers with an error.
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
    let ask = sys::cuMemPoolGetAttribute::REAL.get()?;
    let get = |attribute| {
        let mut value = 0u64;
        // SAFETY: a pool that the driver knows, or it answers with an error; both attributes are 64-bit numbers.
        let answer = unsafe { ask(pool, attribute, (&raw mut value).cast::<c_void>()) };
        answer.is_success().then_some(value)
    };
    let held = get(sys::CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT)?;
    Some(Usage { held, used: get(sys::CU_MEMPOOL_ATTR_USED_MEM_CURRENT)? })
}

fn graph_usage(ordinal: CUdevice) -> Option<Usage> {
    let ask = sys::cuDeviceGetGraphMemAttribute::REAL.get()?;
    let get = |attribute| {
        let mut value = 0u64;
        // SAFETY: both attributes are 64-bit numbers.
        let answer = unsafe { ask(ordinal, attribute, (&raw mut value).cast::<c_void>()) };
        answer.is_success().then_some(value)
    };
    let held = get(sys::CU_GRAPH_MEM_ATTR_RESERVED_MEM_CURRENT)?;
    Some(Usage { held, used: get(sys::CU_GRAPH_MEM_ATTR_USED_MEM_CURRENT)? })
}

/// The pool of the calling thread's device from which an allocation comes that names none.
pub fn current_pool() -> Option<Pool> {
    let mut pool: Pool = null_mut();
    // SAFETY: writes a handle to a local.
    let answer = unsafe { sys::cuDeviceGetMemPool::REAL.get()?(&mut pool, current_device()) };
    answer.is_success().then_some(pool)
}

/// Whether the driver tells which pool a device has by default.
pub fn tells_default_pools() -> bool {
    sys::cuDeviceGetDefaultMemPool::REAL.get().is_some()
}

/// The device whose default pool this is.
pub fn ordinal_of_default_pool(pool: Pool) -> Option<CUdevice> {
    let ask = sys::cuDeviceGetDefaultMemPool::REAL.get()?;
    let is_own = |ordinal: &CUdevice| {
        let mut own: Pool = null_mut();
        // SAFETY: writes a handle to a local.
        unsafe { ask(&mut own, *ordinal) }.is_success() && own == pool
    };
    (0..device_count()).find(is_own)
}

/// Frees an allocation in stream order that the driver has just given in this stream, and of which nobody was told.
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
    /// Their device, which is one for all in practice.
    pub ordinal: CUdevice,
}

/// The allocation nodes of a graph and of the graphs in it; `None` if there are none.
pub fn graph_allocations(graph: CUgraph) -> Option<GraphAllocations> {
    allocations(graph, 0)
}

fn allocations(graph: CUgraph, depth: u32) -> Option<GraphAllocations> {
    let list = sys::cuGraphGetNodes::REAL.get()?;
    let mut count = 0usize;
    // SAFETY: without a place for nodes it writes their number to a local.
    if !unsafe { list(graph, null_mut(), &mut count) }.is_success() || count == 0 || count > MOST_NODES {
        return None;
    }
    let bytes = count.wrapping_mul(size_of::<sys::CUgraphNode>());
    let memory = kernel::map_private(bytes).ok()?;
    // SAFETY: room for `count` nodes.
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
            // SAFETY: plain data, which the driver fills.
            let mut parameters: sys::CUDA_MEM_ALLOC_NODE_PARAMS = unsafe { core::mem::zeroed() };
            // SAFETY: writes to a local.
            let answer = unsafe { sys::cuGraphMemAllocNodeGetParams::REAL.get()?(node, &mut parameters) };
            let ordinal = ordinal_of(&parameters.poolProps.location).filter(|_| answer.is_success())?;
            Some(GraphAllocations { bytes: parameters.bytesize as u64, ordinal })
        }
        sys::CU_GRAPH_NODE_TYPE_GRAPH if depth < DEPTH => {
            let mut child = null_mut();
            // SAFETY: writes a handle to a local.
            let answer = unsafe { sys::cuGraphChildGraphNodeGetGraph::REAL.get()?(node, &mut child) };
            if answer.is_success() { allocations(child, depth.saturating_add(1)) } else { None }
        }
        _ => None,
    }
}
