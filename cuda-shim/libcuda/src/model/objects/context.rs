//! Contexts: primary ones, which a device has one of and which are counted, and those that clients create.

use crate::model::objects::handle::{ContextKind, Handle, StreamHandle};
use crate::model::objects::table::Item;
use crate::model::objects::time::Timeline;

/// `CUlimit` has this many kinds.
const LIMITS: usize = 11;

/// A context.
pub struct Context {
    pub device: usize,
    pub primary: bool,
    /// False for a primary context that nobody retains.
    pub active: bool,
    pub flags: u32,
    pub id: u64,
    pub limits: [u64; LIMITS],
    pub cache_config: u32,
    pub shared_config: u32,
    pub legacy: StreamHandle,
    /// The per-thread default streams, by thread.
    pub per_thread: Vec<(u64, StreamHandle)>,
    pub peers: Vec<usize>,
    /// End of the work in the legacy stream: every blocking stream waits for it.
    pub legacy_tail: u64,
    /// Ends of the work in the blocking streams: the legacy stream waits for them.
    pub blocking: Timeline,
    /// Ends of the work in all streams.
    pub all: Timeline,
    /// Seat time that is known to be over.
    pub over: u64,
}

impl Item for Context {
    type Kind = ContextKind;
}

impl Context {
    pub fn new(device: usize, primary: bool, flags: u32) -> Context {
        Context {
            device,
            primary,
            active: false,
            flags,
            id: 0,
            limits: [1024, 1 << 20, 8 << 20, 2, 2048, 128, 0, 0, 0, 0, 0],
            cache_config: 0,
            shared_config: 0,
            legacy: Handle::NULL,
            per_thread: Vec::new(),
            peers: Vec::new(),
            legacy_tail: 0,
            blocking: Timeline::default(),
            all: Timeline::default(),
            over: 0,
        }
    }

    /// Whether it is known without asking the clock that all work here is done.
    #[inline]
    pub fn is_quiet(&self) -> bool {
        self.all.tail <= self.over && self.all.hosts.is_empty()
    }

    /// A device's primary context, not yet active.
    pub fn primary(device: usize) -> Context {
        Context::new(device, true, 0)
    }
}
