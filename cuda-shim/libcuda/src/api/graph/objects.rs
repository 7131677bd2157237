//! Objects of callers that graphs keep alive. When the last reference is gone, of callers, graphs and instantiated graphs,
//! the object's destructor runs, on a thread of the driver.
//!
//! # Safety
//! Exports symbols.
#![allow(unsafe_code)]

use std::ffi::c_void;
use std::sync::Arc;

use crate::api::export::export;
use crate::model::objects::handle::{GraphHandle, UserObjectHandle};
use crate::model::objects::user_object::{Kept, Owned, UserObject};
use crate::model::operations::user_objects;
use crate::model::world::world;
use crate::tools::ffi::Out;
use crate::tools::status::{INVALID_VALUE, Outcome};

/// `CU_USER_OBJECT_NO_DESTRUCTOR_SYNC`, which has to be given.
const NO_SYNC: u32 = 1;

/// `CU_GRAPH_USER_OBJECT_MOVE`: the caller's references become the graph's.
const MOVE: u32 = 1;

fn at_least_one(count: u32) -> Outcome {
    if (1..=i32::MAX as u32).contains(&count) { Ok(()) } else { Err(INVALID_VALUE) }
}

export! {
    early fn cuUserObjectCreate(
        out: Out<UserObjectHandle>, data: *mut c_void, destroy: Option<extern "C" fn(*mut c_void)>, count: u32,
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

    early fn cuUserObjectRetain(handle: UserObjectHandle, count: u32) {
        handle.given()?;
        at_least_one(count)?;
        let mut world = world()?;
        let object = world.user_objects.get_mut(handle)?;
        object.held = Some(object.known.upgrade().ok_or(INVALID_VALUE)?);
        object.count = object.count.checked_add(count).ok_or(INVALID_VALUE)?;
        Ok(())
    }

    early fn cuUserObjectRelease(handle: UserObjectHandle, count: u32) {
        handle.given()?;
        at_least_one(count)?;
        user_objects::release_object(&mut *world()?, handle, count)
    }

    early fn cuGraphRetainUserObject(graph: GraphHandle, handle: UserObjectHandle, count: u32, flags: u32) {
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
        if flags == MOVE { user_objects::release_object(&mut world, handle, count) } else { Ok(()) }
    }

    early fn cuGraphReleaseUserObject(graph: GraphHandle, handle: UserObjectHandle, count: u32) {
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
