//! What the processes of the container share, as this process has it: the region, its slot there, the limits.
//!
//! - `start`: finds out what was asked and opens the region;
//! - [`books`]: the region's words as `quota` wants them;
//! - `reaper`: gives back what a dead process held;
//! - [`hami`]: what HAMi's monitor says, and what it is told;
//! - [`holders`]: which living process holds what.
//!
//! # Safety
//! This file may use `unsafe` because what start found is a plain value that the starting thread alone writes, before the
//! process's phase is published; everything else is atomics. All-zero bytes are a container that was not started.
#![allow(unsafe_code)]

pub mod books;
pub mod hami;
pub mod holders;
mod reaper;
mod start;

use crate::lock::Lock;
use core::cell::UnsafeCell;
use core::ffi::CStr;
use core::mem::MaybeUninit;
use core::sync::atomic::Ordering::Release;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering::AcqRel, Ordering::Acquire, Ordering::Relaxed};
use gpuquota_quota::limits::{CorePolicy, Limits, Mode};
use gpuquota_quota::text::Line;
use gpuquota_region::hami::View;
use gpuquota_region::layout::{Device, EVENT_BAD_LIMITS, Header, Ours, Slot};
use gpuquota_region::lock::RegionFile;
use gpuquota_region::sys::{self, Descriptor, Errno, KeepErrno};
use gpuquota_region::{Region, slot};
use reaper::Reaper;
pub use start::Outcome;
use start::Started;

/// The container as this process has it.
pub struct Container {
    started: UnsafeCell<MaybeUninit<Started>>,
    /// Index of this process's slot + 1; 0 until one was claimed.
    slot: AtomicU32,
    claiming: Lock,
    file: RegionFile,
    /// Held by the thread that looks for the dead: locks on slots are the process's, and would not keep another thread
    /// from settling the same slot at the same time.
    reaping: Lock,
    /// When the dead were last looked for, CLOCK_MONOTONIC nanoseconds.
    reaped_at_ns: AtomicU64,
}

// SAFETY: `started` is written before the process's phase is published and only read afterwards; the rest is atomics.
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
    /// Finds out what was asked and opens the region. Runs once, in the thread that starts the process.
    pub fn start(&self) -> Outcome {
        // SAFETY: only the starting thread is here, and nobody reads before the phase is published.
        let started = unsafe { (*self.started.get()).write(Started::default()) };
        started.find_out()
    }

    #[inline]
    fn started(&self) -> &Started {
        // SAFETY: callers hold a container of a process whose phase was published.
        unsafe { (*self.started.get()).assume_init_ref() }
    }

    /// The region. There is one in every process whose quota is on; the others hand no container out but to [`Self::warn`].
    #[inline]
    pub fn region(&self) -> Region {
        // SAFETY: `Outcome::Ready` is answered only with a region, and only then are callers given a container.
        unsafe { self.started().region.unwrap_unchecked() }
    }

    /// Our part of it.
    #[inline]
    pub fn ours(&self) -> &'static Ours {
        self.region().ours()
    }

    /// Its header.
    #[inline]
    pub fn header(&self) -> &'static Header {
        &self.ours().header
    }

    /// HAMi's view of it.
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
        self.started().path.as_c_str()
    }

    /// What the operator asked.
    #[inline]
    pub fn limits(&self) -> &Limits {
        &self.started().reading.limits
    }

    /// Whether refusals and waits are only counted.
    #[inline]
    pub fn observes(&self) -> bool {
        self.limits().mode == Mode::Observe
    }

    /// Whether allocations may come from the host's memory.
    #[inline]
    pub fn spills(&self) -> bool {
        self.started().spills
    }

    /// Whether the limits file itself gives a share of time: that holds whatever the region says.
    #[inline]
    pub fn has_file_share(&self) -> bool {
        self.started().has_file_share
    }

    /// Whether no launch of the container needs a look: no device has a share by the region, nor by the limits file, and
    /// on none are there turns.
    #[inline(always)]
    pub fn is_unthrottled(&self) -> bool {
        self.header().shares.load(Relaxed) == 0 && !self.has_file_share()
    }

    /// Whether a monitor of the node blocks the container's launches for a higher priority.
    #[inline]
    pub fn is_blocked(&self) -> bool {
        self.limits().mode == Mode::Enforce && hami::blocks(self.hami())
    }

    /// Whether the container's shares do not bind now, because what is idle is lent to it.
    #[inline]
    pub fn borrows(&self) -> bool {
        self.limits().policy == CorePolicy::BurstShare && hami::lends(self.hami(), self.header())
    }

    /// Counts an incident that was survived by going on with the driver's own answer.
    #[cold]
    pub fn fell_back(&self) {
        self.header().fallbacks.fetch_add(1, Relaxed);
    }

    /// Index of this process's slot, claimed if need be. `None` when all 1,024 are held by living processes.
    #[inline]
    pub fn slot_index(&self) -> Option<usize> {
        match self.slot.load(Acquire) {
            0 => self.claim(),
            slot => Some(slot.wrapping_sub(1) as usize),
        }
    }

    /// This process's slot.
    #[inline]
    pub fn slot(&self) -> Option<&'static Slot> {
        self.ours().slots.get(self.slot_index()?)
    }

    #[cold]
    fn claim(&self) -> Option<usize> {
        let _errno = KeepErrno::new();
        let _claiming = self.claiming.lock();
        if self.slot.load(Acquire) == 0 {
            let index = slot::claim(&self.region(), self.path(), &self.file, &mut Reaper).ok()?;
            if let Some(slot) = self.ours().slots.get(index) {
                slot.priority.store(self.limits().priority.unsigned_abs(), Relaxed);
            }
            self.slot.store((index as u32).wrapping_add(1), Release);
        }
        Some(self.slot.load(Acquire).wrapping_sub(1) as usize)
    }

    /// Uses the region's file: its locks tell which processes live.
    fn with_file<R>(&self, then: impl FnOnce(&Descriptor) -> R) -> Result<R, Errno> {
        self.file.with(self.path(), then)
    }

    /// Gives back what dead processes of the container hold; true if there was any.
    #[cold]
    pub fn reap(&self) -> bool {
        let _errno = KeepErrno::new();
        let own = (self.slot.load(Acquire) as usize).checked_sub(1);
        let _reaping = self.reaping.lock();
        let reaped = self.with_file(|file| slot::reap(&self.region(), file, own, &mut Reaper));
        reaped.is_ok_and(|freed| freed > 0)
    }

    /// Whether a process of the container is dying, so that what it holds will be free in a moment.
    #[cold]
    pub fn any_dying(&self) -> bool {
        self.with_file(|file| slot::any_dying(&self.region(), file)).unwrap_or(false)
    }

    /// As [`Self::reap`], at most every tenth of a second and only where there are other processes: the view must
    /// not keep the dead for long.
    #[inline]
    pub fn reap_sometimes(&self) {
        let own = self.slot.load(Relaxed);
        // A process that only looks has no slot, so the one slot that was ever used may be a dead process's.
        let high = self.header().slot_high.load(Relaxed);
        if high != 0 && (high != 1 || own != 1) {
            self.reap_if_due();
        }
    }

    #[inline(never)]
    fn reap_if_due(&self) {
        const PAUSE_NS: u64 = 100_000_000;
        let (now, last) = (sys::monotonic_coarse_ns(), self.reaped_at_ns.load(Relaxed));
        if now.saturating_sub(last) > PAUSE_NS {
            self.reaped_at_ns.store(now, Relaxed);
            self.reap();
        }
    }

    /// At cuInit: if something is wrong with the limits, says so in one line, once per container. `closed`: the quota cannot
    /// be kept, and the GPU is refused.
    #[cold]
    pub fn warn(&self, closed: bool) {
        let started = self.started();
        let problems = started.problems();
        if problems == 0 || started.reading.limits.quiet {
            return;
        }
        if let Some(region) = started.region {
            if region.ours().header.warned.swap(1, AcqRel) != 0 {
                return;
            }
            region.event(EVENT_BAD_LIMITS, u32::MAX, u64::from(problems), 0, 0);
        }
        let mut line = Line::default();
        started.complain(&mut line, closed);
        sys::write_stderr(line.end());
    }
}

#[cfg(test)]
pub mod tests;
