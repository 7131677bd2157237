//! What gpuquota costs: the same program with and without the library, in turn, in one run, on the simulated
//! GPU. `make bench` runs it; `--json FOLDER` also writes the
//! raw figures there, with the table and the machine.
//!
//! Absolute figures are the simulator's and this machine's; what counts is the difference within a run.

#![forbid(unsafe_code)]

mod measure;
mod report;

use std::path::PathBuf;
use std::process::ExitCode;

/// Rounds of every comparison; sides take turns within a round, so that a slow moment hits both.
const ROUNDS: usize = 11;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let folder = match (arguments.next(), arguments.next(), arguments.next()) {
        (None, None, None) => None,
        (Some(flag), Some(folder), None) if flag == "--json" => Some(PathBuf::from(folder)),
        _ => {
            eprintln!("usage: gpuquota-bench [--json FOLDER]");
            return ExitCode::from(2);
        }
    };
    let rows = measure::all(ROUNDS);
    let table = report::table(&rows);
    print!("{table}");
    if let Some(folder) = folder
        && let Err(why) = report::write(&folder, &rows, &table)
    {
        eprintln!("gpuquota-bench: {}: {why}", folder.display());
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}
