//! The memory of graphs: allocation nodes take it at the launch of their graph, and the device's graphs keep it.
//!
//! # Safety
//! This file may use `unsafe` because it reads the out-parameters that the driver has just written successfully.
#![allow(unsafe_code)]

use crate::driver::cuda::arenas::{Arena, graph_allocations};
use crate::driver::cuda::{CUdevice, CUresult, CUstream};
use crate::driver::sys::cuda as sys;
use crate::hook::hooks;
use crate::memory::Memory;
use crate::memory::holdings::{Holding, Key, Kind};
use crate::process::{Process, Quota, quota};
use core::ffi::{c_char, c_ulonglong};

/// A graph was made executable: records the bytes of its allocation nodes.
fn instantiated(out: *mut sys::CUgraphExec, graph: sys::CUgraph, answer: CUresult) -> CUresult {
    if answer.is_success()
        && !out.is_null()
        && let Quota::On(process) = quota()
    {
        // The graph itself takes device memory too.
        process.measure_after_load();
        // SAFETY: after success the driver has written to it.
        record_allocations(process, unsafe { *out } as u64, graph);
    }
    answer
}

fn record_allocations(process: &Process, exec: u64, graph: sys::CUgraph) {
    let memory = process.memory();
    let Some(nodes) = graph_allocations(graph) else { return };
    let Some(device) = process.scope.of_ordinal(nodes.ordinal) else { return };
    let ordinal = nodes.ordinal as u8;
    if memory.state.arenas.register(Arena::Graphs(ordinal), device.index) {
        let owner = GraphMapping { ordinal, since: None }.word();
        let holding = Holding { bytes: nodes.bytes, device: device.index, journal: 0, owner };
        memory.books().record_holding(Key::new(Kind::Graph, exec), holding);
    }
}

/// A launch or an upload of a graph: it may make the device's graphs hold more.
#[inline]
pub(super) fn with_memory(exec: sys::CUgraphExec, call: impl Fn() -> CUresult) -> CUresult {
    match quota() {
        Quota::On(process) if process.memory().state.arenas.any_graphs() => {
            with_recorded_memory(process.memory(), exec as u64, call)
        }
        _ => call(),
    }
}

#[cold]
fn with_recorded_memory(memory: Memory<'_>, exec: u64, call: impl Fn() -> CUresult) -> CUresult {
    let key = Key::new(Kind::Graph, exec);
    let recorded = key.and_then(|key| memory.books().accounts.holdings.get(key));
    let device = recorded.and_then(|holding| memory.scope.container.device(holding.device));
    let Some((holding, device)) = recorded.zip(device) else { return call() };
    let mapping = GraphMapping::read(holding.owner);
    // This reads the number before the launch, because a trim during the launch may take the mapping or not.
    let since = memory.state.arenas.graph_trims();
    let arena = Arena::Graphs(mapping.ordinal);
    if mapping.since == Some(since) {
        let answer = call();
        if memory.state.arenas.graph_trims() != since {
            memory.state.arenas.update_charge(memory.books(), arena);
        }
        return answer;
    }
    let answer = memory.take_from_arena(arena, device, holding.bytes, &call, None).unwrap_or_else(call);
    if answer.is_success() {
        let owner = GraphMapping { since: Some(since), ..mapping }.word();
        memory.books().record_holding(key, Holding { owner, ..holding });
    }
    answer
}

/// The memory that an executable graph has mapped, which it keeps until the next trim.
#[derive(Clone, Copy)]
struct GraphMapping {
    /// The device.
    ordinal: u8,
    /// The number of trims at its last launch; `None` before the first launch.
    since: Option<u64>,
}

impl GraphMapping {
    fn word(self) -> u64 {
        let since = self.since.map_or(0, |since| since.wrapping_add(1));
        since << 8 | u64::from(self.ordinal)
    }

    fn read(word: u64) -> Self {
        Self { ordinal: word as u8, since: (word >> 8).checked_sub(1) }
    }
}

/// Destroys an executable graph. Its memory stays with the device's graphs until a trim.
fn destroy(exec: sys::CUgraphExec, call: impl FnOnce() -> CUresult) -> CUresult {
    let Quota::On(process) = quota() else { return call() };
    let (memory, key) = (process.memory(), Key::new(Kind::Graph, exec as u64));
    // Before the call, because another thread may get the same handle right after it.
    let held = key.and_then(|key| memory.books().accounts.holdings.remove(key));
    let answer = call();
    if answer.is_success() {
        process.measure_after_load();
        memory.state.arenas.mark_stale();
        memory.state.arenas.update_stale(memory.books());
    } else if let Some(held) = held {
        memory.books().record_holding(key, held);
    }
    answer
}

fn trimmed(ordinal: CUdevice, answer: CUresult) -> CUresult {
    if let Quota::On(process) = quota() {
        let memory = process.memory();
        memory.state.arenas.graphs_were_trimmed(memory.books(), ordinal as u8);
    }
    answer
}

hooks! { sys;
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
    cuGraphExecDestroy: fn(exec: sys::CUgraphExec) -> CUresult = |real| destroy(exec, real);
    cuDeviceGraphMemTrim: fn(device: CUdevice) -> CUresult = |real| trimmed(device, real());
}
