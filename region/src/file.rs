//! How a file becomes a region: opened or created in place, verified first, published last.
//!
//! # Safety
//! This module may use `unsafe` because it turns a mapping into a `&'static File`. The mapping has the file's full
//! length, its blocks are allocated, it is never undone, and every byte of [`layout::File`] is part of an atomic, for
//! which any bit pattern is valid and which other processes may change at any time.
#![allow(unsafe_code)]

pub use crate::examine::OpenError;
use crate::examine::{Examined, Found, Here, examine, is_spare};
use crate::fault;
use crate::hami;
use crate::header::RecordTable;
use crate::layout::{self, FILE_BYTES, Ours};
use crate::lock::{INIT_BYTE, living};
use crate::names::{self, Names};
use crate::sys::{self, Descriptor, Errno, LockKind};
use core::ffi::CStr;
use core::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};

/// [`FILE_BYTES`] as the length of a file.
const FULL_LENGTH: u64 = FILE_BYTES as u64;

/// How often an opening begins again because another process changed the names meanwhile.
const TRIES: usize = 16;

/// A region that was opened.
pub struct Opened {
    /// It.
    pub region: Region,
    /// Its file.
    pub file: Descriptor,
    /// What became of its names.
    pub names: Names,
    /// A process that holds the region, whose contents were lost and which has not put its part back: 0 where it cannot be told
    /// which. `None`: this did not make the contents anew, or nobody held them.
    pub lost: Option<u32>,
}

/// How a file is made anew.
pub(crate) struct Fresh {
    /// Whether it is known to be all zeroes.
    pub zeroed: bool,
    /// When that is, nanoseconds since 1970.
    pub born_ns: u64,
    /// How often it was made before, at least.
    pub generation: u64,
    /// Whether somebody else writes an event about it.
    pub told: bool,
}

/// [`layout::Header::shares`] of a region whose launches are not delayed. Each region has another word, so that who knows it
/// also sees that the contents are lost.
#[must_use]
pub fn calm_word(born_ns: u64) -> u32 {
    const BITS: u64 = layout::SHARES_NONE as u64 - 1;
    layout::SHARES_NONE | u32::try_from(born_ns & BITS).unwrap_or(0)
}

/// Who made a region: another user, or another container, that comes to the same path shares it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Maker {
    /// Effective user.
    pub user: u32,
    /// Inode of the mount namespace, its low half.
    pub mounts: u32,
    /// Inode of the PID namespace, its low half.
    pub pids: u32,
}

impl Maker {
    /// This process.
    #[must_use]
    pub fn here() -> Self {
        let inode = |path| (sys::inode_of(path) & u64::from(u32::MAX)).try_into().unwrap_or(0);
        Self { user: sys::user(), mounts: inode(c"/proc/self/ns/mnt"), pids: inode(c"/proc/self/ns/pid") }
    }

    /// That of a region; `None` where an earlier minor version made it.
    #[must_use]
    pub fn of(region: &Region) -> Option<Self> {
        let header = &region.ours().header;
        let maker = Self {
            user: header.maker_user.load(Relaxed),
            mounts: header.maker_mounts.load(Relaxed),
            pids: header.maker_pids.load(Relaxed),
        };
        (maker.mounts != 0).then_some(maker)
    }
}

/// A mapped region.
#[derive(Clone, Copy)]
pub struct Region {
    file: &'static layout::File,
}

impl Region {
    /// Opens the region at `path`, creating and initialising it where needed. `priority` is HAMi's task priority
    /// (0 high, 1 low) for a region made now.
    pub fn open(path: &CStr, priority: i32) -> Result<Self, OpenError> {
        Self::open_kept(path, priority).map(|opened| opened.region)
    }

    /// The same, with the file's descriptor and what became of its names.
    pub fn open_kept(path: &CStr, priority: i32) -> Result<Opened, OpenError> {
        let here = Here::now();
        for _ in 0..TRIES {
            let (file, names) = match names::find(path, &is_spare)? {
                Some(found) => found,
                None => match Self::create(path) {
                    Ok(file) => (file, Names::Intact),
                    // Another process was faster.
                    Err(Errno(libc::EEXIST)) => continue,
                    Err(error) => return Err(OpenError::Open(error)),
                },
            };
            let (region, lost) = Self::of_file(&file, here, priority)?;
            if !matches!(names, Names::Nameless { .. }) {
                names::secure(path, &file);
                let known = file.identity().map_err(OpenError::Open)?;
                if !names::names(path, known) {
                    continue;
                }
            }
            return Ok(Opened { region, file, names, lost });
        }
        Err(OpenError::Open(Errno(libc::EBUSY)))
    }

    /// The region, and [`Opened::lost`].
    fn of_file(file: &Descriptor, here: Here, priority: i32) -> Result<(Self, Option<u32>), OpenError> {
        if let Examined { found: Found::Ready, held, .. } = examine_again(file, here)? {
            let region = Self::map(file)?;
            if region.is_ready() {
                if !held {
                    region.adopt_clock(here);
                }
                return Ok((region, None));
            }
        }
        let _init = InitLock::take(file)?;
        Self::open_locked(file, here, priority)
    }

    /// Opens a region that is in use; makes none and changes nothing but its names.
    pub fn existing(path: &CStr) -> Result<Self, OpenError> {
        let (file, _) = names::find(path, &is_spare)?.ok_or(OpenError::Open(Errno(libc::ENOENT)))?;
        Self::of_existing(&file)
    }

    /// The same of an open file.
    pub fn of_existing(file: &Descriptor) -> Result<Self, OpenError> {
        let here = Here::now();
        match examine_again(file, here)? {
            Examined { found: Found::Ready, .. } => Self::map(file),
            // Its processes put back what they hold, and find there what the caller writes.
            Examined { held: true, .. } => Self::of_file(file, here, 0).map(|(region, _)| region),
            Examined { size: FULL_LENGTH.., .. } => Err(OpenError::Stale),
            _ => Err(OpenError::NotARegion),
        }
    }

    fn create(path: &CStr) -> Result<Descriptor, Errno> {
        let flags = libc::O_RDWR | libc::O_CREAT | libc::O_EXCL | libc::O_NOCTTY;
        let file = Descriptor::open(path, flags, 0o666)?;
        file.share_with_all_users();
        Ok(file)
    }

    /// The rest of [`Self::open`], with the initialisation lock held: another process may just have done the work.
    fn open_locked(file: &Descriptor, here: Here, priority: i32) -> Result<(Self, Option<u32>), OpenError> {
        let Examined { found, size, held } = examine(file, here)?;
        file.allocate(FULL_LENGTH).map_err(OpenError::Space)?;
        let region = Self::map(file)?;
        if found == Found::Fresh {
            // Blocks just taken read zero; storing zeroes would fault every page in.
            let fresh = Fresh { zeroed: size == 0, born_ns: sys::realtime_ns(), generation: 0, told: held };
            region.initialise(here, priority, &fresh);
            if held {
                region.event(layout::EVENT_CONTENTS_LOST, layout::NO_DEVICE, 1, 0, 0);
                return Ok((region, living(file).map_err(OpenError::Locks)?));
            }
        }
        Ok((region, None))
    }

    fn map(file: &Descriptor) -> Result<Self, OpenError> {
        let address = file.map_shared(FILE_BYTES, true).map_err(OpenError::Space)?;
        fault::watch(address.expose_provenance());
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

    /// Writes a fresh region over whatever is there: the file is new, from another boot, its initialisation was interrupted, or
    /// its contents are lost.
    pub(crate) fn initialise(&self, here: Here, priority: i32, fresh: &Fresh) {
        let ours = self.ours();
        let header = &ours.header;
        let anew = header.magic.load(Relaxed) == layout::MAGIC;
        let generation = if anew { header.generation.load(Relaxed) } else { 0 }.max(fresh.generation);
        header.state.store(layout::STATE_EMPTY, Release);
        self.lose();
        if !fresh.zeroed {
            self.zero();
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
        header.created_at_ns.store(fresh.born_ns, Relaxed);
        header.shares.store(calm_word(fresh.born_ns), Relaxed);
        let Maker { user, mounts, pids } = Maker::here();
        header.maker_user.store(user, Relaxed);
        header.maker_mounts.store(mounts, Relaxed);
        header.maker_pids.store(pids, Relaxed);
        if anew && !fresh.told {
            self.event(layout::EVENT_STARTED_ANEW, layout::NO_DEVICE, 0, 0, 0);
        }
        ours.end().store(fresh.born_ns, Relaxed);
        header.state.store(layout::STATE_READY, Release);
    }

    fn zero(&self) {
        let words = core::ptr::from_ref(self.file).cast::<core::sync::atomic::AtomicU64>();
        // SAFETY: File is a whole number of aligned 64-bit words of shared atomic memory.
        let words = unsafe { core::slice::from_raw_parts(words, FILE_BYTES / 8) };
        for word in words.iter().filter(|word| word.load(Relaxed) != 0) {
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
            self.ours().header.shares.store(layout::SHARES_SOME, Release);
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

/// Examines a file that another process may be initialising: what was read before and after its work fits no file, and looks
/// as if living processes held something else. So such an answer counts only if it is the same when nobody initialises.
fn examine_again(file: &Descriptor, here: Here) -> Result<Examined, OpenError> {
    match examine(file, here) {
        Err(error) if error.holder().is_some() => {
            let _init = InitLock::take(file)?;
            examine(file, here)
        }
        examined => examined,
    }
}

/// Held while a region is initialised; dropped by the kernel with its holder.
pub(crate) struct InitLock<'f>(&'f Descriptor);

impl<'f> InitLock<'f> {
    pub(crate) fn take(file: &'f Descriptor) -> Result<Self, OpenError> {
        let deadline = sys::monotonic_ns().wrapping_add(2_000_000_000);
        loop {
            match file.try_lock(LockKind::Ofd, INIT_BYTE) {
                Ok(()) => return Ok(Self(file)),
                Err(Errno(libc::EAGAIN | libc::EACCES)) => {}
                Err(error) => return Err(OpenError::Locks(error)),
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
    use crate::layout::{Header, OURS};
    use core::mem::offset_of;
    use std::ffi::CString;
    use std::path::PathBuf;
    use std::sync::Mutex;
    use std::vec::Vec;
    use std::{format, fs, vec};

    static MEMORIES: Mutex<Vec<&layout::File>> = Mutex::new(Vec::new());

    const FRESH: Fresh = Fresh { zeroed: false, born_ns: 7, generation: 0, told: false };

    pub(crate) const BOOT: Here = Here { boot_id: [1, 2], time_namespace: 3 };

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
            region.initialise(BOOT, 1, &Fresh { zeroed: true, ..FRESH });
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
        let path = std::env::temp_dir().join(format!("gpuquota-region-{name}-{}.cache", std::process::id()));
        let name = CString::new(path.to_str().expect("utf-8")).expect("no NUL");
        names::remove(&name);
        (path, name)
    }

    /// A living process with a slot, as others see one: an open file description with the lock.
    fn holder(name: &CStr) -> Descriptor {
        let file = Descriptor::open(name, libc::O_RDWR, 0).expect("the file");
        file.try_lock(LockKind::Ofd, crate::lock::slot_byte(3)).expect("a free slot");
        file
    }

    #[test]
    #[cfg_attr(miri, ignore = "Miri knows no atomic store over two atomic words")]
    fn a_region_made_anew_is_empty_and_its_first_event_says_so() {
        let region = Region::in_memory();
        let header = &region.ours().header;
        assert_eq!((header.generation.load(Relaxed), header.event_next.load(Relaxed)), (1, 0));
        region.ours().devices[0].used.store(77, Relaxed);
        region.event(layout::EVENT_DENIED, 0, 1, 2, 3);
        region.initialise(Here { boot_id: [9, 9], ..BOOT }, 1, &FRESH);
        assert_eq!((header.generation.load(Relaxed), header.event_next.load(Relaxed)), (2, 1));
        assert_eq!(region.ours().devices[0].used.load(Relaxed), 0);
        let event = &region.ours().events[0];
        assert_eq!(event.code.load(Relaxed), layout::EVENT_STARTED_ANEW);
        assert_eq!(event.device.load(Relaxed), layout::NO_DEVICE);
    }

    /// Changes a region's file: of another version, another boot, half initialised, cut short.
    type Change = (&'static str, fn(&mut Vec<u8>));

    fn changes() -> Vec<Change> {
        fn flip(bytes: &mut [u8], at: usize, bit: u8) {
            bytes[OURS + at] ^= bit;
        }
        vec![
            ("major", |bytes| flip(bytes, offset_of!(Header, abi_major), 2)),
            ("length", |bytes| flip(bytes, offset_of!(Header, record_bytes) + 4, 0x40)),
            ("count", |bytes| flip(bytes, offset_of!(Header, record_count) + 8, 0x40)),
            ("offset", |bytes| flip(bytes, offset_of!(Header, record_offset) + 24, 0x40)),
            ("state", |bytes| flip(bytes, offset_of!(Header, state), 1)),
            ("short", |bytes| bytes.truncate(OURS + 4096)),
            ("empty", Vec::clear),
        ]
    }

    #[test]
    #[cfg_attr(miri, ignore = "Miri maps no files")]
    fn a_file_that_living_processes_hold_is_refused_by_name_and_left_as_it_is() {
        let of_others = |kind: &&str| ["major", "length", "count", "offset"].contains(kind);
        for (kind, change) in changes().into_iter().filter(|(kind, _)| of_others(kind)) {
            let (path, name) = scratch(kind);
            Region::open(&name, 1).expect("a region");
            let mut bytes = fs::read(&path).expect("the file");
            change(&mut bytes);
            fs::write(&path, &bytes).expect("a file to write");
            let holder = holder(&name);
            for opened in [Region::open(&name, 1), Region::existing(&name)] {
                let error = opened.err().unwrap_or_else(|| panic!("another {kind}"));
                assert!(error.holder().is_some(), "{kind}: {error}");
            }
            assert!(fs::read(&path).expect("the file") == bytes, "a file with another {kind} was written to");
            drop(holder);
            names::remove(&name);
        }
    }

    /// Whether the file was made anew is for all to see, and who holds it puts its part back.
    #[test]
    #[cfg_attr(miri, ignore = "Miri maps no files")]
    fn lost_contents_that_living_processes_hold_are_made_anew_and_an_event_says_so() {
        for (kind, change) in changes() {
            if !["state", "short", "empty"].contains(&kind) {
                continue;
            }
            for by_tool in [false, true] {
                let (path, name) = scratch(&format!("lost-{kind}-{by_tool}"));
                let region = Region::open(&name, 1).expect("a region");
                let seen = crate::lost::Seen::now(&region);
                let mut bytes = fs::read(&path).expect("the file");
                change(&mut bytes);
                let holder = holder(&name);
                fs::write(&path, &bytes).expect("a file to write");
                let again = match by_tool {
                    true => Region::existing(&name).expect("the region"),
                    false => {
                        let opened = Region::open_kept(&name, 1).expect("the region");
                        assert!(opened.lost.is_some(), "{kind}");
                        opened.region
                    }
                };
                assert_eq!(again.ours().events[0].code.load(Relaxed), layout::EVENT_CONTENTS_LOST, "{kind}");
                assert!(region.born_ns() > seen.whole_at_ns, "{kind}: who holds it sees nothing");
                assert_eq!(region.make_whole(&holder, seen, 1), Ok(false), "{kind}: made twice");
                let seen = crate::lost::Seen::now(&region);
                fs::write(&path, &bytes).expect("a file to write");
                assert_eq!(region.make_whole(&holder, seen, 1), Ok(true), "{kind}");
                assert!(region.ours().header.generation.load(Relaxed) > seen.generation, "{kind}");
                names::remove(&name);
            }
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "Miri maps no files")]
    fn a_file_that_nobody_holds_is_made_anew() {
        for (kind, change) in changes() {
            let (path, name) = scratch(&format!("anew-{kind}"));
            Region::open(&name, 1).expect("a region").ours().devices[0].peak.store(5, Relaxed);
            let mut bytes = fs::read(&path).expect("the file");
            change(&mut bytes);
            fs::write(&path, &bytes).expect("a file to write");
            assert!(Region::existing(&name).is_err(), "{kind}");
            let ours = Region::open(&name, 1).unwrap_or_else(|why| panic!("{kind}: {why}")).ours();
            assert_eq!(ours.devices[0].peak.load(Relaxed), 0, "{kind}");
            assert_eq!(ours.header.abi_major.load(Relaxed), layout::ABI_MAJOR, "{kind}");
            assert_eq!(fs::read(&path).expect("the file").len(), FILE_BYTES, "{kind}");
            if kind != "empty" {
                assert_eq!(ours.events[0].code.load(Relaxed), layout::EVENT_STARTED_ANEW, "{kind}");
            }
            names::remove(&name);
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "Miri maps no files")]
    fn a_region_of_another_boot_is_made_anew_unless_somebody_holds_it() {
        let (path, name) = scratch("boot");
        let region = Region::open(&name, 1).expect("a region");
        let held = holder(&name);
        region.ours().header.boot_id[0].fetch_xor(1, Relaxed);
        region.ours().header.time_namespace.fetch_xor(1, Relaxed);
        region.ours().devices[0].virtual_time_ns.store(7, Relaxed);
        let ours = Region::open(&name, 1).expect("the same region").ours();
        assert_eq!(ours.header.generation.load(Relaxed), 1);
        assert_eq!(ours.devices[0].virtual_time_ns.load(Relaxed), 7, "its clocks are those of who holds it");
        drop(held);
        assert_eq!(Region::existing(&name).err(), Some(OpenError::Stale));
        let ours = Region::open(&name, 1).expect("a region").ours();
        assert_eq!(ours.header.generation.load(Relaxed), 2);
        assert_eq!(ours.events[0].code.load(Relaxed), layout::EVENT_STARTED_ANEW);
        names::remove(&name);
        assert!(!path.exists());
    }

    #[test]
    #[cfg_attr(miri, ignore = "Miri maps no files")]
    fn a_region_that_lost_its_path_is_found_again_while_somebody_holds_it() {
        let second = |path: &PathBuf| {
            path.with_file_name(format!(
                ".{}.gpuquota",
                path.file_name().expect("a name").to_str().expect("text")
            ))
        };
        for kind in ["removed", "renamed", "replaced", "occupied"] {
            for held in [true, false] {
                let (path, name) = scratch(&format!("names-{kind}-{held}"));
                let region = Region::open(&name, 1).expect("a region");
                region.ours().devices[0].peak.store(5, Relaxed);
                assert!(second(&path).exists());
                let holder = held.then(|| holder(&name));
                let elsewhere = path.with_extension("elsewhere");
                match kind {
                    "removed" => fs::remove_file(&path).expect("the file"),
                    "renamed" => fs::rename(&path, &elsewhere).expect("the file"),
                    _ => {
                        let bytes =
                            if kind == "replaced" { fs::read(&path).expect("the file") } else { vec![9; 99] };
                        fs::remove_file(&path).expect("the file");
                        fs::write(&path, bytes).expect("a file to write");
                    }
                }
                let opened = Region::open_kept(&name, 1);
                if kind == "occupied" {
                    let error = opened.err().expect("somebody else's file");
                    assert_eq!(error.holder().is_some(), held, "{error}");
                    assert_eq!(fs::read(&path).expect("the file").len(), 99);
                } else {
                    let opened = opened.unwrap_or_else(|why| panic!("{kind}: {why}"));
                    let peak = opened.region.ours().devices[0].peak.load(Relaxed);
                    // A copy is the same region as long as nobody lives.
                    let same = held || kind == "replaced";
                    assert_eq!(peak == 5, same, "{kind}, held: {held}");
                    assert_eq!(opened.names == Names::Restored, held, "{kind}: {:?}", opened.names);
                    assert!(names::names(&name, opened.file.identity().expect("a file")));
                    assert!(second(&path).exists(), "{kind}");
                }
                drop(holder);
                names::remove(&name);
                let _ = fs::remove_file(elsewhere);
            }
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "Miri maps no files")]
    fn a_region_has_one_name_where_an_engines_monitor_counts_files() {
        let (path, _) = scratch("monitors");
        fs::create_dir_all(&path).expect("a folder");
        let names = |region: &str| {
            let name = CString::new(path.join(region).to_str().expect("utf-8")).expect("no NUL");
            let _mapped = Region::open(&name, 1).expect("a region");
            let left = fs::read_dir(&path).expect("the folder").count();
            names::remove(&name);
            left
        };
        assert_eq!((names("a.cache"), names("pod_container")), (2, 1));
        fs::write(path.join("libvgpu.so"), "").expect("a file to write");
        assert_eq!(names("a.cache"), 2, "the library and the region");
        fs::remove_dir_all(&path).expect("the folder");
    }

    #[test]
    #[cfg_attr(miri, ignore = "Miri maps no files")]
    fn a_file_that_is_something_else_is_refused_and_left_as_it_is() {
        for (kind, bytes) in [("text", b"something else".to_vec()), ("long", [7; FILE_BYTES].to_vec())] {
            let (path, name) = scratch(kind);
            fs::write(&path, &bytes).expect("a file to write");
            assert_eq!(Region::open(&name, 1).err(), Some(OpenError::NotARegion), "{kind}");
            assert!(fs::read(&path).expect("the file") == bytes, "{kind} was written to");
            names::remove(&name);
        }
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
        names::remove(&name);
    }
}
