//! Which processes hold a region, by the kernel's word: each has a record lock on a byte of its own.

use gpuquota_region::layout::SLOTS;
use gpuquota_region::lock::PID_BYTE;
use rustix::process::{Flock, FlockOffsetType, FlockType, fcntl_getlk};
use std::os::fd::AsFd;

/// Holders that are told; a container has fewer, but for one that wants to keep us busy.
const MOST: usize = 64;

/// The processes, as they are called here. A tenant's process can hold a lock that it should not, and it can give away its own.
pub fn owners(file: &impl AsFd) -> Vec<u32> {
    let mut found = Vec::new();
    // The kernel tells any one lock of a range: the ranges on both sides of it are asked next.
    let mut open = vec![(PID_BYTE, PID_BYTE + SLOTS as u64)];
    while let Some((from, until)) = open.pop()
        && found.len() < MOST
    {
        if from >= until {
            continue;
        }
        let asked = Flock {
            start: from,
            length: until - from,
            pid: None,
            typ: FlockType::WriteLock,
            offset_type: FlockOffsetType::Set,
        };
        let Ok(Some(lock)) = fcntl_getlk(file, &asked) else { continue };
        // An owner outside of this PID namespace has no number here, and a length of 0 means "to the end".
        found.extend(lock.pid.and_then(|pid| u32::try_from(pid.as_raw_nonzero().get()).ok()));
        let end = if lock.length == 0 { until } else { lock.start.saturating_add(lock.length) };
        open.push((from, lock.start));
        open.push((end, until));
    }
    found.sort_unstable();
    found.dedup();
    found
}
