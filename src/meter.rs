//! GPU time: when may a launch go, and how long did it take?
//!
//! The rule is `quota::share`'s; this room waits, and measures with events of the driver's own. Not every launch is
//! measured: those of a millisecond or more, those never measured before, and of short ones about one per
//! millisecond of GPU time, picked at random. A measured launch has an event of ours before and behind it and
//! nothing between, so whatever else the stream waits for or copies is not taken for work. A waiter keeps looking
//! for finished launches: a credit that is settled too late is lost.
//!
//! Intervals are laid on CLOCK_MONOTONIC by an anchor event in a stream of ours, so that what several streams and
//! processes of the container do at the same time is charged once (`share::newly_busy`).
//!
//! # Safety
//! This room may use `unsafe` because it keeps the launches in flight and the events in plain arrays, which are
//! only touched with `busy` held.
#![allow(unsafe_code)]

use crate::device::Place;
use crate::hook::cuda::{self, CUevent, CUstream, Relaxed as RelaxedCapture};
use crate::lock::Lock;
use crate::process::Process;
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};
use gpuquota_quota::share::{self, Admission, Clock, Predictor, Rate, UNKNOWN_NS};
use gpuquota_region::layout::{Device, Header};
use gpuquota_region::sys;

/// Measured launches under way at a time.
const FLIGHTS: usize = 64;
/// Predicted GPU time that a process may have outstanding before the next launch waits for the oldest.
const MOST_OUTSTANDING_NS: u64 = 4_000_000;
/// A launch at least this long is always measured; shorter ones add up to it.
const SEGMENT_NS: u64 = 1_000_000;
/// Work in flight may itself wait for a launch that this thread has yet to make: then the launch passes.
const PATIENCE_NS: u64 = 100_000_000;
/// Longest nap, so that a changed limit is noticed.
const NAP_NS: u64 = 2_000_000;
/// An anchor's clock reading must be at least this exact.
const ANCHOR_ERROR_NS: u64 = 100_000;
/// `cuEventElapsedTime` answers in float milliseconds: after ten seconds a step is 1 us.
const ANCHOR_AGE_NS: u64 = 10_000_000_000;
/// Contexts with an anchor.
const ANCHORS: usize = 16;

/// What this process has under way. All-zero bytes: nothing.
pub struct Meter {
    predictor: Predictor,
    /// Predicted time of launches that are not known to have finished.
    outstanding_ns: AtomicU64,
    /// Predicted time of launches since the last measured one.
    unmeasured_ns: AtomicU64,
    /// When to measure next, in terms of `unmeasured_ns`.
    threshold_ns: AtomicU64,
    busy: Lock,
    flights: UnsafeCell<[Flight; FLIGHTS]>,
    anchors: UnsafeCell<[Anchor; ANCHORS]>,
}

// SAFETY: `flights` and `anchors` are only touched with `busy` held.
unsafe impl Sync for Meter {}

/// A measured launch, or a free place (with events to use again, if `context` is not 0).
#[derive(Clone, Copy)]
struct Flight {
    context: u64,
    start: CUevent,
    end: CUevent,
    key: u64,
    device: u8,
    flying: bool,
    /// Charged for this launch.
    predicted_ns: u64,
    /// Charged for this launch and those before it that are over when it is.
    covers_ns: u64,
    launched_at_ns: u64,
}

/// An event whose time on CLOCK_MONOTONIC is known.
#[derive(Clone, Copy)]
struct Anchor {
    context: u64,
    stream: CUstream,
    event: CUevent,
    at_ns: u64,
}

/// The words of a device's share.
pub fn clock(device: &Device) -> Clock<'_> {
    Clock { virtual_time: &device.virtual_time, longest: &device.longest, clamped: &device.clamped }
}

/// Whether any launch of the container needs a look.
#[inline(always)]
pub fn is_idle(header: &Header) -> bool {
    header.shares.load(Relaxed) == 0
}

/// One launch.
pub struct Launch {
    /// What is launched: function and geometry, or graph.
    pub key: u64,
    /// Into which stream.
    pub stream: CUstream,
    /// Whether a null stream is the thread's own.
    pub per_thread: bool,
}

impl Meter {
    /// Makes a launch when the share allows it.
    pub fn launch<R>(&self, process: &Process, place: Place, launch: &Launch, call: impl FnOnce() -> R) -> R {
        let Some(device) = process.region().and_then(|r| r.ours().devices.get(usize::from(place.device)))
        else {
            return call();
        };
        let Some(rate) = Rate::new(device.core_limit.load(Relaxed)) else { return call() };
        // What is captured runs later, as a graph: no waiting, no event, no charge here.
        if cuda::is_capturing(launch.stream, launch.per_thread) {
            return call();
        }
        let known = self.predictor.predict(launch.key);
        let predicted_ns = known.unwrap_or(UNKNOWN_NS);
        if process.observes() {
            self.observe(device, rate, predicted_ns);
        } else {
            self.wait_for_flights(process, known);
            self.wait_for_share(process, device, rate, predicted_ns);
        }
        device.launches.fetch_add(1, Relaxed);
        device.gpu_time_ns.fetch_add(predicted_ns, Relaxed);
        self.outstanding_ns.fetch_add(predicted_ns, Relaxed);
        self.pend(process, place.device, predicted_ns as i64);
        let unmeasured = self.unmeasured_ns.fetch_add(predicted_ns, Relaxed).saturating_add(predicted_ns);
        if known.is_some() && predicted_ns < SEGMENT_NS && unmeasured < self.threshold_ns.load(Relaxed) {
            return call();
        }
        self.measure(place, launch, predicted_ns, call)
    }

    /// Observe mode: counts the wait that would have been, and charges all the same.
    fn observe(&self, device: &Device, rate: Rate, predicted_ns: u64) {
        let now = sys::monotonic_ns();
        if let Admission::Wait { .. } = share::admit(clock(device), now, predicted_ns, rate) {
            device.would_wait.fetch_add(1, Relaxed);
            share::charge(clock(device), now, predicted_ns, rate);
        }
    }

    fn wait_for_share(&self, process: &Process, device: &Device, rate: Rate, predicted_ns: u64) {
        let mut now = sys::monotonic_ns();
        let (started, mut rate) = (now, rate);
        while let Admission::Wait { until_ns } = share::admit(clock(device), now, predicted_ns, rate) {
            self.nap(process, until_ns.min(now.saturating_add(NAP_NS)), now);
            now = sys::monotonic_ns();
            match Rate::new(device.core_limit.load(Relaxed)) {
                Some(current) => rate = current,
                None => break,
            }
        }
        if now != started {
            device.waits.fetch_add(1, Relaxed);
            device.waited_ns.fetch_add(now.saturating_sub(started), Relaxed);
        }
    }

    /// Bounds what is under way: without it a process queues seconds of work before the first is settled. A key
    /// that was never measured flies alone.
    fn wait_for_flights(&self, process: &Process, known: Option<u64>) {
        let most = known.map_or(0, |_| MOST_OUTSTANDING_NS);
        if self.flying_ns() <= most {
            return;
        }
        self.settle_finished(process);
        let started = sys::monotonic_ns();
        let (mut now, mut last, mut since) = (started, self.flying_ns(), started);
        while last > most && now.saturating_sub(since) < PATIENCE_NS {
            let nap = (now.saturating_sub(since) / 8).clamp(20_000, NAP_NS);
            self.nap(process, now.saturating_add(nap), now);
            now = sys::monotonic_ns();
            let flying = self.flying_ns();
            if flying != last {
                (last, since) = (flying, now);
            }
        }
        if last > most {
            // Nothing finished: perhaps it cannot before this launch. It passes; what flies is charged already.
            self.outstanding_ns.store(0, Relaxed);
        }
    }

    /// Predicted time of the launches that a measured one will tell of.
    fn flying_ns(&self) -> u64 {
        self.outstanding_ns.load(Relaxed).saturating_sub(self.unmeasured_ns.load(Relaxed))
    }

    /// Sleeps, but not past the moment at which the oldest launch should be over, and settles what is.
    fn nap(&self, process: &Process, until_ns: u64, now_ns: u64) {
        let _errno = sys::KeepErrno::new();
        let over = self.next_over().filter(|over| *over > now_ns).unwrap_or(now_ns.saturating_add(100_000));
        sys::sleep_until(until_ns.min(over.max(now_ns.saturating_add(20_000))));
        self.settle_finished(process);
    }

    /// When the flight that was launched first should be over.
    fn next_over(&self) -> Option<u64> {
        let _busy = self.busy.try_lock()?;
        // SAFETY: `busy` is held.
        let flights = unsafe { &*self.flights.get() };
        let over = |flight: &Flight| flight.launched_at_ns.saturating_add(flight.covers_ns);
        flights.iter().filter(|flight| flight.flying).map(over).min()
    }

    /// Launches with an event before and behind.
    fn measure<R>(&self, place: Place, launch: &Launch, predicted_ns: u64, call: impl FnOnce() -> R) -> R {
        let Some(mut flight) = self.depart(place) else { return call() };
        let relaxed = RelaxedCapture::enter();
        let recorded = cuda::record(flight.start, launch.stream, launch.per_thread);
        drop(relaxed);
        flight.launched_at_ns = sys::monotonic_ns();
        let answer = call();
        let relaxed = RelaxedCapture::enter();
        flight.flying = recorded && cuda::record(flight.end, launch.stream, launch.per_thread);
        drop(relaxed);
        flight.key = launch.key;
        flight.device = place.device;
        flight.predicted_ns = predicted_ns;
        flight.covers_ns = self.unmeasured_ns.swap(0, Relaxed);
        // Between half and one and a half segments, by the low bits of the clock: no rhythm of the program's own
        // is then measured always at the same beat.
        let random = flight.launched_at_ns.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 44;
        self.threshold_ns.store((SEGMENT_NS / 2).saturating_add(random), Relaxed);
        self.fly(flight);
        answer
    }

    /// A place with two events of the context.
    fn depart(&self, place: Place) -> Option<Flight> {
        let _busy = self.busy.try_lock()?;
        // SAFETY: `busy` is held.
        let flights = unsafe { &mut *self.flights.get() };
        let reusable = |flight: &&mut Flight| flight.context == place.context && !flight.flying;
        if let Some(slot) = flights.iter_mut().find(reusable) {
            let flight = *slot;
            slot.context = 0;
            return Some(flight);
        }
        flights.iter().find(|flight| flight.context == 0)?;
        let _relaxed = RelaxedCapture::enter();
        let (start, end) = (cuda::create_event()?, cuda::create_event()?);
        Some(Flight {
            context: place.context,
            start,
            end,
            key: 0,
            device: place.device,
            flying: false,
            predicted_ns: 0,
            covers_ns: 0,
            launched_at_ns: 0,
        })
    }

    /// Enters a flight. A launch never waits for another thread's settling: if that takes too long, this one stays
    /// unmeasured.
    fn fly(&self, flight: Flight) {
        let Some(_busy) = (0..1000).find_map(|_| {
            core::hint::spin_loop();
            self.busy.try_lock()
        }) else {
            self.unmeasured_ns.fetch_add(flight.covers_ns, Relaxed);
            cuda::destroy_event(flight.start);
            cuda::destroy_event(flight.end);
            return;
        };
        // SAFETY: `busy` is held.
        let flights = unsafe { &mut *self.flights.get() };
        // `depart` left a place, and only `forget_context` of this very context could fill them all.
        if let Some(place) = flights.iter_mut().find(|place| place.context == 0) {
            *place = flight;
        }
    }

    /// Settles the launches that are over. Does nothing if another thread is at it.
    fn settle_finished(&self, process: &Process) {
        let Some(_busy) = self.busy.try_lock() else { return };
        let _relaxed = RelaxedCapture::enter();
        // SAFETY: `busy` is held.
        let (flights, anchors) = unsafe { (&mut *self.flights.get(), &mut *self.anchors.get()) };
        let current = cuda::current_context();
        loop {
            // In order of their launch, so that the union of intervals grows from the past.
            let finished = flights.iter_mut().filter(|flight| flight.flying && cuda::is_over(flight.end));
            let Some(flight) = finished.min_by_key(|flight| flight.launched_at_ns) else { return };
            flight.flying = false;
            let anchor = if current == Some(flight.context) { anchor(anchors, flight.context) } else { None };
            self.settle(process, flight, anchor);
        }
    }

    fn settle(&self, process: &Process, flight: &Flight, anchor: Option<(CUevent, u64)>) {
        let covers = flight.covers_ns;
        let _ = self.outstanding_ns.fetch_update(Relaxed, Relaxed, |now| Some(now.saturating_sub(covers)));
        self.pend(process, flight.device, (covers as i64).wrapping_neg());
        let Some(elapsed) = cuda::elapsed_ns(flight.start, flight.end) else { return };
        self.predictor.learn(flight.key, elapsed);
        let Some(device) = process.region().and_then(|r| r.ours().devices.get(usize::from(flight.device)))
        else {
            return;
        };
        let interval = anchor.and_then(|(event, at)| {
            let start = at.saturating_add_signed(cuda::between_ns(event, flight.start)?);
            Some((start, start.saturating_add(elapsed)))
        });
        let charged =
            interval.map_or(elapsed, |(start, end)| share::newly_busy(&device.busy_until, start, end));
        let more = charged.wrapping_sub(flight.predicted_ns);
        device.gpu_time_ns.fetch_add(more, Relaxed);
        if let Some(rate) = Rate::new(device.core_limit.load(Relaxed)) {
            share::settle(clock(device), flight.predicted_ns, charged, rate);
        }
    }

    /// Notes in this process's slot what is charged but not settled, for whoever must settle it after our death.
    fn pend(&self, process: &Process, device: u8, change: i64) {
        if let Some(pending) = process.slot().and_then(|slot| slot.pending_ns.get(usize::from(device))) {
            let add = |now: u64| Some(now.saturating_add_signed(change));
            let _ = pending.fetch_update(Relaxed, Relaxed, add);
        }
    }

    /// A context is about to go: its events go with it. What flies stays charged as predicted.
    pub fn forget_context(&self, process: &Process, context: u64) {
        let _busy = self.busy.lock();
        // SAFETY: `busy` is held.
        let (flights, anchors) = unsafe { (&mut *self.flights.get(), &mut *self.anchors.get()) };
        for flight in flights.iter_mut().filter(|flight| flight.context == context) {
            if flight.flying {
                let covers = flight.covers_ns;
                let _ = self
                    .outstanding_ns
                    .fetch_update(Relaxed, Relaxed, |now| Some(now.saturating_sub(covers)));
                self.pend(process, flight.device, (covers as i64).wrapping_neg());
            }
            flight.flying = false;
            flight.context = 0;
        }
        for anchor in anchors.iter_mut().filter(|anchor| anchor.context == context) {
            anchor.context = 0;
            anchor.at_ns = 0;
        }
    }
}

/// The anchor of the calling thread's context, made or renewed if need be; `None` while its clock cannot be read
/// well enough.
fn anchor(anchors: &mut [Anchor; ANCHORS], context: u64) -> Option<(CUevent, u64)> {
    let now = sys::monotonic_ns();
    let known = anchors.iter().position(|anchor| anchor.context == context);
    let at = known.or_else(|| anchors.iter().position(|anchor| anchor.context == 0))?;
    let anchor = anchors.get_mut(at)?;
    if anchor.context == 0 {
        let (stream, event) = (cuda::create_stream()?, cuda::create_event()?);
        *anchor = Anchor { context, stream, event, at_ns: 0 };
    }
    if anchor.at_ns == 0 || now.saturating_sub(anchor.at_ns) > ANCHOR_AGE_NS {
        anchor.at_ns = 0;
        let before = sys::monotonic_ns();
        if !cuda::record(anchor.event, anchor.stream, false) {
            return None;
        }
        loop {
            let over = cuda::is_over(anchor.event);
            let after = sys::monotonic_ns();
            let error = after.saturating_sub(before);
            if over && error <= ANCHOR_ERROR_NS {
                anchor.at_ns = before.saturating_add(error / 2);
                break;
            }
            if error > ANCHOR_ERROR_NS {
                return None;
            }
        }
    }
    Some((anchor.event, anchor.at_ns))
}
