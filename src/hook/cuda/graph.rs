//! The memory of graphs: allocation nodes take it when their graph is launched, and the device's graphs keep it.
//!
//! # Safety
//! This room may use `unsafe` because it asks the driver about graphs and nodes that it gave, into its own locals.
#![allow(unsafe_code)]

use super::{
    CUdevice, CUresult, CUstream, cuDeviceGetGraphMemAttribute, cuGraphChildGraphNodeGetGraph,
    cuGraphGetNodes, cuGraphMemAllocNodeGetParams, cuGraphNodeGetType, hooks, ordinal_of, sys,
};
use crate::account::Verdict;
use crate::holdings::{Holding, Key, Kind};
use crate::kept::Name;
use crate::process::{Process, Quota, quota};
use core::ffi::{c_char, c_ulonglong};
use core::ptr::null_mut;
use gpuquota_region::sys as kernel;

/// Nodes of a graph that are looked through at most, children included.
const MOST_NODES: usize = 1 << 20;
/// Graphs within graphs that are followed.
const DEPTH: u32 = 8;

/// Bytes that the graphs of a device hold and, of these, use.
pub fn held_and_used(ordinal: CUdevice) -> Option<(u64, u64)> {
    let ask = cuDeviceGetGraphMemAttribute::REAL.get()?;
    let get = |attribute| {
        let mut value = 0u64;
        // SAFETY: both attributes are 64-bit numbers.
        let answer = unsafe { ask(ordinal, attribute, (&raw mut value).cast()) };
        answer.is_success().then_some(value)
    };
    Some((get(sys::CU_GRAPH_MEM_ATTR_RESERVED_MEM_CURRENT)?, get(sys::CU_GRAPH_MEM_ATTR_USED_MEM_CURRENT)?))
}

/// Makes a device's graphs give back what they do not use.
pub fn trim(ordinal: CUdevice) {
    if let Some(trim) = cuDeviceGraphMemTrim::REAL.get() {
        // SAFETY: takes a number.
        unsafe { trim(ordinal) };
    }
}

/// What the allocation nodes of a graph ask for.
#[derive(Clone, Copy, Default)]
struct Asked {
    bytes: u64,
    ordinal: CUdevice,
}

/// Adds up the allocation nodes of a graph. They name their device, which is one for all in practice.
fn allocations(graph: sys::CUgraph, depth: u32) -> Option<Asked> {
    let list = cuGraphGetNodes::REAL.get()?;
    let mut count = 0usize;
    // SAFETY: without a place for nodes it writes their number to a local.
    if !unsafe { list(graph, null_mut(), &mut count) }.is_success() || count == 0 || count > MOST_NODES {
        return None;
    }
    let bytes = count.wrapping_mul(size_of::<sys::CUgraphNode>());
    let memory = kernel::map_private(bytes).ok()?;
    // SAFETY: room for `count` nodes.
    let listed = unsafe { list(graph, memory.cast(), &mut count) }.is_success();
    let mut sum = Asked::default();
    for at in 0..if listed { count } else { 0 } {
        // SAFETY: the driver has written `count` nodes there.
        let node = unsafe { memory.cast::<sys::CUgraphNode>().wrapping_add(at).read() };
        let Some(asked) = asked_by(node, depth) else { continue };
        sum = Asked { bytes: sum.bytes.saturating_add(asked.bytes), ordinal: asked.ordinal };
    }
    kernel::unmap_private(memory, bytes);
    (sum.bytes > 0).then_some(sum)
}

fn asked_by(node: sys::CUgraphNode, depth: u32) -> Option<Asked> {
    let mut kind = sys::CU_GRAPH_NODE_TYPE_EMPTY;
    // SAFETY: a node of a graph that the driver gave; writes an integer to a local.
    if !unsafe { cuGraphNodeGetType::REAL.get()?(node, &mut kind) }.is_success() {
        return None;
    }
    match kind {
        sys::CU_GRAPH_NODE_TYPE_MEM_ALLOC => {
            // SAFETY: plain data, which the driver fills.
            let mut parameters: sys::CUDA_MEM_ALLOC_NODE_PARAMS = unsafe { core::mem::zeroed() };
            // SAFETY: writes to a local.
            let answer = unsafe { cuGraphMemAllocNodeGetParams::REAL.get()?(node, &mut parameters) };
            let ordinal = ordinal_of(&parameters.poolProps.location).filter(|_| answer.is_success())?;
            Some(Asked { bytes: parameters.bytesize as u64, ordinal })
        }
        sys::CU_GRAPH_NODE_TYPE_GRAPH if depth < DEPTH => {
            let mut child = null_mut();
            // SAFETY: writes a handle to a local.
            let answer = unsafe { cuGraphChildGraphNodeGetGraph::REAL.get()?(node, &mut child) };
            if answer.is_success() { allocations(child, depth.saturating_add(1)) } else { None }
        }
        _ => None,
    }
}

/// A graph was made executable: notes what its allocation nodes will ask for.
fn instantiated(out: *mut sys::CUgraphExec, graph: sys::CUgraph, answer: CUresult) -> CUresult {
    if answer.is_success()
        && !out.is_null()
        && let Quota::On(process) = quota()
    {
        // The graph itself takes device memory too.
        process.settle_after_load();
        let asked = allocations(graph, 0);
        let device = asked.and_then(|asked| process.known.of_ordinal(process, asked.ordinal));
        if let (Some(asked), Some(device)) = (asked, device)
            && process.know_keeper(Name::Graphs(asked.ordinal as u8), device)
        {
            // SAFETY: after success the driver has written to it.
            let key = Key::new(Kind::Graph, unsafe { *out } as u64);
            let owner = Mapped { ordinal: asked.ordinal as u8, since: None }.word();
            process.note(key, Holding { bytes: asked.bytes, device, lane: 0, owner });
        }
    }
    answer
}

/// A launch, or an upload, of a graph: it may make the device's graphs hold more.
#[inline]
pub(super) fn with_memory(exec: sys::CUgraphExec, call: impl Fn() -> CUresult) -> CUresult {
    match quota() {
        Quota::On(process) if process.has_graph_memory() => with_noted_memory(process, exec, call),
        _ => call(),
    }
}

#[cold]
fn with_noted_memory(process: &Process, exec: sys::CUgraphExec, call: impl Fn() -> CUresult) -> CUresult {
    match Key::new(Kind::Graph, exec as u64).and_then(|key| process.holdings.get(key)) {
        None => call(),
        Some(Holding { bytes, device, owner, .. }) => {
            let mapped = Mapped::read(owner);
            // Read before the launch: of a trim meanwhile nobody knows what it took.
            let since = process.graph_memory_since();
            let name = Name::Graphs(mapped.ordinal);
            if mapped.since == Some(since) {
                let answer = call();
                if process.graph_memory_since() != since {
                    process.settle_keeper(name);
                }
                return answer;
            }
            let answer = process.take_from_keeper(name, device, bytes, &call, None).unwrap_or_else(call);
            if answer.is_success() {
                let owner = Mapped { since: Some(since), ..mapped }.word();
                process.note(Key::new(Kind::Graph, exec as u64), Holding { bytes, device, lane: 0, owner });
            }
            answer
        }
    }
}

/// Where the memory of an executable graph is, and since which trim its last launch has it mapped: it stays until the next.
#[derive(Clone, Copy)]
struct Mapped {
    ordinal: u8,
    since: Option<u64>,
}

impl Mapped {
    fn word(self) -> u64 {
        let since = self.since.map_or(0, |since| since.wrapping_add(1));
        since << 8 | u64::from(self.ordinal)
    }

    fn read(word: u64) -> Self {
        Self { ordinal: word as u8, since: (word >> 8).checked_sub(1) }
    }
}

/// An executable graph goes; what its allocations held stays with the device until it is trimmed.
fn destroyed(exec: sys::CUgraphExec, answer: CUresult) -> CUresult {
    if answer.is_success()
        && let Quota::On(process) = quota()
    {
        if let Some(key) = Key::new(Kind::Graph, exec as u64) {
            process.holdings.remove(key);
        }
        process.settle_after_load();
        process.keepers_are_stale();
        process.settle_stale_keepers();
    }
    answer
}

fn trimmed(ordinal: CUdevice, answer: CUresult) -> CUresult {
    if let Quota::On(process) = quota() {
        process.graphs_were_trimmed(ordinal as u8);
    }
    answer
}

hooks! { super::super::LIBCUDA, sys;
    cuGraphInstantiate, cuGraphInstantiate_v2: fn(
        exec: *mut sys::CUgraphExec, graph: sys::CUgraph, error: *mut sys::CUgraphNode, log: *mut c_char, length: usize
    ) -> CUresult = |real| instantiated(exec, graph, real());
    cuGraphInstantiateWithFlags: fn(exec: *mut sys::CUgraphExec, graph: sys::CUgraph, flags: c_ulonglong) -> CUresult
        = |real| instantiated(exec, graph, real());
    cuGraphInstantiateWithParams, cuGraphInstantiateWithParams_ptsz: fn(
        exec: *mut sys::CUgraphExec, graph: sys::CUgraph, parameters: *mut sys::CUDA_GRAPH_INSTANTIATE_PARAMS
    ) -> CUresult = |real| instantiated(exec, graph, real());
    cuGraphUpload, cuGraphUpload_ptsz: fn(exec: sys::CUgraphExec, stream: CUstream) -> CUresult
        = |real| with_memory(exec, real);
    cuGraphExecDestroy: fn(exec: sys::CUgraphExec) -> CUresult = |real| destroyed(exec, real());
    cuDeviceGraphMemTrim: fn(device: CUdevice) -> CUresult = |real| trimmed(device, real());
}
