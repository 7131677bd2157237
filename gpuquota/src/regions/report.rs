//! A region as `gpuquota` tells of it. The fields are called as those of the region are (`docs/region.md`).

use super::asked::Asked;
use super::events::Event;
use super::kinds::Kinds;
use super::refusals::Refusals;
use gpuquota_region::layout::{KINDS, WAIT_TIMES};
use serde::Serialize;

/// One device of a region.
#[derive(Clone, Debug, Serialize)]
pub struct Device {
    /// Index in the region.
    pub index: usize,
    /// Where its record lies in the file.
    #[serde(skip)]
    pub offset: u64,
    /// UUID; whatever is not printable ASCII in it is escaped.
    pub uuid: String,
    /// Cap in bytes, if there is one.
    pub memory_limit: Option<u64>,
    /// Real memory of the device, bytes; 0 until a process has looked.
    pub memory_total: u64,
    /// Bytes in use, without what dead processes left.
    pub used: u64,
    /// Highest number of bytes in use.
    pub peak: u64,
    /// Requests refused.
    pub denied: u64,
    /// The same by reason, and what the driver refused though the limits allowed it. All 0 where a version before 1.4 counted.
    pub denied_by: Refusals,
    /// Requests that would have been refused (observe mode).
    pub would_deny: u64,
    /// Of the bytes in use, those that lie on the host.
    pub spilled: u64,
    /// Allocations that were sent to the host.
    pub spills: u64,
    /// Cap on bytes that do not lie on the host, if there is one.
    pub physical_limit: Option<u64>,
    /// Share of GPU time in percent, if it is limited.
    pub core_limit: Option<u32>,
    /// GPU time used; `None` where nothing has measured it.
    pub gpu_time_ns: Option<u64>,
    /// Time that launches waited for the share, or for a higher priority.
    pub waited_ns: u64,
    /// Time that launches waited for work of their own process that was in flight.
    pub waited_in_flight_ns: u64,
    /// Launches admitted under a share.
    pub launches: u64,
    /// Launches that waited, for whatever.
    pub waits: u64,
    /// The same by how long: up to 100 us, 1 ms and so on to 100 s, and longer.
    pub wait_times: [u64; WAIT_TIMES],
    /// Launches that would have waited (observe mode).
    pub would_wait: u64,
    /// Times that the virtual time was clamped, because no charge explained it.
    pub clamped: u64,
    /// How often a process was held to another limit than it asked for.
    pub limit_conflicts: u64,
    /// What a context takes on it, bytes; 0: not known.
    pub context_bytes: u64,
    /// Contexts charged with `context_bytes`, because the driver gave no figure.
    pub estimated_contexts: u64,
    /// Its lease.
    pub lease: LeaseReport,
    /// The limits that the operator set and that processes brought.
    pub asked: Vec<Asked>,
}

/// What the container and the node's agent told each other about a device.
#[derive(Clone, Debug, Default, Serialize)]
pub struct LeaseReport {
    /// What of the time is guaranteed beside other containers in percent, where that is not the share.
    pub request_percent: Option<u32>,
    /// Whether the container may have what others leave, beyond its share.
    pub burst: bool,
    /// Whether the container has only what others leave.
    pub idle_only: bool,
    /// Time that launches waited for a lease, because other containers had the device.
    pub waited_ns: u64,
    /// Time for which the container had the device while others waited for it.
    pub held_ns: u64,
}

/// One process of a region.
#[derive(Clone, Debug, Serialize)]
pub struct Process {
    /// Its slot.
    pub slot: usize,
    /// Process id in its own namespace.
    pub pid: u32,
    /// Process id as seen from here, if it can be told.
    pub host_pid: Option<u32>,
    /// Priority of its task, 0 is the highest.
    pub priority: u32,
    /// Whether it lives.
    pub alive: bool,
    /// Bytes that it holds and GPU time that it has under way, by device.
    pub devices: Vec<ProcessDevice>,
}

/// What one process has of one device.
#[derive(Clone, Debug, Serialize)]
pub struct ProcessDevice {
    /// The device's index in the region.
    pub device: usize,
    /// Bytes held.
    pub bytes: u64,
    /// The same by what they are.
    #[serde(flatten)]
    pub kinds: Kinds,
    /// GPU time admitted and not yet measured.
    pub pending_ns: u64,
}

/// A region as it was when it was read.
#[derive(Clone, Debug, Serialize)]
pub struct Region {
    /// Version of the ABI that it was made by: major and minor.
    pub abi: [u32; 2],
    /// How often the file was initialised.
    pub generation: u64,
    /// Inode of the time namespace that its clocks are of.
    #[serde(skip)]
    pub time_namespace: u64,
    /// Incidents survived by falling back to the driver's own answer.
    pub fallbacks: u64,
    /// Its devices.
    pub devices: Vec<Device>,
    /// Its processes; dead ones are among them where this user may not settle them.
    pub processes: Vec<Process>,
    /// What has happened, the oldest first.
    pub events: Vec<Event>,
}

impl Device {
    /// Where the limit in force of this name comes from, for people; `None` where nobody is known to have asked for it.
    pub fn origin(&self, name: &str, in_force: u64) -> Option<String> {
        self.asked.iter().find(|asked| asked.value(name) == Some(in_force)).map(|asked| asked.origin(name))
    }
}

impl Region {
    /// The processes that live.
    pub fn alive(&self) -> impl Iterator<Item = &Process> {
        self.processes.iter().filter(|process| process.alive)
    }

    /// What the living processes hold of the device with this index, by kind. While they allocate, the sum may differ from what
    /// the device says is in use: the records are read one after another.
    pub fn kinds(&self, device: usize) -> Kinds {
        let shares = self.alive().flat_map(|process| &process.devices);
        let held = shares.filter(|share| share.device == device).map(|share| share.kinds.named());
        let sums = held.fold([0u64; KINDS], |mut sums, kinds| {
            sums.iter_mut().zip(kinds).for_each(|(sum, (_, bytes))| *sum = sum.saturating_add(bytes));
            sums
        });
        sums.into()
    }
}
