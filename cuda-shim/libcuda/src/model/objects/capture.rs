//! A stream capture that has begun and not ended.

use crate::model::objects::handle::{CaptureKind, ContextHandle, GraphHandle, StreamHandle};
use crate::model::objects::table::Item;

/// A capture that has begun and not ended.
pub struct Capture {
    pub id: u64,
    pub mode: u32,
    pub thread: u64,
    pub context: ContextHandle,
    pub graph: GraphHandle,
    /// Nodes that the graph had when it began.
    pub first: usize,
    /// Whether the graph is the caller's own.
    pub given: bool,
    pub origin: StreamHandle,
    pub streams: Vec<StreamHandle>,
    pub invalid: bool,
}

impl Item for Capture {
    type Kind = CaptureKind;
}
