//! One cell of the grid: what runs, under which shares, and what happens to it.

use std::time::Duration;

/// How long kernels take, in nanoseconds.
#[derive(Clone, Debug)]
pub enum Kernels {
    /// All alike.
    Each(u64),
    /// Half as long to half as long again, 32 of them.
    Around(u64),
    /// One of these.
    Mix(&'static [u64]),
}

impl Kernels {
    /// Their names, by which the simulator knows how long they take.
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

/// What happens in the middle.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Event {
    Nothing,
    /// `gpuquota limit`: what counts is what comes after.
    LimitChanged(u32),
    /// One of the processes is killed.
    Killed,
    /// The node's agent is stopped.
    AgentStopped,
}

/// The way of launching in which several kernels are one launch.
pub const GRAPH: &str = "graph";

/// The way of launching that is a training loop of PyTorch's; its kernels are known by one rule.
pub const PYTORCH: &str = "PyTorch loop";

/// One cell.
#[derive(Clone, Debug)]
pub struct Cell {
    pub kernels: Kernels,
    /// As the program `accuracy` takes it.
    pub way: &'static str,
    /// The share of each container, in percent.
    pub shares: Vec<u32>,
    /// Whether shares are caps; else what is left over is lent.
    pub fixed: bool,
    /// In each container.
    pub processes: usize,
    pub event: Event,
    /// How long it is watched.
    pub seconds: u64,
}

impl Cell {
    pub fn new(kernels: Kernels, way: &'static str, share: u32) -> Self {
        let cell = Self {
            kernels,
            way,
            shares: vec![share],
            fixed: true,
            processes: 1,
            event: Event::Nothing,
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

    /// What others leave may be had.
    pub fn lending(self) -> Self {
        Self { fixed: false, ..self }
    }

    pub fn event(self, event: Event) -> Self {
        Self { event, ..self }
    }

    pub fn seconds(self, seconds: u64) -> Self {
        Self { seconds, ..self }
    }

    /// How many launches a program makes before it waits: as many as take some tens of milliseconds.
    pub fn ahead(&self) -> u64 {
        let most = if self.way == GRAPH { 8 } else { 64 };
        (40_000_000 / self.kernels.longest()).clamp(1, most)
    }

    /// The longest that one launch takes, nanoseconds: a graph is one launch.
    pub fn longest(&self) -> u64 {
        self.kernels.longest() * if self.way == GRAPH { self.ahead() } else { 1 }
    }

    /// How long it runs before it is watched: what it owes for launches whose lengths nobody knew is then paid.
    pub fn settling(&self) -> Duration {
        // The agent looks for new regions every two seconds.
        let found = if self.shares.len() > 1 { 3_000 } else { 1_500 };
        Duration::from_millis(found) + Duration::from_nanos(6 * self.longest())
    }

    /// What a container should have while it is watched, in percent.
    pub fn share(&self, container: usize) -> f64 {
        match self.event {
            Event::LimitChanged(share) => share.into(),
            _ if self.fixed => self.shares[container].into(),
            _ => 100.0 * f64::from(self.shares[container]) / f64::from(self.shares.iter().sum::<u32>()),
        }
    }

    /// What all of them should have together.
    pub fn due(&self) -> f64 {
        (0..self.shares.len()).map(|container| self.share(container)).sum()
    }

    /// Whether another library can be put to it: nothing in it is ours.
    pub fn suits_peers(&self) -> bool {
        matches!(self.event, Event::Nothing | Event::Killed) && self.fixed
    }

    /// The most that a window of a second may be off, in points. Between containers a turn of 10 ms more: one may have just
    /// begun.
    pub fn window_goal(&self) -> f64 {
        let alone = match self.longest() {
            0..=5_000_000 => 1.0,
            5_000_001..=10_000_000 => 2.0,
            longest => (10_000_000 + longest) as f64 / 1e7,
        };
        alone + if self.shares.len() > 1 { 1.0 } else { 0.0 }
    }

    /// How busy the device has to be, in percent of what is due: between containers that together are due all of it.
    pub fn busy_goal(&self) -> f64 {
        if self.shares.len() > 1 && self.due() > 99.5 { 98.0 } else { 0.0 }
    }

    /// The most that the mean may be off, in points: 0.2, 1.5 beside other containers, and one kernel more or less of the
    /// time that it was watched.
    pub fn mean_goal(&self) -> f64 {
        // Between containers that each could use up the device: 1.5 points.
        let least = if self.shares.len() > 1 { 1.5 } else { 0.2 };
        least + 100.0 * self.longest() as f64 / (self.seconds as f64 * 1e9)
    }

    pub fn name(&self) -> String {
        let shares: Vec<_> = self.shares.iter().map(|share| format!("{share}%")).collect();
        let mut name = format!("{}, {}, {}", self.kernels.describe(), self.way, shares.join(" : "));
        if !self.fixed {
            name += ", lent";
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
