//! Instantiating graphs and launching them.

use std::collections::HashMap;

use crate::model::objects::exec::{GraphExec, Step};
use crate::model::objects::graph::owns_memory;
use crate::model::objects::handle::{GraphExecHandle, GraphHandle, NodeHandle, StreamHandle};
use crate::model::objects::op::{HostCall, Op};
use crate::model::operations::{access, events, graph_memory, graphs, memory, stamps, streams, user_objects};
use crate::model::world::World;
use crate::tools::status::{INVALID_VALUE, NOT_SUPPORTED, Outcome};

/// `CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH`, and all flags.
const AUTO_FREE: u64 = 1;
const ALL_FLAGS: u64 = 15;

/// Lays a graph open into steps, in an order in which each comes after those it follows; answers the
/// steps that end it. A circle is `INVALID_VALUE`.
fn lay_open(
    world: &World,
    graph: GraphHandle,
    before: &[usize],
    steps: &mut Vec<Step>,
) -> Outcome<Vec<usize>> {
    let mut waiting = world.graphs.get(graph)?.nodes.clone();
    let mut placed: HashMap<NodeHandle, usize> = HashMap::new();
    let mut sinks: Vec<usize> = Vec::new();
    while !waiting.is_empty() {
        let left = waiting.len();
        let mut later = Vec::new();
        for handle in waiting {
            let node = world.nodes.get(handle)?;
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
                after = lay_open(world, child, &after, steps)?;
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

pub fn compile(world: &World, graph: GraphHandle, flags: u64) -> Outcome<GraphExec> {
    if flags & !ALL_FLAGS != 0 {
        return Err(INVALID_VALUE);
    }
    let mut steps = Vec::new();
    lay_open(world, graph, &[], &mut steps)?;
    Ok(GraphExec { steps, flags, plan: None, tail: 0, kept: user_objects::kept_by(world, graph)? })
}

/// Changes a step's work; its kind stays.
pub fn set_step(world: &mut World, exec: GraphExecHandle, node: NodeHandle, op: Op) -> Outcome {
    let exec = world.execs.get_mut(exec)?;
    let step = exec.steps.iter_mut().find(|step| step.node == node).ok_or(INVALID_VALUE)?;
    if std::mem::discriminant(&step.op) != std::mem::discriminant(&op) {
        return Err(INVALID_VALUE);
    }
    step.op = op;
    exec.plan = None;
    Ok(())
}

/// A launch in a capturing stream becomes a graph within the captured one.
pub fn graph_of(world: &mut World, exec: GraphExecHandle) -> Outcome<GraphHandle> {
    let steps = world.execs.get(exec)?.steps.clone();
    if steps.iter().any(|step| owns_memory(&step.op)) {
        return Err(NOT_SUPPORTED);
    }
    let graph = graphs::new_graph(world);
    let mut nodes: Vec<NodeHandle> = Vec::new();
    for step in steps {
        let after: Vec<_> = step.after.iter().filter_map(|step| nodes.get(*step)).copied().collect();
        // What a graph within a graph does lies open beside it already.
        let op = if step.enabled && !matches!(step.op, Op::Child(_)) { step.op } else { Op::Empty };
        let node = graphs::add_node(world, graph, op, &after)?;
        nodes.push(node);
    }
    Ok(graph)
}

/// Begins a launch: its memory, its time, its events. What it moves and whom it calls is still to be done.
pub fn run(world: &mut World, handle: GraphExecHandle, stream: StreamHandle) -> Outcome<Launched> {
    let ordinal = streams::device_of(world, stream)?;
    let gap = streams::latency(world, stream)?.map_or(0, |latency| latency.gap_ns);
    let exec = world.execs.get_mut(handle)?;
    let (plan, tail, again) = (exec.planned(gap).clone(), exec.tail, exec.flags & AUTO_FREE != 0);
    let ops: Vec<Op> = exec.steps.iter().map(|step| if step.enabled { step.op } else { Op::Empty }).collect();
    for op in &ops {
        if let Op::Wait(event) = op
            && let Some(mark) = events::recorded(world, *event)
        {
            streams::follow(world, stream, &mark)?;
        }
    }
    change_memory(world, &ops, again)?;
    let start = streams::lay_out_graph(world, stream, tail, &plan.busy, plan.kernels, plan.length)?;
    for (op, (begin, end)) in ops.iter().zip(&plan.spans) {
        if let Op::Kernel(launch) = op
            && launch.timing.log != 0
        {
            stamps::note_stamp(world, ordinal, start + begin, start + end, launch.timing.log);
        }
    }
    let mut calls = Vec::new();
    let has_values = |op: &Op| matches!(op, Op::Host(call) if call.holds_bytes_up());
    // What moves bytes of a log comes after those who write it.
    let held_up = streams::holds_bytes_up(world, stream)?
        || ops.iter().any(has_values)
        || ops.iter().any(|op| stamps::meets_stamps(world, op));
    for (op, (begin, end)) in ops.iter().zip(&plan.spans) {
        match op {
            Op::Host(call) => calls.push((*call, start + begin)),
            Op::Record(event) => events::record_at(world, *event, stream, start + end)?,
            op => {
                access::touch_written(world, op);
                let later = op.as_call().filter(|_| held_up);
                calls.extend(later.map(|call| (call, start + begin)));
            }
        }
    }
    world.execs.get_mut(handle)?.tail = start + plan.length;
    Ok(Launched { ops: if held_up { Vec::new() } else { ops }, calls })
}

/// Allocates and frees what a launch does; nothing if it cannot have all.
fn change_memory(world: &mut World, ops: &[Op], again: bool) -> Outcome {
    for (index, op) in ops.iter().enumerate() {
        match op {
            Op::Alloc(address, _) => {
                if let Err(status) = graph_memory::begin_graph_memory(world, *address, again) {
                    for op in &ops[..index] {
                        if let Op::Alloc(address, _) = op {
                            let _ = graph_memory::end_graph_memory(world, *address);
                        }
                    }
                    return Err(status);
                }
            }
            // A free without an allocation before it in this launch may find nothing to free.
            Op::Free(address) => drop(memory::free(world, *address)),
            _ => {}
        }
    }
    Ok(())
}

/// A launch that was begun: what it moves at once, and whom it calls at which seat time.
pub struct Launched {
    pub ops: Vec<Op>,
    pub calls: Vec<(HostCall, u64)>,
}
