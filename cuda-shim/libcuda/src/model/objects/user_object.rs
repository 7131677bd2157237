//! Objects of callers that graphs keep alive. When the last reference is gone, of callers, graphs and instantiated graphs,
//! the object's destructor runs, on a thread of the driver.

use std::ffi::c_void;
use std::sync::{Arc, Weak};

use crate::model::objects::handle::{UserObjectHandle, UserObjectKind};
use crate::model::objects::table::Item;

/// What is destroyed in the end.
pub struct Owned {
    pub destroy: extern "C" fn(*mut c_void),
    pub data: usize,
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
    pub known: Weak<Owned>,
    /// What callers hold, and how often.
    pub held: Option<Arc<Owned>>,
    pub count: u32,
}

impl Item for UserObject {
    type Kind = UserObjectKind;
}

/// What a graph keeps: an object and how often.
#[derive(Clone)]
pub struct Kept {
    pub handle: UserObjectHandle,
    pub count: u32,
    pub _object: Arc<Owned>,
}
