//! The memory of graphs: allocation nodes take it when their graph is launched, and the device's graphs keep it.
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

/// A graph was made executable: notes what its allocation nodes will ask for.
fn instantiated(out: *mut sys::CUgraphExec, graph: sys::CUgraph, answer: CUresult) -> CUresult {
    if answer.is_success()
        && !out.is_null()
        && let Quota::On(process) = quota()
    {
        // The graph itself takes device memory too.
        process.measure_after_load();
        // SAFETY: after success the driver has written to it.
        note_allocations(process, unsafe { *out } as u64, graph);
    }
    answer
}

fn note_allocations(process: &Process, exec: u64, graph: sys::CUgraph) {
    let memory = process.memory();
    let Some(nodes) = graph_allocations(graph) else { return };
    let Some(device) = process.scope.of_ordinal(nodes.ordinal) else { return };
    let ordinal = nodes.ordinal as u8;
    if memory.state.arenas.register(Arena::Graphs(ordinal), device.index) {
        let owner = Mapped { ordinal, since: None }.word();
        let holding = Holding { bytes: nodes.bytes, device: device.index, journal: 0, owner };
        memory.books().record_holding(Key::new(Kind::Graph, exec), holding);
    }
}

/// A launch, or an upload, of a graph: it may make the device's graphs hold more.
#[inline]
pub(super) fn with_memory(exec: sys::CUgraphExec, call: impl Fn() -> CUresult) -> CUresult {
    match quota() {
        Quota::On(process) if process.memory().state.arenas.any_graphs() => {
            with_noted_memory(process.memory(), exec as u64, call)
        }
        _ => call(),
    }
}

#[cold]
fn with_noted_memory(memory: Memory<'_>, exec: u64, call: impl Fn() -> CUresult) -> CUresult {
    let key = Key::new(Kind::Graph, exec);
    let noted = key.and_then(|key| memory.books().accounts.holdings.get(key));
    let device = noted.and_then(|holding| memory.scope.container.device(holding.device));
    let Some((holding, device)) = noted.zip(device) else { return call() };
    let mapped = Mapped::read(holding.owner);
    // Read before the launch: of a trim meanwhile nobody knows what it took.
    let since = memory.state.arenas.graph_trims();
    let arena = Arena::Graphs(mapped.ordinal);
    if mapped.since == Some(since) {
        let answer = call();
        if memory.state.arenas.graph_trims() != since {
            memory.state.arenas.update_charge(memory.books(), arena);
        }
        return answer;
    }
    let answer = memory.take_from_arena(arena, device, holding.bytes, &call, None).unwrap_or_else(call);
    if answer.is_success() {
        let owner = Mapped { since: Some(since), ..mapped }.word();
        memory.books().record_holding(key, Holding { owner, ..holding });
    }
    answer
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
        let memory = process.memory();
        if let Some(key) = Key::new(Kind::Graph, exec as u64) {
            memory.books().accounts.holdings.remove(key);
        }
        process.measure_after_load();
        memory.state.arenas.mark_stale();
        memory.state.arenas.update_stale(memory.books());
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
    cuGraphExecDestroy: fn(exec: sys::CUgraphExec) -> CUresult = |real| destroyed(exec, real());
    cuDeviceGraphMemTrim: fn(device: CUdevice) -> CUresult = |real| trimmed(device, real());
}
