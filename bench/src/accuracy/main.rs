//! Is the share a share of time? Programs of many kinds under many shares on the simulated GPU, judged by the device's
//! own timeline, which shares nothing with the library's books. `make bench-accuracy` runs it.
//!
//! The device's calls and switches take what they take on a card; with `--ideal` they take no time.
//! `--quick` runs a few short cells once, `--full` the whole grid. `--peer LIBRARY` also measures another library in the cells
//! that it can run, under HAMi's variables or those of `--peer-env "NAME=VALUE ..."`, in which the bench replaces `{cores}`
//! and `{region}`. `--json FOLDER` writes table, plot and raw figures there. `--only WORD` runs the cells with that word in
//! their names.

#![forbid(unsafe_code)]

mod cell;
mod grid;
mod plot;
mod run;
mod table;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use cell::{Cell, PYTORCH};
use gpuquota_promises::CpuLimit;
use run::{Figures, Library};

/// The options of the command line.
#[derive(Default)]
struct Options {
    quick: bool,
    full: bool,
    ideal: bool,
    folder: Option<PathBuf>,
    peer: Option<PathBuf>,
    peer_variables: Option<String>,
    only: String,
}

fn options() -> Option<Options> {
    let mut options = Options::default();
    let mut arguments = std::env::args().skip(1);
    while let Some(flag) = arguments.next() {
        match flag.as_str() {
            "--quick" => options.quick = true,
            "--full" => options.full = true,
            "--ideal" => options.ideal = true,
            "--json" => options.folder = Some(arguments.next()?.into()),
            "--peer" => options.peer = Some(arguments.next()?.into()),
            "--peer-env" => options.peer_variables = Some(arguments.next()?),
            "--only" => options.only = arguments.next()?,
            _ => return None,
        }
    }
    Some(options)
}

fn main() -> ExitCode {
    let Some(options) = options() else {
        eprintln!(
            "usage: gpuquota-accuracy [--quick | --full] [--ideal] [--only WORD] [--json FOLDER] [--peer LIBRARY [--peer-env \
             \"NAME=VALUE ...\"]]"
        );
        return ExitCode::from(2);
    };
    let mut cells = if options.quick { grid::quick() } else { grid::cells(options.full) };
    cells.retain(|cell| cell.name().contains(&options.only));
    cells.iter_mut().for_each(|cell| cell.ideal = options.ideal);
    let rounds = if options.quick { 1 } else { 3 };
    let peer = options.peer.map(|path| Library::peer(path, options.peer_variables.as_deref()));
    let rows = measure(&cells, rounds, peer.as_ref());
    let losses = if options.quick { Vec::new() } else { run::losses(options.ideal) };
    let text = table::table(&rows, peer.is_some()) + &table::losses(&losses);
    print!("{text}");
    if let Some(folder) = options.folder
        && let Err(why) = table::write(&folder, &rows, &text, &plot::svg(&rows))
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
    /// and under the peer.
    pub peer: Vec<Figures>,
}

/// All cells, some at a time.
fn measure<'c>(cells: &'c [Cell], rounds: usize, peer: Option<&Library>) -> Vec<Row<'c>> {
    let (next, done) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let processors = thread::available_parallelism().map_or(1, usize::from);
    // What calls take is the processor's time: a program needs one of its own, and so does the device.
    let at_once =
        if cells.iter().all(|cell| cell.ideal) { processors.min(4) } else { (processors / 2).max(1) };
    thread::scope(|scope| {
        for _ in 0..at_once {
            scope.spawn(|| {
                while let Some((at, cell)) = next_of(cells, &next) {
                    let row = row(cell, rounds, peer);
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

fn row<'c>(cell: &'c Cell, rounds: usize, peer: Option<&Library>) -> Row<'c> {
    let cannot = cell.way == PYTORCH && run::python().is_none() || cell.paced && CpuLimit::half().is_none();
    let uncapped = if cannot { 0.0 } else { run::uncapped(cell) };
    let ours = Library::ours();
    // A program cannot get more than it uses without a limit. Several containers have to fill the device.
    let filled = if cell.ideal { 98.0 } else { 90.0 };
    let enough = if cell.shares.len() > 1 { filled } else { 1.1 * cell.due() };
    let rounds = if uncapped >= enough { rounds } else { 0 };
    let theirs = peer.filter(|_| cell.suits_peers());
    let mut row = Row { cell, uncapped, cannot, ours: Vec::new(), peer: Vec::new() };
    for _ in 0..rounds {
        row.ours.push(run::run(cell, &ours));
        row.peer.extend(theirs.map(|library| run::run(cell, library)));
    }
    row
}
