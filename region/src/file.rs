//! How a file becomes a region: opened or created in place, verified first, published last.
//!
//! # Safety
//! This module may use `unsafe` because it turns a mapping into a `&'static File`. The mapping has the file's full
//! length, its blocks are allocated, it is never undone, and every byte of [`layout::File`] is part of an atomic, for
//! which any bit pattern is valid and which other processes may change at any time.
#![allow(unsafe_code)]

use crate::hami;
use crate::header::{Mismatch, RecordTable, half, word};
use crate::layout::{self, FILE_BYTES, Header, OURS, Ours};
use crate::lock::INIT_BYTE;
use crate::sys::{self, Descriptor, Errno, LockKind};
use core::ffi::CStr;
use core::fmt;
use core::mem::offset_of;
use core::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};

/// Why a region could not be had.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OpenError {
    /// The file cannot be opened or created.
    Open(Errno),
    /// The file system has no room for the region (it takes [`FILE_BYTES`] bytes), or cannot be mapped.
    Space(Errno),
    /// The file is something else, and is left as it is.
    NotARegion,
    /// A region of another major version.
    OtherVersion(u32),
    /// A region of this major version whose records lie otherwise than this version writes them: it was made by a later
    /// minor version. Both would corrupt what the other one writes.
    OtherLayout(Mismatch),
    /// Another process has been initialising the region for over two seconds.
    Busy,
    /// No process uses the region: it is of another boot, or its initialisation was interrupted.
    Stale,
}

impl OpenError {
    /// What went wrong, for people.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Open(Errno(libc::ENOENT)) => "it does not exist, or its directory does not",
            Self::Open(Errno(libc::EACCES | libc::EPERM)) => "permission denied",
            Self::Open(Errno(libc::EROFS)) => "its file system is read-only",
            Self::Open(Errno(libc::EISDIR)) => "it is a directory",
            Self::Open(_) => "it cannot be opened",
            Self::Space(Errno(libc::ENOSPC | libc::EDQUOT)) => "no space left for it (it takes 4 MiB)",
            Self::Space(_) => "it cannot be mapped",
            Self::NotARegion => "the file exists and is no region",
            Self::OtherVersion(_) => "it was made by an incompatible version",
            Self::OtherLayout(_) => {
                "it was made by another version, which lays its records out otherwise, and is left as it is"
            }
            Self::Busy => "another process has been initialising it for too long",
            Self::Stale => "nothing has used it since the machine was started",
        }
    }

    /// The number that was found in the file and the one that this version knows, with its name, where that is the reason.
    #[must_use]
    pub fn numbers(&self) -> Option<Mismatch> {
        match *self {
            Self::OtherVersion(major) => Some(Mismatch {
                of: "major version",
                found: u64::from(major),
                known: u64::from(layout::ABI_MAJOR),
            }),
            Self::OtherLayout(mismatch) => Some(mismatch),
            _ => None,
        }
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason())?;
        self.numbers().map_or(Ok(()), |numbers| write!(f, " ({numbers})"))
    }
}

/// [`FILE_BYTES`] as the length of a file.
const FULL_LENGTH: u64 = FILE_BYTES as u64;

/// A mapped region.
#[derive(Clone, Copy)]
pub struct Region {
    file: &'static layout::File,
}

/// What distinguishes this boot and these clocks from others.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Here {
    boot_id: [u64; 2],
    time_namespace: u64,
}

impl Here {
    fn now() -> Self {
        let mut buffer = [0u8; 64];
        let text = sys::read_file(c"/proc/sys/kernel/random/boot_id", &mut buffer).unwrap_or(&[]);
        let digits = text.iter().filter_map(|byte| (*byte as char).to_digit(16));
        let mut boot_id = [0u64; 2];
        for (index, digit) in digits.enumerate() {
            if let Some(word) = boot_id.get_mut(index / 16) {
                *word = *word << 4 | u64::from(digit);
            }
        }
        Self { boot_id, time_namespace: sys::inode_of(c"/proc/self/ns/time") }
    }
}

/// What a file is when it is opened.
enum Found {
    /// A region in use, with which this version can work.
    Ready,
    /// Empty, HAMi-core's, half initialised or from another boot.
    Fresh,
}

/// How many bytes of the header are read before the file is mapped.
const HEAD_BYTES: usize = offset_of!(Header, leases);

/// What a file is, and how long. It is not mapped yet, so a file that is something else is not touched.
fn examine(file: &Descriptor, here: Here) -> Result<(Found, u64), OpenError> {
    let stat = file.stat().map_err(OpenError::Open)?;
    if !stat.regular {
        return Err(OpenError::NotARegion);
    }
    let mut buffer = [0u8; HEAD_BYTES];
    let head = file.read_at(&mut buffer, OURS as u64).map_err(OpenError::Open)?;
    let magic = word(head, offset_of!(Header, magic)).unwrap_or(0);
    let found = match magic {
        layout::MAGIC => match examine_head(head, here)? {
            // Its blocks were there before it was ready: it was truncated since.
            Found::Ready if stat.size < FULL_LENGTH => return Err(OpenError::NotARegion),
            found => found,
        },
        0 => {
            let flag = half(file.read_at(&mut [0u8; 4], 0).map_err(OpenError::Open)?, 0).unwrap_or(0);
            // Blocks that were taken for a region whose initialisation never began.
            let untouched = flag == 0 && (stat.size == 0 || stat.size >= FILE_BYTES as u64);
            if !untouched && flag.cast_signed() != hami::MAGIC {
                return Err(OpenError::NotARegion);
            }
            Found::Fresh
        }
        _ => return Err(OpenError::NotARegion),
    };
    Ok((found, stat.size))
}

/// What a file with our magic is.
fn examine_head(head: &[u8], here: Here) -> Result<Found, OpenError> {
    let major = half(head, offset_of!(Header, abi_major)).unwrap_or(0);
    if major != layout::ABI_MAJOR {
        return Err(OpenError::OtherVersion(major));
    }
    let boot_id = [0, 8].map(|at| word(head, offset_of!(Header, boot_id).wrapping_add(at)).unwrap_or(0));
    let other_boot = here.boot_id != [0; 2] && boot_id != here.boot_id;
    if half(head, offset_of!(Header, state)) != Some(layout::STATE_READY) || other_boot {
        return Ok(Found::Fresh);
    }
    let table = RecordTable::read(head).ok_or(OpenError::NotARegion)?;
    table.mismatch().map_or(Ok(Found::Ready), |mismatch| Err(OpenError::OtherLayout(mismatch)))
}

impl Region {
    /// Opens the region at `path`, creating and initialising it where needed. `priority` is HAMi's task priority
    /// (0 high, 1 low) for a region made now.
    pub fn open(path: &CStr, priority: i32) -> Result<Self, OpenError> {
        let file = Self::open_file(path)?;
        let here = Here::now();
        if let (Found::Ready, _) = examine(&file, here)? {
            let region = Self::map(&file)?;
            if region.is_ready() {
                region.adopt_clock(here);
                return Ok(region);
            }
        }
        let _init = InitLock::take(&file)?;
        Self::open_locked(&file, here, priority)
    }

    /// Opens a region that is in use; makes none and changes nothing.
    pub fn existing(path: &CStr) -> Result<Self, OpenError> {
        let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_NONBLOCK;
        let file = Descriptor::open(path, flags, 0).map_err(OpenError::Open)?;
        match examine(&file, Here::now())? {
            (Found::Ready, _) => Self::map(&file),
            (Found::Fresh, FULL_LENGTH..) => Err(OpenError::Stale),
            _ => Err(OpenError::NotARegion),
        }
    }

    fn open_file(path: &CStr) -> Result<Descriptor, OpenError> {
        match Descriptor::open(path, libc::O_RDWR | libc::O_CREAT | libc::O_EXCL | libc::O_NOCTTY, 0o666) {
            Ok(file) => {
                file.share_with_all_users();
                Ok(file)
            }
            Err(Errno(libc::EEXIST)) => {
                Descriptor::open(path, libc::O_RDWR | libc::O_NOCTTY, 0).map_err(OpenError::Open)
            }
            Err(error) => Err(OpenError::Open(error)),
        }
    }

    /// The rest of [`Self::open`], with the initialisation lock held: another process may just have done the work.
    fn open_locked(file: &Descriptor, here: Here, priority: i32) -> Result<Self, OpenError> {
        let (found, size) = examine(file, here)?;
        file.allocate(FULL_LENGTH).map_err(OpenError::Space)?;
        let region = Self::map(file)?;
        if !matches!(found, Found::Ready) {
            // Blocks just taken read zero; storing zeroes would fault every page in.
            region.initialise(here, priority, size == 0);
        }
        Ok(region)
    }

    fn map(file: &Descriptor) -> Result<Self, OpenError> {
        let address = file.map_shared(FILE_BYTES, true).map_err(OpenError::Space)?;
        // SAFETY: the mapping is FILE_BYTES long, page-aligned and lives for ever; see the module's Safety.
        Ok(Self { file: unsafe { &*address.cast::<layout::File>() } })
    }

    /// Whether another process has finished initialising the region; what that process wrote is then seen here.
    fn is_ready(&self) -> bool {
        self.ours().header.state.load(Acquire) == layout::STATE_READY
    }

    /// In another time namespace CLOCK_MONOTONIC differs: what was computed with it starts anew.
    fn adopt_clock(&self, here: Here) {
        let ours = self.ours();
        let known = &ours.header.time_namespace;
        // Looked at before it is written: a first store to a page of a file costs more than all the rest.
        if known.load(Acquire) != here.time_namespace
            && known.swap(here.time_namespace, AcqRel) != here.time_namespace
        {
            ours.header.monitor_ns.store(0, Relaxed);
            for device in &ours.devices {
                let times = [
                    &device.virtual_time_ns,
                    &device.busy_until_ns,
                    &device.idle_at_ns,
                    &device.in_flight_until_ns,
                    &device.gaps_from_ns,
                ];
                times.into_iter().chain(&device.gaps).for_each(|time| time.store(0, Relaxed));
            }
            for record in &ours.header.leases {
                let times = [&record.lease, &record.renewed_at_ns, &record.asked_at_ns];
                times.into_iter().for_each(|time| time.store(0, Relaxed));
            }
        }
    }

    /// Writes a fresh region over whatever is there. No other process uses the file: it is new, from another boot, or
    /// its initialisation was interrupted.
    fn initialise(&self, here: Here, priority: i32, zeroed: bool) {
        let ours = self.ours();
        let header = &ours.header;
        let generation = header.generation.load(Relaxed);
        let anew = header.magic.load(Relaxed) == layout::MAGIC;
        header.state.store(layout::STATE_EMPTY, Release);
        if !zeroed {
            self.zero_ours();
            self.file.hami.clear();
        }
        // So much first: if this process dies now, the next one can tell that this was a region.
        header.generation.store(generation.wrapping_add(1), Relaxed);
        header.abi_major.store(layout::ABI_MAJOR, Relaxed);
        header.magic.store(layout::MAGIC, Release);
        self.file.hami.initialise(priority);
        header.abi_minor.store(layout::ABI_MINOR, Relaxed);
        let table = RecordTable::OURS;
        header.length.store(table.length, Relaxed);
        let fields = header.record_bytes.iter().zip(&header.record_count).zip(&header.record_offset);
        for (((bytes, count), offset), array) in fields.zip(table.arrays) {
            bytes.store(array.bytes, Relaxed);
            count.store(array.count, Relaxed);
            offset.store(array.offset, Relaxed);
        }
        header.boot_id[0].store(here.boot_id[0], Relaxed);
        header.boot_id[1].store(here.boot_id[1], Relaxed);
        header.time_namespace.store(here.time_namespace, Relaxed);
        header.created_at_ns.store(sys::realtime_ns(), Relaxed);
        if anew {
            self.event(layout::EVENT_STARTED_ANEW, layout::NO_DEVICE, 0, 0, 0);
        }
        header.state.store(layout::STATE_READY, Release);
    }

    fn zero_ours(&self) {
        let words = core::ptr::from_ref(self.ours()).cast::<core::sync::atomic::AtomicU64>();
        // SAFETY: Ours is a whole number of aligned 64-bit words of shared atomic memory.
        let words = unsafe { core::slice::from_raw_parts(words, size_of::<Ours>() / 8) };
        for word in words {
            word.store(0, Relaxed);
        }
    }

    /// Our part.
    #[must_use]
    pub fn ours(&self) -> &'static Ours {
        &self.file.ours
    }

    /// HAMi's view.
    #[must_use]
    pub fn hami(&self) -> &'static hami::View {
        &self.file.hami
    }

    /// Caps a device's memory, in bytes; 0 for no cap. It holds from the next allocation on: processes keep what they hold
    /// beyond it.
    pub fn limit_memory(&self, device: usize, bytes: u64) {
        if let Some(record) = self.ours().devices.get(device) {
            record.memory_limit.store(bytes, Relaxed);
        }
        if let Some(limit) = self.hami().limit.get(device) {
            limit.store(bytes, Relaxed);
        }
    }

    /// Limits a device's time, in percent; 0 and 100 for no limit. It holds from the next launch on, for those that wait
    /// already too.
    pub fn limit_cores(&self, device: usize, percent: u32) {
        if let Some(record) = self.ours().devices.get(device) {
            record.core_limit.store(percent, Relaxed);
        }
        if let Some(limit) = self.hami().sm_limit.get(device) {
            limit.store(if percent == 0 { 100 } else { percent.into() }, Relaxed);
        }
        if percent != 0 {
            self.ours().header.shares.store(1, Release);
        }
    }

    /// Sets how a device's time is shared with other containers: the percentage that this one requests, 0 for its core
    /// limit, and the `POLICY_` bits.
    pub fn set_policy(&self, device: usize, policy: u32) {
        if let Some(record) = self.ours().header.leases.get(device) {
            record.policy.store(policy, Relaxed);
        }
    }

    /// Writes an event.
    pub fn event(&self, code: u32, device: u32, requested: u64, used: u64, limit: u64) {
        let ours = self.ours();
        let number = ours.header.event_next.fetch_add(1, Relaxed);
        let Some(event) =
            usize::try_from(number % layout::EVENTS as u64).ok().and_then(|at| ours.events.get(at))
        else {
            return;
        };
        event.stamp.store(0, Release);
        event.code.store(code, Relaxed);
        event.pid.store(sys::pid(), Relaxed);
        event.device.store(device, Relaxed);
        event.requested.store(requested, Relaxed);
        event.used.store(used, Relaxed);
        event.limit.store(limit, Relaxed);
        event.time_ns.store(sys::realtime_ns(), Relaxed);
        event.stamp.store(number.wrapping_add(1), Release);
    }
}

/// Held while a region is initialised; dropped by the kernel with its holder.
struct InitLock<'f>(&'f Descriptor);

impl<'f> InitLock<'f> {
    fn take(file: &'f Descriptor) -> Result<Self, OpenError> {
        let deadline = sys::monotonic_ns().wrapping_add(2_000_000_000);
        loop {
            match file.try_lock(LockKind::Ofd, INIT_BYTE) {
                Ok(()) => return Ok(Self(file)),
                Err(Errno(libc::EAGAIN | libc::EACCES)) => {}
                Err(error) => return Err(OpenError::Open(error)),
            }
            let now = sys::monotonic_ns();
            if now >= deadline {
                return Err(OpenError::Busy);
            }
            sys::sleep_until(now.wrapping_add(1_000_000));
        }
    }
}

impl Drop for InitLock<'_> {
    fn drop(&mut self) {
        self.0.unlock(INIT_BYTE);
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::ffi::CString;
    use std::path::PathBuf;
    use std::sync::Mutex;
    use std::vec::Vec;
    use std::{format, fs, vec};

    static MEMORIES: Mutex<Vec<&layout::File>> = Mutex::new(Vec::new());

    const BOOT: Here = Here { boot_id: [1, 2], time_namespace: 3 };

    impl Region {
        /// A region in memory of this process, for tests that need no file.
        pub(crate) fn in_memory() -> Self {
            // SAFETY: File has a size; the memory is never freed; every field of it is an atomic, for which zero is valid.
            let file = unsafe {
                let memory = std::alloc::alloc_zeroed(std::alloc::Layout::new::<layout::File>());
                assert!(!memory.is_null(), "no memory");
                &*memory.cast::<layout::File>()
            };
            // Miri takes what nothing refers to for a leak.
            MEMORIES.lock().expect("no panic").push(file);
            let region = Self { file };
            region.initialise(BOOT, 1, true);
            region
        }

        /// Its bytes, as a reader would find them in a file.
        pub(crate) fn bytes(&self) -> Vec<u8> {
            let bytes = core::ptr::from_ref(self.file).cast::<u8>();
            // SAFETY: File has no padding, and a region in memory is known to the one thread that made it.
            unsafe { core::slice::from_raw_parts(bytes, FILE_BYTES) }.to_vec()
        }
    }

    /// A path for a region that no other test uses.
    pub(crate) fn scratch(name: &str) -> (PathBuf, CString) {
        let path = std::env::temp_dir().join(format!("gpuquota-region-{name}-{}", std::process::id()));
        let _ = fs::remove_file(&path);
        let name = CString::new(path.to_str().expect("utf-8")).expect("no NUL");
        (path, name)
    }

    /// The head of our part, with one field changed.
    fn changed(head: &[u8], at: usize, bytes: &[u8]) -> Vec<u8> {
        let mut head = head[..HEAD_BYTES].to_vec();
        head[at..at + bytes.len()].copy_from_slice(bytes);
        head
    }

    #[test]
    fn a_head_is_ready_fresh_or_refused_and_the_refusal_names_the_number() {
        let bytes = Region::in_memory().bytes();
        let head = &bytes[OURS..OURS + HEAD_BYTES];
        assert!(matches!(examine_head(head, BOOT), Ok(Found::Ready)));
        let other_boot = Here { boot_id: [9, 9], ..BOOT };
        assert!(matches!(examine_head(head, other_boot), Ok(Found::Fresh)));
        let unfinished = changed(head, offset_of!(Header, state), &[0]);
        assert!(matches!(examine_head(&unfinished, BOOT), Ok(Found::Fresh)));
        let major = changed(head, offset_of!(Header, abi_major), &[2]);
        assert!(matches!(examine_head(&major, BOOT), Err(OpenError::OtherVersion(2))));
        let minor = changed(head, offset_of!(Header, abi_minor), &[99]);
        assert!(matches!(examine_head(&minor, BOOT), Ok(Found::Ready)), "the same records: the same layout");
        let longer = changed(head, offset_of!(Header, record_bytes) + 4, &1024u32.to_le_bytes());
        let error = examine_head(&longer, BOOT).err().expect("another layout");
        let said = format!("{error}");
        assert!(said.ends_with("(bytes of a slot record: found 1024, this version writes 512)"), "{said}");
        let old = changed(&longer, offset_of!(Header, boot_id), &[9]);
        assert!(matches!(examine_head(&old, BOOT), Ok(Found::Fresh)), "no process uses it any more");
    }

    #[test]
    #[cfg_attr(miri, ignore = "Miri takes minutes to zero a region word by word")]
    fn a_region_made_anew_is_empty_and_its_first_event_says_so() {
        let region = Region::in_memory();
        let header = &region.ours().header;
        assert_eq!((header.generation.load(Relaxed), header.event_next.load(Relaxed)), (1, 0));
        region.ours().devices[0].used.store(77, Relaxed);
        region.event(layout::EVENT_DENIED, 0, 1, 2, 3);
        region.initialise(Here { boot_id: [9, 9], ..BOOT }, 1, false);
        assert_eq!((header.generation.load(Relaxed), header.event_next.load(Relaxed)), (2, 1));
        assert_eq!(region.ours().devices[0].used.load(Relaxed), 0);
        let event = &region.ours().events[0];
        assert_eq!(event.code.load(Relaxed), layout::EVENT_STARTED_ANEW);
        assert_eq!(event.device.load(Relaxed), layout::NO_DEVICE);
    }

    #[test]
    #[cfg_attr(miri, ignore = "Miri maps no files")]
    fn a_file_whose_records_lie_otherwise_is_refused_and_left_as_it_is() {
        for (kind, table) in [
            ("length", offset_of!(Header, record_bytes) + 4),
            ("count", offset_of!(Header, record_count) + 8),
            ("offset", offset_of!(Header, record_offset) + 24),
        ] {
            let (path, name) = scratch(kind);
            Region::open(&name, 1).expect("a region");
            let mut bytes = fs::read(&path).expect("the file");
            bytes[OURS + table] ^= 0x40;
            fs::write(&path, &bytes).expect("a file to write");
            for opened in [Region::open(&name, 1), Region::existing(&name)] {
                assert!(matches!(opened.err(), Some(OpenError::OtherLayout(_))), "another {kind}");
            }
            assert!(fs::read(&path).expect("the file") == bytes, "a file with another {kind} was written to");
            fs::remove_file(&path).expect("the file");
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "Miri maps no files")]
    fn a_file_of_another_boot_or_half_initialised_is_made_anew_and_that_is_an_event() {
        for at in [offset_of!(Header, boot_id), offset_of!(Header, state)] {
            let (path, name) = scratch(&format!("anew-{at}"));
            Region::open(&name, 1).expect("a region");
            let mut bytes = fs::read(&path).expect("the file");
            bytes[OURS + at] ^= 1;
            fs::write(&path, &bytes).expect("a file to write");
            assert_eq!(Region::existing(&name).err(), Some(OpenError::Stale));
            let ours = Region::open(&name, 1).expect("a region").ours();
            assert_eq!(ours.header.generation.load(Relaxed), 2);
            assert_eq!(ours.events[0].code.load(Relaxed), layout::EVENT_STARTED_ANEW);
            fs::remove_file(&path).expect("the file");
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "Miri maps no files")]
    fn a_file_that_is_something_else_is_refused_and_left_as_it_is() {
        for (kind, bytes) in [("text", b"something else".to_vec()), ("long", [7; FILE_BYTES].to_vec())] {
            let (path, name) = scratch(kind);
            fs::write(&path, &bytes).expect("a file to write");
            assert_eq!(Region::open(&name, 1).err(), Some(OpenError::NotARegion), "{kind}");
            assert!(fs::read(&path).expect("the file") == bytes, "{kind} was written to");
            fs::remove_file(&path).expect("the file");
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "Miri maps no files")]
    fn a_region_that_was_truncated_is_refused_and_left_as_it_is() {
        let (path, name) = scratch("truncated");
        Region::open(&name, 1).expect("a region");
        let bytes = fs::read(&path).expect("the file");
        fs::write(&path, &bytes[..OURS + 4096]).expect("a file to write");
        assert_eq!(Region::open(&name, 1).err(), Some(OpenError::NotARegion));
        assert_eq!(fs::read(&path).expect("the file").len(), OURS + 4096);
        fs::remove_file(&path).expect("the file");
    }

    #[test]
    #[cfg_attr(miri, ignore = "Miri maps no files")]
    fn a_region_of_hami_core_is_taken_over_and_a_second_open_finds_it() {
        let (path, name) = scratch("hami");
        let mut bytes = vec![0; size_of::<hami::View>()];
        bytes[..4].copy_from_slice(&hami::MAGIC.to_le_bytes());
        fs::write(&path, bytes).expect("a file to write");
        let first = Region::open(&name, 1).expect("a region");
        first.ours().devices[0].peak.store(5, Relaxed);
        let second = Region::open(&name, 1).expect("the region");
        assert_eq!(second.ours().devices[0].peak.load(Relaxed), 5);
        assert_eq!(second.ours().header.event_next.load(Relaxed), 0, "it was never ours before");
        fs::remove_file(&path).expect("the file");
    }
}
