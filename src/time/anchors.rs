//! Events before and behind a launch, and where they lie on CLOCK_MONOTONIC.
//!
//! A driver tells the time between two events, not when one was. So each context has an anchor: an event in a stream
//! of our own, recorded while nothing else is in it, between two looks at the clock.
//!
//! Two events with nothing between them lie apart all the same, more than a microsecond on real devices. That is measured
//! some times in each context.

use crate::driver::cuda::events::{self, CUevent, Relaxed};
use crate::driver::cuda::{self, CUstream};
use core::ptr::null_mut;
use gpuquota_quota::share::{EventGap, Observation, Queue, Submission};
use gpuquota_region::sys;

/// Contexts with an anchor.
const ANCHORS: usize = 16;
/// An anchor's clock reading must be at least this exact.
const ERROR_NS: u64 = 20_000;
/// How often an anchor is looked at when it was recorded: an idle device is done by then.
const LOOKS: u32 = 8;
/// The pause after the first failure, and failures in a row after which no anchor is recorded any more.
const FIRST_PAUSE_NS: u64 = 1_000_000;
const MOST_FAILURES: u8 = 60;
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

    /// What comes now is measured; the caller has just read the clock.
    pub fn start(self, stream: CUstream, per_thread: bool, now: u64) -> Option<Begun> {
        let _relaxed = Relaxed::enter();
        let idle = events::is_idle(stream, per_thread);
        let recorded = events::record(self.start, stream, per_thread);
        recorded.then(|| Begun { began_ns: now, recorded_ns: sys::monotonic_ns(), idle })
    }

    /// That was it. Answers how the launch came to the device.
    pub fn end(self, stream: CUstream, per_thread: bool, begun: Begun) -> Option<Submission> {
        let returned_ns = sys::monotonic_ns();
        let _relaxed = Relaxed::enter();
        let Begun { began_ns, recorded_ns, idle } = begun;
        let queue = match idle {
            true => Queue::Idle,
            false if events::is_over(self.start) => Queue::Drained,
            false => Queue::Busy,
        };
        let over = queue != Queue::Busy && events::is_idle(stream, per_thread);
        let submission = Submission { began_ns, recorded_ns, returned_ns, queue, over };
        events::record(self.end, stream, per_thread).then_some(submission)
    }
}

/// A measured launch whose first event is recorded.
#[derive(Clone, Copy)]
pub struct Begun {
    began_ns: u64,
    recorded_ns: u64,
    /// Whether nothing was in the stream before it.
    idle: bool,
}

/// Attempts at a probe in a context: kernels may be over before it.
const MOST_PROBES: u8 = 64;

/// An event whose time on CLOCK_MONOTONIC is known, and how far events of its context lie apart by themselves.
#[derive(Clone, Copy)]
struct Anchor {
    context: u64,
    stream: CUstream,
    event: CUevent,
    /// 0 while it is not known.
    at_ns: u64,
    /// The event for the next anchor.
    spare: CUevent,
    /// When it may be recorded anew, and how often in a row that has failed.
    again_at_ns: u64,
    failures: u8,
    /// Two events with nothing between them.
    probe: Pair,
    /// Whether they are recorded and not read yet.
    probing: bool,
    probes: u8,
    gap: EventGap,
}

/// The anchors of this process. All-zero bytes: none.
pub struct Anchors([Anchor; ANCHORS]);

impl Anchors {
    /// What the driver says of a measured launch of a context; when it began only if `whole` is asked for.
    /// `is_current` tells whether the context is the calling thread's, so that an anchor can be made.
    pub fn observe(&mut self, pair: Pair, context: u64, whole: bool, is_current: bool) -> Observation {
        if events::is_over(pair.end) {
            let began_ns = if whole { self.when(pair.start, context, is_current) } else { None };
            let between_ns = self.between_ns(context);
            let elapsed_ns = events::elapsed_ns(pair.start, pair.end);
            return Observation::Over { began_ns, elapsed_ns, between_ns };
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
        if is_current && now >= anchor.again_at_ns {
            anchor.drop(now);
        }
        if anchor.at_ns == 0 || now.saturating_sub(anchor.at_ns) > OLD_NS {
            return None;
        }
        Some(anchor.at_ns.saturating_add_signed(events::between_ns(anchor.event, event)?))
    }

    /// Measures how far two events of the current context lie apart by themselves, unless that is known: behind a launch in its
    /// stream that still runs, where the host's pace does not matter.
    pub fn probe(&mut self, context: u64, stream: CUstream, per_thread: bool) {
        let known = self.0.iter().find(|anchor| anchor.context == context);
        if known
            .is_some_and(|anchor| anchor.probing || !anchor.gap.wants_probe() || anchor.probes >= MOST_PROBES)
        {
            return;
        }
        let _relaxed = Relaxed::enter();
        let Some(anchor) = self.anchor(context, true) else { return };
        anchor.probes = anchor.probes.saturating_add(1);
        let Pair { start, end } = anchor.probe;
        anchor.probing = events::record(start, stream, per_thread)
            && events::record(end, stream, per_thread)
            && !events::is_over(start);
    }

    /// How far two events of a context lie apart by themselves; 0 while that is not known.
    fn between_ns(&mut self, context: u64) -> u64 {
        let Some(anchor) = self.0.iter_mut().find(|anchor| anchor.context == context) else { return 0 };
        if anchor.probing && events::is_over(anchor.probe.end) {
            anchor.probing = false;
            if let Some(apart_ns) = events::elapsed_ns(anchor.probe.start, anchor.probe.end) {
                anchor.gap.add(apart_ns);
            }
        }
        anchor.gap.ns()
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
        let pair = Pair::create(context)?;
        let probe = Pair::create(context);
        let (Some(probe), Some(stream)) = (probe, events::create_stream()) else {
            [Some(pair), probe].into_iter().flatten().for_each(Pair::destroy);
            return None;
        };
        let Pair { start: event, end: spare } = pair;
        Some(Self {
            context,
            stream,
            event,
            at_ns: 0,
            spare,
            again_at_ns: 0,
            failures: 0,
            probe,
            probing: false,
            probes: 0,
            gap: EventGap::default(),
        })
    }

    /// Records it anew. That fails where our stream waits for others: where the device is another process's, or where
    /// streams share a queue of the hardware. Each failure doubles the pause before the next attempt, and after many in a
    /// row there is none. The clock was read just now.
    fn drop(&mut self, now: u64) {
        self.again_at_ns = u64::MAX;
        if self.failures >= MOST_FAILURES || !events::record(self.spare, self.stream, false) {
            return;
        }
        if (0..LOOKS).any(|_| events::is_over(self.spare)) {
            let error = sys::monotonic_ns().saturating_sub(now);
            if error <= ERROR_NS {
                core::mem::swap(&mut self.event, &mut self.spare);
                (self.at_ns, self.failures) = (now.saturating_add(error / 2), 0);
                self.again_at_ns = now.saturating_add(AGE_NS);
                return;
            }
        }
        self.failures = self.failures.saturating_add(1);
        let pause = FIRST_PAUSE_NS.checked_shl(self.failures.into()).unwrap_or(u64::MAX).min(AGE_NS);
        self.again_at_ns = now.saturating_add(pause);
    }
}
