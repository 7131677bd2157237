//! Containers, processes and threads on one device, in virtual time. Launches go through `share::Launch`, landings
//! through `share::Flights`, on words as they lie in the region: the very code that the library drives on the real
//! clock. What is imitated is what surrounds it: sleeping, waking up too late, a driver's events.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use gpuquota_quota::share::busy::GAPS;
use gpuquota_quota::share::turn::{Turn, Words};
use gpuquota_quota::share::turns::{Tenant, Turns, Wants};
use gpuquota_quota::share::wait::Cause;
use gpuquota_quota::share::{
    Books, Busy, Clock, Flight, Flights, Launch, Place, Predictor, Rate, Seen, Step, Traffic, What, clock,
};

use crate::gpu::{Gpu, Record};
use crate::program::{Call, Kernel, Program};
use crate::random::Random;

pub const US: u64 = 1_000;
pub const MS: u64 = 1_000_000;
pub const SECOND: u64 = 1_000_000_000;

/// When every run begins: not at zero, as no machine does.
pub const START: u64 = 1_000 * SECOND;

/// Processes that one world can have.
const PROCESSES: usize = 32;

/// The words of a container, as they lie in its region.
#[derive(Default)]
pub struct Container {
    /// Percent; 0 and 100 for no limit.
    pub cores: u32,
    /// Percent of its turns.
    pub request: u32,
    /// Whether it may have what others leave.
    pub borrows: bool,
    /// Whether a limits file sets its share.
    pub by_file: bool,
    virtual_time: AtomicU64,
    idle_at: AtomicU64,
    idle_ns: AtomicU64,
    rate: AtomicU64,
    longest: AtomicU64,
    pub clamped: AtomicU64,
    busy_until: AtomicU64,
    known_from: AtomicU64,
    gaps: [AtomicU64; GAPS],
    until: AtomicU64,
    /// GPU time charged.
    pub gpu_time_ns: AtomicU64,
    turn: u64,
    asked_at: AtomicU64,
    in_flight_ns: AtomicU64,
    doubt_ns: AtomicU64,
    processes: usize,
}

impl Container {
    fn books<'b>(&'b self, pending_ns: &'b AtomicU64) -> Books<'b> {
        let Self { virtual_time, idle_at, idle_ns, rate, longest, clamped, .. } = self;
        Books {
            clock: Clock { virtual_time, idle_at, idle_ns, rate, longest, clamped },
            busy: Busy { until: &self.busy_until, known_from: &self.known_from, gaps: &self.gaps },
            until: &self.until,
            gpu_time_ns: &self.gpu_time_ns,
            pending_ns,
            rate: Rate::new(self.cores),
            company: self.processes > 1,
            turns: Words {
                turn: Turn::read(self.turn),
                keeps_share: !self.by_file,
                asked_at: &self.asked_at,
                in_flight_ns: &self.in_flight_ns,
                doubt_ns: &self.doubt_ns,
            },
        }
    }

    /// What the agent sees of it.
    fn wants(&self, now: u64) -> Wants {
        let rate = Rate::new(self.cores);
        let budget = |rate| clock::budget_ns(self.virtual_time.load(Relaxed), now, rate);
        Wants {
            weight: self.request,
            total_ns: self.gpu_time_ns.load(Relaxed),
            asked_at_ns: self.asked_at.load(Relaxed),
            until_ns: self.until.load(Relaxed),
            in_flight_ns: self.in_flight_ns.load(Relaxed),
            doubt_ns: self.doubt_ns.load(Relaxed),
            percent: rate.filter(|_| !self.borrows).map(|_| self.cores),
            budget_ns: rate.map_or(0, budget),
        }
    }
}

/// What the library keeps in a process.
struct Process<'p> {
    container: usize,
    context: usize,
    predictor: &'p Predictor,
    traffic: Traffic,
    flights: Flights<usize>,
    pending_ns: AtomicU64,
    last_launch: u64,
    alive: bool,
}

enum State<'p> {
    Ready,
    /// It has waited for the device.
    Synchronized,
    Launching(Launch<'p>, Kernel),
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
    /// When it does something next.
    due_at: u64,
}

/// How the host behaves.
#[derive(Clone, Copy, Debug)]
pub struct Host {
    /// A launch call.
    pub launch_ns: u64,
    /// A sleep lasts up to this much longer than asked for,
    pub late_ns: u64,
    /// and one in five hundred this much longer.
    pub hiccup_ns: u64,
}

impl Host {
    /// An idle machine.
    pub const CALM: Self = Self { launch_ns: 2 * US, late_ns: 80 * US, hiccup_ns: 0 };
    /// A loaded one.
    pub const LOADED: Self = Self { launch_ns: 5 * US, late_ns: 200 * US, hiccup_ns: 5 * MS };
}

/// The node's agent.
struct Agent {
    turns: Turns,
    tenants: Vec<Tenant>,
    looks_at: u64,
}

/// All of it.
pub struct World<'p> {
    pub gpu: Gpu,
    pub containers: Vec<Container>,
    predictors: std::slice::Iter<'p, Predictor>,
    processes: Vec<Process<'p>>,
    threads: Vec<Thread<'p>>,
    /// Who does something next.
    due: BinaryHeap<Reverse<(u64, usize)>>,
    /// Kernels that threads wait for.
    awaited: Vec<(usize, usize)>,
    random: Random,
    host: Host,
    /// Kept where a test asks for it.
    pub surprises: Option<Surprises>,
    /// The node's agent, if there is one.
    agent: Option<Agent>,
}

/// By how much what is in flight takes longer than it was charged, over time.
#[derive(Default)]
pub struct Surprises {
    open: Vec<Open>,
    now: u64,
    /// The highest of each ten milliseconds.
    pub highest: Vec<u64>,
    /// The most launches of one process that were in flight or not told of.
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

    /// A measured launch has landed: it tells of itself, and of those of its key before it.
    fn landed(&mut self, process: usize, kernel: usize, key: u64) {
        let told = |open: &Open| open.process == process && open.key == key && open.kernel <= kernel;
        self.now -= self.open.iter().filter(|open| told(open)).map(|open| open.more).sum::<u64>();
        self.open.retain(|open| !told(open));
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
        host,
        surprises: None,
        agent: None,
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
            traffic: Traffic::default(),
            flights: Flights::default(),
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

    /// Kills a process at once, and what it has on the device with it; another one finds it dead.
    pub fn kill(&mut self, process: usize) {
        let now = self.gpu.now;
        let Process { container, context, pending_ns, alive, last_launch, .. } = &mut self.processes[process];
        self.gpu.kill(*context);
        *alive = false;
        self.containers[*container].books(pending_ns).bury(now, *last_launch);
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
            self.wake();
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
                self.act(thread);
            }
        }
    }

    fn plan(&mut self, at: u64, thread: usize) {
        self.threads[thread].due_at = at;
        self.due.push(Reverse((at, thread)));
    }

    /// From now on there is an agent.
    pub fn agent(&mut self) {
        let tenants = self.containers.iter().map(|one| Tenant::new(one.gpu_time_ns.load(Relaxed)));
        let (tenants, looks_at) = (tenants.collect(), self.gpu.now);
        self.agent = Some(Agent { turns: Turns::default(), tenants, looks_at });
    }

    /// The agent is gone, and nobody believes any more what it said last.
    pub fn no_agent(&mut self) {
        self.agent = None;
        self.containers.iter_mut().for_each(|container| container.turn = 0);
    }

    /// For how long a container had the device while others waited, as the agent has it.
    pub fn held_ns(&self, container: usize) -> u64 {
        self.agent.as_ref().map_or(0, |agent| agent.tenants[container].held_ns)
    }

    /// The agent looks at what the containers want, and tells them whose turn it is.
    fn look(&mut self) {
        let now = self.gpu.now;
        let Some(Agent { turns, tenants, looks_at }) = &mut self.agent else { return };
        for (tenant, container) in tenants.iter_mut().zip(&self.containers) {
            tenant.see(container.wants(now), now);
        }
        *looks_at = turns.look(tenants, now).max(now + 1) + self.random.below(self.host.late_ns);
        let mut rung = Vec::new();
        for (number, (tenant, container)) in tenants.iter().zip(&mut self.containers).enumerate() {
            let word = tenant.turn.map_or(0, Turn::word);
            if container.turn != word {
                container.turn = word;
                rung.push(number);
            }
        }
        rung.into_iter().for_each(|container| self.ring(container));
    }

    /// Wakes the launches that wait for a turn.
    fn ring(&mut self, container: usize) {
        for number in 0..self.threads.len() {
            let thread = &self.threads[number];
            let waits = matches!(&thread.state, State::Launching(launch, _) if launch.wait.waits_for() == Some(Cause::Turn));
            if waits && self.processes[thread.process].container == container {
                let at = self.gpu.now + self.random.below(self.host.late_ns);
                if at < thread.due_at {
                    self.plan(at, number);
                }
            }
        }
    }

    /// Wakes the threads that waited for what has ended.
    fn wake(&mut self) {
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
                self.settle(self.threads[number].process);
                self.plan(now + US, number);
            }
            State::Launching(launch, kernel) => {
                self.settle(self.threads[number].process);
                self.ask(number, launch, kernel);
            }
            State::Ready => match (thread.program)(&mut self.random) {
                Call::Host(ns) => self.plan(now + ns, number),
                Call::Synchronize => self.synchronize(number),
                Call::Launch(kernel) => {
                    thread.asked_at = now;
                    let index = thread.process;
                    if self.processes[index].traffic.is_due(now) {
                        self.settle(index);
                    }
                    let thread = &self.threads[number];
                    let process = &self.processes[thread.process];
                    let what = What { key: kernel.key, lane: kernel.stream as u64 + 1, device: 0 };
                    let launch = Launch::new(now, what, process.predictor, &process.traffic);
                    self.ask(number, launch, kernel);
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

    /// Asks whether a launch may go, and sleeps or lets it go.
    fn ask(&mut self, number: usize, mut launch: Launch<'p>, kernel: Kernel) {
        let now = self.gpu.now;
        let index = self.threads[number].process;
        let process = &self.processes[index];
        let books = self.containers[process.container].books(&process.pending_ns);
        let step = launch.step(now, &process.traffic, &books);
        if let Step::Nap { until_ns } = step {
            let hiccup = if self.random.below(500) == 0 { self.random.below(self.host.hiccup_ns) } else { 0 };
            let late = self.random.below(self.host.late_ns) + hiccup;
            self.plan(until_ns + late, number);
            self.threads[number].state = State::Launching(launch, kernel);
            return;
        }
        let measured = launch.depart(now, &process.traffic, &books);
        self.processes[index].last_launch = now;
        if measured {
            self.measure(index, &launch, kernel);
        } else {
            self.gpu.launch(self.processes[index].context, kernel);
        }
        let id = self.gpu.records.len() - 1;
        if let Some(surprises) = &mut self.surprises {
            surprises.launched(now, index, id, kernel, launch.predicted_ns());
        }
        let thread = &mut self.threads[number];
        thread.last.resize(thread.last.len().max(kernel.stream + 1), 0);
        thread.last[kernel.stream] = id;
        thread.launches += 1;
        thread.longest_wait = thread.longest_wait.max(now - thread.asked_at);
        self.plan(now + self.host.launch_ns, number);
    }

    fn measure(&mut self, index: usize, launch: &Launch<'p>, kernel: Kernel) {
        let now = self.gpu.now;
        let process = &mut self.processes[index];
        let place = process.flights.place(index as u64 + 1);
        let id = self.gpu.launch(process.context, kernel);
        match place {
            Some(Place::Used(_) | Place::Fresh) => {
                let books = self.containers[process.container].books(&process.pending_ns);
                let random = self.random.next() >> 44;
                let flight = launch.flight(id, index as u64 + 1, now, random, &process.traffic, &books);
                assert!(process.flights.enter(flight, &process.traffic));
            }
            None => launch.unmeasured(now, &process.traffic),
        }
    }

    fn settle(&mut self, index: usize) {
        let Self { gpu, containers, processes, surprises, .. } = self;
        let Process { container, predictor, traffic, flights, pending_ns, .. } = &mut processes[index];
        let (traffic, books) = (&*traffic, containers[*container].books(pending_ns));
        let look = |flight: &Flight<usize>, whole| {
            let seen = seen(gpu.records[flight.events], flight.events, index, whole);
            if let (Seen::Over { .. }, Some(surprises)) = (seen, surprises.as_mut()) {
                surprises.landed(index, flight.events, flight.key);
            }
            seen
        };
        flights.settle(gpu.now, predictor, |_| Some((traffic, books)), look);
    }
}

/// What a driver's events tell of a kernel: half a microsecond is their grain, and where they lie on the host's clock
/// is known to a microsecond.
fn seen(record: Record, kernel: usize, process: usize, whole: bool) -> Seen {
    let chance = |salt: usize, span: u64| Random::new((kernel * 7 + salt) as u64).below(span);
    let quarter = record.start.unwrap_or(0) / (SECOND / 4);
    let clock = Random::new(quarter * 1_000 + process as u64).below(2 * US);
    let since_ns = record.start.map(|start| start + clock + chance(1, 500) - US - 250);
    let length = |start: u64, end: u64| (end - start + chance(2, 500)).saturating_sub(250);
    match (record.end, since_ns.filter(|_| whole)) {
        (Some(end), since_ns) => {
            Seen::Over { since_ns, elapsed_ns: record.start.map(|start| length(start, end)) }
        }
        (None, Some(since_ns)) => Seen::Running { since_ns },
        (None, None) => Seen::Waiting,
    }
}
