//! Takes the figures: programs on one simulated machine, with the sides of each comparison alternately.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use gpuquota_promises::{Machine, Outcome, Scratch, Setting, artifact, program};

/// One comparison with every figure of every round.
pub struct Row {
    /// The calls or programs that it measures.
    pub name: &'static str,
    /// Nanoseconds without the library, one figure per round.
    pub without: Vec<f64>,
    /// Nanoseconds with it.
    pub with: Vec<f64>,
    /// Nanoseconds with another library in its place, if the command line names one.
    pub peer: Vec<f64>,
    /// The most that it may add, in nanoseconds.
    pub goal: Goal,
}

/// The goal of a row.
#[derive(Clone, Copy)]
pub enum Goal {
    /// At most so many nanoseconds more.
    Adds(f64),
    /// At most so many times the nanoseconds that an empty preloaded library adds in the same rounds.
    TimesEmpty(f64),
    /// Shown for comparison only.
    None,
}

/// The keys that the program `gate` prints, the names of their rows, and the most nanoseconds that each may add.
const CALLS: [(&str, &str, f64); 6] = [
    ("pair", "cuMemAlloc + cuMemFree", 60.0),
    ("pair_live", "the same, 10,000 live", 60.0),
    ("any_pair_live", "any of 10,000 live", 60.0),
    ("info", "cuMemGetInfo", 20.0),
    ("launch", "cuLaunchKernel, no share", 5.0),
    ("init", "cuInit", 100_000.0),
];

/// All comparisons, in the order of the table.
pub fn all(rounds: usize, peer: Option<&Path>) -> Vec<Row> {
    let machine = Machine::new("H100");
    let mut sides =
        vec![machine.bare(), machine.quota().memory("40GiB"), machine.quota().memory("40GiB").cores(99)];
    let scratch = Scratch::new();
    sides.extend(peer.map(|library| {
        let region = scratch.path().join("peer.cache");
        let setting = machine.bare().preloading(library.to_owned(), true);
        let setting = setting.with("CUDA_DEVICE_MEMORY_SHARED_CACHE", region).with("LIBCUDA_LOG_LEVEL", "0");
        setting.with("CUDA_DEVICE_MEMORY_LIMIT", "40g")
    }));
    let mut figures: [Vec<Vec<f64>>; 4] = Default::default();
    for _ in 0..rounds {
        for (side, figures) in sides.iter().zip(&mut figures) {
            figures.push(gate(side));
        }
    }
    let column = |side: usize, call: usize| figures[side].iter().map(|round| round[call]).collect::<Vec<_>>();
    let mut rows: Vec<_> = CALLS
        .iter()
        .enumerate()
        .map(|(call, (_, name, goal))| Row {
            name,
            without: column(0, call),
            with: column(1, call),
            peer: column(3, call),
            goal: Goal::Adds(*goal),
        })
        .collect();
    let launch = CALLS.iter().position(|(key, ..)| *key == "launch").expect("it is in the list");
    let shared = Row {
        name: "cuLaunchKernel, 99% share",
        without: column(0, launch),
        with: column(2, launch),
        peer: Vec::new(),
        goal: Goal::Adds(60.0),
    };
    rows.insert(launch + 1, shared);
    rows.extend(LOADS.iter().map(|load| load.row(rounds.div_ceil(2), &sides)));
    rows.extend(exec(rounds * 40));
    rows
}

/// A pair of cuMemAlloc and cuMemFree under load: processor time, because there are fewer processors than threads.
struct Load {
    name: &'static str,
    processes: usize,
    /// The arguments of the program `pairs`: threads, living allocations, bytes, pairs.
    arguments: [&'static str; 4],
}

const LOADS: [Load; 6] = [
    Load { name: "pair, 10 live", processes: 1, arguments: ["1", "10", "4096", "300000"] },
    Load { name: "pair, 1,000,000 live", processes: 1, arguments: ["1", "1000000", "4096", "300000"] },
    Load { name: "pair of 64 MiB", processes: 1, arguments: ["1", "10", "67108864", "300000"] },
    Load { name: "pair, 8 threads", processes: 1, arguments: ["8", "10", "4096", "50000"] },
    Load { name: "pair, 8 processes", processes: 8, arguments: ["1", "10", "4096", "50000"] },
    Load { name: "pair, 8 processes of 8 threads", processes: 8, arguments: ["8", "10", "4096", "10000"] },
];

impl Load {
    fn row(&self, rounds: usize, sides: &[Setting<'_>]) -> Row {
        let mut figures: [Vec<f64>; 3] = Default::default();
        // Without the library, with it, and the peer.
        let sides: Vec<_> = match sides {
            // With a million living allocations a peer whose frees search a list would take hours.
            [without, with, _, peer] if self.arguments[1].len() < 6 => vec![without, with, peer],
            [without, with, ..] => vec![without, with],
            _ => Vec::new(),
        };
        for _ in 0..rounds {
            for (side, figures) in sides.iter().zip(&mut figures) {
                let mut all: Vec<_> =
                    (0..self.processes).map(|_| side.start("pairs", &self.arguments)).collect();
                all.iter_mut().for_each(|one| _ = one.wait_for("ready"));
                all.iter_mut().for_each(|one| one.tell("go"));
                let each = all.into_iter().map(|one| said(&one.finish().success(), "pair"));
                figures.push(each.sum::<f64>() / self.processes as f64);
            }
        }
        let [without, with, peer] = figures;
        Row { name: self.name, without, with, peer, goal: Goal::Adds(60.0) }
    }
}

/// A figure that a program prints.
fn said(outcome: &Outcome, key: &str) -> f64 {
    let lines = outcome.out.lines().filter_map(|line| line.split_once('='));
    let found = lines.filter(|(said, _)| *said == key).find_map(|(_, value)| value.parse().ok());
    found.unwrap_or_else(|| panic!("it does not say {key}: {outcome}"))
}

/// One run of the program `gate`: a figure for each of [`CALLS`].
fn gate(setting: &Setting<'_>) -> Vec<f64> {
    let outcome = setting.run("gate", &[]).success();
    CALLS.iter().map(|(key, ..)| said(&outcome, key)).collect()
}

/// The start of a program without CUDA: with nothing, an empty library and ours preloaded.
fn exec(rounds: usize) -> [Row; 2] {
    let (empty, ours) = (program("empty.so"), artifact("libgpuquota.so"));
    let mut figures: [Vec<f64>; 3] = Default::default();
    for _ in 0..rounds {
        for (library, figures) in [None, Some(&empty), Some(&ours)].into_iter().zip(&mut figures) {
            let mut command = Command::new("/bin/true");
            command.env_remove("LD_PRELOAD").stdin(Stdio::null());
            if let Some(library) = library {
                command.env("LD_PRELOAD", library);
            }
            let start = Instant::now();
            let status = command.status().expect("/bin/true is everywhere");
            assert!(status.success(), "{library:?}: {status}");
            figures.push(start.elapsed().as_nanos() as f64);
        }
    }
    let [without, empty, ours] = figures;
    [
        Row {
            name: "/bin/true, empty library",
            without: without.clone(),
            with: empty,
            peer: Vec::new(),
            goal: Goal::None,
        },
        Row { name: "/bin/true", without, with: ours, peer: Vec::new(), goal: Goal::TimesEmpty(2.0) },
    ]
}
