//! One container's region, and what it says and is told of one device.
//!
//! Regions are read with `pread`. Their first page is mapped, and only the kernel writes there and wakes the launches that sleep
//! on it: a tenant that truncates its file must not be able to kill the agent, and one that writes much to it not to hold up
//! the agent's words. What the agent writes lies in the header alone, which is the same in every minor version.

use super::desk::{Lateness, Seat, Unseated};
use crate::regions::{Device as Reported, Owner};
use gpuquota_quota::share::client::{Client, Demand};
use gpuquota_quota::share::lease::{AGENT_TIMEOUT_NS, Lease};
use gpuquota_quota::share::{Rate, clock};
use gpuquota_region::header::{half, word};
use gpuquota_region::layout::{
    self, Device, Header, LeaseRecord, OURS, POLICY_BURST, POLICY_IDLE_ONLY, SHARES_SOME,
};
use gpuquota_region::lock::AGENT_BYTE;
use gpuquota_region::snapshot::lease_offset;
use gpuquota_region::sys::{Descriptor, Errno, LockKind, WakePage};
use std::fs::File;
use std::mem::{offset_of, size_of};
use std::os::fd::{AsRawFd, IntoRawFd, OwnedFd};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::sync::Arc;

/// A lease is written again after this time, so that it does not count as old, whatever the next look comes to.
pub const RENEWAL_NS: u64 = AGENT_TIMEOUT_NS / 5;

/// A region's file, open to be written, and locked against other agents.
pub struct RegionWriter {
    file: File,
    /// Which file: its file system and its number there.
    pub inode: (u64, u64),
    /// Whether it held up the agent.
    pub lateness: Arc<Lateness>,
    wake_page: WakePage,
}

impl RegionWriter {
    /// The file of a region to write in, opened anew by its descriptor, so no name leads anywhere else; `None` where another
    /// agent is at it, or a lease on the file would make the opening wait.
    pub fn of(file: &OwnedFd, owner: Owner) -> Option<Self> {
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        let file = File::options().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(path).ok()?;
        let metadata = file.metadata().ok()?;
        let inode = (metadata.dev(), metadata.ino());
        let descriptor = Descriptor::from_raw(file.try_clone().ok()?.into_raw_fd());
        descriptor.try_lock(LockKind::Ofd, AGENT_BYTE).ok()?;
        let wake_page = WakePage::of(&descriptor, OURS as u64).ok()?;
        Some(Self { file, inode, lateness: Arc::new(Lateness::of(owner)), wake_page })
    }

    fn write(&self, at: usize, bytes: &[u8]) {
        // A file that cannot be written will not be there at the next search.
        let _ = match self.wake_page.store(at - OURS, bytes) {
            // A sandbox may forbid that call.
            Err(Errno(libc::EPERM | libc::ENOSYS)) => self.file.write_all_at(bytes, at as u64).ok(),
            _ => None,
        };
    }
}

const _: () = assert!(offset_of!(LeaseRecord, renewed_at_ns) == offset_of!(LeaseRecord, lease) + 8);

/// Where a device of a container stands in its region.
#[derive(Clone)]
pub struct Place {
    pub region: Arc<RegionWriter>,
    /// Where its record and its lease lie in the file.
    record: u64,
    lease: usize,
}

/// What the container says of itself.
#[derive(Clone, Copy)]
pub struct Statement {
    pub demand: Demand,
    /// Its percentage of the device, if anything says so.
    pub request: Option<u32>,
}

/// What a container said.
pub enum Said {
    /// It was not asked.
    Nothing,
    /// Its file cannot be read.
    Unreadable,
    /// This.
    So(Statement),
}

/// A container's percentage of a device, and whether it may have more, by its limit and policy.
fn shares(limit: u32, request: Option<u32>, burst: bool, idle_only: bool) -> (Option<u32>, bool) {
    let share = Some(limit).filter(|limit| (1..100).contains(limit) && !idle_only);
    // Who has only what is idle gets next to nothing, so that it is what no other container wants.
    let request = if idle_only { Some(1) } else { request.or(share) };
    (request, share.is_some() && burst)
}

/// The same of a device as it was read.
pub fn shares_of(device: &Reported) -> (Option<u32>, bool) {
    let lease = &device.lease;
    shares(device.core_limit.unwrap_or(0), lease.request_percent, lease.burst, lease.idle_only)
}

impl Place {
    /// `None` for a device that has no lease.
    pub fn new(region: Arc<RegionWriter>, device: &Reported) -> Option<Self> {
        Some(Self { region, record: device.offset, lease: lease_offset(device.index)? })
    }

    /// Whether both are the same device of the same region.
    pub fn is(&self, other: &Self) -> bool {
        self.region.inode == other.region.inode && self.record == other.record
    }

    /// Reads what the container says.
    pub fn read(&self, seat: &Seat<'_>, now: u64) -> Result<Said, Unseated> {
        seat.at(&self.region.lateness, || self.statement(now).map_or(Said::Unreadable, Said::So))
    }

    fn statement(&self, now: u64) -> Option<Statement> {
        let mut record = [0; size_of::<Device>()];
        let mut lease = [0; size_of::<LeaseRecord>()];
        self.region.file.read_exact_at(&mut record, self.record).ok()?;
        self.region.file.read_exact_at(&mut lease, self.lease as u64).ok()?;
        let limit = half(&record, offset_of!(Device, core_limit))?;
        let policy = half(&lease, offset_of!(LeaseRecord, policy))?;
        let [burst, idle_only] = [POLICY_BURST, POLICY_IDLE_ONLY].map(|bit| policy & bit != 0);
        let share = Some(limit).filter(|limit| (1..100).contains(limit) && !idle_only);
        let virtual_time_ns = word(&record, offset_of!(Device, virtual_time_ns))?;
        let demand = Demand {
            weight: 0,
            total_ns: word(&record, offset_of!(Device, gpu_time_ns))?,
            asked_at_ns: word(&lease, offset_of!(LeaseRecord, asked_at_ns))?,
            until_ns: word(&record, offset_of!(Device, in_flight_until_ns))?,
            in_flight_ns: word(&lease, offset_of!(LeaseRecord, in_flight_ns))?,
            uncertainty_ns: word(&lease, offset_of!(LeaseRecord, uncertainty_ns))?,
            percent: share.filter(|_| !burst),
            budget_ns: share
                .and_then(Rate::new)
                .map_or(0, |rate| clock::budget_ns(virtual_time_ns, now, rate)),
        };
        let request = layout::request_percent(policy, limit);
        let (request, _) = shares(limit, request, burst, idle_only);
        Some(Statement { demand, request })
    }
}

/// A device of one region, and what was written there last.
pub struct ContainerDevice {
    pub place: Place,
    /// Whether its launches look for their lease.
    is_announced: bool,
    /// What was written last, and when.
    word: u64,
    renewed_at_ns: u64,
    wake_seq: u32,
    /// For how long it had the device before this agent; and what was added to that last.
    held_ns: u64,
    told_held_ns: u64,
    /// GPU time that it had been charged, and when that last grew.
    total_ns: u64,
    charged_at_ns: u64,
    /// Its percentage of the device as it said last, and whether it might have more when it was found.
    pub request: Option<u32>,
    pub borrows: bool,
}

/// What is to be written into a region.
pub struct Words {
    place: Place,
    announce: bool,
    word: u64,
    renewed_at_ns: u64,
    /// Where it has changed.
    held_ns: Option<u64>,
    /// For a lease that is new.
    wake_seq: Option<u32>,
}

impl ContainerDevice {
    pub fn new(place: Place, device: &Reported) -> Self {
        let (request, borrows) = shares_of(device);
        Self {
            place,
            is_announced: false,
            word: 0,
            renewed_at_ns: 0,
            wake_seq: 0,
            held_ns: device.lease.held_ns,
            told_held_ns: 0,
            total_ns: device.gpu_time_ns.unwrap_or(0),
            charged_at_ns: 0,
            request,
            borrows,
        }
    }

    /// Takes in what it said.
    pub fn hear(&mut self, statement: &Statement, now: u64) {
        self.request = statement.request;
        if self.total_ns != statement.demand.total_ns {
            (self.total_ns, self.charged_at_ns) = (statement.demand.total_ns, now);
        }
    }

    /// Whether it was charged anything in so long a time.
    pub fn was_charged(&self, now: u64, within_ns: u64) -> bool {
        self.charged_at_ns != 0 && now.saturating_sub(self.charged_at_ns) < within_ns
    }

    /// The lease, if it is new or has to be renewed.
    pub fn renew(&mut self, client: &Client, now: u64) -> Option<Words> {
        let word = client.lease.map_or(0, Lease::word);
        let changed = word != self.word;
        if !changed && now.saturating_sub(self.renewed_at_ns) < RENEWAL_NS {
            return None;
        }
        (self.word, self.renewed_at_ns) = (word, now);
        if changed {
            self.wake_seq = self.wake_seq.wrapping_add(1);
        }
        let held_ns = (client.held_ns != self.told_held_ns).then_some(client.held_ns);
        self.told_held_ns = client.held_ns;
        Some(Words {
            place: self.place.clone(),
            announce: !std::mem::replace(&mut self.is_announced, true),
            word,
            renewed_at_ns: now,
            held_ns: held_ns.map(|held_ns| self.held_ns.wrapping_add(held_ns)),
            wake_seq: changed.then_some(self.wake_seq),
        })
    }
}

impl Words {
    /// Writes them, and wakes the launches that wait for a new lease.
    pub fn write(&self, seat: &Seat<'_>) -> Result<(), Unseated> {
        seat.at(&self.place.region.lateness, || self.write_now())
    }

    fn write_now(&self) {
        let Place { region, lease, .. } = &self.place;
        let write = |field: usize, bytes: &[u8]| region.write(lease + field, bytes);
        let words = [self.word.to_le_bytes(), self.renewed_at_ns.to_le_bytes()];
        write(offset_of!(LeaseRecord, lease), words.as_flattened());
        if let Some(held_ns) = self.held_ns {
            write(offset_of!(LeaseRecord, held_ns), &held_ns.to_le_bytes());
        }
        if let Some(wake_seq) = self.wake_seq {
            write(offset_of!(LeaseRecord, wake_seq), &wake_seq.to_le_bytes());
            region.wake_page.wake(lease + offset_of!(LeaseRecord, wake_seq) - OURS);
        }
        if self.announce {
            let (mut shares, some) = ([0; 4], SHARES_SOME.to_le_bytes());
            let at = OURS + offset_of!(Header, shares);
            if region.file.read_exact_at(&mut shares, at as u64).is_ok() && shares != some {
                region.write(at, &some);
            }
        }
    }
}
