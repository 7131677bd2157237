//! `gpuquota run`: any command under a quota, like nice or taskset.
//!
//! It finds the library, gives the container a region, sets the environment and steps aside: the exit status and
//! the signals are the command's. It never simulates a GPU, and where there is none it says so and starts the
//! command all the same.

mod child;
pub mod driver;
pub mod home;
pub mod library;
mod unheld;

use crate::asked::Asked;
use crate::error::Error;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

/// Run a command under a GPU quota.
#[derive(clap::Args)]
pub struct Run {
    /// Device memory that the command and all its children may hold together, such as 2GiB; with DEVICE= (an
    /// index or a UUID) for that device alone. May be given several times.
    #[arg(long, value_name = "[DEVICE=]SIZE")]
    memory: Vec<String>,

    /// Share of GPU time, such as 30%; with DEVICE= for that device alone. May be given several times.
    #[arg(long, value_name = "[DEVICE=]PERCENT")]
    cores: Vec<String>,

    /// Of it, what is guaranteed beside other containers, where the node's agent runs; what they leave may be had up to
    /// --cores. As --cores.
    #[arg(long, value_name = "[DEVICE=]PERCENT")]
    cores_request: Vec<String>,

    /// Devices that the command sees (CUDA_VISIBLE_DEVICES). May be given several times.
    #[arg(long, value_name = "LIST")]
    device: Vec<String>,

    /// What limits do: enforce them, observe (count what would be refused), or off.
    #[arg(long, value_parser = ["enforce", "observe", "off"])]
    mode: Option<String>,

    /// The region file; commands with the same one share one quota, and of their limits the strictest holds. Without it a fresh one is made, and removed
    /// when the command has ended.
    #[arg(long, value_name = "PATH")]
    region: Option<PathBuf>,

    /// The command and its arguments.
    #[arg(required = true, trailing_var_arg = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

impl Run {
    /// Runs the command; the exit status is the command's.
    pub fn run(self) -> Result<ExitCode, Error> {
        let asked = Asked::new(&self.memory, &self.cores, &self.cores_request, self.mode.as_deref());
        asked.limits()?;
        let library = library::find()?;
        let preload = library::preload(&library, std::env::var_os("LD_PRELOAD").as_deref())?;
        let region = match &self.region {
            Some(path) => home::Home::given(path)?,
            None => home::Home::fresh()?,
        };
        let (name, arguments) = self.command.split_first().expect("clap demands a command");
        if !driver::is_there() {
            eprintln!(
                "gpuquota: no NVIDIA driver here (libcuda.so.1 is not found); starting {name:?} all the same"
            );
        }
        let mut command = Command::new(name);
        command
            .args(arguments)
            .envs(asked.variables())
            .env("LD_PRELOAD", preload)
            .env("GPUQUOTA_REGION", region.path());
        if !self.device.is_empty() {
            command.env("CUDA_VISIBLE_DEVICES", self.device.join(","));
        }
        let watch = unheld::Watch::begin(&library);
        let ended = child::run(&mut command, name)?;
        drop(watch);
        // Before the signal that ended the command may end this process too.
        drop(region);
        Ok(ended.repeat())
    }
}
