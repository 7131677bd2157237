//! Runs a cell, and reads from the device every tenth of a second the time that each container has used.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use gpuquota_promises::{Agent, CpuLimit, Machine, Program, Scratch, Setting, client, fetched, program};

use crate::cell::{Cell, Event, PYTORCH};

/// The time between two readings of the device.
const STEP: Duration = Duration::from_millis(100);
const SECOND: f64 = 1e9;

/// HAMi's variables, which set the share of its library and of those modelled on it.
const HAMI: &str = "CUDA_DEVICE_SM_LIMIT={cores} CUDA_DEVICE_MEMORY_SHARED_CACHE={region} \
                    GPU_CORE_UTILIZATION_POLICY=force LIBCUDA_LOG_LEVEL=0";

/// A library that enforces a share, and the variables that set it.
pub struct Library {
    /// `None` for ours.
    peer: Option<(PathBuf, String)>,
}

impl Library {
    pub fn ours() -> Self {
        Self { peer: None }
    }

    pub fn peer(path: PathBuf, variables: Option<&str>) -> Self {
        Self { peer: Some((path, variables.unwrap_or(HAMI).to_owned())) }
    }

    /// A container on a machine.
    fn container<'m>(&self, machine: &'m Machine, cell: &Cell, cores: u32, home: &Scratch) -> Setting<'m> {
        let Some((path, variables)) = &self.peer else {
            let policy = if cell.fixed { "fixed-share" } else { "burst-share" };
            return machine.quota().cores(cores).with("GPUQUOTA_POLICY", policy);
        };
        let region = home.path().join("peer.cache").display().to_string();
        let setting = machine.bare().preloading(path.clone(), true);
        variables.split_whitespace().filter_map(|word| word.split_once('=')).fold(
            setting,
            |setting, (name, value)| {
                setting.with(name, value.replace("{cores}", &cores.to_string()).replace("{region}", &region))
            },
        )
    }
}

/// The figures of one run of a cell.
#[derive(Clone, Default)]
pub struct Figures {
    /// The use of each container, in percent.
    pub means: Vec<f64>,
    /// The largest error of any window of a second in any container, in points.
    pub window: f64,
    /// How busy the device was, in percent.
    pub busy: f64,
    /// Nanoseconds that 99 of 100 launches took at most, of the slowest process.
    pub p99_ns: f64,
    /// The first container's use of each tenth of a second, in percent.
    pub timeline: Vec<f64>,
}

/// A reading: the device's clock, and the busy time of each container, nanoseconds.
type Sample = (f64, Vec<f64>);

/// An H100 whose calls and switches take what they take on a card, or no time.
fn machine(ideal: bool) -> Machine {
    if ideal { Machine::new("H100") } else { Machine::of_the_field("H100", &[]) }
}

/// Runs a cell once under a library.
pub fn run(cell: &Cell, library: &Library) -> Figures {
    let machine = machine(cell.ideal);
    let homes: Vec<_> = cell.shares.iter().map(|_| Scratch::new()).collect();
    let containers: Vec<_> = cell
        .shares
        .iter()
        .zip(&homes)
        .map(|(share, home)| library.container(&machine, cell, *share, home))
        .collect();
    watch(&machine, cell, &containers)
}

/// How busy the same programs keep the device without any limit, in percent.
pub fn uncapped(cell: &Cell) -> f64 {
    let short = Cell { seconds: 1, event: Event::Nothing, ..cell.clone() };
    let machine = machine(cell.ideal);
    let containers: Vec<_> = cell.shares.iter().map(|_| machine.bare()).collect();
    watch(&machine, &short, &containers).busy
}

fn watch(machine: &Machine, cell: &Cell, containers: &[Setting<'_>]) -> Figures {
    let lasts = cell.settling() + Duration::from_secs(cell.seconds + 1);
    let seconds = format!("{:.1}", lasts.as_secs_f64());
    let ahead = cell.ahead().to_string();
    // A program with an end of its own is over before a busy host has looked for the last time.
    let arguments = [&cell.kernels.names(), "told", cell.way, &ahead];
    let path = program("accuracy").display().to_string();
    let aliased: Vec<&str> = ["CUDA_DEVICE_MAX_CONNECTIONS=1", &path].into_iter().chain(arguments).collect();
    // Only our own regions have folders of their own, and only several containers need an agent.
    let homes: Vec<_> = containers.iter().filter_map(Setting::folder).collect();
    let agent = (homes.len() > 1 || cell.event == Event::AgentStopped).then(|| Agent::of(&homes));
    let limit = cell.paced.then(CpuLimit::half).flatten();
    let start = |container: &Setting<'_>| -> Vec<Program> {
        let command = || match (cell.way == PYTORCH).then(python).flatten() {
            Some(python) => torch(container, &python, cell, &seconds),
            None if cell.aliased => container.command("env", &aliased),
            None => container.command(program("accuracy"), &arguments),
        };
        let limited = || limit.as_ref().map_or_else(command, |limit| limit.on(&command()));
        let one = || Program::start(limited()).timeout(lasts * 3 + Duration::from_secs(60));
        (0..cell.processes).map(|_| one()).collect()
    };
    let mut programs: Vec<Vec<Program>> = containers.iter().map(start).collect();
    let pids: Vec<Vec<i64>> = programs
        .iter_mut()
        .map(|container| container.iter_mut().map(|one| one.wait_for("ready")).collect())
        .collect();
    thread::sleep(cell.settling() / 2);
    match cell.event {
        Event::Nothing => {}
        Event::LimitChanged(share) => _ = containers[0].limit(&["--cores", &share.to_string()]).success(),
        Event::Killed => _ = programs[0].pop().map(Program::kill),
        Event::AgentStopped => agent.iter().for_each(Agent::stop),
    }
    thread::sleep(cell.settling() / 2);
    let samples = samples(machine, &pids, Duration::from_secs(cell.seconds));
    let ended = programs.into_iter().flatten().map(|one| one.finish().success().value("p99_ns") as f64);
    Figures { p99_ns: ended.fold(0.0, f64::max), ..figures(cell, &samples) }
}

/// The Python with PyTorch of the tests with real clients, if it is installed.
pub fn python() -> Option<PathBuf> {
    fetched("client-environment", "torch").ok().map(|home| home.join("bin/python3"))
}

/// A training loop whose kernels all take as long as the cell's.
fn torch(container: &Setting<'_>, python: &Path, cell: &Cell, seconds: &str) -> Command {
    let script = client("torch_loop.py").display().to_string();
    let rule = format!("CUDA_SIM_KERNEL=*={}ns", cell.kernels.longest());
    container.command("env", &[&rule, &python.display().to_string(), &script, seconds])
}

fn samples(machine: &Machine, pids: &[Vec<i64>], over: Duration) -> Vec<Sample> {
    let start = Instant::now();
    let mut samples = Vec::new();
    while start.elapsed() <= over + STEP {
        let truth = machine.truth();
        let busy = pids.iter().map(|pids| truth.busy_ns_of(pids) as f64).collect();
        samples.push((truth.clock_ns() as f64, busy));
        thread::sleep(STEP.saturating_sub(start.elapsed().saturating_sub(STEP * (samples.len() as u32 - 1))));
    }
    samples
}

fn figures(cell: &Cell, samples: &[Sample]) -> Figures {
    let (Some(first), Some(last)) = (samples.first(), samples.last()) else { return Figures::default() };
    let used = |from: &Sample, to: &Sample, at: usize| 100.0 * (to.1[at] - from.1[at]) / (to.0 - from.0);
    let containers = 0..cell.shares.len();
    let error = |from: &Sample| {
        let to = samples.iter().find(|to| to.0 - from.0 >= 0.98 * SECOND)?;
        Some(containers.clone().map(|at| (used(from, to, at) - cell.share(at)).abs()).fold(0.0, f64::max))
    };
    let means: Vec<_> = containers.clone().map(|at| used(first, last, at)).collect();
    Figures {
        window: samples.iter().filter_map(error).fold(0.0, f64::max),
        busy: means.iter().sum(),
        means,
        p99_ns: 0.0,
        timeline: samples.windows(2).map(|pair| used(&pair[0], &pair[1], 0)).collect(),
    }
}

/// A program without a limit: launches with the library, and without.
pub struct Loss {
    pub name: &'static str,
    pub without: Vec<f64>,
    pub with: Vec<f64>,
}

/// The library's cost in throughput for programs without a share.
pub fn losses(ideal: bool) -> Vec<Loss> {
    let loads = [("5 us, async", "busy_5us", "64"), ("1 ms, async", "busy_1ms", "40")];
    loads
        .map(|(name, kernel, ahead)| {
            let mut loss = Loss { name, without: Vec::new(), with: Vec::new() };
            // Many short rounds, because the machine's load changes.
            for _ in 0..15 {
                let machine = machine(ideal);
                let launches = |setting: Setting<'_>| {
                    let outcome = setting.run("accuracy", &[kernel, "1", "async", ahead]).success();
                    outcome.value("launches") as f64
                };
                loss.without.push(launches(machine.bare()));
                loss.with.push(launches(machine.quota().memory("40GiB")));
            }
            loss
        })
        .into()
}
