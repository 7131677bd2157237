//! The cgroup of a container: the driver shows a limit inside only where it is set on the container's own.

use crate::regions::owners;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

/// Where the kernel shows cgroups of version 2.
const ROOT: &str = "/sys/fs/cgroup";

/// The cgroup of the living processes of a region.
pub fn leaf_of(region: &Path) -> Result<PathBuf, String> {
    let file = File::open(region).map_err(|error| error.to_string())?;
    let paths = owners(&file).into_iter().filter_map(|pid| {
        let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
        text.lines().find_map(|line| line.strip_prefix("0::").map(str::to_owned))
    });
    let mut paths: Vec<String> = paths.collect();
    paths.sort_unstable();
    paths.dedup();
    match &paths[..] {
        [] => {
            Err("no process of it lives here, so its cgroup cannot be told: name it with --cgroup".to_owned())
        }
        [path] if path == "/" => Err("its processes are in no cgroup of version 2 but the root".to_owned()),
        [path] => own(&Path::new(ROOT).join(path.trim_start_matches('/'))),
        several => Err(format!(
            "its processes are in several cgroups, {}: name one with --cgroup",
            several.join(", ")
        )),
    }
}

/// A directory that is a cgroup without others below it.
pub fn own(path: &Path) -> Result<PathBuf, String> {
    let entries = fs::read_dir(path).map_err(|error| format!("cgroup {}: {error}", path.display()))?;
    let mut below = entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    match below.next() {
        None => Ok(path.to_path_buf()),
        Some(inner) => Err(format!(
            "cgroup {} has others below it, such as {}: a limit there would hold and not be shown inside",
            path.display(),
            inner.file_name().display(),
        )),
    }
}
