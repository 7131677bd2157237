//! Graphs: work that is written down once and launched as one.
//!
//! # Safety
//! Exports symbols.
#![allow(unsafe_code)]

use crate::capture;
use crate::event::Moment;
use crate::ffi::{In, Lane, Out, Outcome, export};
use crate::op::Op;
use crate::status::{INVALID_VALUE, NOT_SUPPORTED};
use crate::stream::Stream;
use crate::table::{Handle, Kind};
use crate::world::{World, world};

/// A graph that can be changed.
#[derive(Default)]
pub struct Graph {
    pub nodes: Vec<Handle<Node>>,
}

/// One piece of work of a graph, and what must be over before it begins.
pub struct Node {
    pub op: Op,
    pub dependencies: Vec<Handle<Node>>,
}

/// A graph as it was when it was instantiated.
pub struct GraphExec {
    steps: Vec<Step>,
    /// Nanoseconds along the longest chain of dependencies.
    duration: u64,
    kernels: u64,
    flags: u64,
}

#[derive(Clone)]
struct Step {
    op: Op,
    /// When it begins, after the launch.
    start: u64,
}

impl Kind for Graph {
    const TAG: u64 = 9;
}
impl Kind for GraphExec {
    const TAG: u64 = 10;
}
impl Kind for Node {
    const TAG: u64 = 11;
}

impl World {
    /// An empty graph.
    pub fn new_graph(&mut self) -> Handle<Graph> {
        self.graphs.add(Graph::default())
    }

    /// Adds a node.
    pub fn add_node(
        &mut self,
        graph: Handle<Graph>,
        op: Op,
        after: &[Handle<Node>],
    ) -> Outcome<Handle<Node>> {
        self.graphs.get(graph)?;
        for node in after {
            self.nodes.get(*node).map_err(|_| INVALID_VALUE)?;
        }
        let node = self.nodes.add(Node { op, dependencies: after.to_vec() });
        self.graphs.get_mut(graph)?.nodes.push(node);
        Ok(node)
    }

    /// Takes a graph away with its nodes.
    pub fn destroy_graph(&mut self, graph: Handle<Graph>) -> Outcome {
        for node in self.graphs.remove(graph)?.nodes {
            let _ = self.nodes.remove(node);
        }
        Ok(())
    }

    /// Nodes are added after what they depend on, so one pass over them finds when each may begin.
    fn compile(&self, graph: Handle<Graph>, flags: u64) -> Outcome<GraphExec> {
        let mut ends = std::collections::BTreeMap::new();
        let mut exec = GraphExec { steps: Vec::new(), duration: 0, kernels: 0, flags };
        for handle in &self.graphs.get(graph)?.nodes {
            let node = self.nodes.get(*handle)?;
            let start =
                node.dependencies.iter().filter_map(|node| ends.get(node)).copied().max().unwrap_or(0);
            let end = match node.op {
                Op::Child(child) => {
                    let child = self.compile(child, 0)?;
                    exec.kernels += child.kernels;
                    let moved =
                        child.steps.into_iter().map(|step| Step { start: start + step.start, ..step });
                    exec.steps.extend(moved);
                    start + child.duration
                }
                op => {
                    exec.kernels += u64::from(matches!(op, Op::Kernel(_)));
                    exec.steps.push(Step { op, start });
                    start + op.duration()
                }
            };
            ends.insert(*handle, end);
            exec.duration = exec.duration.max(end);
        }
        Ok(exec)
    }
}

fn instantiate(out: Out<Handle<GraphExec>>, graph: Handle<Graph>, flags: u64) -> Outcome {
    out.required()?;
    let mut world = world()?;
    let exec = world.compile(graph, flags)?;
    out.put(world.execs.add(exec))
}

fn launch(lane: Lane, exec: Handle<GraphExec>, stream: Handle<Stream>) -> Outcome {
    let mut world = world()?;
    let stream = world.stream(lane, stream)?;
    let (steps, duration, kernels) = {
        let exec = world.execs.get(exec)?;
        (exec.steps.clone(), exec.duration, exec.kernels)
    };
    capture::forbid_wait(&mut world, stream).map_err(|_| NOT_SUPPORTED)?;
    let (start, _) = world.lay_out(stream, duration, kernels)?;
    for step in &steps {
        match step.op {
            Op::Host(call) => world.call_host(stream, call, Some(start + step.start))?,
            Op::Record(event) => {
                let mark = world.stream_mark(stream)?;
                world.events.get_mut(event)?.moment = Moment::Recorded(mark);
            }
            // A later launch finds it free already.
            Op::Free(address) => drop(world.free(address)),
            op => op.touch(&mut world),
        }
    }
    drop(world);
    steps.iter().for_each(|step| step.op.perform());
    Ok(())
}

fn put_nodes(all: &[Handle<Node>], nodes: Out<Handle<Node>>, count: Out<u64>) -> Outcome {
    let room = if nodes.is_null() { 0 } else { count.get()? as usize };
    nodes.put_all(all.iter().copied().take(room));
    count.put(all.len() as u64)
}

export! {
    fn cuGraphCreate(out: Out<Handle<Graph>>, flags: u32) {
        out.required()?;
        if flags != 0 {
            return Err(INVALID_VALUE);
        }
        out.put(world()?.new_graph())
    }

    fn cuGraphDestroy(graph: Handle<Graph>) {
        world()?.destroy_graph(graph)
    }

    fn cuGraphAddEmptyNode(out: Out<Handle<Node>>, graph: Handle<Graph>, after: In<Handle<Node>>, count: u64) {
        out.required()?;
        let after = after.list(count as usize)?;
        let node = world()?.add_node(graph, Op::Empty, &after)?;
        out.put(node)
    }

    fn cuGraphAddChildGraphNode(
        out: Out<Handle<Node>>, graph: Handle<Graph>, after: In<Handle<Node>>, count: u64, child: Handle<Graph>,
    ) {
        out.required()?;
        let after = after.list(count as usize)?;
        let mut world = world()?;
        world.graphs.get(child)?;
        let node = world.add_node(graph, Op::Child(child), &after)?;
        out.put(node)
    }

    fn cuGraphGetNodes(graph: Handle<Graph>, nodes: Out<Handle<Node>>, count: Out<u64>) {
        count.required()?;
        let world = world()?;
        put_nodes(&world.graphs.get(graph)?.nodes, nodes, count)
    }

    fn cuGraphGetRootNodes(graph: Handle<Graph>, nodes: Out<Handle<Node>>, count: Out<u64>) {
        count.required()?;
        let world = world()?;
        let is_root = |node: &Handle<Node>| world.nodes.get(*node).is_ok_and(|node| node.dependencies.is_empty());
        let roots: Vec<_> = world.graphs.get(graph)?.nodes.iter().copied().filter(is_root).collect();
        put_nodes(&roots, nodes, count)
    }

    fn cuGraphNodeGetType(node: Handle<Node>, kind: Out<u32>) {
        let world = world()?;
        kind.put(match world.nodes.get(node)?.op {
            Op::Kernel(_) => 0,
            Op::Copy(_) => 1,
            Op::Fill(_) => 2,
            Op::Host(_) => 3,
            Op::Child(_) => 4,
            Op::Empty => 5,
            Op::Record(_) => 7,
            Op::Alloc(..) => 10,
            Op::Free(_) => 11,
        })
    }

    fn cuGraphInstantiate(
        out: Out<Handle<GraphExec>>, graph: Handle<Graph>, node: Out<Handle<Node>>, log: usize, size: u64,
    ) {
        let _ = (node, log, size);
        instantiate(out, graph, 0)
    }

    fn cuGraphInstantiate_v2(
        out: Out<Handle<GraphExec>>, graph: Handle<Graph>, node: Out<Handle<Node>>, log: usize, size: u64,
    ) {
        let _ = (node, log, size);
        instantiate(out, graph, 0)
    }

    fn cuGraphInstantiateWithFlags(out: Out<Handle<GraphExec>>, graph: Handle<Graph>, flags: u64) {
        instantiate(out, graph, flags)
    }

    fn cuGraphExecDestroy(exec: Handle<GraphExec>) {
        world()?.execs.remove(exec).map(|_| ())
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
}
