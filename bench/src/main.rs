//! The cost of gpuquota: the same program with and without the library, alternately, in one run, on the simulated GPU.
//! `make bench` runs it. `--json FOLDER` also writes the raw figures there, with the table and the machine.
//! `--peer NAME=LIBRARY`, as often as wanted, also measures another library in every round, under the same limit.
//!
//! Absolute figures depend on the simulator and this machine; the difference within a run counts.

#![forbid(unsafe_code)]

mod measure;
mod report;

use std::path::PathBuf;
use std::process::ExitCode;

use gpuquota_bench::peers;

/// Rounds of every comparison. The sides alternate within a round, so that a slow moment hits both.
const ROUNDS: usize = 11;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let (mut folder, mut peers) = (None, Vec::new());
    while let Some(flag) = arguments.next() {
        let value = arguments.next();
        let known = match (flag.as_str(), &value) {
            ("--json", Some(path)) => {
                folder = Some(PathBuf::from(path));
                Ok(true)
            }
            _ => peers::option(&mut peers, &flag, value),
        };
        match known {
            Ok(true) => {}
            Ok(false) => {
                eprintln!(
                    "usage: gpuquota-bench [--json FOLDER] [--peer NAME=LIBRARY [--peer-env \"NAME=VALUE ...\"]]..."
                );
                return ExitCode::from(2);
            }
            Err(why) => {
                eprintln!("gpuquota-bench: {why}");
                return ExitCode::from(2);
            }
        }
    }
    let rows = measure::all(ROUNDS, &peers);
    let table = report::table(&rows, &peers);
    print!("{table}");
    if let Some(folder) = folder
        && let Err(why) = report::write(&folder, &rows, &peers, &table)
    {
        eprintln!("gpuquota-bench: {}: {why}", folder.display());
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}
