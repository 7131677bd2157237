//! Graphs that can be launched: instantiating, launching, updating.
//!
//! # Safety
//! Exports symbols.
#![allow(unsafe_code)]

use std::collections::HashMap;

use crate::abi::{InstantiateParams, UpdateResult};
use crate::capture;
use crate::ffi::{In, Lane, Out, Outcome, export};
use crate::graph::{Graph, Kept, Node, owns_memory};
use crate::hostfn::HostCall;
use crate::latency;
use crate::op::Op;
use crate::stamps;
use crate::status::{GRAPH_EXEC_UPDATE_FAILURE, INVALID_VALUE, NOT_SUPPORTED};
use crate::stream::Stream;
use crate::table::Handle;
use crate::world::{World, world};

/// `CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH`, and all flags.
const AUTO_FREE: u64 = 1;
const ALL_FLAGS: u64 = 15;
/// `CUgraphExecUpdateResult`.
const TOPOLOGY_CHANGED: u32 = 2;
const TYPE_CHANGED: u32 = 3;
const NOT_SUPPORTED_THERE: u32 = 6;

/// A graph as it was when it was instantiated, graphs within it laid open.
pub struct GraphExec {
    steps: Vec<Step>,
    flags: u64,
    plan: Plan,
    /// End of its last launch in seat time: it never runs beside itself.
    tail: u64,
    /// Objects of callers that it keeps alive.
    kept: Vec<Kept>,
}

impl GraphExec {
    /// Where the memory lies that it allocates.
    fn memory(&self) -> Vec<u64> {
        let allocated = |step: &Step| if let Op::Alloc(address, _) = step.op { Some(address) } else { None };
        self.steps.iter().filter_map(allocated).collect()
    }
}

#[derive(Clone)]
struct Step {
    node: Handle<Node>,
    op: Op,
    /// Steps before this one that must be over.
    after: Vec<usize>,
    enabled: bool,
}

/// When what happens after a launch.
#[derive(Clone, Default)]
struct Plan {
    /// Begin and end of every step.
    spans: Vec<(u64, u64)>,
    /// When kernels keep the device busy, ascending and apart.
    busy: Vec<(u64, u64)>,
    kernels: u64,
    length: u64,
}

impl Plan {
    /// Branches run side by side, so a graph takes as long as its longest chain. A kernel that has one before it begins
    /// `gap` later.
    fn of(steps: &[Step], gap: u64) -> Plan {
        let mut plan = Plan::default();
        let mut busy = Vec::new();
        // Whether a kernel is over when a step is.
        let mut has_kernel: Vec<bool> = Vec::new();
        for step in steps {
            let start = step.after.iter().filter_map(|step| plan.spans.get(*step)).map(|span| span.1);
            let mut start = start.max().unwrap_or(0);
            let runs = matches!(step.op, Op::Kernel(_)) && step.enabled;
            let follows = step.after.iter().any(|step| has_kernel.get(*step) == Some(&true));
            has_kernel.push(runs || follows);
            if runs && follows {
                start += gap;
            }
            let end = start + if step.enabled { step.op.duration() } else { 0 };
            if runs {
                plan.kernels += 1;
                busy.push((start, end));
            }
            plan.spans.push((start, end));
            plan.length = plan.length.max(end);
        }
        busy.sort_unstable();
        for (start, end) in busy {
            match plan.busy.last_mut() {
                Some(last) if start <= last.1 => last.1 = last.1.max(end),
                _ => plan.busy.push((start, end)),
            }
        }
        plan
    }
}

impl World {
    /// Lays a graph open into steps, in an order in which each comes after those it follows; answers the
    /// steps that end it. A circle is `INVALID_VALUE`.
    fn lay_open(&self, graph: Handle<Graph>, before: &[usize], steps: &mut Vec<Step>) -> Outcome<Vec<usize>> {
        let mut waiting = self.graphs.get(graph)?.nodes.clone();
        let mut placed: HashMap<Handle<Node>, usize> = HashMap::new();
        let mut sinks: Vec<usize> = Vec::new();
        while !waiting.is_empty() {
            let left = waiting.len();
            let mut later = Vec::new();
            for handle in waiting {
                let node = self.nodes.get(handle)?;
                let after: Option<Vec<usize>> =
                    node.dependencies.iter().map(|node| placed.get(node).copied()).collect();
                let Some(mut after) = after else {
                    later.push(handle);
                    continue;
                };
                sinks.retain(|sink| !after.contains(sink));
                if after.is_empty() {
                    after = before.to_vec();
                }
                if let Op::Child(child) = node.op {
                    after = self.lay_open(child, &after, steps)?;
                }
                placed.insert(handle, steps.len());
                sinks.push(steps.len());
                steps.push(Step { node: handle, op: node.op, after, enabled: true });
            }
            if later.len() == left {
                return Err(INVALID_VALUE);
            }
            waiting = later;
        }
        Ok(if sinks.is_empty() { before.to_vec() } else { sinks })
    }

    fn compile(&self, graph: Handle<Graph>, flags: u64) -> Outcome<GraphExec> {
        if flags & !ALL_FLAGS != 0 {
            return Err(INVALID_VALUE);
        }
        let mut steps = Vec::new();
        self.lay_open(graph, &[], &mut steps)?;
        let plan = Plan::of(&steps, self.gap());
        Ok(GraphExec { steps, flags, plan, tail: 0, kept: self.kept_by(graph)? })
    }

    /// How far kernels of a graph lie apart that follow each other.
    fn gap(&self) -> u64 {
        self.latency().map_or(0, |latency| latency.gap_ns)
    }

    /// Changes a step's work; its kind stays.
    pub(super) fn set_step(&mut self, exec: Handle<GraphExec>, node: Handle<Node>, op: Op) -> Outcome {
        let gap = self.gap();
        let exec = self.execs.get_mut(exec)?;
        let step = exec.steps.iter_mut().find(|step| step.node == node).ok_or(INVALID_VALUE)?;
        if std::mem::discriminant(&step.op) != std::mem::discriminant(&op) {
            return Err(INVALID_VALUE);
        }
        step.op = op;
        exec.plan = Plan::of(&exec.steps, gap);
        Ok(())
    }

    /// A launch in a capturing stream becomes a graph within the captured one.
    fn graph_of(&mut self, exec: Handle<GraphExec>) -> Outcome<Handle<Graph>> {
        let steps = self.execs.get(exec)?.steps.clone();
        if steps.iter().any(|step| owns_memory(&step.op)) {
            return Err(NOT_SUPPORTED);
        }
        let graph = self.new_graph();
        let mut nodes: Vec<Handle<Node>> = Vec::new();
        for step in steps {
            let after: Vec<_> = step.after.iter().filter_map(|step| nodes.get(*step)).copied().collect();
            // What a graph within a graph does lies open beside it already.
            let op = if step.enabled && !matches!(step.op, Op::Child(_)) { step.op } else { Op::Empty };
            let node = self.add_node(graph, op, &after)?;
            nodes.push(node);
        }
        Ok(graph)
    }

    /// Begins a launch: its memory, its time, its events. What it moves and whom it calls is still to be done.
    fn run(&mut self, handle: Handle<GraphExec>, stream: Handle<Stream>) -> Outcome<Launched> {
        let exec = self.execs.get(handle)?;
        let (plan, tail, again) = (exec.plan.clone(), exec.tail, exec.flags & AUTO_FREE != 0);
        let ops: Vec<Op> =
            exec.steps.iter().map(|step| if step.enabled { step.op } else { Op::Empty }).collect();
        for op in &ops {
            if let Op::Wait(event) = op
                && let Some(mark) = self.recorded(*event)
            {
                self.follow(stream, &mark)?;
            }
        }
        self.change_memory(&ops, again)?;
        let start = self.lay_out_graph(stream, tail, &plan.busy, plan.kernels, plan.length)?;
        let ordinal = self.contexts.get(self.streams.get(stream)?.context)?.device;
        for (op, (begin, end)) in ops.iter().zip(&plan.spans) {
            if let Op::Kernel(launch) = op
                && launch.timing.log != 0
            {
                self.note_stamp(ordinal, start + begin, start + end, launch.timing.log);
            }
        }
        let mut calls = Vec::new();
        let has_values = |op: &Op| matches!(op, Op::Host(call) if call.holds_bytes_up());
        // What moves bytes of a log comes after those who write it.
        let held_up = self.holds_bytes_up(stream)?
            || ops.iter().any(has_values)
            || ops.iter().any(|op| self.meets_stamps(op));
        for (op, (begin, end)) in ops.iter().zip(&plan.spans) {
            match op {
                Op::Host(call) => calls.push((*call, start + begin)),
                Op::Record(event) => self.record_at(*event, stream, start + end)?,
                op => {
                    op.touch(self);
                    let later = op.as_call().filter(|_| held_up);
                    calls.extend(later.map(|call| (call, start + begin)));
                }
            }
        }
        self.execs.get_mut(handle)?.tail = start + plan.length;
        Ok(Launched { ops: if held_up { Vec::new() } else { ops }, calls })
    }

    /// Allocates and frees what a launch does; nothing if it cannot have all.
    fn change_memory(&mut self, ops: &[Op], again: bool) -> Outcome {
        for (index, op) in ops.iter().enumerate() {
            match op {
                Op::Alloc(address, _) => {
                    if let Err(status) = self.begin_graph_memory(*address, again) {
                        for op in &ops[..index] {
                            if let Op::Alloc(address, _) = op {
                                let _ = self.end_graph_memory(*address);
                            }
                        }
                        return Err(status);
                    }
                }
                // A free without an allocation before it in this launch may find nothing to free.
                Op::Free(address) => drop(self.free(*address)),
                _ => {}
            }
        }
        Ok(())
    }
}

/// A launch that was begun: what it moves at once, and whom it calls at which seat time.
struct Launched {
    ops: Vec<Op>,
    calls: Vec<(HostCall, u64)>,
}

fn instantiate(out: Out<Handle<GraphExec>>, graph: Handle<Graph>, flags: u64) -> Outcome {
    out.required()?;
    let mut world = world()?;
    let exec = world.compile(graph, flags)?;
    let memory = exec.memory();
    for (index, address) in memory.iter().enumerate() {
        if let Err(status) = world.share_graph_memory(*address) {
            memory[..index].iter().for_each(|shared| world.disown_graph_memory(*shared));
            return Err(status);
        }
    }
    out.put(world.execs.add(exec))
}

fn launch(lane: Lane, exec: Handle<GraphExec>, stream: Handle<Stream>) -> Outcome {
    latency::spend(|latency| latency.launch_ns);
    let mut world = world()?;
    let stream = world.stream(lane, stream)?;
    world.execs.get(exec)?;
    if world.streams.get(stream)?.capture.is_some() {
        let graph = world.graph_of(exec)?;
        let captured = capture::intercept(&mut world, stream, Op::Child(graph));
        if captured.is_err() {
            world.destroy_graph(graph)?;
        }
        return captured.map(|_| ());
    }
    capture::intercept(&mut world, stream, Op::Empty)?;
    let Launched { ops, calls } = world.run(exec, stream)?;
    drop(world);
    stamps::settle();
    ops.iter().for_each(Op::perform);
    // A function of the host finds the bytes that were moved before it.
    let mut world = if calls.is_empty() { return Ok(()) } else { crate::world::world()? };
    calls.into_iter().try_for_each(|(call, time)| world.call_host(stream, call, Some(time)))
}

/// Takes a graph's work over into an instantiated one of the same shape; else tells why not.
fn update(exec: Handle<GraphExec>, graph: Handle<Graph>) -> Outcome<Option<(u32, Handle<Node>)>> {
    let mut world = world()?;
    let old = world.execs.get(exec)?;
    let new = world.compile(graph, old.flags)?;
    if new.steps.len() != old.steps.len() {
        return Ok(Some((TOPOLOGY_CHANGED, Handle::NULL)));
    }
    for (old, new) in old.steps.iter().zip(&new.steps) {
        if old.after != new.after {
            return Ok(Some((TOPOLOGY_CHANGED, new.node)));
        }
        if std::mem::discriminant(&old.op) != std::mem::discriminant(&new.op) {
            return Ok(Some((TYPE_CHANGED, new.node)));
        }
        // Memory belongs to the graph that it was instantiated from.
        if owns_memory(&new.op) && old.node != new.node {
            return Ok(Some((NOT_SUPPORTED_THERE, new.node)));
        }
    }
    let gap = world.gap();
    let exec = world.execs.get_mut(exec)?;
    for (old, new) in exec.steps.iter_mut().zip(new.steps) {
        old.op = new.op;
    }
    exec.plan = Plan::of(&exec.steps, gap);
    exec.kept = new.kept;
    Ok(None)
}

export! {
    fn cuGraphInstantiate = cuGraphInstantiate_v2(
        out: Out<Handle<GraphExec>>, graph: Handle<Graph>, node: Out<Handle<Node>>, log: Out<u8>, size: u64,
    ) {
        if size > 0 {
            log.put_if(0);
        }
        node.put_if(Handle::NULL);
        instantiate(out, graph, 0)
    }

    fn cuGraphInstantiateWithFlags(out: Out<Handle<GraphExec>>, graph: Handle<Graph>, flags: u64) {
        instantiate(out, graph, flags)
    }

    early lane fn |lane| cuGraphInstantiateWithParams / cuGraphInstantiateWithParams_ptsz (
        out: Out<Handle<GraphExec>>, graph: Handle<Graph>, params: Out<InstantiateParams>,
    ) {
        let _ = lane;
        let asked = params.get()?;
        instantiate(out, graph, asked.flags)?;
        params.put(InstantiateParams { error_node: 0, result: 0, ..asked })
    }

    fn cuGraphExecDestroy(exec: Handle<GraphExec>) {
        let mut world = world()?;
        for address in world.execs.remove(exec)?.memory() {
            world.disown_graph_memory(address);
        }
        Ok(())
    }

    fn cuGraphExecGetFlags(exec: Handle<GraphExec>, flags: Out<u64>) {
        let world = world()?;
        flags.put(world.execs.get(exec)?.flags)
    }

    lane fn |lane| cuGraphUpload / cuGraphUpload_ptsz (exec: Handle<GraphExec>, stream: Handle<Stream>) {
        let mut world = world()?;
        world.stream(lane, stream)?;
        world.execs.get(exec).map(|_| ())
    }

    lane fn |lane| cuGraphLaunch / cuGraphLaunch_ptsz (exec: Handle<GraphExec>, stream: Handle<Stream>) {
        launch(lane, exec, stream)
    }

    fn cuGraphExecUpdate(
        exec: Handle<GraphExec>, graph: Handle<Graph>, node: Out<Handle<Node>>, result: Out<u32>,
    ) {
        let refused = update(exec, graph)?;
        let (code, place) = refused.unwrap_or((0, Handle::NULL));
        node.put_if(place);
        result.put_if(code);
        if refused.is_some() { Err(GRAPH_EXEC_UPDATE_FAILURE) } else { Ok(()) }
    }

    fn cuGraphExecUpdate_v2(exec: Handle<GraphExec>, graph: Handle<Graph>, info: Out<UpdateResult>) {
        info.required()?;
        let refused = update(exec, graph)?;
        let (result, place) = refused.unwrap_or((0, Handle::NULL));
        info.put(UpdateResult { result, error_node: place.raw(), error_from: 0 })?;
        if refused.is_some() { Err(GRAPH_EXEC_UPDATE_FAILURE) } else { Ok(()) }
    }

    early fn cuGraphNodeSetEnabled(exec: Handle<GraphExec>, node: Handle<Node>, enabled: u32) {
        exec.given()?;
        let mut world = world()?;
        let gap = world.gap();
        let exec = world.execs.get_mut(exec)?;
        let step = exec.steps.iter_mut().find(|step| step.node == node).ok_or(INVALID_VALUE)?;
        if !matches!(step.op, Op::Kernel(_) | Op::Copy(_) | Op::Fill(_)) {
            return Err(INVALID_VALUE);
        }
        step.enabled = enabled != 0;
        exec.plan = Plan::of(&exec.steps, gap);
        Ok(())
    }

    early fn cuGraphNodeGetEnabled(exec: Handle<GraphExec>, node: Handle<Node>, enabled: Out<u32>) {
        enabled.required()?;
        let world = world()?;
        let steps = &world.execs.get(exec)?.steps;
        let step = steps.iter().find(|step| step.node == node).ok_or(INVALID_VALUE)?;
        enabled.put(u32::from(step.enabled))
    }

    fn cuDeviceGraphMemTrim(device: i32) {
        let mut world = world()?;
        let (ordinal, _) = world.device(device)?;
        world.trim_graph_memory(ordinal);
        Ok(())
    }

    fn cuDeviceGetGraphMemAttribute(device: i32, attribute: u32, value: Out<u64>) {
        let world = world()?;
        let usage = world.device(device)?.1.graph_memory;
        value.put(match attribute {
            0 => usage.used(),
            1 => usage.used_high,
            2 => usage.reserved,
            3 => usage.reserved_high,
            _ => return Err(INVALID_VALUE),
        })
    }

    fn cuDeviceSetGraphMemAttribute(device: i32, attribute: u32, value: In<u64>) {
        let mut world = world()?;
        let (ordinal, _) = world.device(device)?;
        // High marks can be set to zero only, which lowers them to what is there now.
        if value.get()? != 0 {
            return Err(INVALID_VALUE);
        }
        let usage = &mut world.devices[ordinal].graph_memory;
        match attribute {
            1 => usage.used_high = usage.used(),
            3 => usage.reserved_high = usage.reserved,
            _ => return Err(INVALID_VALUE),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::launch::Timing;
    use crate::op::Launch;

    fn step(duration: u64, after: &[usize]) -> Step {
        let launch = Launch {
            kernel: Handle::NULL,
            grid: [1; 3],
            block: [1; 3],
            shared: 0,
            params: 0,
            extra: 0,
            timing: Timing { duration, log: 0 },
        };
        Step { node: Handle::NULL, op: Op::Kernel(launch), after: after.to_vec(), enabled: true }
    }

    #[test]
    fn a_graph_takes_as_long_as_its_longest_chain() {
        let steps = [step(10, &[]), step(20, &[0]), step(5, &[0]), step(1, &[1, 2])];
        let plan = Plan::of(&steps, 0);
        assert_eq!((plan.length, plan.kernels, plan.busy), (31, 4, vec![(0, 31)]));
        let plan = Plan::of(&steps, 2);
        assert_eq!((plan.length, plan.kernels, plan.busy), (35, 4, vec![(0, 10), (12, 32), (34, 35)]));
    }
}
