//! Regions as the node reads them: files that tenants can write, and therefore not believed.
//!
//! Regular files only, never through a symbolic link that a tenant made, never mapped (a tenant that truncates the
//! file would make that a SIGBUS), never more than a fixed number of bytes, devices and processes.

mod events;
mod find;

pub use events::{Event, What};
pub use find::{Found, Mishap, Places};

use gpuquota_region::layout::{DEVICES, FILE_BYTES, KINDS, SLOTS, WAIT_TIMES};
use gpuquota_region::sys::{Descriptor, inode_of};
use gpuquota_region::{Refusal, Snapshot, lock};
use rustix::fs::{FileType, Mode, OFlags, fstat, open};
use serde::Serialize;
use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::{IntoRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Room for regions of later minor versions; what lies behind it is not read.
const LONGEST: usize = 2 * FILE_BYTES;

/// How a file of unknown kind is opened: a FIFO must not block, a terminal not become ours.
const OPEN: OFlags = OFlags::RDONLY.union(OFlags::NONBLOCK).union(OFlags::NOCTTY).union(OFlags::CLOEXEC);

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
    /// Bytes in use.
    pub used: u64,
    /// Highest number of bytes in use.
    pub peak: u64,
    /// Requests refused.
    pub denied: u64,
    /// Requests that would have been refused (observe mode).
    pub would_deny: u64,
    /// Of the bytes in use, those that lie on the host.
    pub spilled: u64,
    /// Allocations that were sent to the host.
    pub spills: u64,
    /// Cap on bytes that do not lie on the host, if there is one.
    pub physical_limit: Option<u64>,
    /// Share of GPU time in percent, if it is limited.
    pub share_percent: Option<u32>,
    /// GPU time charged.
    pub gpu_time_ns: u64,
    /// Time that launches waited for the share, or for a higher priority.
    pub wait_ns: u64,
    /// Time that launches waited for work of their own process that was in flight.
    pub wait_flight_ns: u64,
    /// Launches admitted under a share.
    pub launches: u64,
    /// Launches that waited, for whatever.
    pub waits: u64,
    /// The same by how long: up to 100 us, 1 ms and so on to 100 s, and longer.
    pub wait_times: [u64; WAIT_TIMES],
    /// Launches that would have waited (observe mode).
    pub would_wait: u64,
    /// What of the time is guaranteed beside other containers in percent, where more than the share says so.
    pub request_percent: Option<u32>,
    /// Time that launches waited for other containers.
    pub wait_turn_ns: u64,
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
    /// Whether it lives.
    pub alive: bool,
    /// Bytes that it holds and GPU time that it has under way, by device.
    pub devices: Vec<Share>,
}

/// What one process has of one device.
#[derive(Clone, Debug, Serialize)]
pub struct Share {
    /// The device's index in the region.
    pub device: usize,
    /// Bytes held.
    pub bytes: u64,
    /// The same by what they are.
    #[serde(flatten)]
    pub kinds: Kinds,
    /// GPU time admitted and not yet settled.
    pub pending_ns: u64,
}

/// The names of the kinds of bytes, as people and metrics are told them.
pub const KIND_NAMES: [&str; KINDS] = ["allocations", "contexts", "code", "pools", "graphs"];

/// Bytes by what they are.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Kinds {
    /// Asked for by allocations.
    pub asked_bytes: u64,
    /// Contexts.
    pub context_bytes: u64,
    /// Code, heaps and whatever else the driver takes.
    pub module_bytes: u64,
    /// Held by stream-ordered pools.
    pub pool_bytes: u64,
    /// Held by graphs.
    pub graph_bytes: u64,
}

impl Kinds {
    /// Each with its name, as in [`KIND_NAMES`].
    pub fn named(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let Self { asked_bytes, context_bytes, module_bytes, pool_bytes, graph_bytes } = *self;
        KIND_NAMES.into_iter().zip([asked_bytes, context_bytes, module_bytes, pool_bytes, graph_bytes])
    }
}

impl From<[u64; KINDS]> for Kinds {
    fn from([asked_bytes, context_bytes, module_bytes, pool_bytes, graph_bytes]: [u64; KINDS]) -> Self {
        Self { asked_bytes, context_bytes, module_bytes, pool_bytes, graph_bytes }
    }
}

/// A region as it was when it was read.
#[derive(Clone, Debug, Serialize)]
pub struct Region {
    /// How often the file was initialised.
    pub generation: u64,
    /// Inode of the time namespace that its clocks are of.
    #[serde(skip)]
    pub time_namespace: u64,
    /// Incidents survived by falling back to the driver's own answer.
    pub fallbacks: u64,
    /// Its devices.
    pub devices: Vec<Device>,
    /// Its processes, dead ones included until somebody gives their slots back.
    pub processes: Vec<Process>,
    /// What has happened, the oldest first.
    pub events: Vec<Event>,
}

impl Region {
    /// The processes that live.
    pub fn alive(&self) -> impl Iterator<Item = &Process> {
        self.processes.iter().filter(|process| process.alive)
    }

    /// What all processes hold of the device with this index, by kind. While they allocate, the sum may differ from what
    /// the device says is in use: the records are read one after another.
    pub fn kinds(&self, device: usize) -> Kinds {
        let shares = self.processes.iter().flat_map(|process| &process.devices);
        let held = shares.filter(|share| share.device == device).map(|share| share.kinds.named());
        let sums = held.fold([0u64; KINDS], |mut sums, kinds| {
            sums.iter_mut().zip(kinds).for_each(|(sum, (_, bytes))| *sum = sum.saturating_add(bytes));
            sums
        });
        sums.into()
    }
}

/// Why a file gave no region.
#[derive(Debug)]
pub enum Unreadable {
    /// The system refused.
    System(io::Error),
    /// A directory, FIFO, device or socket.
    NotAFile,
    /// The bytes are no region.
    Refused(Refusal),
}

impl Unreadable {
    /// One word for a metric's label.
    pub fn word(&self) -> &'static str {
        match self {
            Self::System(_) => "unreadable",
            Self::NotAFile => "not_a_file",
            Self::Refused(Refusal::TooShort) => "too_short",
            Self::Refused(Refusal::NotARegion) => "not_a_region",
            Self::Refused(Refusal::OtherVersion(_)) => "other_version",
            Self::Refused(Refusal::NotReady) => "not_ready",
        }
    }
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::System(error) => error.fmt(f),
            Self::NotAFile => f.write_str("it is no regular file"),
            Self::Refused(refusal) => f.write_str(refusal.reason()),
        }
    }
}

impl<E: Into<io::Error>> From<E> for Unreadable {
    fn from(error: E) -> Self {
        Self::System(error.into())
    }
}

/// Reads the region at a path that a person named.
pub fn read_path(path: &Path) -> Result<Region, Unreadable> {
    read(open(path, OPEN, Mode::empty())?)
}

/// Reads the region in an open file.
fn read(file: OwnedFd) -> Result<Region, Unreadable> {
    if FileType::from_raw_mode(fstat(&file)?.st_mode) != FileType::RegularFile {
        return Err(Unreadable::NotAFile);
    }
    let file = File::from(file);
    let bytes = beginning(&file)?;
    let snapshot = Snapshot::parse(&bytes).map_err(Unreadable::Refused)?;
    let locks = Descriptor::from_raw(OwnedFd::from(file).into_raw_fd());
    Ok(told(&snapshot, &locks))
}

/// The file's first bytes, at most [`LONGEST`], whatever its size says.
fn beginning(file: &File) -> io::Result<Vec<u8>> {
    let size = usize::try_from(file.metadata()?.len()).unwrap_or(LONGEST).min(LONGEST);
    let mut bytes = vec![0; size];
    let mut filled = 0;
    while filled < size {
        match file.read_at(&mut bytes[filled..], filled as u64) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    bytes.truncate(filled);
    Ok(bytes)
}

fn told(snapshot: &Snapshot<'_>, locks: &Descriptor) -> Region {
    let devices: Vec<Device> = snapshot
        .devices()
        .take(DEVICES)
        .map(|device| Device {
            index: device.index,
            offset: snapshot.device_offset(device.index),
            uuid: device.uuid.escape_ascii().to_string(),
            memory_limit: device.memory_limit,
            used: device.used,
            peak: device.peak,
            denied: device.denied,
            would_deny: device.would_deny,
            spilled: device.spilled,
            spills: device.spills,
            physical_limit: device.physical_limit,
            share_percent: device.core_percent,
            gpu_time_ns: device.gpu_time_ns,
            wait_ns: device.wait_ns,
            wait_flight_ns: device.wait_flight_ns,
            launches: device.launches,
            waits: device.waits,
            wait_times: device.wait_times,
            would_wait: device.would_wait,
            request_percent: device.request_percent,
            wait_turn_ns: device.wait_turn_ns,
            held_ns: device.held_ns,
        })
        .collect();
    let here = inode_of(c"/proc/self/ns/pid");
    let processes = snapshot.processes().take(SLOTS).map(|process| {
        let same_namespace = process.pid_namespace == here;
        let locked = locks.is_locked(lock::slot_byte(process.slot)).unwrap_or(false);
        let runs = || {
            lock::process_stat(process.pid)
                .is_some_and(|stat| stat.runs && stat.start_time == process.start_time)
        };
        let alive = locked || same_namespace && runs();
        let holder = locks.classic_holder(lock::PID_BYTE + process.slot as u64).ok().flatten();
        let written = [process.host_pid, if same_namespace { process.pid } else { 0 }];
        Process {
            slot: process.slot,
            pid: process.pid,
            host_pid: holder.into_iter().chain(written).find(|pid| *pid != 0),
            alive,
            devices: devices
                .iter()
                .map(|device| {
                    let held = snapshot.held(process.slot, device.index);
                    Share {
                        device: device.index,
                        bytes: held.iter().fold(0, |sum, bytes| sum.wrapping_add(*bytes)),
                        kinds: held.into(),
                        pending_ns: snapshot.pending_ns(process.slot, device.index),
                    }
                })
                .filter(|share| share.bytes != 0 || share.pending_ns != 0)
                .collect(),
        }
    });
    let processes = processes.collect();
    let events = events::read(snapshot);
    Region {
        generation: snapshot.generation(),
        time_namespace: snapshot.time_namespace(),
        fallbacks: snapshot.fallbacks(),
        devices,
        processes,
        events,
    }
}
