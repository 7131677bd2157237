//! Process ids as the caller sees them.
//!
//! A device knows its clients by the pids that they have in their own PID namespaces. As drivers from 570 on,
//! NVML here reports them as the caller's namespace has them, and leaves out processes that it cannot see.
//! The kernel tells which is which: a process of the caller's /proc is the client if it calls itself by that
//! pid and has the state of this machine mapped. Two clients of one pid in two containers may change places.

use std::fs;
use std::os::unix::fs::MetadataExt;

use cuda_shim_device::STATE_ENV;

/// Replaces the pid of every item by the one that the caller sees; drops items whose process it does not.
pub fn as_seen<T>(items: Vec<(u32, T)>) -> Vec<(u32, T)> {
    let state = std::env::var_os(STATE_ENV).and_then(|path| fs::metadata(path).ok()).map(|file| file.ino());
    let mut seen = Vec::with_capacity(items.len());
    for (own, item) in items {
        let is_client = |pid: &u32| {
            seen.iter().all(|(taken, _)| taken != pid)
                && own_pid(*pid) == Some(own)
                && state.is_none_or(|inode| has_mapped(*pid, inode))
        };
        // In the caller's own namespace, the usual case, no search is needed.
        if let Some(pid) = Some(own).filter(is_client).or_else(|| processes().find(is_client)) {
            seen.push((pid, item));
        }
    }
    seen
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

/// Whether a process has mapped the file of this inode. One that may not be looked into is believed.
fn has_mapped(pid: u32, inode: u64) -> bool {
    let Ok(maps) = fs::read_to_string(format!("/proc/{pid}/maps")) else { return true };
    let inode = inode.to_string();
    maps.lines().any(|line| line.split_whitespace().nth(4) == Some(&inode))
}
