//! Streams: order in time.

use cuda_shim_device::{Latency, State};

use crate::model::objects::context::Context;
use crate::model::objects::handle::{CaptureHandle, ContextHandle, NodeHandle, StreamKind};
use crate::model::objects::table::Item;
use crate::model::objects::time::Timeline;

pub const LEGACY: u64 = 1;
pub const PER_THREAD: u64 = 2;

/// How a stream stands to the legacy stream of its context.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// It is the legacy stream.
    Legacy,
    /// It and the legacy stream wait for each other.
    Blocking,
    /// They do not.
    Free,
}

/// A stream.
pub struct Stream {
    pub context: ContextHandle,
    pub order: Order,
    pub id: u64,
    pub priority: i32,
    pub line: Timeline,
    /// Its queue at the device.
    pub lane: usize,
    /// Whether an event was the last thing in it; only known where that matters.
    pub behind_event: bool,
    pub capture: Option<CaptureHandle>,
    /// While capturing: what the next node will depend on.
    pub leaves: Vec<NodeHandle>,
}

impl Item for Stream {
    type Kind = StreamKind;
}

impl Stream {
    pub fn new(context: ContextHandle, order: Order, id: u64, priority: i32) -> Stream {
        Stream {
            context,
            order,
            id,
            priority,
            line: Timeline::default(),
            lane: 0,
            behind_event: false,
            capture: None,
            leaves: Vec::new(),
        }
    }

    /// The seat time before which nothing new may begin here, by the rules of the legacy stream.
    #[inline]
    pub fn after(&self, context: &Context) -> u64 {
        match self.order {
            Order::Legacy => context.legacy_tail.max(context.blocking.tail),
            Order::Blocking => self.line.tail.max(context.legacy_tail),
            Order::Free => self.line.tail,
        }
    }

    /// When a kernel or a graph begins here that is launched now, with what a front end takes before it.
    pub fn begin(&self, context: &Context, now: u64, state: &State, latency: &Latency) -> u64 {
        let gap = if self.behind_event { latency.gap_after_event_ns } else { latency.gap_ns };
        let [gap, dispatch] = [gap, latency.dispatch_ns].map(|ns| state.vary(latency.jitter, ns));
        (self.after(context) + gap).max(now + dispatch)
    }

    /// Has something that may begin at `time` take its place in the queue of this stream: not before all that was put there
    /// earlier, for whichever stream, has begun. Answers when it begins.
    #[inline]
    pub fn queue(&self, lanes: &mut [u64], time: u64) -> u64 {
        let Some(last) = lanes.get_mut(self.lane) else { return time };
        *last = time.max(*last);
        *last
    }

    /// Notes work here until `end`.
    #[inline]
    pub fn extend(&mut self, context: &mut Context, end: u64) {
        self.line.tail = self.line.tail.max(end);
        match self.order {
            Order::Legacy => context.legacy_tail = context.legacy_tail.max(end),
            Order::Blocking => context.blocking.tail = context.blocking.tail.max(end),
            Order::Free => {}
        }
        context.all.tail = context.all.tail.max(end);
    }
}
