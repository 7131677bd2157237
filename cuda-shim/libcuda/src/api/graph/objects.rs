//! Objects of callers that graphs keep alive. When the last reference is gone, of callers, graphs and instantiated graphs,
//! the object's destructor runs, on a thread of the driver.
//!
//! # Safety
//! Exports symbols.
#![allow(unsafe_code)]

use std::ffi::c_void;
use std::sync::{Arc, Weak};

use crate::ffi::{Out, Outcome, export};
use crate::graph::Graph;
use crate::status::{INVALID_VALUE, Status};
use crate::table::{Handle, Kind};
use crate::world::{World, world};

/// `CU_USER_OBJECT_NO_DESTRUCTOR_SYNC`, which has to be given.
const NO_SYNC: u32 = 1;
/// `CU_GRAPH_USER_OBJECT_MOVE`: the caller's references become the graph's.
const MOVE: u32 = 1;

/// What is destroyed in the end.
struct Owned {
    destroy: extern "C" fn(*mut c_void),
    data: usize,
}

impl Drop for Owned {
    fn drop(&mut self) {
        let (destroy, data) = (self.destroy, self.data);
        // Without a thread it is never destroyed; a process that cannot start one has worse troubles.
        let name = std::thread::Builder::new().name("cuda-sim-destroy".into());
        let _ = name.spawn(move || destroy(std::ptr::with_exposed_provenance_mut(data)));
    }
}

/// An object as callers know it.
pub struct UserObject {
    known: Weak<Owned>,
    /// What callers hold, and how often.
    held: Option<Arc<Owned>>,
    count: u32,
}

impl Kind for UserObject {
    const TAG: u64 = 26;
    const WRONG: Status = INVALID_VALUE;
}

/// What a graph keeps: an object and how often.
#[derive(Clone)]
pub struct Kept {
    handle: Handle<UserObject>,
    count: u32,
    _object: Arc<Owned>,
}

impl World {
    /// Takes references of callers away.
    fn release_object(&mut self, handle: Handle<UserObject>, count: u32) -> Outcome {
        let object = self.user_objects.get_mut(handle)?;
        object.count = object.count.checked_sub(count).ok_or(INVALID_VALUE)?;
        if object.count == 0 {
            object.held = None;
            // Graphs may still hold it, and callers take it back from them.
            if object.known.strong_count() == 0 {
                self.user_objects.remove(handle)?;
            }
        }
        Ok(())
    }

    /// What a graph and the graphs within it keep.
    pub(super) fn kept_by(&self, graph: Handle<Graph>) -> Outcome<Vec<Kept>> {
        let graph = self.graphs.get(graph)?;
        let mut kept = graph.objects.clone();
        for node in &graph.nodes {
            if let crate::op::Op::Child(child) = self.nodes.get(*node)?.op {
                kept.extend(self.kept_by(child)?);
            }
        }
        Ok(kept)
    }
}

fn at_least_one(count: u32) -> Outcome {
    if (1..=i32::MAX as u32).contains(&count) { Ok(()) } else { Err(INVALID_VALUE) }
}

export! {
    early fn cuUserObjectCreate(
        out: Out<Handle<UserObject>>, data: *mut c_void, destroy: Option<extern "C" fn(*mut c_void)>, count: u32,
        flags: u32,
    ) {
        out.required()?;
        at_least_one(count)?;
        let destroy = destroy.filter(|_| flags == NO_SYNC).ok_or(INVALID_VALUE)?;
        let mut world = world()?;
        let owned = Arc::new(Owned { destroy, data: data.expose_provenance() });
        let object = UserObject { known: Arc::downgrade(&owned), held: Some(owned), count };
        out.put(world.user_objects.add(object))
    }

    early fn cuUserObjectRetain(handle: Handle<UserObject>, count: u32) {
        handle.given()?;
        at_least_one(count)?;
        let mut world = world()?;
        let object = world.user_objects.get_mut(handle)?;
        object.held = Some(object.known.upgrade().ok_or(INVALID_VALUE)?);
        object.count = object.count.checked_add(count).ok_or(INVALID_VALUE)?;
        Ok(())
    }

    early fn cuUserObjectRelease(handle: Handle<UserObject>, count: u32) {
        handle.given()?;
        at_least_one(count)?;
        world()?.release_object(handle, count)
    }

    early fn cuGraphRetainUserObject(graph: Handle<Graph>, handle: Handle<UserObject>, count: u32, flags: u32) {
        graph.given()?;
        handle.given()?;
        at_least_one(count)?;
        let mut world = world()?;
        let object = world.user_objects.get(handle)?;
        let (owned, has) = (object.known.upgrade().ok_or(INVALID_VALUE)?, object.count);
        if flags & !MOVE != 0 || (flags == MOVE && has < count) {
            return Err(INVALID_VALUE);
        }
        let objects = &mut world.graphs.get_mut(graph)?.objects;
        match objects.iter_mut().find(|kept| kept.handle == handle) {
            Some(kept) => kept.count = kept.count.saturating_add(count),
            None => objects.push(Kept { handle, count, _object: owned }),
        }
        if flags == MOVE { world.release_object(handle, count) } else { Ok(()) }
    }

    early fn cuGraphReleaseUserObject(graph: Handle<Graph>, handle: Handle<UserObject>, count: u32) {
        graph.given()?;
        handle.given()?;
        at_least_one(count)?;
        let mut world = world()?;
        let objects = &mut world.graphs.get_mut(graph)?.objects;
        let place = objects.iter().position(|kept| kept.handle == handle && kept.count >= count);
        let kept = place.and_then(|place| objects.get_mut(place)).ok_or(INVALID_VALUE)?;
        kept.count -= count;
        objects.retain(|kept| kept.count > 0);
        Ok(())
    }
}
