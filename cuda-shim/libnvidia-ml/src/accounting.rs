//! What the driver remembers of processes, where it was told to: of each that began since then, ended ones too.

use cuda_shim_device::ProcessTruth;

use crate::abi::{Answer, Error, Out, put_list};
use crate::export::nvml;
use crate::library::{Device, Handle};
use crate::pids::{Naming, seen};
use crate::types::AccountingStats;
use crate::utilisation::since_1970_us;

/// Processes that are remembered; a newer one takes the place of the oldest.
const REMEMBERED: u32 = 1024;

/// What is remembered, by pid; the newest of equal pids alone.
///
/// # Errors
/// [`Error::NotSupported`] while no account is kept.
fn remembered(device: &Device) -> Result<Vec<(u32, ProcessTruth)>, Error> {
    let (since, cleared) = device.state.accounting(device.index).ok_or(Error::NotSupported)?;
    let naming = Naming::of(device.state);
    let mut processes = device.state.truth_of(device.index).processes;
    processes.retain(|process| {
        let (started, ended) = process.lifetime_ns;
        started >= since && (process.alive || ended > cleared)
    });
    processes.sort_by_key(|process| process.lifetime_ns.0);
    let mut known: Vec<(u32, ProcessTruth)> = Vec::new();
    for process in processes {
        let name = (process.pid, process.namespace);
        // What has ended nobody sees; on the node it keeps the pid that it had there.
        let pid = if process.alive { seen(name) } else { naming.ended(name) };
        if let Some(pid) = pid {
            known.retain(|(other, _)| *other != pid);
            known.push((pid, process));
        }
    }
    Ok(known)
}

fn stats(process: &ProcessTruth) -> AccountingStats {
    let (started, ended) = process.lifetime_ns;
    let lived =
        if process.alive { cuda_shim_device::clock_ns() } else { ended }.saturating_sub(started).max(1);
    AccountingStats {
        gpu_utilization: (process.busy_ns.min(lived) * 100 / lived) as u32,
        memory_utilization: 0,
        max_memory_usage: process.physical_peak_bytes,
        time: if process.alive { 0 } else { lived / 1_000_000 },
        start_time: since_1970_us(started),
        is_running: process.alive.into(),
        reserved: [0; 5],
    }
}

/// What only root may.
fn as_root(act: impl FnOnce()) -> Answer {
    let is_root = std::fs::read_to_string("/proc/self/status").is_ok_and(|status| {
        status.lines().any(|line| line.starts_with("Uid:") && line.split_whitespace().nth(2) == Some("0"))
    });
    if !is_root {
        return Err(Error::NoPermission);
    }
    act();
    Ok(())
}

nvml! {
    /// Whether account is kept.
    fn nvmlDeviceGetAccountingMode(device: Handle, mode: Out<u32>) {
        let device = device.any()?;
        mode.put(device.state.accounting(device.index).is_some().into())
    }

    /// Begins or ends it; ending it forgets everything.
    fn nvmlDeviceSetAccountingMode(device: Handle, mode: u32) {
        let device = device.any()?;
        if mode > 1 {
            return Err(Error::InvalidArgument);
        }
        as_root(|| device.state.account(device.index, mode == 1))
    }

    /// Forgets the ended processes.
    fn nvmlDeviceClearAccountingPids(device: Handle) {
        let device = device.any()?;
        device.state.accounting(device.index).ok_or(Error::NotSupported)?;
        as_root(|| device.state.clear_account(device.index))
    }

    /// How many processes are remembered.
    fn nvmlDeviceGetAccountingBufferSize(device: Handle, processes: Out<u32>) {
        device.any()?;
        processes.put(REMEMBERED)
    }

    /// Which are.
    fn nvmlDeviceGetAccountingPids(device: Handle, count: Out<u32>, pids: Out<u32>) {
        let pids_known: Vec<_> = remembered(&device.any()?)?.iter().map(|(pid, _)| *pid).collect();
        put_list(count, pids, &pids_known)
    }

    /// What is known of one.
    fn nvmlDeviceGetAccountingStats(device: Handle, pid: u32, place: Out<AccountingStats>) {
        let device = device.any()?;
        if place.is_null() {
            return Err(Error::InvalidArgument);
        }
        let known = remembered(&device)?;
        let (_, process) = known.iter().find(|(known, _)| *known == pid).ok_or(Error::NotFound)?;
        place.put(stats(process))
    }
}
