//! Instantiating graphs and launching them.

use std::collections::HashMap;

use crate::model::objects::exec::{GraphExec, Plan, Step};
use crate::model::objects::graph::owns_memory;
use crate::model::objects::handle::{GraphExecHandle, GraphHandle, NodeHandle, StreamHandle};
use crate::model::objects::op::{HostCall, Op};
use crate::model::world::World;
use crate::tools::status::{INVALID_VALUE, NOT_SUPPORTED, Outcome};

/// `CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH`, and all flags.
const AUTO_FREE: u64 = 1;
const ALL_FLAGS: u64 = 15;

impl World {
    /// Lays a graph open into steps, in an order in which each comes after those it follows; answers the
    /// steps that end it. A circle is `INVALID_VALUE`.
    fn lay_open(&self, graph: GraphHandle, before: &[usize], steps: &mut Vec<Step>) -> Outcome<Vec<usize>> {
        let mut waiting = self.graphs.get(graph)?.nodes.clone();
        let mut placed: HashMap<NodeHandle, usize> = HashMap::new();
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

    pub fn compile(&self, graph: GraphHandle, flags: u64) -> Outcome<GraphExec> {
        if flags & !ALL_FLAGS != 0 {
            return Err(INVALID_VALUE);
        }
        let mut steps = Vec::new();
        self.lay_open(graph, &[], &mut steps)?;
        let plan = Plan::of(&steps, self.gap());
        Ok(GraphExec { steps, flags, plan, tail: 0, kept: self.kept_by(graph)? })
    }

    /// How far kernels of a graph lie apart that follow each other.
    pub fn gap(&self) -> u64 {
        self.latency().map_or(0, |latency| latency.gap_ns)
    }

    /// Changes a step's work; its kind stays.
    pub fn set_step(&mut self, exec: GraphExecHandle, node: NodeHandle, op: Op) -> Outcome {
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
    pub fn graph_of(&mut self, exec: GraphExecHandle) -> Outcome<GraphHandle> {
        let steps = self.execs.get(exec)?.steps.clone();
        if steps.iter().any(|step| owns_memory(&step.op)) {
            return Err(NOT_SUPPORTED);
        }
        let graph = self.new_graph();
        let mut nodes: Vec<NodeHandle> = Vec::new();
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
    pub fn run(&mut self, handle: GraphExecHandle, stream: StreamHandle) -> Outcome<Launched> {
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
pub struct Launched {
    pub ops: Vec<Op>,
    pub calls: Vec<(HostCall, u64)>,
}
