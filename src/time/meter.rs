//! GPU time: when may a launch go, and how long did it take?
//!
//! The rules are `quota::share`'s: what a launch is expected to cost, which one is measured, how much may be in
//! flight, what is charged. This room has what those cannot have: the clock, the sleep, the driver's events and the
//! one lock round the table of measurements, which no launch ever waits for.
//!
//! # Safety
//! This file may use `unsafe` because it keeps the launches in flight and the events in plain arrays, which are
//! only touched with `busy` held.
#![allow(unsafe_code)]

use super::anchors::{Anchors, Pair};
use crate::container::books::{lease, time_books};
use crate::container::{DeviceRef, hami};
use crate::devices::{Place, Scope};
use crate::driver::cuda::events::{self, Relaxed as RelaxedCapture};
use crate::driver::cuda::{self, CUresult, CUstream};
use crate::lock::Lock;
use crate::thread;
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicU64, Ordering::Acquire, Ordering::Relaxed};
use gpuquota_quota::share::wait::{Cause, Waited};
use gpuquota_quota::share::{self, Books, InFlight, Measurement, Measurements, Predictor, Step, Work};
use gpuquota_region::layout::{self, Device, Turns};
use gpuquota_region::sys;

/// `CU_STREAM_PER_THREAD`.
const PER_THREAD: u64 = 2;

/// What this process has under way. All-zero bytes: nothing.
pub struct Meter {
    predictor: Predictor,
    in_flight: [InFlight; layout::DEVICES],
    /// What is pending, where the process has no slot to say so.
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
    fn lane(&self, context: u64) -> u64 {
        let own = match self.stream as u64 {
            0 if self.per_thread => thread::number(),
            PER_THREAD => thread::number(),
            stream => stream,
        };
        own.wrapping_add(context.rotate_left(32))
    }
}

/// A device as this process deals with it.
#[derive(Clone, Copy)]
struct Desk<'d> {
    device: &'d Device,
    turns: &'d Turns,
    in_flight: &'d InFlight,
    books: Books<'d>,
}

impl Desk<'_> {
    /// Whether launches neither wait nor are measured.
    #[inline]
    fn is_free(&self) -> bool {
        self.books.rate.is_none() && self.books.agent.lease.is_none()
    }
}

impl Meter {
    #[inline]
    fn desk<'d>(&'d self, scope: &'d Scope, device: DeviceRef) -> Option<Desk<'d>> {
        let Scope { container, devices } = scope;
        let DeviceRef { index, record } = device;
        let header = container.header();
        let turns = header.turns.get(usize::from(index))?;
        let in_flight = self.in_flight.get(usize::from(index))?;
        let slot = container.slot();
        let pending = slot.and_then(|slot| slot.pending_ns.get(usize::from(index))).unwrap_or(&self.nowhere);
        let rate = devices.share(container, device);
        let mut books = Books { rate, ..time_books(header, record, turns, pending) };
        if books.agent.lease.is_some() {
            books.agent.enforces_share = !devices.has_ceiling(device);
        }
        Some(Desk { device: record, turns, in_flight, books })
    }

    fn desk_of<'d>(&'d self, scope: &'d Scope, index: u8) -> Option<Desk<'d>> {
        self.desk(scope, scope.container.device(index)?)
    }

    /// Makes a launch when the share allows it.
    pub fn launch(
        &self,
        scope: &Scope,
        place: Place,
        launch: &LaunchCall,
        call: impl FnOnce() -> CUresult,
    ) -> CUresult {
        let Some(mut desk) = self.desk(scope, place.device) else { return call() };
        let blocked = scope.container.is_blocked();
        if desk.is_free() && !blocked {
            return call();
        }
        // What is captured runs later, as a graph: no waiting, no event, no charge here.
        if events::is_capturing(launch.stream, launch.per_thread) {
            return call();
        }
        if blocked {
            note(&desk, &Waited { share_ns: hami::wait(scope.container.hami()), ..Waited::default() });
            // The limit may have changed.
            let Some(new) = self.desk(scope, place.device).filter(|desk| !desk.is_free()) else {
                return call();
            };
            desk = new;
        }
        let mut now = sys::monotonic_ns();
        if desk.in_flight.is_due(now) {
            self.settle(scope);
        }
        let context = place.context;
        let work =
            Work { key: launch.key, stream: launch.lane(context), context, device: place.device.index };
        let mut asked = share::Launch::new(now, work, &self.predictor, desk.in_flight);
        if scope.container.observes() {
            if asked.force(now, desk.in_flight, &desk.books) {
                desk.device.would_wait.fetch_add(1, Relaxed);
            }
        } else if asked.step(now, desk.in_flight, &desk.books) != Step::Go {
            now = self.wait(scope, place.device, &mut asked);
        }
        desk.device.launches.fetch_add(1, Relaxed);
        if let Some(slot) = scope.container.slot() {
            slot.heartbeat_ns.store(now, Relaxed);
        }
        if asked.submit(now, desk.in_flight, &desk.books) {
            return self.measure(place, launch, &asked, &desk, call);
        }
        let answer = call();
        if !answer.is_success() {
            asked.cancel(now, desk.in_flight, &desk.books);
        }
        answer
    }

    /// Waits until a launch may go; answers the time.
    #[cold]
    fn wait(&self, scope: &Scope, device: DeviceRef, asked: &mut share::Launch) -> u64 {
        let _errno = sys::KeepErrno::new();
        loop {
            let now = sys::monotonic_ns();
            // The limit may have changed.
            let Some(desk) = self.desk(scope, device) else { return now };
            match asked.step(now, desk.in_flight, &desk.books) {
                Step::Sleep { until_ns, cause } => {
                    match cause {
                        Cause::Lease(asked_in) => {
                            let bell = desk.turns.bell.load(Acquire);
                            // Unless it was told something else since it asked.
                            if lease(desk.turns) == Some(asked_in) {
                                sys::sleep_on(&desk.turns.bell, bell, until_ns);
                            }
                        }
                        _ => sys::sleep_until(until_ns),
                    }
                    self.settle(scope);
                    // What the dead are charged for and did not use delays nobody.
                    scope.container.reap_sometimes();
                }
                Step::Go => {
                    note(&desk, &asked.wait.waited);
                    return now;
                }
            }
        }
    }

    /// Launches with an event before and behind.
    fn measure(
        &self,
        place: Place,
        launch: &LaunchCall,
        asked: &share::Launch,
        desk: &Desk,
        call: impl FnOnce() -> CUresult,
    ) -> CUresult {
        let now = sys::monotonic_ns();
        let Some(pair) = self.depart(place) else {
            asked.unmeasured(now, desk.in_flight);
            return call();
        };
        let began = pair.start(launch.stream, launch.per_thread);
        let answer = call();
        if !answer.is_success() {
            asked.cancel(now, desk.in_flight, &desk.books);
        } else if let Some(submission) = began.and_then(|at| pair.end(launch.stream, launch.per_thread, at)) {
            // The clock's last bits, spread: which launch is measured next has nothing to do with what it is.
            let random = now.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 44;
            let flight = asked.measurement(pair, submission, now, random, desk.in_flight, &desk.books);
            let short = asked.predicted_ns() <= share::SAMPLE_NS;
            let entered = self.patiently(|measurements, anchors| {
                if short {
                    anchors.probe(pair, place.context);
                }
                measurements.insert(flight, desk.in_flight)
            });
            if entered != Some(true) {
                // Nobody will hear of it again.
                flight.abandon(desk.in_flight, &desk.books);
                pair.destroy();
            }
            return answer;
        } else {
            asked.unmeasured(now, desk.in_flight);
        }
        if self.patiently(|measurements, _| measurements.recycle(pair, place.context)) != Some(true) {
            pair.destroy();
        }
        answer
    }

    /// A place with two events of the context.
    fn depart(&self, place: Place) -> Option<Pair> {
        let _busy = self.busy.try_lock()?;
        // SAFETY: `busy` is held.
        let measurements = unsafe { &mut *self.measurements.get() };
        measurements.acquire(place.context, || Pair::create(place.context))
    }

    /// Does something to the table of measurements, unless another thread is settling for too long: no launch waits for
    /// that.
    fn patiently<T>(&self, change: impl FnOnce(&mut Measurements<Pair>, &mut Anchors) -> T) -> Option<T> {
        let _busy = (0..1000).find_map(|_| {
            core::hint::spin_loop();
            self.busy.try_lock()
        })?;
        // SAFETY: `busy` is held.
        let (measurements, anchors) = unsafe { (&mut *self.measurements.get(), &mut *self.anchors.get()) };
        Some(change(measurements, anchors))
    }

    /// Settles the launches that are over. Does nothing if another thread is at it.
    fn settle(&self, scope: &Scope) {
        let Some(_busy) = self.busy.try_lock() else { return };
        // SAFETY: `busy` is held.
        let (measurements, anchors) = unsafe { (&mut *self.measurements.get(), &mut *self.anchors.get()) };
        let _relaxed = RelaxedCapture::enter();
        let current = cuda::current_context();
        let at = |index| self.desk_of(scope, index).map(|desk| (desk.in_flight, desk.books));
        let look = |flight: &Measurement<Pair>, whole| {
            anchors.look(flight.events, flight.work.context, whole, current == Some(flight.work.context))
        };
        measurements.complete(sys::monotonic_ns(), &self.predictor, at, look);
    }

    /// The program has waited for a device: what it waited for is over.
    pub fn settle_due(&self, scope: &Scope) {
        if self.in_flight.iter().any(|in_flight| in_flight.next_check().is_some()) {
            self.settle(scope);
        }
    }

    /// A context is about to go: its events go with it. What flies stays charged as predicted.
    pub fn forget_context(&self, scope: &Scope, context: u64) {
        self.settle(scope);
        let _busy = self.busy.lock();
        // SAFETY: `busy` is held.
        let (measurements, anchors) = unsafe { (&mut *self.measurements.get(), &mut *self.anchors.get()) };
        measurements.forget_context(context, |flight| {
            if let Some(desk) = self.desk_of(scope, flight.work.device) {
                flight.abandon(desk.in_flight, &desk.books);
            }
        });
        anchors.forget(context);
    }
}

/// Writes down how long a launch has waited, and for what.
fn note(desk: &Desk, waited: &Waited) {
    let device = desk.device;
    let total = waited.total_ns();
    if total == 0 {
        return;
    }
    device.waits.fetch_add(1, Relaxed);
    device.waited_ns.fetch_add(waited.share_ns, Relaxed);
    device.waited_flight_ns.fetch_add(waited.room_ns, Relaxed);
    desk.turns.waited_ns.fetch_add(waited.lease_ns, Relaxed);
    let mut bound = 100_000u64;
    for (class, count) in device.wait_times.iter().enumerate() {
        if total <= bound || class.wrapping_add(1) == layout::WAIT_TIMES {
            count.fetch_add(1, Relaxed);
            return;
        }
        bound = bound.saturating_mul(10);
    }
}
