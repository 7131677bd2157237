//! GPU time: when may a launch go, and how long did it take?
//!
//! The rules are `quota::share`'s: what a launch is expected to cost, which one is measured, how much may be in
//! flight, what is charged. This room has what those cannot have: the clock, the sleep, the driver's events and the
//! one lock round the table of measurements, which no launch ever waits for.
//!
//! # Safety
//! This room may use `unsafe` because it keeps the launches in flight and the events in plain arrays, which are
//! only touched with `busy` held.
#![allow(unsafe_code)]

mod events;

use crate::account::Verdict;
use crate::device::Place;
use crate::hook::cuda::{self, CUstream};
use crate::lock::Lock;
use crate::process::Process;
use crate::thread;
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicU64, Ordering::Acquire, Ordering::Relaxed};
use events::{Anchors, Pair};
use gpuquota_quota::share::lease::{AGENT_TIMEOUT_NS, AgentWords, Lease};
use gpuquota_quota::share::wait::{Cause, Waited};
use gpuquota_quota::share::{
    self, Books, Busy, Clock, InFlight, Measurement, Measurements, Predictor, Rate, Step, Work,
};
use gpuquota_region::layout::{self, Device, Header, Turns};
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

/// Where the use of a device is written down, on behalf of one process or of none.
pub fn books<'b>(
    header: &Header,
    device: &'b Device,
    turns: &'b Turns,
    pending_ns: &'b AtomicU64,
) -> Books<'b> {
    Books {
        clock: Clock {
            virtual_time: &device.virtual_time,
            idle_at: &device.idle_at,
            idle_ns: &device.idle_ns,
            rate: &device.virtual_rate,
            largest_charge_ns: &device.longest,
            clamped: &device.clamped,
        },
        busy: Busy { until: &device.busy_until, known_from: &device.gaps_from, gaps: &device.gaps },
        in_flight_until: &device.flight_until,
        gpu_time_ns: &device.gpu_time_ns,
        pending_ns,
        rate: Rate::new(device.core_limit.load(Relaxed)),
        has_peers: header.slot_high.load(Relaxed) > 1,
        agent: AgentWords {
            lease: turn(turns),
            enforces_share: true,
            asked_at: &turns.asked_at,
            in_flight_ns: &turns.in_flight_ns,
            uncertainty_ns: &turns.doubt_ns,
        },
    }
}

/// The container's turn, as long as the node's agent says anything.
#[inline]
fn turn(turns: &Turns) -> Option<Lease> {
    let turn = Lease::read(turns.turn.load(Relaxed))?;
    let silent_ns = sys::monotonic_coarse_ns().saturating_sub(turns.told_at.load(Relaxed));
    (silent_ns < AGENT_TIMEOUT_NS).then_some(turn)
}

/// Whether no launch of the container needs a look: no device has a share by the region, nor by the limits file, and on
/// none are there turns.
#[inline(always)]
pub fn is_idle(process: &Process, header: &Header) -> bool {
    header.shares.load(Relaxed) == 0 && !process.has_share.load(Relaxed)
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

impl Launch {
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
    fn desk<'d>(&'d self, process: &'d Process, index: u8) -> Option<Desk<'d>> {
        let ours = process.region()?.ours();
        let (device, in_flight) = ours.devices.iter().zip(&self.in_flight).nth(index.into())?;
        let turns = ours.header.turns.get(usize::from(index))?;
        let slot = process.slot();
        let pending = slot.and_then(|slot| slot.pending_ns.get(usize::from(index))).unwrap_or(&self.nowhere);
        let rate = process.known.share(process, index, device);
        let mut books = Books { rate, ..books(&ours.header, device, turns, pending) };
        if books.agent.lease.is_some() {
            books.agent.enforces_share = !process.known.has_ceiling(index);
        }
        Some(Desk { device, turns, in_flight, books })
    }

    /// Makes a launch when the share allows it.
    pub fn launch<R: Verdict>(
        &self,
        process: &Process,
        place: Place,
        launch: &Launch,
        call: impl FnOnce() -> R,
    ) -> R {
        let Some(mut desk) = self.desk(process, place.device) else { return call() };
        let blocked = process.is_blocked();
        if desk.is_free() && !blocked {
            return call();
        }
        // What is captured runs later, as a graph: no waiting, no event, no charge here.
        if cuda::is_capturing(launch.stream, launch.per_thread) {
            return call();
        }
        if blocked {
            note(&desk, &Waited { share_ns: process.wait_while_blocked(), ..Waited::default() });
            // The limit may have changed.
            let Some(new) = self.desk(process, place.device).filter(|desk| !desk.is_free()) else {
                return call();
            };
            desk = new;
        }
        let mut now = sys::monotonic_ns();
        if desk.in_flight.is_due(now) {
            self.settle(process);
        }
        let context = place.context;
        let work = Work { key: launch.key, stream: launch.lane(context), context, device: place.device };
        let mut asked = share::Launch::new(now, work, &self.predictor, desk.in_flight);
        if process.observes() {
            if asked.force(now, desk.in_flight, &desk.books) {
                desk.device.would_wait.fetch_add(1, Relaxed);
            }
        } else if asked.step(now, desk.in_flight, &desk.books) != Step::Go {
            now = self.wait(process, place.device, &mut asked);
        }
        desk.device.launches.fetch_add(1, Relaxed);
        if let Some(slot) = process.slot() {
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
    fn wait(&self, process: &Process, index: u8, asked: &mut share::Launch) -> u64 {
        let _errno = sys::KeepErrno::new();
        loop {
            let now = sys::monotonic_ns();
            // The limit may have changed.
            let Some(desk) = self.desk(process, index) else { return now };
            match asked.step(now, desk.in_flight, &desk.books) {
                Step::Sleep { until_ns, cause } => {
                    match cause {
                        Cause::Lease(lease) => {
                            let bell = desk.turns.bell.load(Acquire);
                            // Unless it was told something else since it asked.
                            if turn(desk.turns) == Some(lease) {
                                sys::sleep_on(&desk.turns.bell, bell, until_ns);
                            }
                        }
                        _ => sys::sleep_until(until_ns),
                    }
                    self.settle(process);
                    // What the dead are charged for and did not use delays nobody.
                    process.reap_sometimes();
                }
                Step::Go => {
                    note(&desk, &asked.wait.waited);
                    return now;
                }
            }
        }
    }

    /// Launches with an event before and behind.
    fn measure<R: Verdict>(
        &self,
        place: Place,
        launch: &Launch,
        asked: &share::Launch,
        desk: &Desk,
        call: impl FnOnce() -> R,
    ) -> R {
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
    fn settle(&self, process: &Process) {
        let Some(_busy) = self.busy.try_lock() else { return };
        // SAFETY: `busy` is held.
        let (measurements, anchors) = unsafe { (&mut *self.measurements.get(), &mut *self.anchors.get()) };
        let _relaxed = cuda::Relaxed::enter();
        let current = cuda::current_context();
        let at = |index| self.desk(process, index).map(|desk| (desk.in_flight, desk.books));
        let look = |flight: &Measurement<Pair>, whole| {
            anchors.look(flight.events, flight.work.context, whole, current == Some(flight.work.context))
        };
        measurements.complete(sys::monotonic_ns(), &self.predictor, at, look);
    }

    /// The program has waited for a device: what it waited for is over.
    pub fn settle_due(&self, process: &Process) {
        if self.in_flight.iter().any(|in_flight| in_flight.next_check().is_some()) {
            self.settle(process);
        }
    }

    /// A context is about to go: its events go with it. What flies stays charged as predicted.
    pub fn forget_context(&self, process: &Process, context: u64) {
        self.settle(process);
        let _busy = self.busy.lock();
        // SAFETY: `busy` is held.
        let (measurements, anchors) = unsafe { (&mut *self.measurements.get(), &mut *self.anchors.get()) };
        measurements.forget_context(context, |flight| {
            if let Some(desk) = self.desk(process, flight.work.device) {
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
