//! The cost of gpuquota: the same program with and without the library, alternately, in one run, on the simulated GPU.
//! `make bench` runs it. `--json FOLDER` also writes the raw figures there, with the table and the machine.
//! `--peer LIBRARY` also measures another library in every round, under the same limit by HAMi's variables.
//!
//! Absolute figures depend on the simulator and this machine; the difference within a run counts.

#![forbid(unsafe_code)]

mod measure;
mod report;

use std::path::PathBuf;
use std::process::ExitCode;

/// Rounds of every comparison. The sides alternate within a round, so that a slow moment hits both.
const ROUNDS: usize = 11;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let (mut folder, mut peer) = (None, None);
    while let Some(flag) = arguments.next() {
        match (flag.to_str(), arguments.next()) {
            (Some("--json"), Some(path)) => folder = Some(PathBuf::from(path)),
            (Some("--peer"), Some(path)) => peer = Some(PathBuf::from(path)),
            _ => {
                eprintln!("usage: gpuquota-bench [--json FOLDER] [--peer LIBRARY]");
                return ExitCode::from(2);
            }
        }
    }
    let rows = measure::all(ROUNDS, peer.as_deref());
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
