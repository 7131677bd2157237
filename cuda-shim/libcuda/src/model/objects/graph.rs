//! Graphs: work that is written down once and launched as one.

use crate::model::objects::handle::{GraphHandle, GraphKind, NodeHandle, NodeKind};
use crate::model::objects::op::Op;
use crate::model::objects::table::Item;
use crate::model::objects::user_object::Kept;

/// A graph that can be changed.
#[derive(Default)]
pub struct Graph {
    /// In the order in which they were added.
    pub nodes: Vec<NodeHandle>,
    /// Objects of callers that it keeps alive.
    pub objects: Vec<Kept>,
}

impl Item for Graph {
    type Kind = GraphKind;
}

/// One piece of work of a graph, and what must be over before it begins.
pub struct Node {
    pub graph: GraphHandle,
    pub op: Op,
    pub dependencies: Vec<NodeHandle>,
    /// The node that it was cloned from, null for none.
    pub origin: NodeHandle,
}

impl Item for Node {
    type Kind = NodeKind;
}

/// Whether memory of the graph begins or ends here.
pub fn owns_memory(op: &Op) -> bool {
    matches!(op, Op::Alloc(..) | Op::Free(_))
}
