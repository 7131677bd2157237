//! A bounded, distrustful reader for everybody outside the container.
//!
//! Tenants can write the file, so nothing in it is believed: the caller reads bytes with `pread` (a mapping of a
//! file that a tenant truncates would be a SIGBUS), and [`Snapshot::parse`] steps through them by the lengths in
//! the header, each checked against what is there. Numbers may be lies; they cannot hurt. Records may be longer than
//! this version knows them.

use crate::header::{Array, RecordTable, half, word};
use crate::layout::{
    self, ARRAYS, DEVICE_READY, Device, Event, Header, JournalRecord, LeaseRecord, LimitRecord, MAGIC, OURS,
    Ours, SLOT_TAKEN, STATE_READY, Slot,
};
use crate::limits::AskedLimits;
use core::mem::offset_of;

/// Bytes of a device, slot, journal and event record in version 1.0: in no later minor version are they shorter.
const LEAST_BYTES: [u32; ARRAYS] = [512, 512, 32, 64];

/// The first minor version whose files have [`Ours::limits`] and the device's words for them.
const MINOR_WITH_LIMITS: u32 = 3;

/// Why bytes are no region.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// Shorter than the smallest region, or than its own header says.
    TooShort,
    /// The magic is not there.
    NotARegion,
    /// Another major version.
    OtherVersion(u32),
    /// Its initialisation has not finished.
    NotReady,
}

impl Refusal {
    /// What is wrong, for people.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::TooShort => "the file is too short to be a region",
            Self::NotARegion => "the file is no gpuquota region",
            Self::OtherVersion(_) => "the region was made by an incompatible version",
            Self::NotReady => "the region is not initialised yet",
        }
    }
}

/// A region as it was when its bytes were read.
#[derive(Clone, Copy)]
pub struct Snapshot<'b> {
    bytes: &'b [u8],
    devices: Records,
    slots: Records,
    journals: Records,
    events: Records,
}

/// Where one kind of record lies, within the bytes that were read.
#[derive(Clone, Copy)]
struct Records {
    offset: usize,
    bytes: usize,
    count: usize,
}

/// One device.
#[derive(Clone, Copy)]
pub struct DeviceView<'b> {
    /// Index in the region.
    pub index: usize,
    /// UUID as NVML writes it, without padding; whatever bytes the file holds.
    pub uuid: &'b [u8],
    /// Cap on requested bytes; `None` for none.
    pub memory_limit: Option<u64>,
    /// Real memory of the device, bytes.
    pub memory_total: u64,
    /// Core limit, percent; `None` for none.
    pub core_limit: Option<u32>,
    /// Bytes in use.
    pub used: u64,
    /// Highest number of bytes in use.
    pub peak: u64,
    /// Requests refused.
    pub denied: u64,
    /// Requests refused by reason (`layout::REFUSED_` codes); 0 in a file of a version before 1.4.
    pub denied_by: [u64; layout::REASONS],
    /// Requests that would have been refused (observe mode).
    pub would_deny: u64,
    /// Of the bytes in use, those that lie on the host.
    pub spilled: u64,
    /// Allocations that were sent to the host.
    pub spills: u64,
    /// Cap on bytes that do not lie on the host; `None` for none.
    pub physical_limit: Option<u64>,
    /// GPU time charged, nanoseconds.
    pub gpu_time_ns: u64,
    /// Time launches waited for the share or for a higher priority, nanoseconds.
    pub waited_ns: u64,
    /// Launches admitted under a core limit.
    pub launches: u64,
    /// Launches that waited.
    pub waits: u64,
    /// Launches that would have waited (observe mode).
    pub would_wait: u64,
    /// Virtual times clamped.
    pub clamped: u64,
    /// Time launches waited for work of their own process that was in flight, nanoseconds.
    pub waited_in_flight_ns: u64,
    /// How often a process was held to another limit than it asked for.
    pub limit_conflicts: u64,
    /// What a context takes on it, bytes; 0: not known.
    pub context_bytes: u64,
    /// Contexts charged with `context_bytes`, because the driver gave no figure.
    pub estimated_contexts: u64,
    /// Launches that waited, by how long (`layout::Device::wait_times`).
    pub wait_times: [u64; layout::WAIT_TIMES],
    /// Its lease.
    pub lease: LeaseView,
}

/// What the container and the node's agent told each other about a device.
#[derive(Clone, Copy)]
pub struct LeaseView {
    /// What is guaranteed beside other containers, percent, where that is not the core limit.
    pub request_percent: Option<u32>,
    /// Whether the container may have what others leave, beyond its core limit.
    pub burst: bool,
    /// Whether the container has only what others leave.
    pub idle_only: bool,
    /// Time that launches waited for a lease, nanoseconds.
    pub waited_ns: u64,
    /// Time for which the container had the device while others waited, nanoseconds.
    pub held_ns: u64,
}

/// One process. Whether it lives is for the caller to find out (`lock::slot_byte`, `lock::PID_BYTE`).
#[derive(Clone, Copy)]
pub struct ProcessView {
    /// Index of its slot.
    pub slot: usize,
    /// Process id in its own namespace.
    pub pid: u32,
    /// Start time, clock ticks since boot.
    pub start_time: u64,
    /// Inode of its PID namespace.
    pub pid_namespace: u64,
    /// Priority of its task, 0 is the highest.
    pub priority: u32,
}

/// One incident.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EventView {
    /// Number of the event, from 0.
    pub number: u64,
    /// One of the `layout::EVENT_` codes.
    pub code: u32,
    /// Writer, in its own PID namespace.
    pub pid: u32,
    /// Region index of the device, or `layout::NO_DEVICE`.
    pub device: u32,
    /// What was asked for.
    pub requested: u64,
    /// What was in use.
    pub used: u64,
    /// The limit at that time.
    pub limit: u64,
    /// Nanoseconds since 1970.
    pub time_ns: u64,
}

/// Where a device's lease lies in the file; a region has no more of them than [`layout::DEVICES`].
#[must_use]
pub fn lease_offset(device: usize) -> Option<usize> {
    let within = (device < layout::DEVICES).then(|| device.checked_mul(size_of::<LeaseRecord>()))??;
    OURS.checked_add(offset_of!(Header, leases))?.checked_add(within)
}

impl Records {
    /// Checks that every record of an array lies within a file of `length` bytes.
    fn within(length: usize, array: &Array, least_bytes: u32, rows: usize) -> Option<Self> {
        let bytes = usize::try_from(array.bytes).ok()?;
        let count = usize::try_from(array.count).ok()?;
        let offset = usize::try_from(array.offset).ok()?;
        let end = offset.checked_add(bytes.checked_mul(count)?.checked_mul(rows)?)?;
        (array.bytes >= least_bytes && end <= length).then_some(Self { offset, bytes, count })
    }

    fn get<'b>(&self, file: &'b [u8], index: usize) -> Option<&'b [u8]> {
        let start = self.offset.checked_add(self.bytes.checked_mul(index)?)?;
        file.get(start..start.checked_add(self.bytes)?)
    }
}

impl<'b> Snapshot<'b> {
    /// Bytes that a region of this version has.
    pub const FILE_BYTES: usize = layout::FILE_BYTES;

    /// Checks the header and where the records lie.
    pub fn parse(bytes: &'b [u8]) -> Result<Self, Refusal> {
        let header = bytes.get(OURS..).ok_or(Refusal::TooShort)?;
        let field = |at| half(header, at).ok_or(Refusal::TooShort);
        if word(header, offset_of!(Header, magic)) != Some(MAGIC) {
            return Err(Refusal::NotARegion);
        }
        let major = field(offset_of!(Header, abi_major))?;
        if major != layout::ABI_MAJOR {
            return Err(Refusal::OtherVersion(major));
        }
        if field(offset_of!(Header, state))? != STATE_READY {
            return Err(Refusal::NotReady);
        }
        let table = RecordTable::read(header).ok_or(Refusal::TooShort)?;
        let records =
            |array, least, rows| Records::within(bytes.len(), array, least, rows).ok_or(Refusal::TooShort);
        let [devices, slots, journals, events] = &table.arrays;
        let [device_bytes, slot_bytes, journal_bytes, event_bytes] = LEAST_BYTES;
        let slots = records(slots, slot_bytes, 1)?;
        let with_limits = field(offset_of!(Header, abi_minor))? >= MINOR_WITH_LIMITS;
        if with_limits && bytes.len() < layout::FILE_BYTES {
            return Err(Refusal::TooShort);
        }
        Ok(Self {
            bytes,
            devices: records(devices, device_bytes, 1)?,
            slots,
            journals: records(journals, journal_bytes, slots.count)?,
            events: records(events, event_bytes, 1)?,
        })
    }

    fn header_word(&self, at: usize) -> u64 {
        self.bytes.get(OURS..).and_then(|header| word(header, at)).unwrap_or(0)
    }

    /// Version of the ABI that the file was made by: major and minor.
    #[must_use]
    pub fn abi(&self) -> [u32; 2] {
        let header = self.bytes.get(OURS..).unwrap_or(&[]);
        [offset_of!(Header, abi_major), offset_of!(Header, abi_minor)].map(|at| half(header, at).unwrap_or(0))
    }

    fn has_limits(&self) -> bool {
        let [_, minor] = self.abi();
        minor >= MINOR_WITH_LIMITS
    }

    /// How often the file has been initialised.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.header_word(offset_of!(Header, generation))
    }

    /// Inode of the time namespace that its clocks are of.
    #[must_use]
    pub fn time_namespace(&self) -> u64 {
        self.header_word(offset_of!(Header, time_namespace))
    }

    /// Where a device's record lies in the file.
    #[must_use]
    pub fn device_offset(&self, index: usize) -> u64 {
        self.devices.offset.wrapping_add(self.devices.bytes.wrapping_mul(index)) as u64
    }

    /// Incidents survived by falling back to the driver's own answer.
    #[must_use]
    pub fn fallbacks(&self) -> u64 {
        self.header_word(offset_of!(Header, fallbacks))
    }

    /// Devices in region order.
    pub fn devices(&self) -> impl Iterator<Item = DeviceView<'b>> + '_ {
        (0..self.devices.count).filter_map(|index| self.device(index))
    }

    fn device(&self, index: usize) -> Option<DeviceView<'b>> {
        let record = self.devices.get(self.bytes, index)?;
        if half(record, offset_of!(Device, state))? != DEVICE_READY {
            return None;
        }
        let lease = self.bytes.get(lease_offset(index)?..)?;
        let policy = half(lease, offset_of!(LeaseRecord, policy))?;
        let uuid = record.get(..layout::UUID_BYTES)?;
        let used = word(record, offset_of!(Device, used))?;
        let core_limit = half(record, offset_of!(Device, core_limit))?;
        // Version 1.0 had an earlier measure there.
        let of_limits = |at| if self.has_limits() { word(record, at) } else { Some(0) };
        let mut wait_times = [0; layout::WAIT_TIMES];
        for (index, count) in wait_times.iter_mut().enumerate() {
            *count = word(record, offset_of!(Device, wait_times).wrapping_add(index.wrapping_mul(8)))?;
        }
        Some(DeviceView {
            index,
            uuid: uuid.split(|byte| *byte == 0).next().unwrap_or(&[]),
            memory_limit: Some(word(record, offset_of!(Device, memory_limit))?).filter(|limit| *limit != 0),
            memory_total: word(record, offset_of!(Device, memory_total))?,
            core_limit: Some(core_limit).filter(|limit| *limit != 0),
            used: used & layout::USED_MASK,
            peak: word(record, offset_of!(Device, peak))?,
            denied: word(record, offset_of!(Device, denied))?,
            denied_by: self.refusals(index),
            would_deny: word(record, offset_of!(Device, would_deny))?,
            spilled: word(record, offset_of!(Device, spilled))? & layout::USED_MASK,
            spills: word(record, offset_of!(Device, spills))?,
            physical_limit: Some(word(record, offset_of!(Device, physical_limit))?)
                .filter(|limit| *limit != 0),
            gpu_time_ns: word(record, offset_of!(Device, gpu_time_ns))?,
            waited_ns: word(record, offset_of!(Device, waited_ns))?,
            launches: word(record, offset_of!(Device, launches))?,
            waits: word(record, offset_of!(Device, waits))?,
            would_wait: word(record, offset_of!(Device, would_wait))?,
            clamped: word(record, offset_of!(Device, clamped))?,
            waited_in_flight_ns: word(record, offset_of!(Device, waited_in_flight_ns))?,
            limit_conflicts: of_limits(offset_of!(Device, limit_conflicts))?,
            // A context of which nothing was seen says nothing of the next one.
            context_bytes: match of_limits(offset_of!(Device, context_bytes))? {
                layout::CONTEXT_BYTES_UNSEEN => 0,
                bytes => bytes,
            },
            estimated_contexts: of_limits(offset_of!(Device, estimated_contexts))?,
            wait_times,
            lease: LeaseView {
                request_percent: layout::request_percent(policy, core_limit),
                burst: policy & layout::POLICY_BURST != 0,
                idle_only: policy & layout::POLICY_IDLE_ONLY != 0,
                waited_ns: word(lease, offset_of!(LeaseRecord, waited_ns))?,
                held_ns: word(lease, offset_of!(LeaseRecord, held_ns))?,
            },
        })
    }

    fn refusals(&self, device: usize) -> [u64; layout::REASONS] {
        let of_device = device.wrapping_mul(layout::REASONS.wrapping_mul(4));
        let at = OURS.wrapping_add(offset_of!(Header, refusals)).wrapping_add(of_device);
        let counts = if device < layout::DEVICES { self.bytes.get(at..) } else { None };
        let mut by = [0; layout::REASONS];
        for (reason, count) in by.iter_mut().enumerate() {
            *count = counts.and_then(|counts| half(counts, reason.wrapping_mul(4))).unwrap_or(0).into();
        }
        by
    }

    /// Processes that hold a slot, alive or not.
    pub fn processes(&self) -> impl Iterator<Item = ProcessView> + '_ {
        // Slots behind these were never used.
        let header = self.bytes.get(OURS..).unwrap_or(&[]);
        let high = half(header, offset_of!(Header, slot_high)).unwrap_or(0) as usize;
        (0..self.slots.count.min(high)).filter_map(|slot| self.process(slot))
    }

    fn process(&self, slot: usize) -> Option<ProcessView> {
        let record = self.slots.get(self.bytes, slot)?;
        if half(record, offset_of!(Slot, state))? != SLOT_TAKEN {
            return None;
        }
        Some(ProcessView {
            slot,
            pid: half(record, offset_of!(Slot, pid))?,
            start_time: word(record, offset_of!(Slot, start_time))?,
            pid_namespace: word(record, offset_of!(Slot, pid_namespace))?,
            priority: half(record, offset_of!(Slot, priority))?,
        })
    }

    /// Bytes that the process in `slot` holds of the device with region index `device`, by kind (`layout::KIND_DATA`
    /// and so on). What is of a kind that this version does not know counts as asked for; which of it lies on the host is
    /// not told here.
    #[must_use]
    pub fn held(&self, slot: usize, device: usize) -> [u64; layout::KINDS] {
        let mut held = [0u64; layout::KINDS];
        let Some(record) = self.slots.get(self.bytes, slot) else { return held };
        let wanted = device.wrapping_add(1);
        let byte_at = |at: usize, journal: usize| record.get(at.wrapping_add(journal)).copied().unwrap_or(0);
        for journal in 0..self.journals.count.min(layout::JOURNALS) {
            if usize::from(byte_at(offset_of!(Slot, journal_device), journal)) != wanted {
                continue;
            }
            let index = slot.wrapping_mul(self.journals.count).wrapping_add(journal);
            let words = self.journals.get(self.bytes, index);
            let bytes = words
                .and_then(|words| word(words, offset_of!(JournalRecord, held)))
                .map_or(0, layout::held_bytes);
            let kind = byte_at(offset_of!(Slot, journal_kind), journal);
            if kind == layout::KIND_SPILLED {
                continue;
            }
            let kind = usize::from(kind);
            let known = if kind < layout::KINDS { kind } else { 0 };
            if let Some(sum) = held.get_mut(known) {
                *sum = sum.wrapping_add(bytes);
            }
        }
        held
    }

    /// The limits on a device in a row of [`Ours::limits`]; `None` where nothing was written, and in a file of a version
    /// before 1.3.
    #[must_use]
    pub fn asked_limits(&self, row: usize, device: usize) -> Option<AskedLimits> {
        let known = self.has_limits() && row < layout::LIMIT_ROWS && device < layout::DEVICES;
        let index = known.then(|| row.checked_mul(layout::DEVICES)?.checked_add(device))??;
        let limits = Records {
            offset: OURS.wrapping_add(offset_of!(Ours, limits)),
            bytes: size_of::<LimitRecord>(),
            count: layout::LIMIT_ROWS,
        };
        let record = limits.get(self.bytes, index)?;
        AskedLimits::of_words([
            word(record, offset_of!(LimitRecord, memory))?,
            word(record, offset_of!(LimitRecord, physical))?,
        ])
    }

    /// GPU time that the process in `slot` has submitted to `device` and that is not measured yet, nanoseconds.
    #[must_use]
    pub fn pending_ns(&self, slot: usize, device: usize) -> u64 {
        let at = offset_of!(Slot, pending_ns).saturating_add(device.saturating_mul(8));
        match self.slots.get(self.bytes, slot) {
            Some(record) if device < layout::DEVICES => word(record, at).unwrap_or(0),
            _ => 0,
        }
    }

    /// The events that are still in the ring and complete, in no particular order.
    pub fn events(&self) -> impl Iterator<Item = EventView> + '_ {
        (0..self.events.count).filter_map(|index| {
            let record = self.events.get(self.bytes, index)?;
            let stamp = word(record, offset_of!(Event, stamp))?;
            Some(EventView {
                number: stamp.checked_sub(1)?,
                code: half(record, offset_of!(Event, code))?,
                pid: half(record, offset_of!(Event, pid))?,
                device: half(record, offset_of!(Event, device))?,
                requested: word(record, offset_of!(Event, requested))?,
                used: word(record, offset_of!(Event, used))?,
                limit: word(record, offset_of!(Event, limit))?,
                time_ns: word(record, offset_of!(Event, time_ns))?,
            })
        })
    }
}

const _: () = assert!(offset_of!(Ours, header) == 0);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::file::Region;
    use crate::limits::Asked;
    use core::sync::atomic::Ordering::Relaxed;
    use std::{vec, vec::Vec};

    fn limits() -> AskedLimits {
        AskedLimits { cores: Some(Asked { value: 30, from_file: false }), ..AskedLimits::default() }
    }

    /// A region with one of everything.
    fn sample() -> Vec<u8> {
        let region = Region::in_memory();
        let ours = region.ours();
        let device = &ours.devices[0];
        device.uuid[0].store(u64::from_le_bytes(*b"GPU-1234"), Relaxed);
        device.used.store(4096, Relaxed);
        device.core_limit.store(30, Relaxed);
        device.state.store(DEVICE_READY, Relaxed);
        let lease = &ours.header.leases[0];
        lease.policy.store(20 | layout::POLICY_BURST, Relaxed);
        lease.waited_ns.store(7, Relaxed);
        let slot = &ours.slots[2];
        slot.pid.store(41, Relaxed);
        slot.priority.store(1, Relaxed);
        slot.pending_ns[0].store(9, Relaxed);
        for (journal, kind) in [layout::KIND_DATA, layout::KIND_POOL, layout::KIND_SPILLED].iter().enumerate()
        {
            slot.journal_device[journal].store(1, Relaxed);
            slot.journal_kind[journal].store(*kind, Relaxed);
            ours.journals[2][journal].held.store(100 << layout::HELD_SHIFT, Relaxed);
        }
        slot.state.store(SLOT_TAKEN, Relaxed);
        ours.header.slot_high.store(3, Relaxed);
        ours.header.refusals[0][layout::REFUSED_CONTEXT].store(4, Relaxed);
        let [memory, physical] = limits().words();
        ours.limits[2][0].memory.store(memory, Relaxed);
        ours.limits[2][0].physical.store(physical, Relaxed);
        region.event(layout::EVENT_DENIED, 0, 10, 20, 25);
        region.bytes()
    }

    fn assert_reads_as_the_sample(bytes: &[u8]) {
        let snapshot = Snapshot::parse(bytes).expect("a region");
        let device = snapshot.devices().next().expect("a device");
        assert_eq!(device.denied_by, [0, 0, 4, 0, 0, 0, 0, 0]);
        assert_eq!((device.uuid, device.used, device.memory_limit), (&b"GPU-1234"[..], 4096, None));
        assert_eq!((device.core_limit, device.lease.request_percent), (Some(30), Some(20)));
        assert_eq!((device.lease.burst, device.lease.idle_only, device.lease.waited_ns), (true, false, 7));
        let process = snapshot.processes().next().expect("a process");
        assert_eq!((process.slot, process.pid, process.priority), (2, 41, 1));
        assert_eq!((snapshot.held(2, 0), snapshot.pending_ns(2, 0)), ([100, 0, 0, 100, 0], 9));
        assert_eq!((snapshot.asked_limits(2, 0), snapshot.asked_limits(2, 1)), (Some(limits()), None));
        let event = snapshot.events().next().expect("an event");
        assert_eq!((event.number, event.requested, event.used, event.limit), (0, 10, 20, 25));
    }

    fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
        bytes[at..at + value.len()].copy_from_slice(value);
    }

    #[test]
    fn a_region_reads_back_as_it_was_written() {
        assert_reads_as_the_sample(&sample());
    }

    #[test]
    fn records_of_a_later_minor_version_are_longer_and_lie_elsewhere_and_read_the_same() {
        let old = sample();
        // The limits stay in their place, and nothing else lies where it lay.
        let mut new = old.clone();
        new[OURS + size_of::<Header>()..OURS + offset_of!(Ours, limits)].fill(0xA5);
        let table = RecordTable::OURS.arrays;
        for (kind, array) in table.iter().enumerate() {
            let [bytes, count] =
                [array.bytes, array.count].map(|number| usize::try_from(number).expect("small"));
            let length = bytes * count * if kind == 2 { layout::SLOTS } else { 1 };
            let start = usize::try_from(array.offset).expect("small");
            let offset = u64::try_from(new.len()).expect("small");
            for record in old[start..start + length].chunks(bytes) {
                new.extend_from_slice(record);
                new.extend_from_slice(&[0xA5; 64]);
            }
            let longer = array.bytes + 64;
            put(&mut new, OURS + offset_of!(Header, record_bytes) + kind * 4, &longer.to_le_bytes());
            put(&mut new, OURS + offset_of!(Header, record_offset) + kind * 8, &offset.to_le_bytes());
        }
        put(&mut new, OURS + offset_of!(Header, abi_minor), &(layout::ABI_MINOR + 1).to_le_bytes());
        let table = RecordTable::read(&new[OURS..]).expect("a table");
        assert!(table.mismatch().is_some(), "a writer must not touch it");
        assert_reads_as_the_sample(&new);
    }

    #[test]
    fn no_prefix_of_a_region_and_no_garbage_is_a_panic() {
        let mut bytes = sample();
        for length in [0, 1, OURS - 1, OURS, OURS + 100, OURS + 4096, bytes.len() - 1] {
            assert!(Snapshot::parse(&bytes[..length]).is_err(), "{length} bytes are not a whole region");
        }
        assert_eq!(Snapshot::parse(&vec![0xff; bytes.len()]).err(), Some(Refusal::NotARegion));
        // Miri is slow: every eighth byte.
        for at in ((OURS + 24)..(OURS + 88)).step_by(if cfg!(miri) { 8 } else { 1 }) {
            let old = bytes[at];
            bytes[at] = 0xff;
            if let Ok(snapshot) = Snapshot::parse(&bytes) {
                let _ = (snapshot.devices().count(), snapshot.processes().count(), snapshot.events().count());
                let _ = (snapshot.held(usize::MAX, usize::MAX), snapshot.pending_ns(3, usize::MAX));
            }
            bytes[at] = old;
        }
    }

    #[test]
    fn another_major_version_is_named() {
        let mut bytes = sample();
        bytes[OURS + 8] = 9;
        assert_eq!(Snapshot::parse(&bytes).err(), Some(Refusal::OtherVersion(9)));
    }

    #[test]
    fn there_is_no_lease_behind_the_last_one() {
        let last = lease_offset(layout::DEVICES - 1).expect("the last one");
        assert_eq!(last, OURS + offset_of!(Header, leases) + 31 * size_of::<LeaseRecord>());
        assert_eq!(lease_offset(layout::DEVICES), None);
    }
}
