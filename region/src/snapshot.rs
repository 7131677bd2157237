//! A bounded, distrustful reader for everybody outside the container.
//!
//! Tenants can write the file, so nothing in it is believed: the caller reads bytes with `pread` (a mapping of a
//! file that a tenant truncates would be a SIGBUS), and [`Snapshot::parse`] steps through them by the lengths in
//! the header, each checked against what is there. Numbers may be lies; they cannot hurt.

use crate::layout::{
    self, DEVICE_READY, Device, Event, Header, Lane, MAGIC, OURS, Ours, SLOT_TAKEN, STATE_READY, Slot, Turns,
};
use core::mem::{offset_of, size_of};

/// More than any version of the file will need; longer files are read up to here.
pub const LONGEST_FILE: usize = 64 << 20;

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
    lanes: Records,
    events: Records,
}

/// Where one kind of record lies.
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
    pub core_percent: Option<u32>,
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
    /// Cap on bytes that do not lie on the host; `None` for none.
    pub physical_limit: Option<u64>,
    /// GPU time charged, nanoseconds.
    pub gpu_time_ns: u64,
    /// Time launches waited, nanoseconds.
    pub wait_ns: u64,
    /// Launches admitted under a core limit.
    pub launches: u64,
    /// Launches that waited.
    pub waits: u64,
    /// Launches that would have waited (observe mode).
    pub would_wait: u64,
    /// Virtual times clamped.
    pub clamped: u64,
    /// Time launches waited for work of their own process that was in flight, nanoseconds.
    pub wait_flight_ns: u64,
    /// Launches that waited, by how long (`layout::Device::wait_times`).
    pub wait_times: [u64; layout::WAIT_TIMES],
    /// What is guaranteed beside other containers, percent, where more than the core limit says so.
    pub request_percent: Option<u32>,
    /// Time that launches waited for other containers, nanoseconds.
    pub wait_turn_ns: u64,
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
    /// Process id on the node, where the agent has filled it in; 0 otherwise.
    pub host_pid: u32,
    /// Start time, clock ticks since boot.
    pub start_time: u64,
    /// Inode of its PID namespace.
    pub pid_namespace: u64,
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
    /// Region index of the device, or `u32::MAX`.
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

/// The eight-byte field at an offset, where there are so many bytes.
#[must_use]
pub fn word(bytes: &[u8], at: usize) -> Option<u64> {
    let field = bytes.get(at..at.checked_add(8)?)?;
    Some(u64::from_le_bytes(field.try_into().ok()?))
}

/// Where what is said of turns on a device lies in the file.
#[must_use]
pub fn turns_offset(index: usize) -> u64 {
    let within = index.min(layout::DEVICES).wrapping_mul(size_of::<Turns>());
    OURS.wrapping_add(offset_of!(Header, turns)).wrapping_add(within) as u64
}

/// The four-byte field at an offset, where there are so many bytes.
#[must_use]
pub fn half(bytes: &[u8], at: usize) -> Option<u32> {
    let field = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_le_bytes(field.try_into().ok()?))
}

impl Records {
    /// Reads record kind `kind` of the header and checks that every record lies within the file.
    fn read(file: &[u8], kind: usize, least_bytes: usize, rows: usize) -> Option<Self> {
        let header = file.get(OURS..)?;
        let at = |base: usize, width: usize| base.wrapping_add(kind.wrapping_mul(width));
        let bytes = half(header, at(offset_of!(Header, record_bytes), 4))? as usize;
        let count = half(header, at(offset_of!(Header, record_count), 4))? as usize;
        let offset = usize::try_from(word(header, at(offset_of!(Header, record_offset), 8))?).ok()?;
        let end = offset.checked_add(bytes.checked_mul(count)?.checked_mul(rows)?)?;
        (bytes >= least_bytes && end <= file.len()).then_some(Self { offset, bytes, count })
    }

    fn get<'b>(&self, file: &'b [u8], index: usize) -> Option<&'b [u8]> {
        let start = self.offset.checked_add(self.bytes.checked_mul(index)?)?;
        file.get(start..start.checked_add(self.bytes)?)
    }
}

impl<'b> Snapshot<'b> {
    /// Bytes that a region of this version has; a reader may stop at [`LONGEST_FILE`].
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
        let records = |kind, least, rows| Records::read(bytes, kind, least, rows).ok_or(Refusal::TooShort);
        let slots = records(1, size_of::<Slot>(), 1)?;
        Ok(Self {
            bytes,
            devices: records(0, size_of::<Device>(), 1)?,
            slots,
            lanes: records(2, size_of::<Lane>(), slots.count)?,
            events: records(3, size_of::<Event>(), 1)?,
        })
    }

    fn header_word(&self, at: usize) -> u64 {
        self.bytes.get(OURS..).and_then(|header| word(header, at)).unwrap_or(0)
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
        let turns = self.bytes.get(usize::try_from(turns_offset(index)).ok()?..)?;
        let uuid = record.get(..layout::UUID_BYTES)?;
        let used = word(record, offset_of!(Device, used))?;
        let core_limit = half(record, offset_of!(Device, core_limit))?;
        let mut wait_times = [0; layout::WAIT_TIMES];
        for (index, count) in wait_times.iter_mut().enumerate() {
            *count = word(record, offset_of!(Device, wait_times).wrapping_add(index.wrapping_mul(8)))?;
        }
        Some(DeviceView {
            index,
            uuid: uuid.split(|byte| *byte == 0).next().unwrap_or(&[]),
            memory_limit: Some(word(record, offset_of!(Device, memory_limit))?).filter(|limit| *limit != 0),
            memory_total: word(record, offset_of!(Device, memory_total))?,
            core_percent: Some(core_limit).filter(|limit| *limit != 0),
            used: used & layout::USED_MASK,
            peak: word(record, offset_of!(Device, peak))?,
            denied: word(record, offset_of!(Device, denied))?,
            would_deny: word(record, offset_of!(Device, would_deny))?,
            spilled: word(record, offset_of!(Device, spilled))? & layout::USED_MASK,
            spills: word(record, offset_of!(Device, spills))?,
            physical_limit: Some(word(record, offset_of!(Device, physical_limit))?)
                .filter(|limit| *limit != 0),
            gpu_time_ns: word(record, offset_of!(Device, gpu_time_ns))?,
            wait_ns: word(record, offset_of!(Device, waited_ns))?,
            launches: word(record, offset_of!(Device, launches))?,
            waits: word(record, offset_of!(Device, waits))?,
            would_wait: word(record, offset_of!(Device, would_wait))?,
            clamped: word(record, offset_of!(Device, clamped))?,
            wait_flight_ns: word(record, offset_of!(Device, waited_flight_ns))?,
            wait_times,
            request_percent: layout::request(half(turns, offset_of!(Turns, terms))?, core_limit),
            wait_turn_ns: word(turns, offset_of!(Turns, waited_ns))?,
            held_ns: word(turns, offset_of!(Turns, held_ns))?,
        })
    }

    /// Processes that hold a slot, alive or not.
    pub fn processes(&self) -> impl Iterator<Item = ProcessView> + '_ {
        (0..self.slots.count).filter_map(|slot| self.process(slot))
    }

    fn process(&self, slot: usize) -> Option<ProcessView> {
        let record = self.slots.get(self.bytes, slot)?;
        if half(record, offset_of!(Slot, state))? != SLOT_TAKEN {
            return None;
        }
        Some(ProcessView {
            slot,
            pid: half(record, offset_of!(Slot, pid))?,
            host_pid: half(record, offset_of!(Slot, host_pid))?,
            start_time: word(record, offset_of!(Slot, start_time))?,
            pid_namespace: word(record, offset_of!(Slot, pid_namespace))?,
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
        let bytes_at = |at: usize, lane: usize| record.get(at.wrapping_add(lane)).copied().unwrap_or(0);
        for lane in 0..self.lanes.count.min(layout::LANES) {
            if usize::from(bytes_at(offset_of!(Slot, lane_device), lane)) != wanted {
                continue;
            }
            let index = slot.wrapping_mul(self.lanes.count).wrapping_add(lane);
            let words = self.lanes.get(self.bytes, index);
            let bytes =
                words.and_then(|words| word(words, offset_of!(Lane, held))).map_or(0, layout::held_bytes);
            let kind = bytes_at(offset_of!(Slot, lane_kind), lane);
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

    /// GPU time that the process in `slot` has submitted to `device` and that is not settled yet, nanoseconds.
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
    use core::sync::atomic::Ordering::Relaxed;
    use std::ffi::CString;
    use std::{format, vec, vec::Vec};

    fn sample(name: &str) -> Vec<u8> {
        let path = std::env::temp_dir().join(format!("gpuquota-snapshot-{name}-{}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let c_path = CString::new(path.to_str().expect("utf-8")).expect("no NUL");
        let region = Region::open(&c_path, 1).expect("a region");
        let device = &region.ours().devices[0];
        device.uuid[0].store(u64::from_le_bytes(*b"GPU-1234"), Relaxed);
        device.used.store(4096, Relaxed);
        device.state.store(DEVICE_READY, Relaxed);
        region.event(layout::EVENT_DENIED, 0, 10, 20, 25);
        std::fs::read(&path).expect("the file")
    }

    #[test]
    fn a_fresh_region_reads_back_with_its_device_and_event() {
        let bytes = sample("fresh");
        let snapshot = Snapshot::parse(&bytes).expect("a region");
        let device = snapshot.devices().next().expect("a device");
        assert_eq!((device.uuid, device.used, device.memory_limit), (&b"GPU-1234"[..], 4096, None));
        let event = snapshot.events().next().expect("an event");
        assert_eq!((event.number, event.requested, event.used, event.limit), (0, 10, 20, 25));
        assert_eq!(snapshot.processes().count(), 0);
    }

    #[test]
    fn no_prefix_of_a_region_and_no_garbage_is_a_panic() {
        let mut bytes = sample("prefix");
        for length in [0, 1, OURS - 1, OURS, OURS + 100, OURS + 4096, bytes.len() - 1] {
            assert!(Snapshot::parse(&bytes[..length]).is_err(), "{length} bytes are not a whole region");
        }
        assert_eq!(Snapshot::parse(&vec![0xff; bytes.len()]).err(), Some(Refusal::NotARegion));
        for at in (OURS + 24)..(OURS + 88) {
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
        let mut bytes = sample("major");
        bytes[OURS + 8] = 9;
        assert_eq!(Snapshot::parse(&bytes).err(), Some(Refusal::OtherVersion(9)));
    }
}
