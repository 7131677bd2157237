//! Limits of memory by cgroup, as drivers from 615 on have them. Both back-ends are here; which one works is told by the cgroup.
//!
//! - *dmem*: a directory with `dmem.max`. The kernel holds the limits in its files, one line for each device, and every directory
//!   above that has one holds too.
//! - *misc*: any other directory. The driver holds the limits, one for each directory, and the nearest one counts. A real driver
//!   forgets them with the directory; so does this one, which keeps them in a hidden file there.

use std::env;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::layout::CGROUPS;
use crate::machine::Machine;
use crate::spec::DeviceSpec;

/// The environment variable that names the cgroup of a process, where that is a directory that only looks like one.
pub const CGROUP_ENV: &str = "CUDA_SIM_CGROUP";
/// `NVML_DEVICE_MEMORY_LIMIT_MAX`: no hard limit.
pub const NO_LIMIT: u64 = u64::MAX;
/// The first driver that has limits.
const SINCE: u32 = 615;
/// Where the kernel shows cgroups of version 2.
const ROOT: &str = "/sys/fs/cgroup";
/// Where the misc back-end's limits lie.
const HIDDEN: &str = ".cuda-sim-memory-limits";

/// Whether the driver of a machine has limits by cgroup.
pub fn has_limits(machine: &Machine) -> bool {
    let major = machine.driver_version.split('.').next().and_then(|major| major.parse::<u32>().ok());
    major >= Some(SINCE)
}

/// The cgroups that a process is in: its own first, and so many above it.
pub(crate) struct Chain(Vec<(PathBuf, u64)>);

/// A number that no other directory has.
pub fn id(directory: &Path) -> Option<u64> {
    let metadata = fs::metadata(directory).ok()?;
    Some(metadata.ino() ^ metadata.dev().rotate_left(40))
}

impl Chain {
    /// Those of this process; none where the driver has no limits.
    pub fn of_this_process(machine: &Machine) -> Self {
        if !has_limits(machine) {
            return Self(Vec::new());
        }
        let by_kernel = || {
            let text = fs::read_to_string("/proc/self/cgroup").ok()?;
            let path = text.lines().find_map(|line| line.strip_prefix("0::/"))?.to_owned();
            Some(Path::new(ROOT).join(path))
        };
        let own = env::var_os(CGROUP_ENV).map(PathBuf::from).or_else(by_kernel);
        let above = own.iter().flat_map(|own| own.ancestors());
        Self(
            above
                .filter_map(|directory| Some((directory.to_owned(), id(directory)?)))
                .take(CGROUPS)
                .collect(),
        )
    }

    pub fn ids(&self) -> impl Iterator<Item = u64> {
        self.0.iter().map(|(_, id)| *id)
    }

    /// The limits that hold for a process in it: each with the number of the directory on which it is set.
    pub fn limits(&self, device: &DeviceSpec) -> Vec<(u64, u64)> {
        let dmem = self.0.iter().filter(|(directory, _)| is_dmem(directory));
        let dmem: Vec<(u64, u64)> =
            dmem.filter_map(|(at, id)| Some((*id, dmem_limit(at, device)?))).collect();
        if !dmem.is_empty() {
            return dmem;
        }
        let nearest = self.0.iter().find_map(|(at, id)| Some((*id, misc_limits(at, device)?[1])));
        nearest.into_iter().collect()
    }
}

/// Whether the kernel holds the limits of a cgroup.
pub fn is_dmem(directory: &Path) -> bool {
    directory.join("dmem.max").exists()
}

/// What the kernel calls a device in its files.
pub fn key(device: &DeviceSpec) -> String {
    format!("nvidia/{}", device.pci_bus_id().to_lowercase())
}

fn dmem_limit(directory: &Path, device: &DeviceSpec) -> Option<u64> {
    first(&directory.join("dmem.max"), &key(device))
}

/// Soft and hard limit that the driver holds for a cgroup.
pub fn misc_limits(directory: &Path, device: &DeviceSpec) -> Option<[u64; 2]> {
    line(&directory.join(HIDDEN), &device.uuid_string())?.try_into().ok()
}

/// Sets them.
///
/// # Errors
/// The file cannot be written.
pub fn set_misc_limits(directory: &Path, device: &DeviceSpec, limits: [u64; 2]) -> std::io::Result<()> {
    put_line(&directory.join(HIDDEN), &device.uuid_string(), &limits)
}

/// The words behind a key in a file of lines.
fn line(file: &Path, key: &str) -> Option<Vec<u64>> {
    let text = fs::read_to_string(file).ok()?;
    let words = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '))?;
    words
        .split_whitespace()
        .map(|word| if word == "max" { Some(NO_LIMIT) } else { word.parse().ok() })
        .collect()
}

/// The first of them.
pub fn first(file: &Path, key: &str) -> Option<u64> {
    line(file, key)?.first().copied()
}

/// Replaces them.
///
/// # Errors
/// The file cannot be written.
pub fn put_line(file: &Path, key: &str, words: &[u64]) -> std::io::Result<()> {
    let text = fs::read_to_string(file).unwrap_or_default();
    let others =
        text.lines().filter(|line| !line.strip_prefix(key).is_some_and(|rest| rest.starts_with(' ')));
    let words = words.iter().map(|word| if *word == NO_LIMIT { "max".to_owned() } else { word.to_string() });
    let own = format!("{key} {}", words.collect::<Vec<_>>().join(" "));
    let lines: Vec<&str> = others.chain([own.as_str()]).collect();
    fs::write(file, lines.join("\n") + "\n")
}
