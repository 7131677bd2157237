//! Processes of the host: which container is one in, and is it still the same one?

use crate::agent::identity::{Cgroup, Naming};
use gpuquota_region::lock::process_stat;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// What makes two processes one container's.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Home {
    /// The container's id.
    Container(String),
    /// A mount namespace that is not the node's, where no runtime has named the cgroup.
    Mounts(u64),
}

/// A process as it was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// Its pid here.
    pub pid: u32,
    /// When it was started: with it a pid means one process.
    pub start_time: u64,
    /// Its pid in its own PID namespace.
    pub own_pid: u32,
    /// Its container.
    pub home: Option<Home>,
    /// What its cgroup says.
    pub cgroup: Cgroup,
    /// Its command's name.
    pub command: String,
}

impl Subject {
    /// A living process; `None` where there is none of this pid.
    pub fn of(pid: u32, names: &Naming) -> Option<Self> {
        let stat = process_stat(pid).filter(|stat| stat.runs)?;
        let cgroup = names.cgroup(pid).unwrap_or_default();
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let line = |name: &str| status.lines().find_map(|line| line.strip_prefix(name));
        let own_pid = line("NSpid:").and_then(|pids| pids.split_whitespace().next_back()?.parse().ok());
        let home = match &cgroup.container_id {
            Some(id) => Some(Home::Container(id.clone())),
            None => mounts(pid).map(Home::Mounts),
        };
        let command = line("Name:").unwrap_or("").trim().to_owned();
        let subject =
            Self { pid, start_time: stat.start_time, own_pid: own_pid.unwrap_or(pid), home, cgroup, command };
        subject.lives().then_some(subject)
    }

    /// Whether this very process lives, and no later one of the same pid.
    pub fn lives(&self) -> bool {
        process_stat(self.pid).is_some_and(|stat| stat.runs && stat.start_time == self.start_time)
    }
}

/// A process's mount namespace, if it is neither the node's nor this process's.
fn mounts(pid: u32) -> Option<u64> {
    let of = |process: &str| {
        fs::metadata(Path::new("/proc").join(process).join("ns/mnt")).ok().map(|file| file.ino())
    };
    let theirs = of(&pid.to_string())?;
    [of("1"), of("self")].iter().all(|ours| *ours != Some(theirs)).then_some(theirs)
}
