//! Process ids as drivers tell them.
//!
//! A device knows its clients by the pids that they have in their own PID namespaces. What NVML makes of them has
//! changed (read from the open kernel modules):
//!
//! | driver | lists of processes | samples of utilisation |
//! |---|---|---|
//! | before 535.113 | the node's pids, of all processes | the node's pids |
//! | 535.113 to 565 | pids of the caller's namespace, of what it can see; in a container memory is 0 | the node's pids |
//! | from 570 | the same, memory right | pids of the caller's namespace where it can see them, else the node's |
//!
//! The node is the PID namespace in which the machine was made. The kernel tells which process is which: one of the
//! caller's /proc is the client if it calls itself by that pid and lives in that namespace. It does not tell a container
//! the pids of the node: for those that it cannot know this library makes up numbers that no process has.

use std::fs;

use cuda_shim_device::State;
use cuda_shim_device::state::namespace;

/// Above every pid of Linux.
const UNKNOWN: u32 = 1 << 22;

/// How a driver names processes to a caller.
pub struct Naming {
    node: u64,
    /// Whether the caller lives on the node itself.
    at_home: bool,
    /// The first two numbers of the driver's version.
    pub version: (u32, u32),
}

impl Naming {
    /// The naming of this machine's driver, for this process.
    pub fn of(state: &State) -> Self {
        let mut numbers = state.machine().driver_version.split('.').map(|number| number.parse().unwrap_or(0));
        let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
        let node = state.namespace();
        Self { node, at_home: namespace("self") == Some(node), version }
    }

    /// The pid of a process in a list; `None` if it is left out.
    pub fn listed(&self, process: (u32, u64)) -> Option<u32> {
        if self.version < (535, 113) { Some(self.of_node(process)) } else { seen(process) }
    }

    /// Whether the lists tell how much memory a process has.
    pub fn tells_memory(&self) -> bool {
        self.at_home || self.version < (535, 113) || self.version >= (570, 0)
    }

    /// The pid of a process in a sample.
    pub fn sampled(&self, process: (u32, u64)) -> u32 {
        let seen = if self.version >= (570, 0) { seen(process) } else { None };
        seen.unwrap_or_else(|| self.of_node(process))
    }

    /// The pid that an ended process had on the node, which nobody is told elsewhere.
    pub fn ended(&self, process: (u32, u64)) -> Option<u32> {
        self.at_home.then(|| self.of_node(process))
    }

    /// The pid of a process on the node.
    fn of_node(&self, process: (u32, u64)) -> u32 {
        let (own, home) = process;
        if home == self.node {
            return own;
        }
        let known = if self.at_home { seen(process) } else { None };
        known.unwrap_or(UNKNOWN | (own ^ (home as u32) << 8) & (UNKNOWN - 1))
    }
}

/// The pid by which the caller sees a process, given by its own pid and PID namespace.
pub fn seen(process: (u32, u64)) -> Option<u32> {
    let (own, home) = process;
    let is_client = |pid: &u32| own_pid(*pid) == Some(own) && namespace(&pid.to_string()) == Some(home);
    // In the caller's own namespace, the usual case, no search is needed.
    Some(own).filter(is_client).or_else(|| processes().find(is_client))
}

/// Every process in the caller's /proc.
fn processes() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// What the process that the caller sees as `pid` calls itself: the innermost of its pids.
fn own_pid(pid: u32) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let pids = status.lines().find_map(|line| line.strip_prefix("NSpid:"))?;
    pids.split_whitespace().next_back()?.parse().ok()
}
