//! The limits that the operator set and that processes brought, and which of them is the origin of the limit in force.

use gpuquota_region::Snapshot;
use gpuquota_region::layout::{OPERATOR_ROW, POLICY_BURST, POLICY_IDLE_ONLY, SLOTS};
use gpuquota_region::limits::{self, AskedLimits};
use serde::Serialize;

/// The limits on a device that one process brought, or that the operator set.
#[derive(Clone, Debug, Serialize)]
pub struct Asked {
    /// `operator` or `process`.
    pub by: &'static str,
    /// The process, in its own PID namespace.
    pub pid: Option<u32>,
    /// Cap in bytes.
    pub memory_limit: Option<u64>,
    /// Physical cap in bytes.
    pub physical_limit: Option<u64>,
    /// Share in percent.
    pub core_limit: Option<u64>,
    /// Guaranteed part of it in percent.
    pub request_percent: Option<u64>,
    /// Whether the container may have what others leave.
    pub burst: bool,
    /// Whether it has only what others leave.
    pub idle_only: bool,
    /// Those of these limits that the limits file sets.
    pub from_file: Vec<&'static str>,
}

impl Asked {
    fn new(by: &'static str, pid: Option<u32>, limits: &AskedLimits) -> Self {
        let value = |limit: Option<limits::Asked>| limit.map(|limit| limit.value);
        let fields = [
            ("memory_limit", limits.memory),
            ("physical_limit", limits.physical),
            ("core_limit", limits.cores),
            ("request_percent", limits.request),
        ];
        let of_file = |limit: &Option<limits::Asked>| limit.is_some_and(|limit| limit.from_file);
        Self {
            by,
            pid,
            memory_limit: value(limits.memory),
            physical_limit: value(limits.physical),
            core_limit: value(limits.cores),
            request_percent: value(limits.request),
            burst: limits.policy & POLICY_BURST != 0,
            idle_only: limits.policy & POLICY_IDLE_ONLY != 0,
            from_file: fields.iter().filter(|(_, limit)| of_file(limit)).map(|(name, _)| *name).collect(),
        }
    }

    /// The origin of its limit of this name, for people.
    pub fn origin(&self, name: &str) -> String {
        match self.pid {
            None => "the operator (gpuquota limit)".to_owned(),
            Some(pid) if self.from_file.contains(&name) => format!("the limits file, by process {pid}"),
            Some(pid) => format!("the environment of process {pid}"),
        }
    }

    /// Its limit of this name.
    pub fn value(&self, name: &str) -> Option<u64> {
        match name {
            "memory_limit" => self.memory_limit,
            "physical_limit" => self.physical_limit,
            "core_limit" => self.core_limit,
            _ => self.request_percent,
        }
    }
}

/// All limits that were asked for on a device: the operator's first. `processes`: slots and pids.
pub fn read(
    snapshot: &Snapshot<'_>,
    device: usize,
    processes: impl Iterator<Item = (usize, u32)>,
) -> Vec<Asked> {
    let rows = processes.filter(|(slot, _)| *slot < SLOTS);
    let rows = rows.map(|(slot, pid)| (slot, "process", Some(pid)));
    std::iter::once((OPERATOR_ROW, "operator", None))
        .chain(rows)
        .filter_map(|(row, by, pid)| Some(Asked::new(by, pid, &snapshot.asked_limits(row, device)?)))
        .collect()
}
