//! This process's access to the state that all processes of the container share: the region, its slot there, the limits.
//!
//! - `start`: reads the limits and opens the region;
//! - `notes`: what is to be told about the region's file;
//! - [`hami`]: the words through which HAMi's monitor and the library talk to each other;
//! - `contents`: the region's contents as this process saw them last;
//! - `lost`: this process's part of the way back where the contents of the region are lost;
//! - [`holders`]: the living processes and the bytes that they hold.
//!
//! # Safety
//! This file may use `unsafe` because the result of the start is a plain value. The starting thread alone writes it, before
//! it publishes the process's phase. Everything else is atomics. All-zero bytes are a container before its start.
#![allow(unsafe_code)]

mod contents;
pub mod hami;
pub mod holders;
mod lost;
mod notes;
mod peers;
mod source;
mod start;

use crate::lock::Lock;
use contents::Contents;
use core::cell::UnsafeCell;
use core::ffi::CStr;
use core::mem::MaybeUninit;
use core::sync::atomic::Ordering::Release;
use core::sync::atomic::{
    AtomicU8, AtomicU32, AtomicU64, Ordering::AcqRel, Ordering::Acquire, Ordering::Relaxed,
};
use gpuquota_books::Reaper;
use gpuquota_quota::limits::{CorePolicy, Limits, Mode};
use gpuquota_quota::text::Line;
use gpuquota_region::examine::is_spare;
use gpuquota_region::hami::View;
use gpuquota_region::kept::RegionFile;
use gpuquota_region::layout::{Device, EVENT_BAD_LIMITS, Header, Ours, Slot};
use gpuquota_region::names::{self, Names};
use gpuquota_region::slot::ClaimError;
use gpuquota_region::sys::{self, Descriptor, Errno, KeepErrno, NoSignals};
use gpuquota_region::{Region, slot};
use notes::Note;
use peers::Peers;
pub use start::Outcome;
use start::Startup;

/// The container, as this process sees it.
pub struct Container {
    startup: UnsafeCell<MaybeUninit<Startup>>,
    /// Index of this process's slot + 1; 0 until the process has claimed one.
    slot: AtomicU32,
    claiming: Lock,
    file: RegionFile,
    /// The thread that reaps holds it. A lock on a slot belongs to the whole process, so it would not keep another thread
    /// from reaping the same slot at the same time.
    reaping: Lock,
    /// When this process last reaped, CLOCK_MONOTONIC nanoseconds.
    reaped_at_ns: AtomicU64,
    peers: Peers,
    /// When this process last looked at the names of the region's file, CLOCK_MONOTONIC nanoseconds.
    named_at_ns: AtomicU64,
    /// What became of the names when it last looked ([`Names::code`]).
    names_seen: AtomicU8,
    /// When this process last found that living processes hold all slots, CLOCK_MONOTONIC nanoseconds.
    full_at_ns: AtomicU64,
    /// The region's contents as this process saw them last.
    contents: Contents,
}

// SAFETY: `startup` is written before the process's phase is published and only read afterwards; the rest is atomics.
unsafe impl Sync for Container {}

/// A device of the region.
#[derive(Clone, Copy)]
pub struct DeviceRef {
    /// Its index in the region.
    pub index: u8,
    /// Its record.
    pub record: &'static Device,
}

impl Container {
    /// Reads the limits and opens the region. Runs once, in the thread that starts the process.
    pub fn start(&'static self) -> Outcome {
        // SAFETY: only the starting thread is here, and no thread reads before the phase is published.
        let startup = unsafe { (*self.startup.get()).write(Startup::default()) };
        let outcome = startup.run();
        if let Some(region) = startup.region {
            self.see_contents(&region);
        }
        if let Some(file) = startup.file.take() {
            let _ = self.file.keep(file);
            self.watch_file();
        }
        if let Some(Note::Names(names @ (Names::Nameless { .. } | Names::Split { .. }))) = startup.note {
            self.names_seen.store(names.code(), Relaxed);
        }
        outcome
    }

    #[inline]
    fn startup(&self) -> &Startup {
        // SAFETY: callers hold a container of a process whose phase was published.
        unsafe { (*self.startup.get()).assume_init_ref() }
    }

    /// The region. Every process whose quota is on has one; a process whose quota is off calls only [`Self::warn`].
    #[inline]
    pub fn region(&self) -> Region {
        // SAFETY: `Outcome::Ready` is answered only with a region, and only then are callers given a container.
        unsafe { self.startup().region.unwrap_unchecked() }
    }

    /// The region's part that this project defines.
    #[inline]
    pub fn ours(&self) -> &'static Ours {
        self.region().ours()
    }

    /// The region's header.
    #[inline]
    pub fn header(&self) -> &'static Header {
        &self.ours().header
    }

    /// The region's part that HAMi defines.
    #[inline]
    pub fn hami(&self) -> &'static View {
        self.region().hami()
    }

    /// A device of the region.
    #[inline]
    pub fn device(&self, index: u8) -> Option<DeviceRef> {
        Some(DeviceRef { index, record: self.ours().devices.get(usize::from(index))? })
    }

    /// The region's path.
    pub fn path(&self) -> &CStr {
        self.startup().path.as_c_str()
    }

    /// The limits that the operator set.
    #[inline]
    pub fn limits(&self) -> &Limits {
        &self.startup().reading.limits
    }

    /// Whether the library only counts the refusals and waits that it would cause.
    #[inline]
    pub fn observes(&self) -> bool {
        self.limits().mode == Mode::Observe
    }

    /// Whether allocations may come from the host's memory.
    #[inline]
    pub fn spills(&self) -> bool {
        self.startup().spills
    }

    /// Whether the limits file sets a share: it holds whatever the region says.
    #[inline]
    pub fn has_file_share(&self) -> bool {
        self.startup().has_file_share
    }

    /// Whether HAMi's monitor blocks the container's launches for a task of higher priority.
    #[inline]
    pub fn is_blocked(&self) -> bool {
        self.limits().mode == Mode::Enforce && hami::blocks(self.hami())
    }

    /// Whether the container's shares do not bind now, because HAMi's monitor lends it idle time.
    #[inline]
    pub fn borrows(&self) -> bool {
        self.limits().policy == CorePolicy::BurstShare && hami::lends(self.hami(), self.header())
    }

    /// Counts a failure of the library's after which it went on with the driver's own answer.
    #[cold]
    pub fn count_fallback(&self) {
        self.header().fallbacks.fetch_add(1, Relaxed);
    }

    /// Index of this process's slot; the first call claims one. `None` while living processes hold all 1,024.
    #[inline]
    pub fn slot_index(&self) -> Option<usize> {
        match self.slot.load(Acquire) {
            0 => self.claim(),
            slot => Some(slot.wrapping_sub(1) as usize),
        }
    }

    /// Index of this process's slot, if it has claimed one.
    #[inline]
    pub fn claimed_slot(&self) -> Option<usize> {
        (self.slot.load(Acquire) as usize).checked_sub(1)
    }

    /// Whether this process has no slot because living processes held all of them when it last looked.
    pub fn found_full(&self) -> bool {
        self.full_at_ns.load(Relaxed) != 0
    }

    /// Whether that was a moment ago. A search of all of them takes time.
    fn just_found_full(&self) -> bool {
        const PAUSE_NS: u64 = 100_000_000;
        let at = self.full_at_ns.load(Relaxed);
        at != 0 && sys::monotonic_ns().saturating_sub(at) < PAUSE_NS
    }

    /// This process's slot.
    #[inline]
    pub fn slot(&self) -> Option<&'static Slot> {
        self.ours().slots.get(self.slot_index()?)
    }

    #[cold]
    fn claim(&self) -> Option<usize> {
        let _errno = KeepErrno::new();
        // Signals wait meanwhile, so that no handler leaves the claim half done.
        let _signals = NoSignals::new();
        let _claiming = self.claiming.lock(|| {})?;
        if self.slot.load(Acquire) == 0 {
            if self.just_found_full() {
                return None;
            }
            let index = match slot::claim(&self.region(), self.path(), &self.file, &mut Reaper) {
                Ok(index) => index,
                Err(error) => {
                    let full = error == ClaimError::Full;
                    self.full_at_ns.store(if full { sys::monotonic_ns() } else { 0 }, Relaxed);
                    return None;
                }
            };
            if let Some(slot) = self.ours().slots.get(index) {
                slot.priority.store(self.limits().priority.unsigned_abs(), Relaxed);
            }
            self.slot.store((index as u32).wrapping_add(1), Release);
            // The limits that dead processes brought must not hold for this one.
            self.reap();
            self.region().settle_all_limits();
        }
        Some(self.slot.load(Acquire).wrapping_sub(1) as usize)
    }

    /// Calls `action` with the region's file, whose locks show which processes live.
    fn with_file<R>(&self, action: impl FnOnce(&Descriptor) -> R) -> Result<R, Errno> {
        self.file.with(self.path(), action)
    }

    /// Gives back the bytes and the GPU time of the container's dead processes; true if there were any.
    #[cold]
    pub fn reap(&self) -> bool {
        let _errno = KeepErrno::new();
        let own = self.claimed_slot();
        let _signals = NoSignals::new();
        let Some(_reaping) = self.reaping.lock(|| {}) else { return false };
        let reaped = self.with_file(|file| {
            self.look_after_names(file);
            if !self.is_whole() {
                return 0;
            }
            slot::reap(&self.region(), file, own, &mut Reaper)
        });
        reaped.is_ok_and(|freed| freed > 0)
    }

    /// Once a second: makes sure that the region's path names the region, and that it has its second name.
    fn look_after_names(&self, file: &Descriptor) {
        const PAUSE_NS: u64 = 1_000_000_000;
        let (now, last) = (sys::monotonic_coarse_ns(), self.named_at_ns.load(Relaxed));
        if last != 0 && now.saturating_sub(last) < PAUSE_NS {
            return;
        }
        self.named_at_ns.store(now, Relaxed);
        self.look_after_contents();
        let names = names::restore(self.path(), file, &is_spare);
        if self.names_seen.swap(names.code(), Relaxed) == names.code() {
            return;
        }
        notes::record_names(&self.region(), names);
        if matches!(names, Names::Nameless { .. } | Names::Split { .. }) && !self.limits().quiet {
            let mut line = Line::default();
            Note::Names(names).write(&mut line, self.path().to_bytes());
            sys::write_stderr(line.end());
        }
    }

    /// Whether a process of the container is dying, so that its bytes will be free in a moment.
    #[cold]
    pub fn any_dying(&self) -> bool {
        self.with_file(|file| slot::any_dying(&self.region(), file)).unwrap_or(false)
    }

    /// Whether other processes of the container may be at work.
    #[inline]
    pub fn may_have_peers(&self) -> bool {
        self.peers.may_be()
    }

    /// How many other processes have a slot, as of a tenth of a second ago.
    pub fn count_peers(&self, now: u64) -> u32 {
        self.peers.count(self.ours(), self.claimed_slot(), now)
    }

    /// As [`Self::reap`], but the processes of the container together at most ten times a second, and only where others may
    /// have a slot: the view must not show the bytes of dead processes for long.
    #[inline]
    pub fn reap_sometimes(&self) {
        let own = self.slot.load(Relaxed);
        // A process that only reads the view has no slot, so a single slot in use may be a dead process's.
        let high = self.header().slot_high.load(Relaxed);
        if high != 0 && (high != 1 || own != 1) {
            self.reap_if_due();
        }
    }

    #[inline(never)]
    fn reap_if_due(&self) {
        const PAUSE_NS: u64 = 100_000_000;
        const LONGEST_NS: u64 = 10_000_000_000;
        let (now, last) = (sys::monotonic_coarse_ns(), self.reaped_at_ns.load(Relaxed));
        // Each of many looks at as many locks: together they look as often as one.
        let pause = PAUSE_NS.saturating_mul(self.count_peers(now).saturating_add(1).into());
        if now.saturating_sub(last) > pause.min(LONGEST_NS) {
            self.reaped_at_ns.store(now, Relaxed);
            self.reap();
        }
    }

    /// At cuInit: writes one line on stderr if something is wrong with the limits, once per container. `closed`: the library
    /// refuses the GPU because it cannot keep the quota.
    #[cold]
    pub fn warn(&self, closed: bool) {
        let startup = self.startup();
        if let Some(note) = startup.note.filter(|_| !startup.reading.limits.quiet) {
            let mut line = Line::default();
            note.write(&mut line, startup.path.as_bytes());
            sys::write_stderr(line.end());
        }
        let problems = startup.problems();
        if problems == 0 || startup.reading.limits.quiet {
            return;
        }
        if let Some(region) = startup.region {
            if region.ours().header.warned.swap(1, AcqRel) != 0 {
                return;
            }
            region.event(EVENT_BAD_LIMITS, u32::MAX, u64::from(problems), 0, 0);
        }
        let mut line = Line::default();
        startup.write_warning(&mut line, closed);
        sys::write_stderr(line.end());
    }
}

#[cfg(test)]
pub mod tests;
