//! Takes the figures: programs on one simulated machine, with the sides of each comparison alternately.

use std::process::{Command, Stdio};
use std::time::Instant;

use gpuquota_bench::gate::{CALLS, gate, said};
use gpuquota_bench::peers::{Library, Limits, Peer, Side, in_turn};
use gpuquota_promises::{Lost, Machine, Scratch, Setting, artifact, program};

/// One comparison with every figure of every round.
pub struct Row {
    /// The calls or programs that it measures.
    pub name: &'static str,
    /// Nanoseconds without the library, one figure per round.
    pub without: Vec<f64>,
    /// Nanoseconds with it.
    pub with: Vec<f64>,
    /// The same with each of the other libraries that the command line names in its place; none where no peer is measured.
    pub peers: Vec<Side<f64>>,
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

/// The limits under which calls are measured.
const CAPPED: Limits = Limits { cores: None, memory: Some(40) };

/// All comparisons, in the order of the table.
pub fn all(rounds: usize, peers: &[Peer]) -> Vec<Row> {
    let machine = Machine::new("H100");
    let homes: Vec<_> = peers.iter().map(|_| Scratch::new()).collect();
    let ours =
        |limits| Library::Ours.container(&machine, limits, &Scratch::new()).expect("ours needs no mounts");
    let shared = Ok(ours(Limits { cores: Some(99), ..CAPPED }));
    let mut sides = vec![Ok(machine.bare()), Ok(ours(CAPPED))];
    sides.extend(peers.iter().zip(&homes).map(|(peer, home)| peer.container(&machine, CAPPED, home)));
    let sides: Vec<_> = sides.iter().collect();
    let mut calls = in_turn(rounds, &[&sides[..], &[&shared]].concat(), gate);
    let launches = calls.pop().expect("the last side");
    let column = |side: &Side<Vec<f64>>, call: usize| -> Side<f64> {
        side.clone().map(|rounds| rounds.iter().map(|round| round[call]).collect())
    };
    let mut rows: Vec<_> = CALLS
        .iter()
        .enumerate()
        .map(|(at, call)| Row {
            name: call.name,
            without: column(&calls[0], at).unwrap_or_else(|why| panic!("without a library: {why}")),
            with: column(&calls[1], at).unwrap_or_else(|why| panic!("with ours: {why}")),
            peers: calls[2..].iter().map(|side| column(side, at)).collect(),
            goal: Goal::Adds(call.goal_ns),
        })
        .collect();
    let launch = CALLS.iter().position(|call| call.key == "launch").expect("it is in the list");
    let shared = Row {
        name: "cuLaunchKernel, 99% share",
        without: rows[launch].without.clone(),
        with: column(&launches, launch).unwrap_or_else(|why| panic!("with ours: {why}")),
        peers: Vec::new(),
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
    fn row(&self, rounds: usize, sides: &[&Result<Setting<'_>, String>]) -> Row {
        // With a million living allocations a peer whose frees search a list would take hours.
        let sides = if self.arguments[1].len() < 6 { sides } else { &sides[..2] };
        let mut figures = in_turn(rounds, sides, |side| self.run(side)).into_iter();
        let mut next = |who: &str| {
            let side = figures.next().expect("a side for each library");
            side.unwrap_or_else(|why| panic!("{}, {who}: {why}", self.name))
        };
        let (without, with) = (next("without a library"), next("with ours"));
        Row { name: self.name, without, with, peers: figures.collect(), goal: Goal::Adds(60.0) }
    }

    /// The mean of its processes.
    fn run(&self, side: &Setting<'_>) -> Result<f64, Lost> {
        let mut all: Vec<_> = (0..self.processes).map(|_| side.start("pairs", &self.arguments)).collect();
        all.iter_mut().try_for_each(|one| one.hear("ready").map(drop))?;
        all.iter_mut().for_each(|one| one.tell("go"));
        let each = all.into_iter().map(|one| Ok(said(&one.try_finish()?, "pair")));
        Ok(each.sum::<Result<f64, Lost>>()? / self.processes as f64)
    }
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
            peers: Vec::new(),
            goal: Goal::None,
        },
        Row { name: "/bin/true", without, with: ours, peers: Vec::new(), goal: Goal::TimesEmpty(2.0) },
    ]
}
