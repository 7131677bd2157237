//! Containers, processes and threads on one device, in virtual time. Launches go through `share::Gate`, completions through
//! `share::Measurements`, on words as a region holds them: the very code that the library drives on the real
//! clock. The harness imitates what surrounds it: sleeping, waking up too late, a driver's events.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use gpuquota_quota::share::busy::GAPS;
use gpuquota_quota::share::client::{Client, Demand};
use gpuquota_quota::share::gate::Passage;
use gpuquota_quota::share::lease::{AgentWords, Lease};
use gpuquota_quota::share::scheduler::Scheduler;
use gpuquota_quota::share::wait::Cause;
use gpuquota_quota::share::{
    Books, Busy, Clock, EventGap, Gate, InFlight, Measurement, Measurements, Observation, Predictor, Rate,
    Recorder, Step, Submission, Work, clock,
};

use crate::card::{Card, Crossing, Tail};
use crate::gpu::Gpu;
use crate::program::{Call, Kernel, Program};
use crate::random::Random;

pub const US: u64 = 1_000;
pub const MS: u64 = 1_000_000;
pub const SECOND: u64 = 1_000_000_000;

/// When every run begins: not at zero, as no machine does.
pub const START: u64 = 1_000 * SECOND;

/// Processes that one world can have.
const PROCESSES: usize = 32;

/// The words of a container, as its region holds them.
#[derive(Default)]
pub struct Container {
    /// Percent; 0 and 100 for no limit.
    pub cores: u32,
    /// The percentage of the device's time that it is to have beside others; 0 for the share.
    pub request: u32,
    /// Whether it may exceed its share while others leave the device idle.
    pub may_burst: bool,
    /// Whether a limits file sets its share.
    pub by_file: bool,
    virtual_time: AtomicU64,
    idle_at: AtomicU64,
    idle_ns: AtomicU64,
    rate: AtomicU64,
    largest_charge_ns: AtomicU64,
    pub clamped: AtomicU64,
    busy_until: AtomicU64,
    known_from: AtomicU64,
    gaps: [AtomicU64; GAPS],
    in_flight_until: AtomicU64,
    /// GPU time charged.
    pub gpu_time_ns: AtomicU64,
    lease: u64,
    asked_at: AtomicU64,
    in_flight_ns: AtomicU64,
    uncertainty_ns: AtomicU64,
    processes: usize,
}

impl Container {
    fn books<'b>(&'b self, pending_ns: &'b AtomicU64) -> Books<'b> {
        let Self { virtual_time, idle_at, idle_ns, rate, largest_charge_ns, clamped, .. } = self;
        Books {
            clock: Clock { virtual_time, idle_at, idle_ns, rate, largest_charge_ns, clamped },
            busy: Busy { until: &self.busy_until, known_from: &self.known_from, gaps: &self.gaps },
            in_flight_until: &self.in_flight_until,
            gpu_time_ns: &self.gpu_time_ns,
            pending_ns,
            rate: Rate::new(self.cores),
            has_peers: self.processes > 1,
            agent: AgentWords {
                lease: Lease::read(self.lease),
                enforces_share: !self.by_file,
                asked_at: &self.asked_at,
                in_flight_ns: &self.in_flight_ns,
                uncertainty_ns: &self.uncertainty_ns,
            },
        }
    }

    /// A launch waits for a lease, and is never made.
    pub fn asks_in_vain(&self, now: u64) {
        self.asked_at.store(now, Relaxed);
    }

    /// What the agent sees of the container.
    fn demand(&self, now: u64) -> Demand {
        let rate = Rate::new(self.cores);
        let budget = |rate| clock::budget_ns(self.virtual_time.load(Relaxed), now, rate);
        Demand {
            weight: self.request,
            total_ns: self.gpu_time_ns.load(Relaxed),
            asked_at_ns: self.asked_at.load(Relaxed),
            until_ns: self.in_flight_until.load(Relaxed),
            in_flight_ns: self.in_flight_ns.load(Relaxed),
            uncertainty_ns: self.uncertainty_ns.load(Relaxed),
            percent: rate.filter(|_| !self.may_burst).map(|_| self.cores),
            budget_ns: rate.map_or(0, budget),
        }
    }
}

/// The library's state in a process.
struct Process<'p> {
    container: usize,
    context: usize,
    predictor: &'p Predictor,
    in_flight: InFlight,
    measurements: Measurements<usize>,
    /// By pair of events: the launch that it was last recorded around.
    recorded: Vec<Recorded>,
    event_gap: EventGap,
    /// What is at the end of each stream, and which kernels were launched before.
    tails: Vec<Option<Tail>>,
    known: HashSet<u64>,
    pending_ns: AtomicU64,
    last_launch: u64,
    alive: bool,
}

/// A launch between two events.
#[derive(Clone, Copy)]
struct Recorded {
    kernel: usize,
    /// On its way to a card, where there is one.
    crossing: Option<Crossing>,
}

/// A launch whose call has not returned.
struct Calling<'p> {
    gate: Box<Gate<'p>>,
    passage: Passage<usize, ()>,
    crossing: Crossing,
    measured: bool,
}

enum State<'p> {
    Ready,
    Calling(Box<Calling<'p>>),
    /// It waits for the device.
    Synchronized,
    /// It sleeps before a launch, for this cause.
    Launching(Box<Gate<'p>>, Kernel, Cause),
}

struct Thread<'p> {
    process: usize,
    program: Program,
    state: State<'p>,
    /// The last kernel that it launched into each stream.
    last: Vec<usize>,
    /// Kernels that it waits for.
    awaits: usize,
    launches: u64,
    asked_at: u64,
    longest_wait: u64,
    /// When it acts next.
    due_at: u64,
}

/// How an agent may let containers share a device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ways {
    /// One after the other.
    Turns,
    /// By turns or beside each other, as more work is done.
    Both,
}

impl Ways {
    pub const ALL: [Self; 2] = [Self::Turns, Self::Both];

    /// Each of these, with either way.
    pub fn with<T: Copy>(each: impl IntoIterator<Item = T>) -> impl Iterator<Item = (T, Self)> {
        each.into_iter().flat_map(|one| Self::ALL.map(|ways| (one, ways)))
    }
}

/// How the host behaves.
#[derive(Clone, Copy, Debug)]
pub struct Host {
    /// A launch call lasts so long.
    pub launch_ns: u64,
    /// A sleep lasts up to this much longer than asked for,
    pub late_ns: u64,
    /// and one in five hundred this much longer.
    pub hiccup_ns: u64,
    /// What a card and its driver take beside kernels.
    pub card: Option<Card>,
}

impl Host {
    /// An idle machine.
    pub const CALM: Self = Self { launch_ns: 2 * US, late_ns: 80 * US, hiccup_ns: 0, card: None };
    /// A loaded one.
    pub const LOADED: Self = Self { launch_ns: 5 * US, late_ns: 200 * US, hiccup_ns: 5 * MS, card: None };
}

/// The node's agent.
struct Agent {
    scheduler: Scheduler,
    clients: Vec<Client>,
    looks_at: u64,
}

/// The simulated node.
pub struct World<'p> {
    pub gpu: Gpu,
    pub containers: Vec<Container>,
    predictors: std::slice::Iter<'p, Predictor>,
    processes: Vec<Process<'p>>,
    threads: Vec<Thread<'p>>,
    /// Which thread acts next, and when.
    due: BinaryHeap<Reverse<(u64, usize)>>,
    /// Kernels that threads wait for.
    awaited: Vec<(usize, usize)>,
    random: Random,
    seed: u64,
    host: Host,
    /// One in so many operations fails: launches, events, and attempts at the lock around the measurements; 0 for none.
    pub faults: u64,
    /// Nothing is measured, as where nothing limits.
    pub is_free: bool,
    /// Recorded if a test asks for it.
    pub surprises: Option<Surprises>,
    /// Recorded if a test asks for it: what the driver said of launches on a card.
    pub samples: Option<Vec<Sample>>,
    /// The node's agent, if there is one.
    agent: Option<Agent>,
    /// What tenants without a device write into their regions, whenever the agent looks.
    lies: Vec<Lie>,
}

/// What a tenant without a device writes when the clock says so much.
pub type Lie = fn(u64) -> Demand;

/// A measured launch on a card that is over.
pub struct Sample {
    pub key: u64,
    pub crossing: Crossing,
    pub submission: Submission,
    /// When its first event was, as far as the host knows.
    pub began_ns: Option<u64>,
    pub elapsed_ns: Option<u64>,
}

/// By how much the work in flight takes longer than it was charged, over time.
#[derive(Default)]
pub struct Surprises {
    open: Vec<Open>,
    now: u64,
    /// The highest of each ten milliseconds.
    pub highest: Vec<u64>,
    /// The most launches of one process that were in flight or not covered by a completed measurement.
    pub most_open: usize,
}

struct Open {
    process: usize,
    kernel: usize,
    key: u64,
    more: u64,
}

impl Surprises {
    fn launched(&mut self, at: u64, process: usize, kernel: usize, what: Kernel, predicted: u64) {
        let more = what.length.saturating_sub(predicted);
        self.open.push(Open { process, kernel, key: what.key, more });
        self.now += more;
        let bucket = ((at - START) / (10 * MS)) as usize;
        self.highest.resize(self.highest.len().max(bucket + 1), self.now - more);
        self.highest[bucket] = self.highest[bucket].max(self.now);
        let of_process = self.open.iter().filter(|open| open.process == process).count();
        self.most_open = self.most_open.max(of_process);
    }

    /// A measured launch is over, and with it those of its key before it.
    fn completed(&mut self, process: usize, kernel: usize, key: u64) {
        let covered = |open: &Open| open.process == process && open.key == key && open.kernel <= kernel;
        self.now -= self.open.iter().filter(|open| covered(open)).map(|open| open.more).sum::<u64>();
        self.open.retain(|open| !covered(open));
    }

    /// The highest within a window.
    pub fn within(&self, from: u64, to: u64) -> u64 {
        let bucket = |at: u64| (at.saturating_sub(START) / (10 * MS)) as usize;
        let last = bucket(to).min(self.highest.len().saturating_sub(1));
        self.highest[bucket(from).min(last)..=last].iter().copied().max().unwrap_or(0)
    }
}

/// Runs `body` in a world without anything in it.
pub fn world<T>(host: Host, seed: u64, body: impl FnOnce(&mut World<'_>) -> T) -> T {
    let predictors: Vec<Predictor> = (0..PROCESSES).map(|_| Predictor::default()).collect();
    body(&mut World {
        gpu: Gpu::new(START),
        containers: Vec::new(),
        predictors: predictors.iter(),
        processes: Vec::new(),
        threads: Vec::new(),
        due: BinaryHeap::new(),
        awaited: Vec::new(),
        random: Random::new(seed),
        seed,
        host,
        faults: 0,
        is_free: false,
        surprises: None,
        samples: None,
        agent: None,
        lies: Vec::new(),
    })
}

impl<'p> World<'p> {
    /// A container with a share in percent.
    pub fn container(&mut self, cores: u32) -> usize {
        self.containers.push(Container { cores, request: cores, ..Container::default() });
        self.containers.len() - 1
    }

    /// A process with these threads.
    pub fn process(&mut self, container: usize, programs: impl IntoIterator<Item = Program>) -> usize {
        self.containers[container].processes += 1;
        let process = self.processes.len();
        self.processes.push(Process {
            container,
            context: self.gpu.context(container),
            predictor: self.predictors.next().expect("no more processes than there are predictors"),
            in_flight: InFlight::default(),
            measurements: Measurements::default(),
            recorded: Vec::new(),
            event_gap: EventGap::default(),
            tails: Vec::new(),
            known: HashSet::new(),
            pending_ns: AtomicU64::new(0),
            last_launch: 0,
            alive: true,
        });
        for program in programs {
            let (thread, asked_at) = (self.threads.len(), self.gpu.now + self.random.below(MS));
            let (state, last) = (State::Ready, Vec::new());
            self.threads.push(Thread {
                process,
                program,
                state,
                last,
                awaits: 0,
                launches: 0,
                asked_at,
                longest_wait: 0,
                due_at: 0,
            });
            self.plan(asked_at, thread);
        }
        process
    }

    /// Kills a process and its work on the device; another process reaps it at once.
    pub fn kill(&mut self, process: usize) {
        let now = self.gpu.now;
        let Process { container, context, pending_ns, alive, last_launch, .. } = &mut self.processes[process];
        self.gpu.kill(*context);
        *alive = false;
        self.containers[*container].books(pending_ns).reap_pending(now, *last_launch);
    }

    /// The threads of a process run another program from the next call on.
    pub fn replace(&mut self, process: usize, program: impl Fn() -> Program) {
        self.threads.iter_mut().filter(|thread| thread.process == process).for_each(|thread| {
            thread.program = program();
        });
    }

    /// A stream's handle is an address, and another one in each run.
    fn handle(&self, process: usize, stream: usize) -> u64 {
        let number = self.seed.wrapping_mul(1_000_003) + (process * 1_000 + stream) as u64;
        Random::new(number).below(1 << 40) * 16
    }

    /// Launches of a process so far.
    pub fn launches(&self, process: usize) -> u64 {
        self.threads.iter().filter(|thread| thread.process == process).map(|thread| thread.launches).sum()
    }

    /// The longest time that a launch of a process has taken.
    pub fn longest_wait(&self, process: usize) -> u64 {
        let own = self.threads.iter().filter(|thread| thread.process == process);
        own.map(|thread| thread.longest_wait).max().unwrap_or(0)
    }

    /// Lets time pass until then.
    pub fn run(&mut self, until: u64) {
        loop {
            let host = self.due.peek().map_or(u64::MAX, |Reverse((at, _))| *at);
            let device = self.gpu.next_change().filter(|_| !self.awaited.is_empty()).unwrap_or(u64::MAX);
            let look = self.agent.as_ref().map_or(u64::MAX, |agent| agent.looks_at);
            let next = host.min(device).min(look).min(until);
            self.gpu.advance(next);
            self.wake_synchronized();
            if next == look {
                self.look();
            }
            if next == until {
                return;
            }
            if next == host
                && let Some(Reverse((_, thread))) = self.due.pop()
                && self.threads[thread].due_at == host
                && self.processes[self.threads[thread].process].alive
            {
                // An earlier plan for the same moment is none any more.
                self.threads[thread].due_at = u64::MAX;
                self.act(thread);
            }
        }
    }

    fn plan(&mut self, at: u64, thread: usize) {
        self.threads[thread].due_at = at;
        self.due.push(Reverse((at, thread)));
    }

    /// Starts the agent, which gives turns.
    pub fn agent(&mut self, ways: Ways) {
        self.agent_with(match ways {
            Ways::Turns => Scheduler::of_turns(),
            Ways::Both => Scheduler::default(),
        });
    }

    fn agent_with(&mut self, scheduler: Scheduler) {
        let clients = self.containers.iter().map(|one| Client::new(one.gpu_time_ns.load(Relaxed)));
        let (mut clients, looks_at): (Vec<Client>, u64) = (clients.collect(), self.gpu.now);
        clients.extend(self.lies.iter().map(|_| Client::new(0)));
        self.agent = Some(Agent { scheduler, clients, looks_at });
    }

    /// So many tenants without a device, each with a region that says this; the agent comes after them.
    pub fn lie(&mut self, tenants: usize, lie: Lie) {
        self.lies.extend(std::iter::repeat_n(lie, tenants));
    }

    /// Stops the agent, and lets its leases time out.
    pub fn no_agent(&mut self) {
        self.agent = None;
        self.containers.iter_mut().for_each(|container| container.lease = 0);
    }

    /// For how long a container had the device while others waited, as the agent counts it.
    pub fn held_ns(&self, container: usize) -> u64 {
        self.agent.as_ref().map_or(0, |agent| agent.clients[container].held_ns)
    }

    /// The agent looks at the containers' demand, and writes their leases.
    fn look(&mut self) {
        let now = self.gpu.now;
        let Some(Agent { scheduler, clients, looks_at }) = &mut self.agent else { return };
        for (client, container) in clients.iter_mut().zip(&self.containers) {
            client.see(container.demand(now), now);
        }
        for (client, lie) in clients.iter_mut().skip(self.containers.len()).zip(&self.lies) {
            client.see(lie(now), now);
        }
        *looks_at = scheduler.look(clients, now).max(now + 1) + self.random.below(self.host.late_ns);
        let mut changed = Vec::new();
        for (number, (client, container)) in clients.iter().zip(&mut self.containers).enumerate() {
            let word = client.lease.map_or(0, Lease::word);
            if container.lease != word {
                container.lease = word;
                changed.push(number);
            }
        }
        changed.into_iter().for_each(|container| self.wake_waiting(container));
    }

    /// Wakes the launches that wait for a lease.
    fn wake_waiting(&mut self, container: usize) {
        for number in 0..self.threads.len() {
            let thread = &self.threads[number];
            let waits = matches!(thread.state, State::Launching(_, _, Cause::Lease(_)));
            if waits && self.processes[thread.process].container == container {
                let at = self.gpu.now + self.random.below(self.host.late_ns);
                if at < thread.due_at {
                    self.plan(at, number);
                }
            }
        }
    }

    /// Wakes the threads that waited for kernels that have ended.
    fn wake_synchronized(&mut self) {
        for kernel in std::mem::take(&mut self.gpu.ended) {
            while let Some(at) = self.awaited.iter().position(|(awaited, _)| *awaited == kernel) {
                let (_, thread) = self.awaited.swap_remove(at);
                self.threads[thread].awaits -= 1;
                if self.threads[thread].awaits == 0 {
                    let late = 5 * US + self.random.below(20 * US);
                    self.plan(self.gpu.now + late, thread);
                }
            }
        }
    }

    fn act(&mut self, number: usize) {
        let now = self.gpu.now;
        let thread = &mut self.threads[number];
        match std::mem::replace(&mut thread.state, State::Ready) {
            State::Synchronized => {
                self.complete(self.threads[number].process);
                self.plan(now + US, number);
            }
            State::Calling(calling) => self.returned(number, *calling),
            State::Launching(gate, kernel, _) => {
                self.complete(self.threads[number].process);
                self.step(number, gate, kernel);
            }
            State::Ready => match (thread.program)(&mut self.random) {
                Call::Host(ns) => self.plan(now + ns, number),
                Call::Synchronize => self.synchronize(number),
                Call::Launch(kernel) => {
                    thread.asked_at = now;
                    let index = thread.process;
                    if self.processes[index].in_flight.is_due(now) {
                        self.complete(index);
                    }
                    let process = &self.processes[index];
                    let (stream, context) = (self.handle(index, kernel.stream), context_of(index));
                    let work = Work { key: kernel.key, stream, context, device: 0 };
                    let gate = Box::new(Gate::new(now, work, process.predictor, &process.in_flight));
                    self.step(number, gate, kernel);
                }
            },
        }
    }

    fn synchronize(&mut self, number: usize) {
        let thread = &mut self.threads[number];
        let open = thread.last.iter().filter(|kernel| self.gpu.records[**kernel].end.is_none());
        let before = self.awaited.len();
        self.awaited.extend(open.map(|kernel| (*kernel, number)));
        thread.awaits = self.awaited.len() - before;
        thread.state = State::Synchronized;
        if thread.awaits == 0 {
            self.plan(self.gpu.now + US, number);
        }
    }

    /// Steps a launch: it sleeps or goes.
    fn step(&mut self, number: usize, mut gate: Box<Gate<'p>>, kernel: Kernel) {
        let now = self.gpu.now;
        let index = self.threads[number].process;
        let process = &self.processes[index];
        let books = self.containers[process.container].books(&process.pending_ns);
        match gate.step(now, &process.in_flight, &books) {
            Step::Sleep { until_ns, cause } => {
                let hiccup =
                    if self.random.below(500) == 0 { self.random.below(self.host.hiccup_ns) } else { 0 };
                let late = self.random.below(self.host.late_ns) + hiccup;
                self.plan(until_ns + late, number);
                self.threads[number].state = State::Launching(gate, kernel, cause);
            }
            Step::Behind => {
                gate.go_behind(now, &books, 0);
                self.launch(number, gate, kernel);
            }
            Step::Go => self.launch(number, gate, kernel),
        }
    }

    fn launch(&mut self, number: usize, gate: Box<Gate<'p>>, kernel: Kernel) {
        let Self { gpu, containers, processes, threads, random, faults, host, is_free, .. } = self;
        let (now, thread) = (gpu.now, &mut threads[number]);
        let index = thread.process;
        let process = &mut processes[index];
        let books = containers[process.container].books(&process.pending_ns);
        let (kernel_id, predicted) = (gpu.records.len(), gate.predicted_ns());
        let mut events = Events {
            now,
            context: context_of(index),
            launched: Recorded { kernel: kernel_id, crossing: None },
            submission: Submission::default(),
            measurements: &mut process.measurements,
            recorded: &mut process.recorded,
            random,
            faults: *faults,
            is_free: *is_free,
            measured: false,
        };
        process.last_launch = now;
        let passage = gate.begin(now, &process.in_flight, &books, &mut events);
        let accepted = !events.fails();
        let measured = events.measured;
        match host.card.filter(|_| accepted) {
            None => {
                if accepted {
                    gpu.launch(process.context, kernel);
                }
                gate.end(passage, accepted, &process.in_flight, &books, &mut events);
            }
            Some(card) => {
                process.tails.resize(process.tails.len().max(kernel.stream + 1), None);
                let before = (process.tails[kernel.stream], process.known.insert(kernel.key));
                let crossing = card.launch(gpu, (process.context, kernel), before, measured, random);
                process.tails[kernel.stream] = Some(Tail { kernel: kernel_id, measured });
                thread.state = State::Calling(Box::new(Calling { gate, passage, crossing, measured }));
            }
        }
        if accepted {
            if let Some(surprises) = &mut self.surprises {
                surprises.launched(now, index, kernel_id, kernel, predicted);
            }
            thread.last.resize(thread.last.len().max(kernel.stream + 1), 0);
            thread.last[kernel.stream] = kernel_id;
            thread.launches += 1;
            thread.longest_wait = thread.longest_wait.max(now - thread.asked_at);
        }
        let returns = match &thread.state {
            State::Calling(calling) => calling.crossing.returned,
            _ => now + host.launch_ns,
        };
        self.plan(returns, number);
    }

    /// A launch call has returned on a card.
    fn returned(&mut self, number: usize, calling: Calling<'p>) {
        let Self { gpu, containers, processes, threads, random, faults, host, is_free, .. } = self;
        let index = threads[number].process;
        let process = &mut processes[index];
        let Calling { gate, passage, crossing, measured } = calling;
        let submission = crossing.submission(gpu);
        let card = host.card.unwrap_or(Card::H200);
        if measured && process.event_gap.wants_probe() && !submission.over {
            process.event_gap.add(card.probe(random));
        }
        let books = containers[process.container].books(&process.pending_ns);
        let mut events = Events {
            now: gpu.now,
            context: context_of(index),
            launched: Recorded { kernel: crossing.kernel, crossing: Some(crossing) },
            submission,
            measurements: &mut process.measurements,
            recorded: &mut process.recorded,
            random,
            faults: *faults,
            is_free: *is_free,
            measured,
        };
        gate.end(passage, true, &process.in_flight, &books, &mut events);
        // A query and the second event; later, a query that finds it over, and how far both lie apart.
        let measuring = if measured { 3 * card.query + card.record } else { 0 };
        self.plan(self.gpu.now + measuring, number);
    }

    fn complete(&mut self, index: usize) {
        if fails(&mut self.random, self.faults) {
            return;
        }
        let Self { gpu, containers, processes, surprises, samples, .. } = self;
        let Process {
            container, predictor, in_flight, measurements, recorded, pending_ns, event_gap, ..
        } = &mut processes[index];
        let (in_flight, books) = (&*in_flight, containers[*container].books(pending_ns));
        let observe = |measurement: &Measurement<usize>, whole| {
            let launch = recorded[measurement.events];
            let kernel = launch.kernel;
            let observation = observe(gpu, &launch, index, whole, event_gap.ns());
            if let (Observation::Over { began_ns, elapsed_ns, .. }, Some(samples), Some(crossing)) =
                (observation, samples.as_mut(), &launch.crossing)
            {
                let (key, submission) = (measurement.work.key, measurement.submission);
                samples.push(Sample { key, crossing: *crossing, submission, began_ns, elapsed_ns });
            }
            if let (Observation::Over { .. }, Some(surprises)) = (observation, surprises.as_mut()) {
                surprises.completed(index, kernel, measurement.work.key);
            }
            observation
        };
        measurements.complete(gpu.now, predictor, |_| Some((in_flight, books)), observe);
    }

    /// The predicted time of a process's measured launches in flight, and whether none is.
    pub fn pending(&self, process: usize) -> (u64, bool) {
        let process = &self.processes[process];
        (process.pending_ns.load(Relaxed), process.in_flight.is_idle())
    }
}

/// The handle of a process's context; not 0.
fn context_of(process: usize) -> u64 {
    process as u64 + 1
}

/// Whether an operation fails, where one in `faults` does.
fn fails(random: &mut Random, faults: u64) -> bool {
    faults != 0 && random.below(faults) == 0
}

/// The events around one launch.
struct Events<'w> {
    now: u64,
    context: u64,
    launched: Recorded,
    submission: Submission,
    measured: bool,
    measurements: &'w mut Measurements<usize>,
    recorded: &'w mut Vec<Recorded>,
    random: &'w mut Random,
    faults: u64,
    is_free: bool,
}

impl Events<'_> {
    fn fails(&mut self) -> bool {
        fails(self.random, self.faults)
    }
}

impl Recorder for Events<'_> {
    type Events = usize;
    type Begun = ();

    fn now_ns(&self) -> u64 {
        self.now
    }

    fn random(&mut self, _: u64) -> u64 {
        self.random.next() >> 44
    }

    fn acquire(&mut self) -> Option<usize> {
        if self.is_free || self.fails() {
            return None;
        }
        let recorded = &mut *self.recorded;
        self.measurements.acquire(self.context, || {
            recorded.push(Recorded { kernel: usize::MAX, crossing: None });
            Some(recorded.len() - 1)
        })
    }

    fn begin(&mut self, _: usize, _: u64) -> Option<()> {
        self.measured = !self.fails();
        self.measured.then_some(())
    }

    fn end(&mut self, events: usize, (): ()) -> Option<Submission> {
        self.recorded[events] = self.launched;
        (!self.fails()).then_some(self.submission)
    }

    fn insert(&mut self, measurement: Measurement<usize>, in_flight: &InFlight) -> bool {
        let inserted = !self.fails() && self.measurements.insert(measurement, in_flight);
        assert!(inserted || self.faults != 0);
        inserted
    }

    fn recycle(&mut self, events: usize) {
        if !self.fails() {
            self.measurements.recycle(events, self.context);
        }
    }

    fn destroy(&mut self, _: usize) {}
}

/// What a driver's events tell of a launch: their grain is half a microsecond, and their time on the host's clock is known
/// to a microsecond.
fn observe(gpu: &Gpu, launch: &Recorded, process: usize, whole: bool, between_ns: u64) -> Observation {
    let (start, end) = match &launch.crossing {
        None => (gpu.records[launch.kernel].start, gpu.records[launch.kernel].end),
        Some(crossing) => (crossing.first_event(&gpu.records), crossing.second_event(&gpu.records)),
    };
    let passed = |at: &u64| *at <= gpu.now;
    let (start, end) = (start.filter(passed), end.filter(passed));
    let grain = if launch.crossing.is_some() { 32 } else { 500 };
    let chance = |salt: usize, span: u64| Random::new((launch.kernel * 7 + salt) as u64).below(span);
    let quarter = start.unwrap_or(0) / (SECOND / 4);
    let clock = Random::new(quarter * 1_000 + process as u64).below(2 * US);
    let began_ns = start.map(|start| start + clock + chance(1, grain) - US - grain / 2);
    let length = |start: u64, end: u64| (end - start + chance(2, grain)).saturating_sub(grain / 2);
    match (end, began_ns.filter(|_| whole)) {
        (Some(end), began_ns) => {
            Observation::Over { began_ns, elapsed_ns: start.map(|start| length(start, end)), between_ns }
        }
        (None, Some(began_ns)) => Observation::Running { began_ns },
        (None, None) => Observation::Waiting,
    }
}
