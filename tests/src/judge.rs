//! Two judges of GPU time, written apart from each other: what a promise about it says must hold on both.

use std::panic::resume_unwind;
use std::path::Path;
use std::thread;

use crate::{Machine, Scratch, twice};

/// Whose device keeps the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judge {
    /// The simulator, on which calls take what they took on a real card.
    Simulator,
    /// The driver that keeps time (`drivers/timed.h`); kernels of all processes run as they come.
    Interleaving,
    /// The same; one process at a time has the device.
    Slicing,
}

/// What the machine's host is like.
#[derive(Clone, Copy, Debug)]
pub enum Host {
    /// Calls take as long as they mostly do.
    Usual,
    /// Each launch takes 60 us more, as on a host that is short of processors.
    SlowToLaunch,
    /// The first launch takes 400 ms more, because its code is not there yet.
    LoadsLate,
}

impl Judge {
    /// For what one process does: how the device is shared does not matter.
    pub const ALONE: [Self; 2] = [Self::Simulator, Self::Interleaving];
    /// For what several processes do.
    pub const ALL: [Self; 3] = [Self::Simulator, Self::Interleaving, Self::Slicing];

    /// A fresh machine of this judge. Kernels named like `work_50us` write down when they ran.
    pub fn machine(self, host: Host) -> Machine {
        let mode = match self {
            Self::Simulator => return simulated(host),
            Self::Interleaving => ("TIMED_MODE", "mps"),
            Self::Slicing => ("TIMED_MODE", "slices"),
        };
        match host {
            Host::Usual => Machine::timed(&[mode]),
            Host::SlowToLaunch => Machine::timed(&[mode, ("TIMED_LAUNCH_SLEEP", "60000")]),
            Host::LoadsLate => Machine::timed(&[mode, ("TIMED_MODULE", "400000000")]),
        }
    }
}

fn simulated(host: Host) -> Machine {
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../cuda-shim/machines/h200-latency.toml");
    let shipped = std::fs::read_to_string(shipped).expect("the simulator has it");
    let fault = match host {
        Host::Usual => "",
        Host::SlowToLaunch => "[[fault]]\ncall = \"cuLaunchKernel\"\ndelay = \"60us\"",
        Host::LoadsLate => "[[fault]]\ncall = \"cuLaunchKernel\"\nnth = 1\ndelay = \"400ms\"",
    };
    let rule = "[[kernel]]\npattern = \"work_*\"\nduration = \"1ns\"\nargument = 0\nstamps = 1";
    let scratch = Scratch::new();
    let file = scratch.file("judge.toml", format!("{shipped}\n{rule}\n{fault}\n"));
    Machine::new(file.to_str().expect("text"))
}

/// A promise about time that holds on each of these judges, tried at once as by [`twice`].
pub fn on_each<T: std::fmt::Debug>(
    judges: &[Judge],
    attempt: impl Fn(Judge) -> (T, bool) + Sync,
) -> Result<(), String> {
    let attempt = &attempt;
    let failed: Vec<String> = thread::scope(|scope| {
        let all: Vec<_> = judges
            .iter()
            .map(|judge| {
                scope.spawn(move || twice(|| attempt(*judge)).map_err(|why| format!("{judge:?}: {why}")))
            })
            .collect();
        all.into_iter().filter_map(|one| one.join().unwrap_or_else(|why| resume_unwind(why)).err()).collect()
    });
    if failed.is_empty() { Ok(()) } else { Err(failed.join("; ")) }
}
