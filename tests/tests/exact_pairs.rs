//! What two containers do beside each other, as a table: as much work as without the library, and in the proportion of their
//! shares, on a device that interleaves kernels and on one that slices time. Cells that miss the goal are printed as missed;
//! none may be worse than its bound. Where the host serves the programs too late a cell is tried again, then skipped.

use std::fmt;
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use gpuquota_promises::{Agent, Host, Judge, Machine, Program, Readings, Setting, Verdict, trials};

fn main() -> ExitCode {
    trials(&[("pairs_do_as_much_as_without_the_library_in_the_proportion_of_their_shares", table)])
}

/// How the programs of a pair launch.
#[derive(Clone, Copy)]
struct Load {
    name: &'static str,
    /// Kernel, way, and how far a program launches ahead. The kernels fill the device.
    arguments: [&'static str; 3],
    /// By how many points the proportion was off at most when this was written.
    most_off: f64,
}

const fn load(name: &'static str, arguments: [&'static str; 3], most_off: f64) -> Load {
    Load { name, arguments, most_off }
}

const LOADS: [Load; 4] = [
    load("100 us, sync", ["work_100us", "plain", "1"], 45.0),
    load("1 ms, sync", ["work_1ms", "plain", "1"], 5.0),
    load("1 ms, ahead", ["work_1ms", "plain", "20"], 5.0),
    load("5 ms, sync", ["work_5ms", "plain", "1"], 5.0),
];
const SHARES: [[u32; 2]; 2] = [[50, 50], [30, 70]];
/// Until the agent has found new regions, which it looks for every two seconds.
const FOUND: Duration = Duration::from_secs(4);
const WATCHED: Duration = Duration::from_secs(3);

/// A pair of containers on a judge.
struct Cell {
    judge: Judge,
    load: Load,
    shares: [u32; 2],
    /// What both together have without the library.
    bare: f64,
    have: [f64; 2],
    /// For what part of the time a program waited for a processor, at most.
    unserved: f64,
}

impl Cell {
    /// The host served the programs, or they reached the goal all the same.
    fn counts(&self) -> bool {
        self.unserved < 5.0 || self.is_reached()
    }

    /// The work that they do, in percent of what they do without the library.
    fn kept(&self) -> f64 {
        100.0 * (self.have[0] + self.have[1]) / self.bare
    }

    /// By how many points the first one's part of that work differs from its share.
    fn off(&self) -> f64 {
        100.0 * self.have[0] / (self.have[0] + self.have[1]) - f64::from(self.shares[0])
    }

    /// The goal.
    fn is_reached(&self) -> bool {
        self.kept() >= 97.0 && self.off().abs() <= 2.0
    }

    /// What no version may exceed.
    fn is_bounded(&self) -> bool {
        self.kept() >= 75.0 && self.off().abs() <= self.load.most_off
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = match () {
            () if !self.counts() => "skipped: the host is busy",
            () if self.is_reached() => "reached",
            () if self.is_bounded() => "missed",
            () => "beyond its bound",
        };
        let (judge, [one, other], have) = (format!("{:?}", self.judge), self.shares, self.have);
        let (load, bare, kept, off) = (self.load.name, self.bare, self.kept(), self.off());
        write!(f, "{judge:12} {load:14} {one}:{other} {bare:6.2} {:6.2} {:6.2} ", have[0], have[1])?;
        write!(f, "{kept:7.1} {off:6.2} {:6.1}  {verdict}", self.unserved)
    }
}

/// What two programs have of a device, after a time to warm up, and for what part of it one waited for a processor.
fn have(machine: &Machine, settings: [&Setting<'_>; 2], load: Load, warm: Duration) -> ([f64; 2], f64) {
    let [kernel, way, ahead] = load.arguments;
    let mut programs: [Program; 2] =
        settings.map(|one| one.start("launch_loop", &[kernel, "told", way, ahead, "132"]));
    let pids = programs.each_mut().map(|one| one.wait_for("ready"));
    thread::sleep(warm);
    let mut readings = Readings::of(machine);
    let seen = readings.have(&pids, WATCHED);
    programs.into_iter().zip(pids).for_each(|(one, pid)| readings.agree(one, pid));
    ([seen[0], seen[1]], readings.unserved())
}

fn cell(judge: Judge, load: Load, shares: [u32; 2], (bare, late): (f64, f64)) -> Cell {
    let machine = judge.machine(Host::Usual);
    let containers = shares.map(|share| machine.quota().cores(share));
    let _agent = Agent::of(&containers.each_ref().map(|one| one.home()));
    let (have, unserved) = have(&machine, containers.each_ref(), load, FOUND);
    Cell { judge, load, shares, bare, have, unserved: unserved.max(late) }
}

fn bare(judge: Judge, load: Load) -> (f64, f64) {
    let machine = judge.machine(Host::Usual);
    let bare = machine.bare();
    let (have, unserved) = have(&machine, [&bare, &bare], load, Duration::from_secs(1));
    (have.iter().sum(), unserved)
}

fn table() -> Verdict {
    let mut cells = Vec::new();
    for judge in [Judge::Interleaving, Judge::Slicing] {
        for load in LOADS {
            let without = bare(judge, load);
            for shares in SHARES {
                let first = cell(judge, load, shares, without);
                let settled = first.counts() && first.is_reached();
                cells.push(if settled { first } else { cell(judge, load, shares, bare(judge, load)) });
            }
        }
    }
    println!("\n{:12} {:14} shares  bare    one  other  work, %  off, unserved", "judge", "load");
    cells.iter().for_each(|cell| println!("{cell}"));
    let counting: Vec<&Cell> = cells.iter().filter(|cell| cell.counts()).collect();
    let beyond: Vec<String> =
        counting.iter().filter(|cell| !cell.is_bounded()).map(|cell| cell.to_string()).collect();
    assert!(beyond.is_empty(), "beyond their bounds:\n{}", beyond.join("\n"));
    let missed = counting.iter().filter(|cell| !cell.is_reached()).count();
    Verdict::of_cells(cells.len(), missed, cells.len() - counting.len())
}
