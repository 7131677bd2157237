//! Runs a cell, and reads from the device every tenth of a second the time that each container has used.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use gpuquota_bench::peers::{Library, Limits};
use gpuquota_promises::{
    Agent, CpuLimit, Lost, Machine, Program, Scratch, Setting, client, fetched, program,
};

use crate::cell::{Cell, Event, PYTORCH};

/// The time between two readings of the device.
const STEP: Duration = Duration::from_millis(100);
const SECOND: f64 = 1e9;

/// How long a program with a peer may take to start, and to end: the cells leave it with less work than that.
const PATIENCE: Duration = Duration::from_secs(20);

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
    /// The same of requests: from the first launch before a wait until all are done.
    pub p99_request_ns: f64,
    /// The first container's use of each tenth of a second, in percent.
    pub timeline: Vec<f64>,
}

/// A reading: the device's clock, and the busy time of each container, nanoseconds.
type Sample = (f64, Vec<f64>);

/// An H100 whose calls and switches take what they take on a card, or no time.
pub fn machine(ideal: bool) -> Machine {
    if ideal { Machine::new("H100") } else { Machine::of_the_field("H100", &[]) }
}

/// Runs a cell once under a library; or says why the library cannot.
pub fn run(cell: &Cell, library: Library<'_>) -> Result<Figures, String> {
    if let Library::Peer(peer) = library
        && cell.shares.len() > 1
        && let Some(why) = peer.cannot_share()
    {
        return Err(why.into());
    }
    let machine = machine(cell.ideal);
    let homes: Vec<_> = cell.shares.iter().map(|_| Scratch::new()).collect();
    let container = |(share, home): (&u32, &Scratch)| {
        let container = library.container(&machine, Limits { cores: Some(*share), memory: None }, home)?;
        Ok(match library {
            Library::Ours => {
                container.with("GPUQUOTA_POLICY", if cell.fixed { "fixed-share" } else { "burst-share" })
            }
            _ => container,
        })
    };
    let containers: Result<Vec<_>, String> = cell.shares.iter().zip(&homes).map(container).collect();
    watch(&machine, cell, &containers?, library)
}

/// How busy the same programs keep the device without any limit, in percent.
pub fn uncapped(cell: &Cell) -> f64 {
    let short = Cell { seconds: 1, event: Event::Nothing, ..cell.clone() };
    let machine = machine(cell.ideal);
    let containers: Vec<_> = cell.shares.iter().map(|_| machine.bare()).collect();
    watch(&machine, &short, &containers, Library::None)
        .unwrap_or_else(|why| panic!("{}: {why}", cell.name()))
        .busy
}

fn watch(
    machine: &Machine,
    cell: &Cell,
    containers: &[Setting<'_>],
    library: Library<'_>,
) -> Result<Figures, String> {
    let lasts = cell.settling() + Duration::from_secs(cell.seconds + 1);
    let seconds = format!("{:.1}", lasts.as_secs_f64());
    let (ahead, blocks) = (cell.ahead().to_string(), cell.blocks.to_string());
    // A program with an end of its own is over before a busy host has looked for the last time.
    let arguments = [&cell.kernels.names(), "told", cell.way, &ahead, &blocks];
    let path = program("accuracy").display().to_string();
    let aliased: Vec<&str> = ["CUDA_DEVICE_MAX_CONNECTIONS=1", &path].into_iter().chain(arguments).collect();
    // Only our own regions have folders of their own, and only several containers need an agent.
    let homes: Vec<_> = containers.iter().filter_map(Setting::folder).collect();
    let agent = (homes.len() > 1 || cell.event == Event::AgentStopped).then(|| Agent::of(&homes));
    let limit = cell.paced.then(CpuLimit::half).flatten();
    let timeout = match library {
        Library::Peer(_) => lasts + PATIENCE,
        _ => lasts * 3 + Duration::from_secs(60),
    };
    let start = |container: &Setting<'_>| -> Vec<Program> {
        let command = || match (cell.way == PYTORCH).then(python).flatten() {
            Some(python) => torch(container, &python, cell, &seconds),
            None if cell.aliased => container.command("env", &aliased),
            None => container.command(program("accuracy"), &arguments),
        };
        let limited = || limit.as_ref().map_or_else(command, |limit| limit.on(&command()));
        (0..cell.processes).map(|_| Program::start(limited()).timeout(timeout)).collect()
    };
    let mut programs: Vec<Vec<Program>> = Vec::new();
    let mut pids: Vec<Vec<i64>> = Vec::new();
    // One container after the other, because HAMi's library takes the process that appears while it starts for its own.
    for container in containers {
        let mut all = start(container);
        let ready: Result<_, Lost> = all.iter_mut().map(|one| one.hear("ready")).collect();
        pids.push(ready.map_err(|why| format!("does not start: {why}"))?);
        programs.push(all);
    }
    thread::sleep(cell.settling() / 2);
    match cell.event {
        Event::Nothing => {}
        Event::LimitChanged(share) => _ = containers[0].limit(&["--cores", &share.to_string()]).success(),
        Event::Killed => _ = programs[0].pop().map(Program::kill),
        Event::AgentStopped => agent.iter().for_each(Agent::stop),
    }
    thread::sleep(cell.settling() / 2);
    let samples = samples(machine, &pids, Duration::from_secs(cell.seconds));
    let ended = programs.into_iter().flatten().map(Program::try_finish);
    let ended: Vec<_> = ended.collect::<Result<_, _>>().map_err(|why| why.to_string())?;
    let slowest = |key: &str| ended.iter().flat_map(|one| one.values(key)).max().unwrap_or(0) as f64;
    Ok(Figures {
        p99_ns: slowest("p99_ns"),
        p99_request_ns: slowest("p99_request_ns"),
        ..figures(cell, &samples)
    })
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
        p99_request_ns: 0.0,
        timeline: samples.windows(2).map(|pair| used(&pair[0], &pair[1], 0)).collect(),
    }
}

/// A program without a share: its launches without a library, and with one.
pub struct Loss<'p> {
    pub name: &'static str,
    pub library: Library<'p>,
    pub without: Vec<f64>,
    pub with: Result<Vec<f64>, String>,
}

/// What libraries cost in throughput where programs have no share.
pub fn losses<'p>(ideal: bool, libraries: &[Library<'p>], rounds: usize) -> Vec<Loss<'p>> {
    let loads = [("5 us, async", "busy_5us", "64"), ("1 ms, async", "busy_1ms", "40")];
    let capped = Limits { cores: None, memory: Some(40) };
    let launches = |library: Library<'_>, kernel: &str, ahead: &str| -> Result<f64, String> {
        let (machine, home) = (machine(ideal), Scratch::new());
        let container = library.container(&machine, capped, &home)?;
        let program = container.start("accuracy", &[kernel, "1", "async", ahead]);
        Ok(program.try_finish().map_err(|why| why.to_string())?.value("launches") as f64)
    };
    let mut all = Vec::new();
    for (name, kernel, ahead) in loads {
        let new = |library: &Library<'p>| Loss {
            name,
            library: *library,
            without: Vec::new(),
            with: Ok(Vec::new()),
        };
        let mut losses: Vec<_> = libraries.iter().map(new).collect();
        // Many short rounds, because the machine's load changes.
        for _ in 0..rounds {
            for loss in &mut losses {
                let Ok(with) = &mut loss.with else { continue };
                match launches(loss.library, kernel, ahead) {
                    Ok(figure) => {
                        with.push(figure);
                        let bare = launches(Library::None, kernel, ahead);
                        loss.without.push(bare.unwrap_or_else(|why| panic!("without a library: {why}")));
                    }
                    Err(why) => loss.with = Err(why),
                }
            }
        }
        all.extend(losses);
    }
    all
}
