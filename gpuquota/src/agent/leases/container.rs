//! One container's region, and what it says and is told of one device.
//!
//! Regions are read and written with `pread` and `pwrite`, and their page is mapped only to wake the launches that sleep on
//! it: a tenant that truncates its file must not be able to kill the agent. What the agent writes lies in the header alone,
//! which is the same in every minor version.

use crate::regions;
use gpuquota_quota::share::client::{Client, Demand};
use gpuquota_quota::share::lease::{AGENT_TIMEOUT_NS, Lease};
use gpuquota_quota::share::{Rate, clock};
use gpuquota_region::header::{half, word};
use gpuquota_region::layout::{
    self, Device, Header, LeaseRecord, OURS, POLICY_BURST, POLICY_IDLE_ONLY, SHARES_SOME,
};
use gpuquota_region::lock::AGENT_BYTE;
use gpuquota_region::snapshot::lease_offset;
use gpuquota_region::sys::{Descriptor, LockKind, WakePage};
use std::fs::File;
use std::mem::{offset_of, size_of};
use std::os::fd::{AsRawFd, IntoRawFd, OwnedFd};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::Arc;

/// A lease is written again after this time, so that it does not count as old, whatever the next look comes to.
pub const RENEWAL_NS: u64 = AGENT_TIMEOUT_NS / 5;

/// A region's file, open to be written, and locked against other agents.
pub struct RegionWriter {
    file: File,
    /// Which file: its file system and its number there.
    inode: (u64, u64),
    wake_page: WakePage,
}

impl RegionWriter {
    /// The file of a region to write in, taken from `open` where it is there; `None` where another agent is at it. It is
    /// opened anew by its descriptor, so no name leads anywhere else.
    pub fn of<'o>(file: &OwnedFd, mut open: impl Iterator<Item = &'o Arc<Self>>) -> Option<Arc<Self>> {
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        let file = File::options().read(true).write(true).open(path).ok()?;
        let metadata = file.metadata().ok()?;
        let inode = (metadata.dev(), metadata.ino());
        if let Some(same) = open.find(|other| other.inode == inode) {
            return Some(Arc::clone(same));
        }
        let descriptor = Descriptor::from_raw(file.try_clone().ok()?.into_raw_fd());
        descriptor.try_lock(LockKind::Ofd, AGENT_BYTE).ok()?;
        let wake_page = WakePage::of(&descriptor, OURS as u64).ok()?;
        Some(Arc::new(Self { file, inode, wake_page }))
    }

    fn write(&self, at: usize, bytes: &[u8]) {
        // A file that cannot be written will not be there at the next search.
        let _ = self.file.write_all_at(bytes, at as u64);
    }
}

/// A device of one region.
pub struct ContainerDevice {
    region: Arc<RegionWriter>,
    /// Where its record and its lease lie in the file.
    record: u64,
    lease: usize,
    /// What was written last, and when.
    word: u64,
    renewed_at_ns: u64,
    wake_seq: u32,
    held_ns: u64,
}

/// What the container says of itself.
#[derive(Clone, Copy)]
pub struct Statement {
    pub demand: Demand,
    /// Its percentage of the device, if anything says so.
    pub request: Option<u32>,
    /// Whether it has a share, and may have more.
    pub borrows: bool,
}

impl ContainerDevice {
    /// `None` for a device that has no lease.
    pub fn new(region: Arc<RegionWriter>, device: &regions::Device) -> Option<Self> {
        let lease = lease_offset(device.index)?;
        let held_ns = device.lease.held_ns;
        Some(Self { region, record: device.offset, lease, word: 0, renewed_at_ns: 0, wake_seq: 0, held_ns })
    }

    /// Its region.
    pub fn region(&self) -> &Arc<RegionWriter> {
        &self.region
    }

    /// Whether both are the same device of the same region.
    pub fn is(&self, other: &Self) -> bool {
        self.region.inode == other.region.inode && self.record == other.record
    }

    /// Reads what the container says.
    pub fn read(&self, now: u64) -> Option<Statement> {
        let mut record = [0; size_of::<Device>()];
        let mut lease = [0; size_of::<LeaseRecord>()];
        self.region.file.read_exact_at(&mut record, self.record).ok()?;
        self.region.file.read_exact_at(&mut lease, self.lease as u64).ok()?;
        let limit = half(&record, offset_of!(Device, core_limit))?;
        let policy = half(&lease, offset_of!(LeaseRecord, policy))?;
        let share = Some(limit).filter(|limit| (1..100).contains(limit) && policy & POLICY_IDLE_ONLY == 0);
        let virtual_time_ns = word(&record, offset_of!(Device, virtual_time_ns))?;
        let demand = Demand {
            weight: 0,
            total_ns: word(&record, offset_of!(Device, gpu_time_ns))?,
            asked_at_ns: word(&lease, offset_of!(LeaseRecord, asked_at_ns))?,
            until_ns: word(&record, offset_of!(Device, in_flight_until_ns))?,
            in_flight_ns: word(&lease, offset_of!(LeaseRecord, in_flight_ns))?,
            uncertainty_ns: word(&lease, offset_of!(LeaseRecord, uncertainty_ns))?,
            percent: share.filter(|_| policy & POLICY_BURST == 0),
            budget_ns: share
                .and_then(Rate::new)
                .map_or(0, |rate| clock::budget_ns(virtual_time_ns, now, rate)),
        };
        let request = match policy & POLICY_IDLE_ONLY {
            0 => layout::request_percent(policy, limit).or(share),
            // Next to nothing, so that it gets what no other container wants.
            _ => Some(1),
        };
        Some(Statement { demand, request, borrows: share.is_some() && policy & POLICY_BURST != 0 })
    }

    /// Writes the lease if it is new or has to be renewed, and wakes the launches that wait for a new one.
    pub fn renew(&mut self, client: &Client, now: u64) {
        let word = client.lease.map_or(0, Lease::word);
        let changed = word != self.word;
        if !changed && now.saturating_sub(self.renewed_at_ns) < RENEWAL_NS {
            return;
        }
        (self.word, self.renewed_at_ns) = (word, now);
        let held_ns = self.held_ns.wrapping_add(client.held_ns);
        let write = |field: usize, bytes: &[u8]| self.region.write(self.lease + field, bytes);
        write(offset_of!(LeaseRecord, lease), &word.to_le_bytes());
        write(offset_of!(LeaseRecord, renewed_at_ns), &now.to_le_bytes());
        write(offset_of!(LeaseRecord, held_ns), &held_ns.to_le_bytes());
        if changed {
            self.wake_seq = self.wake_seq.wrapping_add(1);
            write(offset_of!(LeaseRecord, wake_seq), &self.wake_seq.to_le_bytes());
            self.region.wake_page.wake(self.lease + offset_of!(LeaseRecord, wake_seq) - OURS);
        }
    }

    /// Lets every launch of the container look for its lease.
    pub fn announce(&self) {
        let (mut shares, some) = ([0; 4], SHARES_SOME.to_le_bytes());
        let at = OURS + offset_of!(Header, shares);
        if self.region.file.read_exact_at(&mut shares, at as u64).is_ok() && shares != some {
            self.region.write(at, &some);
        }
    }
}
