//! How a file becomes a region: opened or created in place, verified first, published last.
//!
//! # Safety
//! This room may use `unsafe` because it turns a mapping into a `&'static File`. The mapping has the file's full
//! length, its blocks are allocated, it is never undone, and every field of [`layout::File`] is an atomic or
//! padding, for which any bit pattern is valid and which other processes may change at any time.
#![allow(unsafe_code)]

use crate::layout::{self, Device, Event, FILE_BYTES, Lane, Ours, Slot};
use crate::lock::INIT_BYTE;
use crate::sys::{self, Descriptor, Errno, LockKind};
use crate::{hami, layout::OURS};
use core::ffi::CStr;
use core::mem::{offset_of, size_of};
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
    /// Another process has been initialising the region for over two seconds.
    Busy,
    /// Nobody uses the region: it is of another boot, or its initialisation was interrupted.
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
            Self::Space(Errno(libc::ENOSPC | libc::EDQUOT)) => "no space left for it (it takes 3.5 MiB)",
            Self::Space(_) => "it cannot be mapped",
            Self::NotARegion => "the file exists and is no region",
            Self::OtherVersion(_) => "it was made by an incompatible version",
            Self::Busy => "another process has been initialising it for too long",
            Self::Stale => "nothing has used it since the machine was started",
        }
    }
}

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
    Ready,
    /// Empty, HAMi-core's, half initialised or from another boot.
    Fresh,
    Refused(OpenError),
}

impl Region {
    /// Opens the region at `path`, creating and initialising it where needed. `priority` is HAMi's task priority
    /// (0 high, 1 low) for a region made now.
    pub fn open(path: &CStr, priority: i32) -> Result<Self, OpenError> {
        let file = Self::open_file(path)?;
        let here = Here::now();
        let stat = file.stat().map_err(OpenError::Open)?;
        if !stat.regular {
            return Err(OpenError::NotARegion);
        }
        if stat.size >= FILE_BYTES as u64 {
            let region = Self::map(&file)?;
            if matches!(region.examine(here), Found::Ready) {
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
        let stat = file.stat().map_err(OpenError::Open)?;
        if !stat.regular || stat.size < FILE_BYTES as u64 {
            return Err(OpenError::NotARegion);
        }
        let region = Self::map(&file)?;
        match region.examine(Here::now()) {
            Found::Ready => Ok(region),
            Found::Fresh => Err(OpenError::Stale),
            Found::Refused(error) => Err(error),
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
        let size = file.stat().map_err(OpenError::Open)?.size;
        if size < FILE_BYTES as u64 && size != 0 && !is_hami(file) {
            return Err(OpenError::NotARegion);
        }
        file.allocate(FILE_BYTES as u64).map_err(OpenError::Space)?;
        let region = Self::map(file)?;
        match region.examine(here) {
            Found::Ready => {}
            // Blocks just taken read zero; storing zeroes would fault every page in.
            Found::Fresh => region.initialise(here, priority, size == 0),
            Found::Refused(error) => return Err(error),
        }
        Ok(region)
    }

    fn map(file: &Descriptor) -> Result<Self, OpenError> {
        let address = file.map_shared(FILE_BYTES, true).map_err(OpenError::Space)?;
        // SAFETY: the mapping is FILE_BYTES long, page-aligned and lives for ever; see the module's Safety.
        Ok(Self { file: unsafe { &*address.cast::<layout::File>() } })
    }

    fn examine(&self, here: Here) -> Found {
        let header = &self.ours().header;
        match header.magic.load(Acquire) {
            layout::MAGIC => {}
            0 => {
                let flag = self.file.hami.initialized_flag.load(Relaxed);
                let known = flag == hami::MAGIC || flag == 0;
                return if known { Found::Fresh } else { Found::Refused(OpenError::NotARegion) };
            }
            _ => return Found::Refused(OpenError::NotARegion),
        }
        let major = header.abi_major.load(Relaxed);
        if major != layout::ABI_MAJOR {
            return Found::Refused(OpenError::OtherVersion(major));
        }
        let boot_id = [header.boot_id[0].load(Relaxed), header.boot_id[1].load(Relaxed)];
        let other_boot = here.boot_id != [0; 2] && boot_id != here.boot_id;
        if header.state.load(Acquire) != layout::STATE_READY || other_boot {
            return Found::Fresh;
        }
        Found::Ready
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
                let times = [&device.virtual_time, &device.busy_until, &device.idle_at, &device.flight_until];
                let gaps = times.into_iter().chain([&device.gaps_from]).chain(&device.gaps);
                gaps.for_each(|time| time.store(0, Relaxed));
            }
            for turns in &ours.header.turns {
                [&turns.turn, &turns.told_at, &turns.asked_at]
                    .into_iter()
                    .for_each(|time| time.store(0, Relaxed));
            }
        }
    }

    /// Writes a fresh region over whatever is there. Nobody else uses the file: it is new, from another boot, or
    /// its initialisation was interrupted.
    fn initialise(&self, here: Here, priority: i32, zeroed: bool) {
        let ours = self.ours();
        let header = &ours.header;
        let generation = header.generation.load(Relaxed);
        header.state.store(layout::STATE_EMPTY, Release);
        if !zeroed {
            self.zero_ours();
            self.file.hami.clear();
        }
        self.file.hami.initialise(priority);
        header.abi_major.store(layout::ABI_MAJOR, Relaxed);
        header.abi_minor.store(layout::ABI_MINOR, Relaxed);
        header.length.store(FILE_BYTES as u64, Relaxed);
        let records = [
            (size_of::<Device>(), layout::DEVICES, offset_of!(Ours, devices)),
            (size_of::<Slot>(), layout::SLOTS, offset_of!(Ours, slots)),
            (size_of::<Lane>(), layout::LANES, offset_of!(Ours, lanes)),
            (size_of::<Event>(), layout::EVENTS, offset_of!(Ours, events)),
        ];
        let fields = header.record_bytes.iter().zip(&header.record_count).zip(&header.record_offset);
        for (((bytes, count), offset), record) in fields.zip(records) {
            bytes.store(record.0 as u32, Relaxed);
            count.store(record.1 as u32, Relaxed);
            offset.store((OURS + record.2) as u64, Relaxed);
        }
        header.generation.store(generation.wrapping_add(1), Relaxed);
        header.boot_id[0].store(here.boot_id[0], Relaxed);
        header.boot_id[1].store(here.boot_id[1], Relaxed);
        header.time_namespace.store(here.time_namespace, Relaxed);
        header.created_at_ns.store(sys::realtime_ns(), Relaxed);
        header.magic.store(layout::MAGIC, Release);
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

    /// Caps a device's memory, in bytes; 0 for no cap. It holds from the next allocation on: whoever has more than that
    /// keeps it.
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

    /// Notes how a device's time is to be shared with other containers: the percentage of the turns, 0 for the core limit,
    /// and the `TERMS_` bits.
    pub fn share_on_terms(&self, device: usize, terms: u32) {
        if let Some(turns) = self.ours().header.turns.get(device) {
            turns.terms.store(terms, Relaxed);
        }
    }

    /// Writes an event.
    pub fn event(&self, code: u32, device: u32, requested: u64, used: u64, limit: u64) {
        let ours = self.ours();
        let number = ours.header.event_next.fetch_add(1, Relaxed);
        let Some(event) = ours.events.get(number as usize % layout::EVENTS) else { return };
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

/// Whether a file that is too short to be ours begins like HAMi-core's region.
fn is_hami(file: &Descriptor) -> bool {
    let mut head = [0u8; 4];
    file.read_at(&mut head, 0).is_ok_and(|read| read == hami::MAGIC.to_le_bytes())
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
