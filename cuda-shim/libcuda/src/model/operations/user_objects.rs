//! References to objects of callers.

use crate::model::objects::handle::{GraphHandle, UserObjectHandle};
use crate::model::objects::op::Op;
use crate::model::objects::user_object::Kept;
use crate::model::world::World;
use crate::tools::status::{INVALID_VALUE, Outcome};

/// Takes references of callers away.
pub fn release_object(world: &mut World, handle: UserObjectHandle, count: u32) -> Outcome {
    let object = world.user_objects.get_mut(handle)?;
    object.count = object.count.checked_sub(count).ok_or(INVALID_VALUE)?;
    if object.count == 0 {
        object.held = None;
        // Graphs may still hold it, and callers take it back from them.
        if object.known.strong_count() == 0 {
            world.user_objects.remove(handle)?;
        }
    }
    Ok(())
}

/// What a graph and the graphs within it keep.
pub fn kept_by(world: &World, graph: GraphHandle) -> Outcome<Vec<Kept>> {
    let graph = world.graphs.get(graph)?;
    let mut kept = graph.objects.clone();
    for node in &graph.nodes {
        if let Op::Child(child) = world.nodes.get(*node)?.op {
            kept.extend(kept_by(world, child)?);
        }
    }
    Ok(kept)
}
