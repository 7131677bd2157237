//! GPU time: when may a launch go, and how long did it take?
//!
//! The rules and the loop are `quota::share`'s: what a launch is expected to cost, which one is measured, how much may be in
//! flight, what is charged, and in which order all that happens (`share::gate`). This file has what those cannot have:
//! the clock, the sleep, the driver's events and the one lock around the measurements, which no launch ever waits for.
//!
//! # Safety
//! This file may use `unsafe` because it keeps the measurements and the anchors in plain arrays, which are only touched
//! with `busy` held.
#![allow(unsafe_code)]

use super::anchors::{Anchors, Begun, Pair};
use super::starved;
use crate::container::{DeviceRef, hami};
use crate::devices::{Place, Scope};
use crate::driver::cuda::events::{self, Relaxed as RelaxedCapture};
use crate::driver::cuda::{self, CUresult, CUstream};
use crate::lock::{Ask, Lock};
use crate::thread;
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicU64, Ordering::Acquire, Ordering::Relaxed};
use gpuquota_books::{lease, time_books};
use gpuquota_quota::share::wait::{Cause, Waited};
use gpuquota_quota::share::{
    Books, Gate, InFlight, Measurement, Measurements, Observation, Predictor, Recorder, SAMPLE_NS, Step,
    Submission, Work,
};
use gpuquota_region::layout::{self, Device, LeaseRecord};
use gpuquota_region::sys;

/// `CU_STREAM_LEGACY`, the handle of the null stream where that is not the thread's own.
const LEGACY: u64 = 1;
/// `CU_STREAM_PER_THREAD`.
const PER_THREAD: u64 = 2;

/// Whether a context's name is a tag: a call may be destroying it, and its events must not be used. No handle has this bit.
fn set_aside(context: u64) -> bool {
    context >> 63 != 0
}

/// The launches of this process. All-zero bytes: none.
pub struct Meter {
    predictor: Predictor,
    in_flight: [InFlight; layout::DEVICES],
    /// The pending time, while the process has no slot to say so.
    nowhere: AtomicU64,
    busy: Lock,
    measurements: UnsafeCell<Measurements<Pair>>,
    anchors: UnsafeCell<Anchors>,
}

// SAFETY: `measurements` and `anchors` are only touched with `busy` held.
unsafe impl Sync for Meter {}

/// A launch as the program makes it.
pub struct LaunchCall {
    /// What is launched: function and geometry, or graph.
    pub key: u64,
    /// Into which stream.
    pub stream: CUstream,
    /// Whether a null stream is the thread's own.
    pub per_thread: bool,
}

impl LaunchCall {
    /// The stream as a number of its own in this process.
    fn stream_number(&self, context: u64) -> u64 {
        let own = match self.stream as u64 {
            0 if self.per_thread => thread::number(),
            PER_THREAD => thread::number(),
            LEGACY => 0,
            stream => stream,
        };
        own.wrapping_add(context.rotate_left(32))
    }
}

/// The time of a device as this process sees it.
#[derive(Clone, Copy)]
struct DeviceTime<'d> {
    device: &'d Device,
    turns: &'d LeaseRecord,
    in_flight: &'d InFlight,
    books: Books<'d>,
}

impl DeviceTime<'_> {
    /// Whether launches neither wait nor are measured.
    #[inline]
    fn is_free(&self) -> bool {
        self.books.rate.is_none() && self.books.agent.lease.is_none()
    }

    /// Sleeps until a time, or until the agent changes the lease that a launch waits for.
    fn sleep(&self, until_ns: u64, cause: Cause) {
        let Cause::Lease(refused_by) = cause else { return sys::sleep_until(until_ns) };
        let bell = self.turns.wake_seq.load(Acquire);
        // Unless the agent has changed it since.
        if lease(self.turns) == Some(refused_by) {
            sys::sleep_on(&self.turns.wake_seq, bell, until_ns);
        }
    }

    /// Adds to the region's statistics how long a launch has waited.
    fn count_wait(&self, waited: &Waited) {
        let device = self.device;
        let total = waited.total_ns();
        if total == 0 {
            return;
        }
        device.waits.fetch_add(1, Relaxed);
        device.waited_ns.fetch_add(waited.share_ns, Relaxed);
        device.waited_in_flight_ns.fetch_add(waited.room_ns, Relaxed);
        self.turns.waited_ns.fetch_add(waited.lease_ns, Relaxed);
        let mut bound = 100_000u64;
        for (class, count) in device.wait_times.iter().enumerate() {
            if total <= bound || class.wrapping_add(1) == layout::WAIT_TIMES {
                count.fetch_add(1, Relaxed);
                return;
            }
            bound = bound.saturating_mul(10);
        }
    }
}

impl Meter {
    #[inline]
    fn time_of<'d>(&'d self, scope: &'d Scope, device: DeviceRef) -> Option<DeviceTime<'d>> {
        let Scope { container, devices } = scope;
        let DeviceRef { index, record } = device;
        let header = container.header();
        let turns = header.leases.get(usize::from(index))?;
        let in_flight = self.in_flight.get(usize::from(index))?;
        let slot = container.slot();
        let pending = slot.and_then(|slot| slot.pending_ns.get(usize::from(index))).unwrap_or(&self.nowhere);
        let rate = devices.share(container, device);
        let mut books = Books { rate, ..time_books(header, record, turns, pending) };
        books.has_peers &= container.may_have_peers();
        if books.agent.lease.is_some() {
            books.agent.enforces_share = !devices.has_ceiling(device);
        }
        Some(DeviceTime { device: record, turns, in_flight, books })
    }

    fn time_at<'d>(&'d self, scope: &'d Scope, index: u8) -> Option<DeviceTime<'d>> {
        self.time_of(scope, scope.container.device(index)?)
    }

    /// Makes a launch when the share allows it.
    pub fn launch(
        &self,
        scope: &Scope,
        place: Place,
        launch: &LaunchCall,
        call: impl FnOnce() -> CUresult,
    ) -> CUresult {
        let Some(mut time) = self.time_of(scope, place.device) else { return call() };
        let blocked = scope.container.is_blocked();
        if time.is_free() && !blocked {
            return call();
        }
        // A captured launch runs later, as part of a graph: it neither waits nor is charged here.
        if events::is_capturing(launch.stream, launch.per_thread) {
            return call();
        }
        if blocked {
            time.count_wait(&Waited { share_ns: hami::wait(scope.container.hami()), ..Waited::default() });
            // The limit may have changed.
            let Some(new) = self.time_of(scope, place.device).filter(|time| !time.is_free()) else {
                return call();
            };
            time = new;
        }
        let mut now = sys::monotonic_ns();
        if time.in_flight.is_due(now) {
            self.complete(scope, Ask::Nobody);
        }
        let Place { context, device, .. } = place;
        let stream = launch.stream_number(context);
        let work = Work { key: launch.key, stream, context, device: device.index };
        let mut gate = Gate::new(now, work, &self.predictor, time.in_flight);
        if scope.container.observes() {
            if gate.force(now, time.in_flight, &time.books) {
                time.device.would_wait.fetch_add(1, Relaxed);
            }
        } else {
            let step = gate.step(now, time.in_flight, &time.books);
            if step != Step::Go {
                now = self.wait(scope, device, &mut gate, &mut time, now, step);
            }
        }
        time.device.launches.fetch_add(1, Relaxed);
        if let Some(slot) = scope.container.slot() {
            slot.last_launch_ns.store(now, Relaxed);
        }
        let mut recorder = LaunchEvents { meter: self, context, launch };
        let passage = gate.begin(now, time.in_flight, &time.books, &mut recorder);
        let answer = call();
        gate.end(passage, answer.is_success(), time.in_flight, &time.books, &mut recorder);
        answer
    }

    /// Does what a launch was told until it may go. Returns when that was, and leaves the books of then in `time`.
    #[cold]
    fn wait<'d>(
        &'d self,
        scope: &'d Scope,
        device: DeviceRef,
        gate: &mut Gate,
        time: &mut DeviceTime<'d>,
        mut now: u64,
        mut step: Step,
    ) -> u64 {
        let _errno = sys::KeepErrno::new();
        loop {
            match step {
                Step::Sleep { until_ns, cause } => time.sleep(until_ns, cause),
                Step::Behind => {
                    gate.go_behind(now, &time.books, starved::credit_ns(time.books.clock, now));
                    break;
                }
                Step::Go => break,
            }
            self.complete(scope, Ask::Kernel);
            // The time that the dead were charged and did not use delays no launch.
            scope.container.reap_sometimes();
            now = sys::monotonic_ns();
            // The limit may have changed.
            let Some(new) = self.time_of(scope, device) else { return now };
            *time = new;
            step = gate.step(now, time.in_flight, &time.books);
        }
        time.count_wait(gate.waited());
        now
    }

    /// Changes the measurements, unless another thread uses them for too long: no launch waits for that.
    fn patiently<T>(&self, change: impl FnOnce(&mut Measurements<Pair>, &mut Anchors) -> T) -> Option<T> {
        let _busy = (0..1000).find_map(|_| {
            core::hint::spin_loop();
            self.busy.try_lock()
        })?;
        // SAFETY: `busy` is held.
        let (measurements, anchors) = unsafe { (&mut *self.measurements.get(), &mut *self.anchors.get()) };
        Some(change(measurements, anchors))
    }

    /// Completes the launches that are over. Does nothing if another thread is at it.
    fn complete(&self, scope: &Scope, ask: Ask) {
        let Some(_busy) = self.busy.try_lock_or_repair(ask, || self.repair()) else { return };
        // SAFETY: `busy` is held.
        let (measurements, anchors) = unsafe { (&mut *self.measurements.get(), &mut *self.anchors.get()) };
        let now = sys::monotonic_ns();
        scope.container.count_peers(now);
        let _relaxed = RelaxedCapture::enter();
        let current = cuda::current_context();
        let at = |index| self.time_at(scope, index).map(|time| (time.in_flight, time.books));
        let observe = |measurement: &Measurement<Pair>, whole| {
            let context = measurement.work.context;
            if set_aside(context) {
                return Observation::Waiting;
            }
            anchors.observe(measurement.events, context, whole, current == Some(context))
        };
        measurements.complete(now, &self.predictor, at, observe);
    }

    /// A thread was lost while it changed the measurements. What it had half done is given up: an event more or less.
    #[cold]
    #[inline(never)]
    fn repair(&self) {
        // SAFETY: `busy` is held, and whoever held it before does not come back.
        let (measurements, anchors) = unsafe { (&mut *self.measurements.get(), &mut *self.anchors.get()) };
        measurements.repair();
        anchors.forget_all();
    }

    /// The program has waited for a device: completes the launches that it waited for.
    pub fn complete_due(&self, scope: &Scope) {
        if self.in_flight.iter().any(|in_flight| in_flight.next_check().is_some()) {
            self.complete(scope, Ask::Kernel);
        }
    }

    /// A context may be destroyed by the call that follows: completes what is over, and asks for nothing more of it under the
    /// name `tag`, which [`set_aside`] knows.
    pub fn context_departs(&self, scope: &Scope, context: u64, tag: u64) {
        self.complete(scope, Ask::Kernel);
        self.rename_context(context, tag);
    }

    /// A context has another name from now on.
    pub fn rename_context(&self, from: u64, to: u64) {
        let Some(_busy) = self.busy.lock(|| self.repair()) else { return };
        // SAFETY: `busy` is held.
        let (measurements, anchors) = unsafe { (&mut *self.measurements.get(), &mut *self.anchors.get()) };
        measurements.rename_context(from, to);
        anchors.rename(from, to);
    }

    /// A context has gone, and its events with it: launches in flight stay charged as predicted.
    pub fn forget_context(&self, scope: &Scope, context: u64) {
        let Some(_busy) = self.busy.lock(|| self.repair()) else { return };
        // SAFETY: `busy` is held.
        let (measurements, anchors) = unsafe { (&mut *self.measurements.get(), &mut *self.anchors.get()) };
        measurements.forget_context(context, |measurement| {
            if let Some(time) = self.time_at(scope, measurement.work.device) {
                measurement.abandon(time.in_flight, &time.books);
            }
        });
        anchors.forget(context);
    }
}

/// The events around one launch.
struct LaunchEvents<'m> {
    meter: &'m Meter,
    context: u64,
    launch: &'m LaunchCall,
}

impl Recorder for LaunchEvents<'_> {
    type Events = Pair;
    type Begun = Begun;

    fn now_ns(&self) -> u64 {
        sys::monotonic_ns()
    }

    fn acquire(&mut self) -> Option<Pair> {
        let _busy = self.meter.busy.try_lock()?;
        // SAFETY: `busy` is held.
        let measurements = unsafe { &mut *self.meter.measurements.get() };
        measurements.acquire(self.context, || Pair::create(self.context))
    }

    fn begin(&mut self, pair: Pair, now_ns: u64) -> Option<Begun> {
        pair.start(self.launch.stream, self.launch.per_thread, now_ns)
    }

    fn end(&mut self, pair: Pair, begun: Begun) -> Option<Submission> {
        pair.end(self.launch.stream, self.launch.per_thread, begun)
    }

    fn insert(&mut self, measurement: Measurement<Pair>, in_flight: &InFlight) -> bool {
        let inserted = self.meter.patiently(|measurements, anchors| {
            if measurement.predicted_ns <= SAMPLE_NS {
                anchors.probe(self.context, self.launch.stream, self.launch.per_thread);
            }
            measurements.insert(measurement, in_flight)
        });
        inserted == Some(true)
    }

    fn recycle(&mut self, pair: Pair) {
        let recycle =
            |measurements: &mut Measurements<Pair>, _: &mut Anchors| measurements.recycle(pair, self.context);
        if self.meter.patiently(recycle) != Some(true) {
            pair.destroy();
        }
    }

    fn destroy(&mut self, pair: Pair) {
        pair.destroy();
    }
}
