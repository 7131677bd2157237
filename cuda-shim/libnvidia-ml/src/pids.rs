//! Process ids as the caller sees them.
//!
//! A device knows its clients by the pids that they have in their own PID namespaces. As drivers from 570 on,
//! NVML here reports them as the caller's namespace has them, and leaves out processes that it cannot see.
//! The kernel tells which is which: a process of the caller's /proc is the client if it calls itself by that
//! pid and lives in that namespace.

use std::fs;

use cuda_shim_device::state::namespace;

/// Replaces the pid and PID namespace of every item by the pid that the caller sees; drops items whose process it does
/// not.
pub fn as_seen<T>(items: Vec<((u32, u64), T)>) -> Vec<(u32, T)> {
    let mut seen = Vec::with_capacity(items.len());
    for ((own, home), item) in items {
        let is_client = |pid: &u32| own_pid(*pid) == Some(own) && namespace(&pid.to_string()) == Some(home);
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
