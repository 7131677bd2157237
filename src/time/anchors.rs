//! Events before and behind a launch, and where they lie on CLOCK_MONOTONIC.
//!
//! A driver tells the time between two events, not when one was. So each context has an anchor: an event in a stream
//! of our own, recorded while nothing else is in it, between two looks at the clock.
//!
//! Two events with nothing between them lie apart all the same, more than a microsecond on real devices: so much is taken off
//! every interval. It is measured behind a launch that still runs, where the host's pace does not matter.

use crate::driver::cuda::events::{self, CUevent, Relaxed};
use crate::driver::cuda::{self, CUstream};
use core::ptr::null_mut;
use gpuquota_quota::share::{Observation, Submission};
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
            let start = events::create_event()?;
            let end = events::create_event();
            if end.is_none() {
                events::destroy_event(start);
            }
            Some(Self { start, end: end? })
        })
    }

    /// Gives them back.
    pub fn destroy(self) {
        let _relaxed = Relaxed::enter();
        events::destroy_event(self.start);
        events::destroy_event(self.end);
    }

    /// What comes now is measured.
    pub fn start(self, stream: CUstream, per_thread: bool) -> Option<Begun> {
        let _relaxed = Relaxed::enter();
        let idle = events::is_idle(stream, per_thread);
        let recorded = events::record(self.start, stream, per_thread);
        recorded.then(|| Begun { idle_at_ns: idle.then(sys::monotonic_ns) })
    }

    /// That was it. Answers how the launch came to the device.
    pub fn end(self, stream: CUstream, per_thread: bool, begun: Begun) -> Option<Submission> {
        let passed_ns = begun.idle_at_ns.map(|since_ns| sys::monotonic_ns().saturating_sub(since_ns));
        let _relaxed = Relaxed::enter();
        // If nothing runs any more, the call may have waited for it: then the time was not the host's.
        let host_ns = passed_ns.filter(|_| !events::is_idle(stream, per_thread)).unwrap_or(0);
        let submission = Submission { host_ns, queued: passed_ns.is_none() };
        events::record(self.end, stream, per_thread).then_some(submission)
    }
}

/// A measured launch whose first event is recorded.
#[derive(Clone, Copy)]
pub struct Begun {
    /// The time, if nothing was in the stream before it.
    idle_at_ns: Option<u64>,
}

/// More than two events with nothing between them lie apart.
const MOST_BETWEEN_NS: u64 = 2_000;

/// How often that is measured in a context; the least counts.
const PROBES: u8 = 4;

/// An event whose time on CLOCK_MONOTONIC is known, and how far events of its context lie apart by themselves.
#[derive(Clone, Copy)]
struct Anchor {
    context: u64,
    stream: CUstream,
    event: CUevent,
    /// 0 while it is not known.
    at_ns: u64,
    /// Two events with nothing between them.
    probe: Pair,
    /// Whether they are recorded and not read yet.
    probing: bool,
    probes: u8,
    /// The least that they ever were apart; only valid after a probe.
    between_ns: u64,
}

/// The anchors of this process. All-zero bytes: none.
pub struct Anchors([Anchor; ANCHORS]);

impl Anchors {
    /// What the driver says of a measured launch of a context; when it began only if `whole` is asked for.
    /// `is_current` tells whether the context is the calling thread's, so that an anchor can be made.
    pub fn observe(&mut self, pair: Pair, context: u64, whole: bool, is_current: bool) -> Observation {
        if events::is_over(pair.end) {
            let since_ns = if whole { self.when(pair.start, context, is_current) } else { None };
            let between_ns = self.between_ns(context);
            let elapsed_ns = events::elapsed_ns(pair.start, pair.end);
            let elapsed_ns = elapsed_ns.map(|elapsed_ns| elapsed_ns.saturating_sub(between_ns));
            return Observation::Over { began_ns: since_ns, elapsed_ns };
        }
        if whole
            && events::is_over(pair.start)
            && let Some(since_ns) = self.when(pair.start, context, is_current)
        {
            return Observation::Running { began_ns: since_ns };
        }
        Observation::Waiting
    }

    /// When an event was that is over.
    fn when(&mut self, event: CUevent, context: u64, is_current: bool) -> Option<u64> {
        let anchor = self.anchor(context, is_current)?;
        let now = sys::monotonic_ns();
        if is_current && now.saturating_sub(anchor.at_ns) > AGE_NS {
            anchor.drop();
        }
        if anchor.at_ns == 0 || now.saturating_sub(anchor.at_ns) > OLD_NS {
            return None;
        }
        Some(anchor.at_ns.saturating_add_signed(events::between_ns(anchor.event, event)?))
    }

    /// Measures how far two events of the current context lie apart by themselves, behind a launch that still runs, unless that
    /// is known.
    pub fn probe(&mut self, behind: Pair, context: u64) {
        let known = self.0.iter().find(|anchor| anchor.context == context);
        if known.is_some_and(|anchor| anchor.probing || anchor.probes >= PROBES) {
            return;
        }
        let _relaxed = Relaxed::enter();
        let Some(anchor) = self.anchor(context, true) else { return };
        anchor.probing = events::wait(anchor.stream, behind.end)
            && events::record(anchor.probe.start, anchor.stream, false)
            && events::record(anchor.probe.end, anchor.stream, false);
        anchor.probes = anchor.probes.saturating_add(1);
    }

    /// How far two events of a context lie apart by themselves; 0 while that is not known.
    fn between_ns(&mut self, context: u64) -> u64 {
        let Some(anchor) = self.0.iter_mut().find(|anchor| anchor.context == context) else { return 0 };
        if anchor.probing && events::is_over(anchor.probe.end) {
            anchor.probing = false;
            let between_ns = events::elapsed_ns(anchor.probe.start, anchor.probe.end).unwrap_or(0);
            anchor.between_ns = anchor.between_ns.min(between_ns);
        }
        if anchor.between_ns > MOST_BETWEEN_NS { 0 } else { anchor.between_ns }
    }

    /// The anchor of a context, made if it can be.
    fn anchor(&mut self, context: u64, is_current: bool) -> Option<&mut Anchor> {
        let known = self.0.iter().position(|anchor| anchor.context == context);
        if known.is_none() && !is_current {
            return None;
        }
        let place = known.or_else(|| self.0.iter().position(|anchor| anchor.context == 0))?;
        let anchor = self.0.get_mut(place)?;
        if known.is_none() {
            *anchor = Anchor::create(context)?;
        }
        Some(anchor)
    }

    /// Forgets all anchors: one of them may be half made.
    pub fn forget_all(&mut self) {
        for anchor in &mut self.0 {
            (anchor.context, anchor.at_ns) = (0, 0);
        }
    }

    /// A context has another name from now on.
    pub fn rename(&mut self, from: u64, to: u64) {
        for anchor in self.0.iter_mut().filter(|anchor| anchor.context == from) {
            anchor.context = to;
        }
    }

    /// A context has gone, and its events with it.
    pub fn forget(&mut self, context: u64) {
        for anchor in self.0.iter_mut().filter(|anchor| anchor.context == context) {
            anchor.context = 0;
            anchor.at_ns = 0;
        }
    }
}

impl Anchor {
    /// Of the current context.
    fn create(context: u64) -> Option<Self> {
        let event = events::create_event()?;
        let Some(probe) = Pair::create(context) else {
            events::destroy_event(event);
            return None;
        };
        let Some(stream) = events::create_stream() else {
            events::destroy_event(event);
            probe.destroy();
            return None;
        };
        let between_ns = u64::MAX;
        Some(Self { context, stream, event, at_ns: 0, probe, probing: false, probes: 0, between_ns })
    }

    /// Records it anew; its time stays unknown if the clock cannot be read well enough.
    fn drop(&mut self) {
        self.at_ns = 0;
        let before = sys::monotonic_ns();
        if !events::record(self.event, self.stream, false) {
            return;
        }
        loop {
            let over = events::is_over(self.event);
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
