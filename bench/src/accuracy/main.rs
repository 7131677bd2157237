//! Is the share a share of time? Programs of many kinds under many shares on the simulated GPU, judged by the device's
//! own timeline, which shares nothing with the library's books. `make bench-accuracy` runs it.
//!
//! The device's calls and switches take what they take on a card; with `--ideal` they take no time.
//! `--quick` runs a few short cells once, `--full` the whole grid, `--like-for-like` a table with a column for each library:
//! shares, latencies, throughput, costs of calls and caps. `--peer NAME=LIBRARY`, as often as wanted, also measures another
//! library in the cells that it can run. Its name chooses its variables (`hami`, `vgpu-manager`); `--peer-env
//! "NAME=VALUE ..."` behind it replaces them. `--json FOLDER` writes table, plot and raw figures there. `--only WORD` runs
//! the cells with that word in their names. Each cell is the median of three rounds, or of those that `--rounds` says.

#![forbid(unsafe_code)]

mod cell;
mod grid;
mod like;
mod plot;
mod run;
mod table;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use cell::{Cell, PYTORCH};
use gpuquota_bench::peers::{self, Library, Peer};
use gpuquota_promises::CpuLimit;
use run::Figures;
use serde_json::Value;

/// The options of the command line.
#[derive(Default)]
struct Options {
    quick: bool,
    full: bool,
    like_for_like: bool,
    ideal: bool,
    rounds: Option<usize>,
    folder: Option<PathBuf>,
    peers: Vec<Peer>,
    only: String,
}

const USAGE: &str = "usage: gpuquota-accuracy [--quick | --full | --like-for-like] [--ideal] [--rounds N] [--only WORD] [--json FOLDER] \
                     [--peer NAME=LIBRARY [--peer-env \"NAME=VALUE ...\"]]...";

fn options() -> Result<Options, String> {
    let mut options = Options::default();
    let mut arguments = std::env::args().skip(1);
    while let Some(flag) = arguments.next() {
        match flag.as_str() {
            "--quick" => options.quick = true,
            "--full" => options.full = true,
            "--ideal" => options.ideal = true,
            "--like-for-like" => options.like_for_like = true,
            "--rounds" => {
                let rounds = arguments.next().ok_or(USAGE)?;
                let rounds: Option<usize> = rounds.parse().ok().filter(|rounds| (1..=99).contains(rounds));
                options.rounds = Some(rounds.ok_or("--rounds takes a number from 1 to 99")?);
            }
            "--json" => options.folder = Some(arguments.next().ok_or(USAGE)?.into()),
            "--only" => options.only = arguments.next().ok_or(USAGE)?,
            _ if peers::option(&mut options.peers, &flag, arguments.next())? => {}
            _ => return Err(USAGE.into()),
        }
    }
    Ok(options)
}

fn main() -> ExitCode {
    let options = match options() {
        Ok(options) => options,
        Err(why) => {
            eprintln!("gpuquota-accuracy: {why}");
            return ExitCode::from(2);
        }
    };
    let mut cells = match (options.quick, options.like_for_like) {
        (true, _) => grid::quick(),
        (_, true) => grid::like_for_like(),
        _ => grid::cells(options.full),
    };
    cells.retain(|cell| cell.name().contains(&options.only));
    cells.iter_mut().for_each(|cell| cell.ideal = options.ideal);
    let rounds = options.rounds.unwrap_or(if options.quick { 1 } else { 3 });
    let rows = measure(&cells, rounds, &options.peers);
    let (mut text, mut further) = (table::table(&rows, &options.peers), Value::Null);
    if options.like_for_like {
        let measured = like::measure(options.ideal, &options.peers, rounds);
        text = like::table(&rows, &measured, &options.peers) + "\n" + &text;
        further = like::raw(&measured, &options.peers);
    } else if !options.quick {
        text += &table::losses(&run::losses(options.ideal, &[Library::Ours], 15));
    }
    print!("{text}");
    if let Some(folder) = options.folder
        && let Err(why) = table::write(&folder, &rows, further, &text, &plot::svg(&rows))
    {
        eprintln!("gpuquota-accuracy: {}: {why}", folder.display());
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

/// One cell and its results.
pub struct Row<'c> {
    /// The cell.
    pub cell: &'c Cell,
    /// How busy the device is without a limit, in percent.
    pub uncapped: f64,
    /// Whether this machine lacks what it needs.
    pub cannot: bool,
    /// Each round under our library,
    pub ours: Vec<Figures>,
    /// and under each peer.
    pub peers: Vec<Side>,
}

/// A peer's part of a cell.
pub struct Side {
    /// Its name.
    pub name: String,
    /// Each round, or why it cannot run the cell.
    pub rounds: Result<Vec<Figures>, String>,
}

/// All cells, some at a time.
fn measure<'c>(cells: &'c [Cell], rounds: usize, peers: &[Peer]) -> Vec<Row<'c>> {
    let (next, done) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let processors = thread::available_parallelism().map_or(1, usize::from);
    // What calls take is the processor's time: a program needs one of its own, and so does the device.
    let at_once =
        if cells.iter().all(|cell| cell.ideal) { processors.min(4) } else { (processors / 2).max(1) };
    thread::scope(|scope| {
        for _ in 0..at_once {
            scope.spawn(|| {
                while let Some((at, cell)) = next_of(cells, &next) {
                    let row = row(cell, rounds, peers);
                    eprintln!("{}", table::line(&row));
                    done.lock().expect("no panic").push((at, row));
                }
            });
        }
    });
    let mut rows = done.into_inner().expect("no panic");
    rows.sort_by_key(|(at, _)| *at);
    rows.into_iter().map(|(_, row)| row).collect()
}

fn next_of<'c>(cells: &'c [Cell], next: &AtomicUsize) -> Option<(usize, &'c Cell)> {
    let at = next.fetch_add(1, Ordering::Relaxed);
    cells.get(at).map(|cell| (at, cell))
}

fn row<'c>(cell: &'c Cell, rounds: usize, peers: &[Peer]) -> Row<'c> {
    let cannot = cell.way == PYTORCH && run::python().is_none() || cell.paced && CpuLimit::half().is_none();
    let uncapped = if cannot { 0.0 } else { run::uncapped(cell) };
    // A program cannot get more than it uses without a limit. Several containers have to fill the device.
    let filled = if cell.ideal { 98.0 } else { 90.0 };
    let enough = match cell.shares.len() {
        _ if cell.waits_beside_others() => 0.0,
        1 => 1.1 * cell.due(),
        _ => filled,
    };
    let rounds = if uncapped >= enough { rounds } else { 0 };
    let suits = rounds > 0 && cell.suits_peers();
    let side = |peer: &Peer| Side { name: peer.name.clone(), rounds: Ok(Vec::new()) };
    let sides = peers.iter().filter(|_| suits).map(side).collect();
    let mut row = Row { cell, uncapped, cannot, ours: Vec::new(), peers: sides };
    for _ in 0..rounds {
        let figures = run::run(cell, Library::Ours);
        row.ours.push(figures.unwrap_or_else(|why| panic!("{}: {why}", cell.name())));
        // A peer that has failed is not tried again: to hang takes long.
        for (peer, side) in peers.iter().zip(&mut row.peers) {
            if let Ok(rounds) = &mut side.rounds {
                match run::run(cell, Library::Peer(peer)) {
                    Ok(figures) => rounds.push(figures),
                    Err(why) => side.rounds = Err(why),
                }
            }
        }
    }
    row
}
