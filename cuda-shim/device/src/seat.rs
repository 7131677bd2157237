//! A process at a device: its work in time, when it completes, and waiting for it.
//!
//! A seat's stretches are written by its process alone (which serialises its threads), between two steps of
//! a sequence word, so that others can read them. While a process has the device to itself it touches
//! nothing shared but its own seat; among other processes it first brings the schedule up to date under the device's
//! schedule lock. The schedule is kept twice and switched by one store, so no death leaves it half done.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::fence;

use crate::clock::Clock;
use crate::latency::Latency;
use crate::layout::{BUCKET_NS, BUCKETS, Device, FEW_STRETCHES, Round, SEATS, STALLS, STRETCHES, SeatCells};
use crate::liveness::{clock_ns, sleep_until};
use crate::lock::{self, Held};
use crate::sched::{Demand, Schedule, Turns};
use crate::state::{State, namespace};

/// The last stretch of a wait is spent spinning: a sleep overshoots by about this much.
const SPIN_NS: u64 = 60_000;

/// What is recorded on an idle device comes when its process has its turn.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Waits {
    /// It was behind work.
    No,
    /// For its turn, and the program has seen that it is over.
    Seen,
    /// For its turn.
    Unseen,
}

impl Waits {
    /// From the record to the launch behind it, at most: then both wait for the same turn. A program whose machine is busy takes
    /// its time between two calls. What it has seen to be over does not move far.
    fn reach_ns(self) -> Option<u64> {
        match self {
            Self::No => None,
            Self::Seen => Some(20_000),
            Self::Unseen => Some(200_000),
        }
    }
}

/// The seat of this process at one device.
pub struct Seat {
    state: &'static State,
    device: &'static Device,
    cells: &'static SeatCells,
    index: usize,
    number: usize,
}

/// Work being laid out: the seat's time now, held still until dropped.
pub struct Work<'a> {
    seat: &'a Seat,
    now: u64,
    _schedule: Option<Held<'static>>,
}

impl Seat {
    /// Takes a seat at device `index`. `None` if all are taken.
    pub fn take(state: &'static State, index: usize) -> Option<Seat> {
        let device = &state.layout().devices[index];
        let _held = state.schedule(index);
        state.bring_up(index, clock_ns());
        let number = (0..SEATS).find(|number| device.seats[*number].owner.get() == 0)?;
        let cells = &device.seats[number];
        let share = &state.layout().shares[state.slot()][index];
        cells.sequence.set(0);
        cells.base_busy_ns.set(share.busy_ns.get());
        cells.base_kernels.set(share.kernels.get());
        cells.done_ns.set(0);
        cells.kernels.set(0);
        cells.count.set(0);
        for bucket in &cells.buckets {
            bucket.number.set(0);
        }
        for round in &device.rounds {
            round.lags[number].lag.set(0);
            round.lags[number].stalls.set(0);
        }
        let slot = &state.layout().slots[state.slot()];
        slot.namespace.set(namespace("self").unwrap_or(0));
        if slot.client.get() == 0 {
            slot.started.set(clock_ns());
            slot.client.set(1);
        }
        cells.owner.0.store(state.slot() as u64 + 1, Release);
        mark(device, number, true);
        Some(Seat { state, device, cells, index, number })
    }

    /// Begins to lay out work. The caller lets one thread of the process in at a time.
    #[inline]
    pub fn work(&self, clock: &mut Clock) -> Work<'_> {
        if self.device.seated.0.load(Acquire) <= 1 {
            let wall = clock.now();
            return Work { seat: self, now: wall.saturating_sub(self.lag()), _schedule: None };
        }
        self.work_among_peers()
    }

    fn work_among_peers(&self) -> Work<'_> {
        let held = self.state.schedule(self.index);
        self.state.bring_up(self.index, clock_ns());
        let round = active(self.device);
        let now = round.wall.get().saturating_sub(round.lags[self.number].lag.get());
        Work { seat: self, now, _schedule: Some(held) }
    }

    /// The seat's time now.
    #[inline]
    pub fn now(&self) -> u64 {
        if self.device.seated.0.load(Acquire) <= 1 {
            return clock_ns().saturating_sub(self.lag());
        }
        self.work_among_peers().now
    }

    /// The wall time at which seat time `time` was reached; meaningful once it was. What `waits` for the process's turn
    /// is reached when that turn begins, if the process lost it then or next to then.
    pub fn wall_of(&self, time: u64, waits: Waits) -> u64 {
        let _held = self.state.schedule(self.index);
        time + self.lag_after(waits.reach_ns().map_or_else(|| time.saturating_sub(1), |reach| time + reach))
    }

    /// Turns begins and ends of kernels that are over from seat time into wall time. A kernel begins with its process's
    /// turn, and ends before that is lost.
    pub fn walls_of(&self, spans: &mut [(u64, u64)]) {
        let _held = self.state.schedule(self.index);
        for (begin, end) in spans {
            let last = *end + self.lag_after(end.saturating_sub(1));
            *begin += self.lag_after(*begin);
            *end = last.max(*begin);
        }
    }

    /// How much of its time a seat remembers at least, while others have the device in between.
    pub fn remembers_ns(&self) -> u64 {
        (STALLS as u64 / 2).saturating_mul(self.state.machine().slice_ns)
    }

    /// How far the seat lagged behind the clock after all stalls up to seat time `latest`. Under the schedule lock.
    fn lag_after(&self, latest: u64) -> u64 {
        let count = active(self.device).lags[self.number].stalls.get();
        let mut lag = None;
        for step in 1..=count.min(STALLS as u64) {
            let stall = &self.cells.stalls[((count - step) as usize) % STALLS];
            if stall.at.get() <= latest {
                return stall.lag.get();
            }
            lag = Some(stall.lag.get());
        }
        // Before the first stall nothing lags; older than the memory of stalls, the oldest known lag is nearest.
        if count > STALLS as u64 { lag.unwrap_or(0) } else { 0 }
    }

    /// Waits until the seat's time reaches `time`.
    pub fn wait(&self, time: u64) {
        wait_until_due(|| self.due(time));
    }

    /// The wall time at which `time` will be reached if nobody adds work; `None` once it is.
    fn due(&self, time: u64) -> Option<u64> {
        if self.device.seated.0.load(Acquire) <= 1 {
            let due = time + self.lag();
            return (due > clock_ns()).then_some(due);
        }
        let _held = self.state.schedule(self.index);
        self.state.bring_up(self.index, clock_ns());
        self.state.due_of(self.index, self.number, time)
    }

    /// Whether calls that concern the device take time.
    pub fn takes_time(&self) -> bool {
        self.state.latency(self.index).is_some()
    }

    /// Has the calling thread take a call's part of the host's time, if such calls take any.
    pub fn spend(&self, part: impl FnOnce(&Latency) -> u64) {
        self.state.spend(self.index, part);
    }

    /// Its place among the seats of the device.
    pub(crate) fn number(&self) -> usize {
        self.number
    }

    fn lag(&self) -> u64 {
        active(self.device).lags[self.number].lag.get()
    }

    /// Leaves: pending work is dropped, what was done stays on the process's account.
    pub fn leave(&self) {
        let _held = self.state.schedule(self.index);
        self.state.bring_up(self.index, clock_ns());
        self.state.retire(self.index, self.number);
    }
}

impl Work<'_> {
    /// The seat's time.
    #[inline]
    pub fn now(&self) -> u64 {
        self.now
    }

    /// Lays out one kernel of `duration` nanoseconds from seat time `start`; returns its end.
    #[inline]
    pub fn run(&mut self, start: u64, duration: u64) -> u64 {
        let end = start + duration;
        self.busy(start, end, 1);
        end
    }

    /// Lays out `kernels` launches that keep the device busy over `[start, end)`.
    #[inline]
    pub fn busy(&mut self, start: u64, end: u64, kernels: u64) {
        let cells = self.seat.cells;
        let sequence = cells.sequence.get();
        cells.sequence.set(sequence + 1);
        fence(Release);
        cells.kernels.add(kernels);
        let count = cells.count.get() as usize;
        let last = count.checked_sub(1).and_then(|last| cells.stretches.get(last));
        match last {
            Some(last) if start >= last.start.get() && start <= last.end.get() => last.end.raise(end),
            _ if end > start => insert(cells, self.now, self.seat.lag(), start, end),
            _ => {}
        }
        cells.sequence.0.store(sequence + 2, Release);
    }

    /// The same where kernels lie apart in their streams, so that there are many stretches; of a seat either all
    /// work is laid out so or none.
    pub fn busy_apart(&mut self, start: u64, end: u64, kernels: u64) {
        let cells = self.seat.cells;
        let sequence = cells.sequence.get();
        cells.sequence.set(sequence + 1);
        fence(Release);
        cells.kernels.add(kernels);
        if end > start {
            insert_apart(cells, self.now, self.seat.lag(), start, end);
        }
        cells.sequence.0.store(sequence + 2, Release);
    }
}

/// Waits for what is due at a wall time that others may put off, until it is due no more.
pub(crate) fn wait_until_due(due: impl Fn() -> Option<u64>) {
    while let Some(due) = due() {
        if due > clock_ns() + SPIN_NS {
            sleep_until(due - SPIN_NS);
            continue;
        }
        while clock_ns() < due {
            std::hint::spin_loop();
        }
    }
}

/// Files a stretch among the pending ones: what is over leaves first, what touches is joined.
fn insert(cells: &SeatCells, now: u64, lag: u64, start: u64, end: u64) {
    let mut kept = [(0u64, 0u64); FEW_STRETCHES + 1];
    let mut length = 0;
    let count = (cells.count.get() as usize).min(FEW_STRETCHES);
    let mut pending = Some((start, end));
    for stretch in &cells.stretches[..count] {
        let (from, to) = (stretch.start.get(), stretch.end.get());
        if to <= now {
            cells.done_ns.add(to - from);
            fill_buckets(cells, from + lag, to + lag);
            continue;
        }
        match &mut pending {
            Some((start, end)) if *start <= to && from <= *end => {
                (*start, *end) = (from.min(*start), to.max(*end));
                continue;
            }
            Some(new) if new.1 < from => {
                kept[length] = *new;
                length += 1;
                pending = None;
            }
            _ => {}
        }
        kept[length] = (from, to);
        length += 1;
    }
    if let Some(new) = pending {
        kept[length] = new;
        length += 1;
    }
    if length > FEW_STRETCHES {
        length = FEW_STRETCHES;
        kept[length - 1].1 = kept[length].1;
    }
    for (stretch, (from, to)) in cells.stretches.iter().zip(&kept[..length]) {
        stretch.start.set(*from);
        stretch.end.set(*to);
    }
    cells.count.set(length as u64);
}

/// The same for many. Those that are over stay until they are half of all, so that hardly anything is moved.
fn insert_apart(cells: &SeatCells, now: u64, lag: u64, start: u64, end: u64) {
    let stretches = &cells.stretches;
    let at = |place: usize| (stretches[place].start.get(), stretches[place].end.get());
    let put = |place: usize, (start, end): (u64, u64)| {
        stretches[place].start.set(start);
        stretches[place].end.set(end);
    };
    let mut count = (cells.count.get() as usize).min(STRETCHES);
    if count == STRETCHES || (count >= FEW_STRETCHES && at(count / 2).1 <= now) {
        let over = (0..count).take_while(|place| at(*place).1 <= now).count();
        for place in 0..over {
            let (from, to) = at(place);
            cells.done_ns.add(to - from);
            fill_buckets(cells, from + lag, to + lag);
        }
        (over..count).for_each(|place| put(place - over, at(place)));
        count -= over;
    }
    let (mut new, mut first) = ((start, end), count);
    while first > 0 && at(first - 1).1 >= start {
        first -= 1;
    }
    let mut last = first;
    while last < count && at(last).0 <= end {
        new = (new.0.min(at(last).0), new.1.max(at(last).1));
        last += 1;
    }
    if first == last && count == STRETCHES {
        // No room: it is joined with its neighbour, or with the last one.
        let place = first.min(count - 1);
        put(place, (at(place).0.min(start), at(place).1.max(end)));
        return;
    }
    if first == last {
        (first..count).rev().for_each(|place| put(place + 1, at(place)));
    } else {
        (last..count).for_each(|place| put(place - (last - first) + 1, at(place)));
    }
    put(first, new);
    cells.count.set((count + 1 - (last - first)) as u64);
}

fn fill_buckets(cells: &SeatCells, from: u64, to: u64) {
    let oldest = (to / BUCKET_NS).saturating_sub(BUCKETS as u64 - 1);
    for number in (from / BUCKET_NS).max(oldest)..=to / BUCKET_NS {
        let bucket = &cells.buckets[number as usize % BUCKETS];
        if bucket.number.get() != number {
            bucket.number.set(number);
            bucket.busy_ns.set(0);
        }
        bucket.busy_ns.add(overlap((from, to), (number * BUCKET_NS, (number + 1) * BUCKET_NS)));
    }
}

fn overlap(a: (u64, u64), b: (u64, u64)) -> u64 {
    a.1.min(b.1).saturating_sub(a.0.max(b.0))
}

fn active(device: &Device) -> &Round {
    &device.rounds[device.active_round.0.load(Acquire) as usize & 1]
}

fn mark(device: &Device, number: usize, taken: bool) {
    let word = &device.occupied[number / 64];
    let bit = 1 << (number % 64);
    word.set(if taken { word.get() | bit } else { word.get() & !bit });
    let seated: u32 = device.occupied.iter().map(|word| word.get().count_ones()).sum();
    device.seated.0.store(seated.into(), Release);
}

fn seats_of(device: &Device) -> Vec<usize> {
    (0..SEATS).filter(|number| device.occupied[number / 64].get() & (1 << (number % 64)) != 0).collect()
}

fn read_round(round: &Round, seats: &[usize]) -> Schedule {
    Schedule {
        wall: round.wall.get(),
        current: round.current.get() as usize % SEATS,
        slice_end: round.slice_end.get(),
        begin: round.begin.get(),
        lag: seats.iter().map(|seat| round.lags[*seat].lag.get()).collect(),
    }
}

/// The shared cells as the schedule's demand.
struct Cells {
    device: &'static Device,
    seats: Vec<usize>,
    /// Stalls recorded of each of them; only a schedule that will be published records.
    stalls: Option<Vec<u64>>,
}

impl Cells {
    fn of(state: &State, index: usize, record: bool) -> Cells {
        let device = &state.layout().devices[index];
        let seats = seats_of(device);
        let recorded = |seat: &usize| active(device).lags[*seat].stalls.get();
        let stalls = record.then(|| seats.iter().map(recorded).collect());
        Cells { device, seats, stalls }
    }
}

impl Demand for Cells {
    fn seats(&self) -> &[usize] {
        &self.seats
    }

    fn next_work(&self, place: usize, now: u64) -> Option<(u64, u64)> {
        read(&self.device.seats[self.seats[place]], |cells| {
            let count = (cells.count.get() as usize).min(STRETCHES);
            let mut stretches = cells.stretches[..count].iter();
            stretches
                .find(|stretch| stretch.end.get() > now)
                .map(|found| (found.start.get(), found.end.get()))
        })
    }

    fn stalled(&mut self, place: usize, at: u64, lag: u64) {
        let Some(stalls) = &mut self.stalls else { return };
        let count = stalls[place];
        let ring = &self.device.seats[self.seats[place]].stalls;
        // A stall that continues the last one only deepens it: no work completed in between.
        if let Some(last) = count.checked_sub(1).map(|last| &ring[last as usize % STALLS])
            && last.at.get() == at
        {
            last.lag.set(lag);
            return;
        }
        let next = &ring[count as usize % STALLS];
        next.at.set(at);
        next.lag.set(lag);
        stalls[place] = count + 1;
    }
}

/// Reads a seat's stretches whole; gives up waiting for a writer that was killed half-way.
fn read<T>(cells: &SeatCells, look: impl Fn(&SeatCells) -> T) -> T {
    for attempt in 0.. {
        let before = cells.sequence.0.load(Acquire);
        let seen = look(cells);
        fence(Acquire);
        if (before & 1 == 0 && cells.sequence.0.load(Relaxed) == before) || attempt > 10_000 {
            return seen;
        }
        if attempt > 100 {
            std::thread::yield_now();
        }
    }
    unreachable!("the loop above has no end")
}

/// Busy nanoseconds and kernels of a seat, up to the known schedule.
pub(crate) fn account(device: &Device, number: usize) -> (u64, u64) {
    let round = active(device);
    let now = round.wall.get().saturating_sub(round.lags[number].lag.get());
    read(&device.seats[number], |cells| {
        let count = (cells.count.get() as usize).min(STRETCHES);
        let pending: u64 = cells.stretches[..count]
            .iter()
            .map(|stretch| overlap((stretch.start.get(), stretch.end.get()), (0, now)))
            .sum();
        (
            cells.base_busy_ns.get() + cells.done_ns.get() + pending,
            cells.base_kernels.get() + cells.kernels.get(),
        )
    })
}

/// Busy nanoseconds of a seat within wall times `[from, to)`, at most the last second.
pub(crate) fn recent(device: &Device, number: usize, from: u64, to: u64) -> u64 {
    let lag = active(device).lags[number].lag.get();
    read(&device.seats[number], |cells| {
        let count = (cells.count.get() as usize).min(STRETCHES);
        let pending = cells.stretches[..count]
            .iter()
            .map(|stretch| overlap((stretch.start.get() + lag, stretch.end.get() + lag), (from, to)));
        let filled = cells.buckets.iter().filter_map(|bucket| {
            let start = bucket.number.get() * BUCKET_NS;
            let share = overlap((start, start + BUCKET_NS), (from, to));
            (share > 0).then(|| bucket.busy_ns.get() * share / BUCKET_NS)
        });
        pending.chain(filled).sum()
    })
}

impl State {
    /// Takes the schedule lock of device `index`.
    pub(crate) fn schedule(&self, index: usize) -> Held<'static> {
        let word = &self.layout().devices[index].schedule_lock;
        lock::hold(word, self.slot(), |slot| self.is_alive(slot), || ())
    }

    /// Brings the schedule of device `index` up to `wall`. Under the schedule lock.
    pub(crate) fn bring_up(&self, index: usize, wall: u64) {
        let device = &self.layout().devices[index];
        let mut demand = Cells::of(self, index, true);
        let mut schedule = read_round(active(device), &demand.seats);
        // Alone, whose turn it is already, a seat has its time with the clock.
        if demand.seats != [schedule.current] {
            schedule.advance(wall, self.turns(index), None, &mut demand);
        }
        schedule.wall = schedule.wall.max(wall);
        let spare = (device.active_round.get() + 1) & 1;
        let round = &device.rounds[spare as usize];
        round.wall.set(schedule.wall);
        round.current.set(schedule.current as u64);
        round.slice_end.set(schedule.slice_end);
        round.begin.set(schedule.begin);
        let stalls = demand.stalls.unwrap_or_default();
        for ((&seat, lag), stalls) in demand.seats.iter().zip(&schedule.lag).zip(&stalls) {
            round.lags[seat].lag.set(*lag);
            round.lags[seat].stalls.set(*stalls);
        }
        device.active_round.0.store(spare, Release);
    }

    /// The wall time at which a seat's time will reach `time` if nobody adds work; `None` once it has. Under the
    /// schedule lock, the schedule brought up.
    pub(crate) fn due_of(&self, index: usize, number: usize, time: u64) -> Option<u64> {
        let mut demand = Cells::of(self, index, false);
        let mut schedule = read_round(active(&self.layout().devices[index]), &demand.seats);
        let place = demand.seats.binary_search(&number).ok()?;
        if schedule.seat_time(place) >= time {
            return None;
        }
        schedule.advance(u64::MAX, self.turns(index), Some((place, time)), &mut demand);
        Some(schedule.wall)
    }

    fn turns(&self, index: usize) -> Turns {
        let machine = self.machine();
        let latency = machine.devices.get(index).and_then(|spec| spec.latency).unwrap_or_default();
        Turns {
            slice_ns: machine.slice_ns,
            preempt_ns: latency.preempt_ns,
            switch_ns: latency.switch_ns,
            keep_ns: 2 * (latency.gap_ns + latency.event_ns + latency.gap_after_event_ns),
        }
    }

    /// Empties a seat, its work booked on its process. Under the schedule lock; doing it twice is harmless.
    pub(crate) fn retire(&self, index: usize, number: usize) {
        let device = &self.layout().devices[index];
        let cells = &device.seats[number];
        let Some(owner) = cells.owner.get().checked_sub(1) else { return };
        let (busy, kernels) = account(device, number);
        let share = &self.layout().shares[owner as usize][index];
        share.busy_ns.set(busy);
        share.kernels.set(kernels);
        mark(device, number, false);
        cells.owner.set(0);
    }

    /// The seats of device `index` and the slots that hold them. Under the schedule lock.
    pub(crate) fn seated(&self, index: usize) -> Vec<(usize, usize)> {
        let device = &self.layout().devices[index];
        seats_of(device)
            .into_iter()
            .filter_map(|number| Some((number, device.seats[number].owner.get().checked_sub(1)? as usize)))
            .collect()
    }
}
