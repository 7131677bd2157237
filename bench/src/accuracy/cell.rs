//! One cell of the grid: its programs, their shares, and the event in the middle.

use std::time::Duration;

/// How long kernels take, in nanoseconds.
#[derive(Clone, Debug)]
pub enum Kernels {
    /// All kernels equally long.
    Each(u64),
    /// 32 lengths, from half of this to one and a half times this.
    Around(u64),
    /// These lengths.
    Mix(&'static [u64]),
}

impl Kernels {
    /// The kernels' names, by which the simulator knows their lengths.
    pub fn names(&self) -> String {
        let all: Vec<u64> = match self {
            Self::Each(length) => vec![*length],
            Self::Around(length) => (0..32).map(|step| length / 2 + length * step / 31).collect(),
            Self::Mix(lengths) => lengths.to_vec(),
        };
        all.iter().map(|ns| format!("busy_{ns}ns")).collect::<Vec<_>>().join(",")
    }

    pub fn longest(&self) -> u64 {
        match self {
            Self::Each(length) => *length,
            Self::Around(length) => length * 3 / 2,
            Self::Mix(lengths) => lengths.iter().copied().max().unwrap_or(0),
        }
    }

    pub fn describe(&self) -> String {
        match self {
            Self::Each(length) => time(*length),
            Self::Around(length) => format!("{} +-50%", time(*length)),
            Self::Mix(lengths) => lengths.iter().map(|ns| time(*ns)).collect::<Vec<_>>().join(", "),
        }
    }
}

fn time(ns: u64) -> String {
    match ns {
        0..1_000_000 => format!("{} us", ns / 1_000),
        _ => format!("{} ms", ns / 1_000_000),
    }
}

/// The event in the middle of a cell.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Event {
    Nothing,
    /// `gpuquota limit`; the figures after it count.
    LimitChanged(u32),
    /// A kill of one of the processes.
    Killed,
    /// A stop of the node's agent.
    AgentStopped,
}

/// The mode in which several kernels are one launch.
pub const GRAPH: &str = "graph";

/// The mode with a training loop of PyTorch's; one rule gives the lengths of its kernels.
pub const PYTORCH: &str = "PyTorch loop";

/// One cell.
#[derive(Clone, Debug)]
pub struct Cell {
    pub kernels: Kernels,
    /// The mode, in the spelling of the program `accuracy`.
    pub way: &'static str,
    /// The share of each container, in percent.
    pub shares: Vec<u32>,
    /// Whether shares are caps; otherwise idle time is lent.
    pub fixed: bool,
    /// Whether the device's calls and switches take no time.
    pub ideal: bool,
    /// Whether the streams of a process share one hardware queue, so that they wait for each other.
    pub aliased: bool,
    /// Whether its programs have half of a processor together, by a CPU limit.
    pub paced: bool,
    /// The processes of each container.
    pub processes: usize,
    pub event: Event,
    /// The grid of a launch. Some libraries charge by it, whatever a kernel takes.
    pub blocks: u32,
    /// Whether controllers get three seconds before the observation, in which they come from far off.
    pub settled: bool,
    /// How long the device is observed.
    pub seconds: u64,
}

/// The grid of a launch where nothing else is said. On an H100 a kernel of 1 ms has some 3,000 blocks where it multiplies
/// matrices in tiles of 128 x 128, and some 260,000 where it adds arrays.
const BLOCKS: u32 = 1 << 14;

impl Cell {
    pub fn new(kernels: Kernels, way: &'static str, share: u32) -> Self {
        let cell = Self {
            kernels,
            way,
            shares: vec![share],
            fixed: true,
            ideal: false,
            aliased: false,
            paced: false,
            processes: 1,
            event: Event::Nothing,
            blocks: BLOCKS,
            settled: false,
            seconds: 8,
        };
        if cell.longest() > 50_000_000 { cell.seconds(20) } else { cell }
    }

    pub fn processes(self, processes: usize) -> Self {
        Self { processes, ..self }
    }

    pub fn containers(self, shares: &[u32]) -> Self {
        Self { shares: shares.to_vec(), ..self }
    }

    /// Lets all streams of a process share one hardware queue.
    pub fn aliased(self) -> Self {
        Self { aliased: true, ..self }
    }

    /// Sets a CPU limit of half a processor.
    pub fn paced(self) -> Self {
        Self { paced: true, ..self }
    }

    /// Lets the containers use idle time.
    pub fn lending(self) -> Self {
        Self { fixed: false, ..self }
    }

    pub fn event(self, event: Event) -> Self {
        Self { event, ..self }
    }

    pub fn blocks(self, blocks: u32) -> Self {
        Self { blocks, ..self }
    }

    pub fn settled(self) -> Self {
        Self { settled: true, ..self }
    }

    pub fn seconds(self, seconds: u64) -> Self {
        Self { seconds, ..self }
    }

    /// The launches that a program makes before it waits: as many as take some tens of milliseconds.
    pub fn ahead(&self) -> u64 {
        let most = if self.way == GRAPH { 8 } else { 64 };
        (40_000_000 / self.kernels.longest()).clamp(1, most)
    }

    /// The length of the longest launch, nanoseconds; a graph is one launch.
    pub fn longest(&self) -> u64 {
        self.kernels.longest() * if self.way == GRAPH { self.ahead() } else { 1 }
    }

    /// How long a cell runs before the observation. By then the containers have paid for their first launches, whose lengths
    /// no measurement had predicted.
    pub fn settling(&self) -> Duration {
        // The agent looks for new regions every two seconds.
        let found = if self.shares.len() > 1 || self.settled { 3_000 } else { 1_500 };
        Duration::from_millis(found) + Duration::from_nanos(6 * self.longest())
    }

    /// The use that a container should have during the observation, in percent.
    pub fn share(&self, container: usize) -> f64 {
        match self.event {
            Event::LimitChanged(share) => share.into(),
            _ if self.fixed => self.shares[container].into(),
            _ => 100.0 * f64::from(self.shares[container]) / f64::from(self.shares.iter().sum::<u32>()),
        }
    }

    /// The use that all containers together should have.
    pub fn due(&self) -> f64 {
        (0..self.shares.len()).map(|container| self.share(container)).sum()
    }

    /// Whether its containers wait for each kernel beside each other, so that they cannot fill the device: they are to do as much
    /// together as without a limit, each its part of that.
    pub fn waits_beside_others(&self) -> bool {
        self.way == "sync" && self.shares.len() > 1
    }

    /// Whether another library can run this cell: it needs no part of ours.
    pub fn suits_peers(&self) -> bool {
        matches!(self.event, Event::Nothing | Event::Killed) && self.fixed
    }

    /// The largest error of a window of a second, in points. Between containers a quantum of 10 ms is added, because a lease
    /// may have just begun.
    pub fn window_goal(&self) -> f64 {
        if self.waits_beside_others() {
            return f64::INFINITY;
        }
        let alone = match self.longest() {
            0..=5_000_000 => 1.0,
            5_000_001..=10_000_000 => 2.0,
            longest => (10_000_000 + longest) as f64 / 1e7,
        };
        alone + if self.shares.len() > 1 { 1.0 } else { 0.0 }
    }

    /// How busy the device has to be, in percent of the shares: for containers whose shares together are the whole device, and
    /// that keep it so busy without a limit.
    pub fn busy_goal(&self, uncapped: f64) -> f64 {
        if self.waits_beside_others() {
            return 0.97 * uncapped;
        }
        let most = if self.ideal { 98.0 } else { 97.0 };
        if self.shares.len() > 1 && self.due() > 99.5 { most } else { 0.0 }
    }

    /// The largest error of the mean, in points: 0.5, 0.2 where calls take no time, or 1.5 beside other containers, and one
    /// kernel of the observed time.
    pub fn mean_goal(&self) -> f64 {
        // Between containers that each could use up the device: 1.5 points; 2 where they cannot.
        let least = match (self.shares.len(), self.ideal) {
            _ if self.waits_beside_others() => 2.0,
            (2.., _) => 1.5,
            (_, true) => 0.2,
            (_, false) => 0.5,
        };
        least + 100.0 * self.longest() as f64 / (self.seconds as f64 * 1e9)
    }

    pub fn name(&self) -> String {
        let shares: Vec<_> = self.shares.iter().map(|share| format!("{share}%")).collect();
        let mut name = format!("{}, {}, {}", self.kernels.describe(), self.way, shares.join(" : "));
        if self.aliased {
            name += ", one queue";
        }
        if self.paced {
            name += ", half a processor";
        }
        if !self.fixed {
            name += ", lent";
        }
        if self.blocks != BLOCKS {
            name += &format!(", {} blocks", self.blocks);
        }
        if self.processes > 1 {
            name += &format!(", {} processes", self.processes);
        }
        match self.event {
            Event::Nothing => {}
            Event::LimitChanged(share) => name += &format!(", then {share}%"),
            Event::Killed => name += ", one killed",
            Event::AgentStopped => name += ", agent stopped",
        }
        name
    }
}
