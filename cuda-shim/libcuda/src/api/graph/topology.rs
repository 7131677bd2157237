//! Graphs as a whole: creating, copying, destroying them, and what hangs together in them.
//!
//! # Safety
//! Exports symbols.
#![allow(unsafe_code)]

use std::fmt::Write as _;

use crate::api::export::export;
use crate::model::objects::handle::{GraphHandle, NodeHandle};
use crate::model::operations::graphs;
use crate::model::world::{World, world};
use crate::tools::ffi::{In, Out, Text};
use crate::tools::status::{INVALID_VALUE, NOT_SUPPORTED, OPERATING_SYSTEM, Outcome};

/// Edges as two lists, from and to.
type Edges = (Vec<NodeHandle>, Vec<NodeHandle>);

/// Where a list goes: without a place for it, only its length is told.
fn put_list<T: Copy>(all: &[T], out: Out<T>, count: Out<u64>) -> Outcome {
    let room = if out.is_null() { 0 } else { count.get()? as usize };
    out.put_all(all.iter().copied().take(room));
    count.put(if out.is_null() { all.len() } else { all.len().min(room) } as u64)
}

/// Likewise for edges; their data is that of a plain dependency.
fn put_edges(
    edges: &Edges,
    from: Out<NodeHandle>,
    to: Out<NodeHandle>,
    data: Out<u64>,
    count: Out<u64>,
) -> Outcome {
    let room = if from.is_null() { 0 } else { count.get()? as usize };
    data.put_all(edges.0.iter().map(|_| 0).take(room));
    to.put_all(edges.1.iter().copied().take(room));
    put_list(&edges.0, from, count)
}

fn edges(world: &World, graph: GraphHandle) -> Outcome<Edges> {
    let mut edges = Edges::default();
    for node in &world.graphs.get(graph)?.nodes {
        for before in &world.nodes.get(*node)?.dependencies {
            edges.0.push(*before);
            edges.1.push(*node);
        }
    }
    Ok(edges)
}

fn dependents(world: &World, node: NodeHandle) -> Outcome<Vec<NodeHandle>> {
    let siblings = &world.graphs.get(world.nodes.get(node)?.graph)?.nodes;
    let depends =
        |other: &NodeHandle| world.nodes.get(*other).is_ok_and(|it| it.dependencies.contains(&node));
    Ok(siblings.iter().copied().filter(depends).collect())
}

fn change_edges(
    graph: GraphHandle,
    from: In<NodeHandle>,
    to: In<NodeHandle>,
    count: u64,
    add: bool,
) -> Outcome {
    let mut world = world()?;
    if graphs::graph_owns_memory(&world, graph)? && !add {
        return Err(NOT_SUPPORTED);
    }
    let count = count as usize;
    let pairs: Vec<_> = from.list(count)?.into_iter().zip(to.list(count)?).collect();
    for (from, to) in &pairs {
        let known = world.nodes.get(*to).map_err(|_| INVALID_VALUE)?.dependencies.contains(from);
        let apart = world.nodes.get(*from).map_err(|_| INVALID_VALUE)?.graph != graph
            || world.nodes.get(*to)?.graph != graph;
        if apart || from == to || known == add {
            return Err(INVALID_VALUE);
        }
    }
    for (from, to) in pairs {
        let dependencies = &mut world.nodes.get_mut(to)?.dependencies;
        if add { dependencies.push(from) } else { dependencies.retain(|node| *node != from) }
    }
    Ok(())
}

export! {
    fn cuGraphCreate(out: Out<GraphHandle>, flags: u32) {
        out.required()?;
        if flags != 0 {
            return Err(INVALID_VALUE);
        }
        out.put(graphs::new_graph(&mut *world()?))
    }

    fn cuGraphDestroy(graph: GraphHandle) {
        graphs::destroy_graph(&mut *world()?, graph)
    }

    fn cuGraphClone(out: Out<GraphHandle>, graph: GraphHandle) {
        out.required()?;
        out.put(graphs::clone_graph(&mut *world()?, graph)?)
    }

    fn cuGraphNodeFindInClone(out: Out<NodeHandle>, original: NodeHandle, clone: GraphHandle) {
        out.required()?;
        let world = world()?;
        let is_it = |node: &&NodeHandle| world.nodes.get(**node).is_ok_and(|node| node.origin == original);
        out.put(*world.graphs.get(clone)?.nodes.iter().find(is_it).ok_or(INVALID_VALUE)?)
    }

    fn cuGraphDestroyNode(node: NodeHandle) {
        let mut world = world()?;
        // Where a graph has memory nothing can be taken out of it.
        let graph = world.nodes.get(node)?.graph;
        if graphs::graph_owns_memory(&world, graph)? {
            return Err(NOT_SUPPORTED);
        }
        let followers = dependents(&world, node)?;
        let removed = world.nodes.remove(node)?;
        for follower in followers {
            world.nodes.get_mut(follower)?.dependencies.retain(|other| *other != node);
        }
        world.graphs.get_mut(removed.graph)?.nodes.retain(|other| *other != node);
        graphs::drop_belongings(&mut world, removed.op);
        Ok(())
    }

    fn cuGraphGetNodes(graph: GraphHandle, nodes: Out<NodeHandle>, count: Out<u64>) {
        count.required()?;
        let world = world()?;
        put_list(&world.graphs.get(graph)?.nodes, nodes, count)
    }

    fn cuGraphGetRootNodes(graph: GraphHandle, nodes: Out<NodeHandle>, count: Out<u64>) {
        count.required()?;
        let world = world()?;
        let is_root = |node: &NodeHandle| world.nodes.get(*node).is_ok_and(|node| node.dependencies.is_empty());
        let roots: Vec<_> = world.graphs.get(graph)?.nodes.iter().copied().filter(is_root).collect();
        put_list(&roots, nodes, count)
    }

    fn cuGraphGetEdges(graph: GraphHandle, from: Out<NodeHandle>, to: Out<NodeHandle>, count: Out<u64>) {
        count.required()?;
        put_edges(&edges(&*world()?, graph)?, from, to, Out::none(), count)
    }

    fn cuGraphGetEdges_v2(
        graph: GraphHandle, from: Out<NodeHandle>, to: Out<NodeHandle>, data: Out<u64>, count: Out<u64>,
    ) {
        count.required()?;
        put_edges(&edges(&*world()?, graph)?, from, to, data, count)
    }

    fn cuGraphNodeGetDependencies(node: NodeHandle, nodes: Out<NodeHandle>, count: Out<u64>) {
        count.required()?;
        let world = world()?;
        put_list(&world.nodes.get(node)?.dependencies, nodes, count)
    }

    fn cuGraphNodeGetDependencies_v2(
        node: NodeHandle, nodes: Out<NodeHandle>, data: Out<u64>, count: Out<u64>,
    ) {
        count.required()?;
        let found = world()?.nodes.get(node)?.dependencies.clone();
        put_edges(&(found, Vec::new()), nodes, Out::none(), data, count)
    }

    fn cuGraphNodeGetDependentNodes(node: NodeHandle, nodes: Out<NodeHandle>, count: Out<u64>) {
        count.required()?;
        put_list(&dependents(&*world()?, node)?, nodes, count)
    }

    fn cuGraphNodeGetDependentNodes_v2(
        node: NodeHandle, nodes: Out<NodeHandle>, data: Out<u64>, count: Out<u64>,
    ) {
        count.required()?;
        let found = dependents(&*world()?, node)?;
        put_edges(&(found, Vec::new()), nodes, Out::none(), data, count)
    }

    early fn cuGraphAddDependencies(graph: GraphHandle, from: In<NodeHandle>, to: In<NodeHandle>, count: u64) {
        graph.given()?;
        change_edges(graph, from, to, count, true)
    }

    early fn cuGraphAddDependencies_v2(
        graph: GraphHandle, from: In<NodeHandle>, to: In<NodeHandle>, data: In<u64>, count: u64,
    ) {
        graph.given()?;
        let _ = data;
        change_edges(graph, from, to, count, true)
    }

    early fn cuGraphRemoveDependencies(graph: GraphHandle, from: In<NodeHandle>, to: In<NodeHandle>, count: u64) {
        graph.given()?;
        change_edges(graph, from, to, count, false)
    }

    early fn cuGraphRemoveDependencies_v2(
        graph: GraphHandle, from: In<NodeHandle>, to: In<NodeHandle>, data: In<u64>, count: u64,
    ) {
        graph.given()?;
        let _ = data;
        change_edges(graph, from, to, count, false)
    }

    early fn cuGraphDebugDotPrint(graph: GraphHandle, path: Text, flags: u32) {
        let _ = flags;
        let path = path.lossy()?;
        let edges = edges(&*world()?, graph)?;
        let mut text = String::from("digraph graph {\n");
        for (from, to) in edges.0.iter().zip(&edges.1) {
            let _ = writeln!(text, "    \"{:#x}\" -> \"{:#x}\"", from.raw(), to.raw());
        }
        text.push_str("}\n");
        std::fs::write(path, text).map_err(|_| OPERATING_SYSTEM)
    }
}
