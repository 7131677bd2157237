//! Events: moments in a stream.

use cuda_shim_device::{SharedEvent, Waits};

use crate::model::objects::handle::{CaptureHandle, ContextHandle, EventKind, NodeHandle};
use crate::model::objects::table::Item;
use crate::model::objects::time::Mark;

/// What an event stands for.
pub enum Moment {
    /// Never recorded: complete, but without a time.
    Never,
    /// And whether it waits for its process's turn at the device.
    Recorded(Mark, Waits),
    /// Recorded while its stream was capturing.
    Captured(CaptureHandle, Vec<NodeHandle>),
}

/// An event.
pub struct Event {
    pub context: ContextHandle,
    pub flags: u32,
    pub moment: Moment,
    /// Its place among the events that several processes know, and whether it is of this process.
    pub shared: Option<(SharedEvent, bool)>,
}

impl Item for Event {
    type Kind = EventKind;
}
