//! How a region is read from its file.
//!
//! Regular files only, never mapped (a tenant that truncates the file would make that a SIGBUS), never more than a fixed
//! number of bytes, devices and processes; and only the records that are in use.
//!
//! # Safety
//! This file may use `unsafe` because a descriptor of the region's crate becomes one of the standard library.
#![allow(unsafe_code)]

use super::look::Seen;
use super::reap::reap;
use super::report::{Device, LeaseReport, Process, ProcessDevice, Region};
use super::unreadable::Unreadable;
use super::{asked, events};
use gpuquota_region::examine::is_spare;
use gpuquota_region::header::{Array, RecordTable, half, word};
use gpuquota_region::layout::Device as DeviceRecord;
use gpuquota_region::layout::{
    DEVICES, FILE_BYTES, Header, LimitRecord, OPERATOR_ROW, OURS, Ours, SLOTS, Slot,
};
use gpuquota_region::names::{self, Lost};
use gpuquota_region::slot::Described;
use gpuquota_region::snapshot::{DeviceView, LeaseView};
use gpuquota_region::sys::{Descriptor, inode_of};
use gpuquota_region::{Refusal, Snapshot, lock};
use std::ffi::CString;
use std::fs::File;
use std::io;
use std::mem::{ManuallyDrop, offset_of, size_of};
use std::ops::Range;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::LazyLock;

/// The PID namespace of this process.
static HERE: LazyLock<u64> = LazyLock::new(|| inode_of(c"/proc/self/ns/pid"));
/// Bytes from the header to the first two slots of a region of this version: most regions use no others, so they are read at once.
const HEAD: usize = offset_of!(Ours, slots) + 2 * size_of::<Slot>();
/// Room for regions of later minor versions; what lies behind it is not read.
const LONGEST: usize = 2 * FILE_BYTES;

/// Reads the region at a path that a person named. If living processes hold a region whose path was removed or replaced, it
/// is that one, and its path names it again.
pub fn read_path(path: &Path) -> Result<Region, Unreadable> {
    // What is there and is no file is not opened: a device's driver would act.
    if Seen::path(path).is_ok_and(|seen| !seen.is_file()) {
        return Err(Unreadable::NotAFile);
    }
    let name = CString::new(path.as_os_str().as_bytes()).map_err(io::Error::from)?;
    match names::find(&name, &is_spare) {
        Ok(Some((file, _))) => read(owned(file)),
        Err(lost @ (Lost::Removed { .. } | Lost::Replaced { .. })) => Err(Unreadable::Held(lost.into())),
        // This user may perhaps only read it.
        Ok(None) | Err(_) => read(Seen::path(path)?.open()?),
    }
}

/// The same descriptor in the type of the standard library.
fn owned(file: Descriptor) -> OwnedFd {
    // SAFETY: into_raw gives the descriptor away.
    unsafe { OwnedFd::from_raw_fd(file.into_raw()) }
}

/// Reads the region in an open file. Dead processes are settled first, where this user may.
pub fn read(file: OwnedFd) -> Result<Region, Unreadable> {
    let file = File::from(file);
    let mut sparse = Sparse::default();
    let region = sparse.region(&file)?;
    let dead = region.processes.iter().any(|process| !process.alive);
    if dead && reap(&file) { sparse.region(&file) } else { Ok(region) }
}

/// The records of a region's devices, as they were at one time.
#[derive(Debug)]
pub struct Still {
    range: Range<u64>,
    seen: Option<u64>,
}

impl Still {
    fn now(file: &File, range: Range<u64>) -> Self {
        // However long the region says its records are.
        const MOST: u64 = 2 * (DEVICES * size_of::<DeviceRecord>()) as u64;
        let range = range.start..range.end.min(range.start.saturating_add(MOST));
        Self { seen: Self::look(file, &range), range }
    }

    /// Whether they are still the same.
    pub fn is_so(&self, file: &File) -> bool {
        self.seen.is_some() && Self::look(file, &self.range) == self.seen
    }

    /// A number that hardly any other records have: who changes them so that they keep it stays without leases, and that is its
    /// own loss.
    fn look(file: &File, range: &Range<u64>) -> Option<u64> {
        let mut room = [0; 2 * size_of::<DeviceRecord>()];
        let (mut at, mut seen) = (range.start, 0u64);
        while at < range.end {
            let bytes = usize::try_from(range.end - at).unwrap_or(usize::MAX).min(room.len());
            let part = room.get_mut(..bytes)?;
            file.read_exact_at(part, at).ok()?;
            let words =
                part.chunks_exact(8).filter_map(|word| Some(u64::from_le_bytes(word.try_into().ok()?)));
            seen = words
                .fold(seen, |seen, word| (seen.rotate_left(5) ^ word).wrapping_mul(0x517C_C1B7_2722_0A95));
            at += bytes as u64;
        }
        Some(seen)
    }
}

/// Room for a region of which only the used parts are read. It is used again for the next one.
#[derive(Default)]
pub struct Sparse {
    /// Zero but for `filled`.
    bytes: Vec<u8>,
    filled: Vec<Range<usize>>,
}

/// What of a region is read.
#[derive(Clone, Copy, PartialEq, PartialOrd)]
enum Part {
    Header,
    Devices,
    All,
}

impl Sparse {
    /// All that a region says.
    pub fn region(&mut self, file: &File) -> Result<Region, Unreadable> {
        self.parsed(file, Part::All, report)
    }

    /// What a region says of its devices alone, and how to see that they do nothing.
    pub fn devices(&mut self, file: &File) -> Result<(Region, Still), Unreadable> {
        let (region, range) = self.parsed(file, Part::Devices, |snapshot, _| {
            let devices = devices(snapshot);
            // With the place of the next one, which is free.
            let behind = devices.last().map_or(1, |device| device.index + 2).min(DEVICES);
            (head(snapshot, devices), snapshot.device_offset(0)..snapshot.device_offset(behind))
        })?;
        Ok((region, Still::now(file, range)))
    }

    /// Whether there is a region.
    pub fn check(&mut self, file: &File) -> Result<(), Unreadable> {
        self.parsed(file, Part::Header, |_, _| ())
    }

    fn parsed<T>(
        &mut self,
        file: &File,
        part: Part,
        look: impl FnOnce(&Snapshot<'_>, &Descriptor) -> T,
    ) -> Result<T, Unreadable> {
        let locks = ManuallyDrop::new(Descriptor::from_raw(file.as_raw_fd()));
        let size = usize::try_from(file.metadata()?.len()).unwrap_or(LONGEST).min(LONGEST);
        let filled = self.fill(file, size, part);
        let seen = filled.map_err(Unreadable::from).and_then(|()| {
            let bytes = self.bytes.get(..size).unwrap_or(&[]);
            let snapshot = Snapshot::parse(bytes).map_err(|refusal| match lock::living(&locks) {
                Ok(Some(holder)) if !matches!(refusal, Refusal::OtherVersion(_)) => Unreadable::Lost(holder),
                _ => Unreadable::Refused(refusal),
            })?;
            Ok(look(&snapshot, &locks))
        });
        for range in self.filled.drain(..) {
            if let Some(bytes) = self.bytes.get_mut(range) {
                bytes.fill(0);
            }
        }
        seen
    }

    /// Reads what is used: the header says where it lies.
    fn fill(&mut self, file: &File, size: usize, part: Part) -> io::Result<()> {
        self.bytes.resize(LONGEST, 0);
        let head = if part == Part::Header { size_of::<Header>() } else { HEAD };
        self.load(file, size, OURS, head)?;
        let header = self.bytes.get(OURS..OURS + size_of::<Header>()).unwrap_or(&[]);
        let Some(RecordTable { arrays: [devices, slots, journals, events], .. }) = RecordTable::read(header)
        else {
            return Ok(());
        };
        let high = half(header, offset_of!(Header, slot_high)).unwrap_or(0).min(SLOTS as u32);
        let has_events = word(header, offset_of!(Header, event_next)) != Some(0);
        let mut records = |array: Array, count: u32| {
            let bytes = (array.bytes as usize).saturating_mul(count as usize);
            self.load(file, size, usize::try_from(array.offset).unwrap_or(usize::MAX), bytes)
        };
        if part >= Part::Devices {
            records(devices, devices.count)?;
        }
        if part < Part::All {
            return Ok(());
        }
        records(slots, high.min(slots.count))?;
        records(journals, high.saturating_mul(journals.count))?;
        records(events, if has_events { events.count } else { 0 })?;
        let limits = OURS + offset_of!(Ours, limits);
        let row = DEVICES * size_of::<LimitRecord>();
        self.load(file, size, limits, row * high as usize)?;
        self.load(file, size, limits + row * OPERATOR_ROW, row)
    }

    /// Reads so many bytes from there on, as far as there are any.
    fn load(&mut self, file: &File, size: usize, at: usize, bytes: usize) -> io::Result<()> {
        let range = at.min(size)..at.saturating_add(bytes).min(size);
        if self.filled.iter().any(|known| known.start <= range.start && range.end <= known.end) {
            return Ok(());
        }
        let mut filled = range.start;
        self.filled.push(range.clone());
        while let Some(rest) = self.bytes.get_mut(filled..range.end).filter(|rest| !rest.is_empty()) {
            match file.read_at(rest, filled as u64) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
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

/// What the region says of itself, with these devices.
fn head(snapshot: &Snapshot<'_>, devices: Vec<Device>) -> Region {
    Region {
        abi: snapshot.abi(),
        generation: snapshot.generation(),
        time_namespace: snapshot.time_namespace(),
        fallbacks: snapshot.fallbacks(),
        devices,
        processes: Vec::new(),
        events: Vec::new(),
    }
}

fn devices(snapshot: &Snapshot<'_>) -> Vec<Device> {
    let devices = snapshot.devices().take(DEVICES).map(|device| Device {
        index: device.index,
        offset: snapshot.device_offset(device.index),
        uuid: device.uuid.escape_ascii().to_string(),
        memory_limit: device.memory_limit,
        memory_total: device.memory_total,
        used: device.used,
        peak: device.peak,
        denied: device.denied,
        denied_by: device.denied_by.into(),
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
    });
    devices.collect()
}

fn report(snapshot: &Snapshot<'_>, locks: &Descriptor) -> Region {
    let mut devices = devices(snapshot);
    let here = *HERE;
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
            host_pid: holder.filter(|pid| *pid != 0).or_else(|| {
                // The region's word alone is a tenant's.
                let is_it = |stat: lock::ProcessStat| stat.start_time == process.start_time;
                (same_namespace && lock::process_stat(process.pid).is_some_and(is_it)).then_some(process.pid)
            }),
            priority: process.priority,
            alive,
            devices: devices
                .iter()
                .map(|device| {
                    let held = snapshot.held(process.slot, device.index);
                    ProcessDevice {
                        device: device.index,
                        bytes: held.iter().fold(0, |sum, bytes| sum.saturating_add(*bytes)),
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
    Region { processes, events: events::read(snapshot), ..head(snapshot, devices) }
}
