//! Graphs: work that is written down once and launched as one.
//!
//! Rooms: [`nodes`] adds nodes and reads and changes their parameters, [`exec`] instantiates, launches and
//! updates, [`objects`] keeps what callers want alive, [`topology`] tells and changes what hangs together, [`memory`] is the memory that graphs allocate.

use std::collections::HashMap;

use crate::model::objects::graph::{Graph, Node, owns_memory};
use crate::model::objects::handle::{GraphHandle, Handle, NodeHandle};
use crate::model::objects::op::Op;
use crate::model::world::World;
use crate::tools::status::{INVALID_VALUE, NOT_SUPPORTED, Outcome};

impl World {
    /// An empty graph.
    pub fn new_graph(&mut self) -> GraphHandle {
        self.graphs.add(Graph::default())
    }

    /// Adds a node that follows the nodes `after`.
    ///
    /// # Errors
    /// `INVALID_VALUE` if one of them is not of this graph.
    pub fn add_node(&mut self, graph: GraphHandle, op: Op, after: &[NodeHandle]) -> Outcome<NodeHandle> {
        self.graphs.get(graph)?;
        let mut dependencies = Vec::with_capacity(after.len());
        for node in after {
            if self.nodes.get(*node).map_err(|_| INVALID_VALUE)?.graph != graph {
                return Err(INVALID_VALUE);
            }
            if !dependencies.contains(node) {
                dependencies.push(*node);
            }
        }
        let node = self.nodes.add(Node { graph, op, dependencies, origin: Handle::NULL });
        self.graphs.get_mut(graph)?.nodes.push(node);
        Ok(node)
    }

    /// A copy of a graph, and of the graphs in it.
    ///
    /// # Errors
    /// `NOT_SUPPORTED` if it allocates or frees memory, which has one owner.
    pub fn clone_graph(&mut self, graph: GraphHandle) -> Outcome<GraphHandle> {
        let originals = self.graphs.get(graph)?.nodes.clone();
        if self.graph_owns_memory(graph)? {
            return Err(NOT_SUPPORTED);
        }
        let objects = self.graphs.get(graph)?.objects.clone();
        let clone = self.graphs.add(Graph { objects, ..Graph::default() });
        let mut clones = HashMap::new();
        for original in &originals {
            let op = match self.nodes.get(*original)?.op {
                Op::Child(child) => Op::Child(self.clone_graph(child)?),
                op => op,
            };
            let node = self.add_node(clone, op, &[])?;
            self.nodes.get_mut(node)?.origin = *original;
            clones.insert(*original, node);
        }
        for original in &originals {
            let after = &self.nodes.get(*original)?.dependencies;
            let after = after.iter().filter_map(|node| clones.get(node)).copied().collect();
            if let Some(node) = clones.get(original) {
                self.nodes.get_mut(*node)?.dependencies = after;
            }
        }
        Ok(clone)
    }

    /// Whether some node of a graph allocates or frees memory.
    pub fn graph_owns_memory(&self, graph: GraphHandle) -> Outcome<bool> {
        let mut nodes = self.graphs.get(graph)?.nodes.iter();
        Ok(nodes.any(|node| self.nodes.get(*node).is_ok_and(|node| owns_memory(&node.op))))
    }

    /// Takes a graph away with its nodes, and the graphs and idle memory that are theirs.
    pub fn destroy_graph(&mut self, graph: GraphHandle) -> Outcome {
        for node in self.graphs.remove(graph)?.nodes {
            if let Ok(node) = self.nodes.remove(node) {
                self.drop_belongings(node.op);
            }
        }
        Ok(())
    }

    /// Takes away what belongs to a node that is gone.
    pub fn drop_belongings(&mut self, op: Op) {
        match op {
            Op::Child(child) => drop(self.destroy_graph(child)),
            Op::Alloc(address, _) => self.disown_graph_memory(address),
            _ => {}
        }
    }
}
