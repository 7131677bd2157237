//! How a region is read from its file.
//!
//! Regular files only, never mapped (a tenant that truncates the file would make that a SIGBUS), never more than a fixed
//! number of bytes, devices and processes.
//!
//! # Safety
//! This file may use `unsafe` because a descriptor of the region's crate becomes one of the standard library.
#![allow(unsafe_code)]

use super::reap::reap;
use super::report::{Device, LeaseReport, Process, ProcessDevice, Region};
use super::{asked, events};
use gpuquota_region::examine::{OpenError, is_spare};
use gpuquota_region::layout::{DEVICES, FILE_BYTES, SLOTS};
use gpuquota_region::names::{self, Lost};
use gpuquota_region::slot::Described;
use gpuquota_region::snapshot::{DeviceView, LeaseView};
use gpuquota_region::sys::{Descriptor, inode_of};
use gpuquota_region::{Refusal, Snapshot, lock};
use rustix::fs::{FileType, Mode, OFlags, fstat, open};
use std::ffi::CString;
use std::fmt;
use std::fs::File;
use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Room for regions of later minor versions; what lies behind it is not read.
const LONGEST: usize = 2 * FILE_BYTES;

/// How a file of unknown kind is opened: a FIFO must not block, a terminal not become ours.
pub const OPEN: OFlags = OFlags::RDONLY.union(OFlags::NONBLOCK).union(OFlags::NOCTTY).union(OFlags::CLOEXEC);

/// Why a file gave no region.
#[derive(Debug)]
pub enum Unreadable {
    /// The system refused.
    System(io::Error),
    /// A directory, FIFO, device or socket.
    NotAFile,
    /// The bytes are no region.
    Refused(Refusal),
    /// Living processes hold the region, and it cannot be opened.
    Held(OpenError),
    /// The file was truncated or overwritten, and this process, 0 where it cannot be told which, holds the region.
    Lost(u32),
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
            Self::Held(_) => "held",
            Self::Lost(_) => "contents_lost",
        }
    }
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::System(error) => error.fmt(f),
            Self::NotAFile => f.write_str("it is no regular file"),
            Self::Refused(refusal) => f.write_str(refusal.reason()),
            Self::Held(error) => error.fmt(f),
            Self::Lost(holder) => {
                f.write_str("it was truncated or overwritten, and is whole again after the next call of ")?;
                match holder {
                    0 => f.write_str("the processes that hold it"),
                    pid => write!(f, "process {pid}, which holds it"),
                }
            }
        }
    }
}

impl<E: Into<io::Error>> From<E> for Unreadable {
    fn from(error: E) -> Self {
        Self::System(error.into())
    }
}

/// Reads the region at a path that a person named. If living processes hold a region whose path was removed or replaced, it
/// is that one, and its path names it again.
pub fn read_path(path: &Path) -> Result<Region, Unreadable> {
    let name = CString::new(path.as_os_str().as_bytes()).map_err(io::Error::from)?;
    match names::find(&name, &is_spare) {
        Ok(Some((file, _))) => read(owned(file)),
        Err(lost @ (Lost::Removed { .. } | Lost::Replaced { .. })) => Err(Unreadable::Held(lost.into())),
        // This user may perhaps only read it.
        Ok(None) | Err(_) => read(open(path, OPEN, Mode::empty())?),
    }
}

/// The same descriptor in the type of the standard library.
fn owned(file: Descriptor) -> OwnedFd {
    // SAFETY: into_raw gives the descriptor away.
    unsafe { OwnedFd::from_raw_fd(file.into_raw()) }
}

/// Reads the region in an open file. Dead processes are settled first, where this user may.
pub fn read(file: OwnedFd) -> Result<Region, Unreadable> {
    if FileType::from_raw_mode(fstat(&file)?.st_mode) != FileType::RegularFile {
        return Err(Unreadable::NotAFile);
    }
    let file = File::from(file);
    let region = read_once(&file)?;
    let dead = region.processes.iter().any(|process| !process.alive);
    if dead && reap(&file) { read_once(&file) } else { Ok(region) }
}

fn read_once(file: &File) -> Result<Region, Unreadable> {
    let bytes = beginning(file)?;
    let locks = ManuallyDrop::new(Descriptor::from_raw(file.as_raw_fd()));
    let snapshot = Snapshot::parse(&bytes).map_err(|refusal| match lock::living(&locks) {
        Ok(Some(holder)) if !matches!(refusal, Refusal::OtherVersion(_)) => Unreadable::Lost(holder),
        _ => Unreadable::Refused(refusal),
    })?;
    Ok(report(&snapshot, &locks))
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

fn lease(view: &LeaseView) -> LeaseReport {
    LeaseReport {
        request_percent: view.request_percent,
        burst: view.burst,
        idle_only: view.idle_only,
        waited_ns: view.waited_ns,
        held_ns: view.held_ns,
    }
}

/// `None` rather than 0 where nothing measures: without a share only NVML tells, if the driver has it.
fn gpu_time(device: &DeviceView<'_>) -> Option<u64> {
    let is_measured = device.core_limit.is_some() || device.launches != 0 || device.gpu_time_ns != 0;
    is_measured.then_some(device.gpu_time_ns)
}

fn report(snapshot: &Snapshot<'_>, locks: &Descriptor) -> Region {
    let mut devices: Vec<Device> = snapshot
        .devices()
        .take(DEVICES)
        .map(|device| Device {
            index: device.index,
            offset: snapshot.device_offset(device.index),
            uuid: device.uuid.escape_ascii().to_string(),
            memory_limit: device.memory_limit,
            memory_total: device.memory_total,
            used: device.used,
            peak: device.peak,
            denied: device.denied,
            would_deny: device.would_deny,
            spilled: device.spilled,
            spills: device.spills,
            physical_limit: device.physical_limit,
            core_limit: device.core_limit,
            gpu_time_ns: gpu_time(&device),
            waited_ns: device.waited_ns,
            waited_in_flight_ns: device.waited_in_flight_ns,
            launches: device.launches,
            waits: device.waits,
            wait_times: device.wait_times,
            would_wait: device.would_wait,
            clamped: device.clamped,
            limit_conflicts: device.limit_conflicts,
            context_bytes: device.context_bytes,
            estimated_contexts: device.estimated_contexts,
            lease: lease(&device.lease),
            asked: Vec::new(),
        })
        .collect();
    let here = inode_of(c"/proc/self/ns/pid");
    let processes = snapshot.processes().take(SLOTS).map(|process| {
        let same_namespace = process.pid_namespace == here;
        let described = Described {
            slot: process.slot,
            pid: process.pid,
            start_time: process.start_time,
            pid_namespace: process.pid_namespace,
        };
        let locked = locks.is_locked(lock::slot_byte(process.slot)).unwrap_or(false);
        let alive = locked || !described.is_gone(locks);
        let holder = locks.classic_holder(lock::pid_byte(process.slot)).ok().flatten();
        Process {
            slot: process.slot,
            pid: process.pid,
            host_pid: holder.filter(|pid| *pid != 0).or(same_namespace.then_some(process.pid)),
            priority: process.priority,
            alive,
            devices: devices
                .iter()
                .map(|device| {
                    let held = snapshot.held(process.slot, device.index);
                    ProcessDevice {
                        device: device.index,
                        bytes: held.iter().fold(0, |sum, bytes| sum.wrapping_add(*bytes)),
                        kinds: held.into(),
                        pending_ns: snapshot.pending_ns(process.slot, device.index),
                    }
                })
                .filter(|has| has.bytes != 0 || has.pending_ns != 0)
                .collect(),
        }
    });
    let processes: Vec<Process> = processes.collect();
    for device in &mut devices {
        let dead = processes.iter().filter(|process| !process.alive).flat_map(|process| &process.devices);
        let of_dead = dead.filter(|share| share.device == device.index).map(|share| share.bytes);
        device.used = of_dead.fold(device.used, u64::saturating_sub);
        let slots = processes.iter().map(|process| (process.slot, process.pid));
        device.asked = asked::read(snapshot, device.index, slots);
    }
    let events = events::read(snapshot);
    Region {
        abi: snapshot.abi(),
        generation: snapshot.generation(),
        time_namespace: snapshot.time_namespace(),
        fallbacks: snapshot.fallbacks(),
        devices,
        processes,
        events,
    }
}
