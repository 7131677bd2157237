//! Making, copying and destroying graphs.

use std::collections::HashMap;

use crate::model::objects::graph::{Graph, Node, owns_memory};
use crate::model::objects::handle::{GraphHandle, Handle, NodeHandle};
use crate::model::objects::op::Op;
use crate::model::operations::graph_memory;
use crate::model::world::World;
use crate::tools::status::{INVALID_VALUE, NOT_SUPPORTED, Outcome};

/// An empty graph.
pub fn new_graph(world: &mut World) -> GraphHandle {
    world.graphs.add(Graph::default())
}

/// Adds a node that follows the nodes `after`.
///
/// # Errors
/// `INVALID_VALUE` if one of them is not of this graph.
pub fn add_node(world: &mut World, graph: GraphHandle, op: Op, after: &[NodeHandle]) -> Outcome<NodeHandle> {
    world.graphs.get(graph)?;
    let mut dependencies = Vec::with_capacity(after.len());
    for node in after {
        if world.nodes.get(*node).map_err(|_| INVALID_VALUE)?.graph != graph {
            return Err(INVALID_VALUE);
        }
        if !dependencies.contains(node) {
            dependencies.push(*node);
        }
    }
    let node = world.nodes.add(Node { graph, op, dependencies, origin: Handle::NULL });
    world.graphs.get_mut(graph)?.nodes.push(node);
    Ok(node)
}

/// A copy of a graph, and of the graphs in it.
///
/// # Errors
/// `NOT_SUPPORTED` if it allocates or frees memory, which has one owner.
pub fn clone_graph(world: &mut World, graph: GraphHandle) -> Outcome<GraphHandle> {
    let originals = world.graphs.get(graph)?.nodes.clone();
    if graph_owns_memory(world, graph)? {
        return Err(NOT_SUPPORTED);
    }
    let objects = world.graphs.get(graph)?.objects.clone();
    let clone = world.graphs.add(Graph { objects, ..Graph::default() });
    let mut clones = HashMap::new();
    for original in &originals {
        let op = match world.nodes.get(*original)?.op {
            Op::Child(child) => Op::Child(clone_graph(world, child)?),
            op => op,
        };
        let node = add_node(world, clone, op, &[])?;
        world.nodes.get_mut(node)?.origin = *original;
        clones.insert(*original, node);
    }
    for original in &originals {
        let after = &world.nodes.get(*original)?.dependencies;
        let after = after.iter().filter_map(|node| clones.get(node)).copied().collect();
        if let Some(node) = clones.get(original) {
            world.nodes.get_mut(*node)?.dependencies = after;
        }
    }
    Ok(clone)
}

/// Whether some node of a graph allocates or frees memory.
pub fn graph_owns_memory(world: &World, graph: GraphHandle) -> Outcome<bool> {
    let mut nodes = world.graphs.get(graph)?.nodes.iter();
    Ok(nodes.any(|node| world.nodes.get(*node).is_ok_and(|node| owns_memory(&node.op))))
}

/// Takes a graph away with its nodes, and the graphs and idle memory that are theirs.
pub fn destroy_graph(world: &mut World, graph: GraphHandle) -> Outcome {
    for node in world.graphs.remove(graph)?.nodes {
        if let Ok(node) = world.nodes.remove(node) {
            drop_belongings(world, node.op);
        }
    }
    Ok(())
}

/// Takes away what belongs to a node that is gone.
pub fn drop_belongings(world: &mut World, op: Op) {
    match op {
        Op::Child(child) => drop(destroy_graph(world, child)),
        Op::Alloc(address, _) => graph_memory::disown_graph_memory(world, address),
        _ => {}
    }
}
