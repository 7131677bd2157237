//! Events before and behind a launch, and where they lie on CLOCK_MONOTONIC.
//!
//! A driver tells the time between two events, not when one was. So each context has an anchor: an event in a stream
//! of our own, recorded while nothing else is in it, between two looks at the clock.

use crate::hook::cuda::{self, CUevent, CUstream, Relaxed};
use core::ptr::null_mut;
use gpuquota_quota::share::Seen;
use gpuquota_region::sys;

/// Contexts with an anchor.
const ANCHORS: usize = 16;
/// An anchor's clock reading must be at least this exact.
const ERROR_NS: u64 = 100_000;
/// `cuEventElapsedTime` answers in float milliseconds: after a quarter of a second a step is 30 ns.
const AGE_NS: u64 = 250_000_000;
/// An anchor that cannot be renewed now serves until then: a step is 1 us.
const OLD_NS: u64 = 10_000_000_000;

/// The events of one measured launch.
#[derive(Clone, Copy)]
pub struct Pair {
    start: CUevent,
    end: CUevent,
}

impl Default for Pair {
    fn default() -> Self {
        Self { start: null_mut(), end: null_mut() }
    }
}

impl Pair {
    /// Two events of a context.
    pub fn create(context: u64) -> Option<Self> {
        let _relaxed = Relaxed::enter();
        cuda::within(context, || {
            let start = cuda::create_event()?;
            let end = cuda::create_event();
            if end.is_none() {
                cuda::destroy_event(start);
            }
            Some(Self { start, end: end? })
        })
    }

    /// Gives them back.
    pub fn destroy(self) {
        let _relaxed = Relaxed::enter();
        cuda::destroy_event(self.start);
        cuda::destroy_event(self.end);
    }

    /// What comes now is measured.
    pub fn start(self, stream: CUstream, per_thread: bool) -> bool {
        let _relaxed = Relaxed::enter();
        cuda::record(self.start, stream, per_thread)
    }

    /// That was it.
    pub fn end(self, stream: CUstream, per_thread: bool) -> bool {
        let _relaxed = Relaxed::enter();
        cuda::record(self.end, stream, per_thread)
    }
}

/// An event whose time on CLOCK_MONOTONIC is known.
#[derive(Clone, Copy)]
struct Anchor {
    context: u64,
    stream: CUstream,
    event: CUevent,
    /// 0 while it is not known.
    at_ns: u64,
}

/// The anchors of this process. All-zero bytes: none.
pub struct Anchors([Anchor; ANCHORS]);

impl Anchors {
    /// What the driver says of a measured launch of a context; when it began only if `whole` is asked for.
    /// `is_current` tells whether the context is the calling thread's, so that an anchor can be made.
    pub fn look(&mut self, pair: Pair, context: u64, whole: bool, is_current: bool) -> Seen {
        if cuda::is_over(pair.end) {
            let since_ns = if whole { self.when(pair.start, context, is_current) } else { None };
            return Seen::Over { since_ns, elapsed_ns: cuda::elapsed_ns(pair.start, pair.end) };
        }
        if whole
            && cuda::is_over(pair.start)
            && let Some(since_ns) = self.when(pair.start, context, is_current)
        {
            return Seen::Running { since_ns };
        }
        Seen::Waiting
    }

    /// When an event was that is over.
    fn when(&mut self, event: CUevent, context: u64, is_current: bool) -> Option<u64> {
        let anchor = self.0.iter_mut().find(|anchor| anchor.context == context);
        let anchor = match anchor {
            Some(anchor) => anchor,
            None if is_current => {
                let free = self.0.iter_mut().find(|anchor| anchor.context == 0)?;
                let (stream, event) = (cuda::create_stream()?, cuda::create_event()?);
                *free = Anchor { context, stream, event, at_ns: 0 };
                free
            }
            None => return None,
        };
        let now = sys::monotonic_ns();
        if is_current && now.saturating_sub(anchor.at_ns) > AGE_NS {
            anchor.drop();
        }
        if anchor.at_ns == 0 || now.saturating_sub(anchor.at_ns) > OLD_NS {
            return None;
        }
        Some(anchor.at_ns.saturating_add_signed(cuda::between_ns(anchor.event, event)?))
    }

    /// A context is about to go.
    pub fn forget(&mut self, context: u64) {
        for anchor in self.0.iter_mut().filter(|anchor| anchor.context == context) {
            anchor.context = 0;
            anchor.at_ns = 0;
        }
    }
}

impl Anchor {
    /// Records it anew; its time stays unknown if the clock cannot be read well enough.
    fn drop(&mut self) {
        self.at_ns = 0;
        let before = sys::monotonic_ns();
        if !cuda::record(self.event, self.stream, false) {
            return;
        }
        loop {
            let over = cuda::is_over(self.event);
            let error = sys::monotonic_ns().saturating_sub(before);
            if error > ERROR_NS {
                return;
            }
            if over {
                self.at_ns = before.saturating_add(error / 2);
                return;
            }
        }
    }
}
