//! `cuda-sim`: any command on a simulated machine, and what its devices themselves know.

mod description;
mod driver;
mod faults;
mod interference;
mod latency;
mod libdir;
mod profiles;
mod record;
mod run;
mod states;
mod truth;
mod values;
mod whereabouts;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use interference::Interference;

/// A simulated NVIDIA machine: libcuda.so.1 and libnvidia-ml.so.1 without a GPU.
#[derive(Parser)]
#[command(name = "cuda-sim", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs a command on a machine; a fresh one unless a state is named.
    Run {
        /// H100, H200, A100, T4, several of one (2xH100), split ones (H100-MIG-3g.40gb), or a machine file (./slow.toml).
        machine: String,
        /// Share the machine of this name with other commands; it stays until it is forgotten.
        #[arg(long)]
        state: Option<String>,
        /// How long kernels take by name: 'spin*=1ms'. Units: ns, us, ms, s. May be repeated.
        #[arg(long, value_name = "PATTERN=DURATION")]
        kernel: Vec<String>,
        /// Nothing takes time but work and what the machine file says.
        #[arg(long)]
        ideal: bool,
        #[command(flatten)]
        interference: Interference,
        /// The command.
        #[arg(last = true, required = true)]
        command: Vec<OsString>,
    },
    /// What the device itself knows: bytes held, highest total ever, busy time, kernels, by process.
    Truth {
        /// The machine's state; by default the one that this command runs on.
        #[arg(long)]
        state: Option<String>,
        /// For programs.
        #[arg(long)]
        json: bool,
    },
    /// Removes a named state.
    Forget {
        /// Its name.
        #[arg(long)]
        state: String,
    },
    /// Prints a machine file of the driver that is there, real or simulated, and of its devices.
    Record {
        /// Where its libraries lie, if programs here would find others.
        #[arg(long)]
        folder: Option<String>,
    },
    /// The folder of the two libraries.
    Libdir,
    /// A part of `record`, which may crash.
    #[command(hide = true)]
    CallWithNulls {
        first: usize,
        #[arg(long)]
        folder: Option<String>,
        #[arg(long)]
        with_context: bool,
    },
}

fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::Run { machine, state, kernel, ideal, interference, command } => {
            run::describe(&machine, ideal).and_then(|described| {
                let described = interference.on(run::with_kernels(described, &kernel)?);
                run::run(&described, state.as_deref(), interference.quota(), &command)
            })
        }
        Command::Truth { state, json } => truth::print(state.as_deref(), json).map(|()| ExitCode::SUCCESS),
        Command::Forget { state } => states::forget(&state).map(|()| ExitCode::SUCCESS),
        Command::Record { folder } => record::record(folder.as_deref()).map(|()| ExitCode::SUCCESS),
        Command::CallWithNulls { first, folder, with_context } => driver::Driver::load(folder.as_deref())
            .and_then(|driver| driver.call_with_nulls(first, with_context))
            .map(|()| ExitCode::SUCCESS),
        Command::Libdir => libdir::libdir().map(|path| {
            println!("{}", path.display());
            ExitCode::SUCCESS
        }),
    };
    done.unwrap_or_else(|message| {
        eprintln!("cuda-sim: {message}");
        ExitCode::from(2)
    })
}
