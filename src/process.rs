//! This process: its region, its slot, its limits. Started by the first hook that needs it, and again in a child
//! made by fork.
//!
//! # Safety
//! This room may use `unsafe` because it keeps the process's state in one mapping that the kernel zeroes in a child
//! (`MADV_WIPEONFORK`): locks that another thread held at the fork are free there, the parent's slot is not the
//! child's, and the child starts anew without being told. Every type in [`Process`] is therefore valid when all its
//! bytes are zero; the few fields that are not atomic are written by the starting thread alone, before `phase` is
//! published.
#![allow(unsafe_code)]

mod start;

use crate::environment;
use crate::{account, device, feedback, holdings::Holdings, kept, lock::Lock, meter, overhead};
use core::cell::UnsafeCell;
use core::ffi::CStr;
use core::mem::{MaybeUninit, size_of};
use core::sync::atomic::{
    AtomicBool, AtomicPtr, AtomicU32, AtomicU64, Ordering::AcqRel, Ordering::Acquire, Ordering::Relaxed,
    Ordering::Release,
};
use gpuquota_quota::limits::{CorePolicy, Limits, Mode, Source};
use gpuquota_quota::text::Line;
use gpuquota_region::layout::{EVENT_BAD_LIMITS, Slot};
use gpuquota_region::lock::Kept;
use gpuquota_region::sys::{self, InChild, KeepErrno};
use gpuquota_region::{Region, slot};
use start::Started;

const FRESH: u32 = 0;
const STARTING: u32 = 1;
const READY: u32 = 2;
const OFF: u32 = 3;
const CLOSED: u32 = 4;

/// Everything that belongs to this process alone.
pub struct Process {
    phase: AtomicU32,
    /// Index of the slot + 1; 0 until one was claimed.
    slot: AtomicU32,
    claiming: Lock,
    /// The region's file.
    pub file: Kept,
    /// Held by the thread that looks for the dead: locks on slots are the process's, and would not keep another thread
    /// from settling the same slot at the same time.
    reaping: Lock,
    /// When the dead were last looked for, CLOCK_MONOTONIC nanoseconds.
    reaped_at_ns: AtomicU64,
    started: UnsafeCell<MaybeUninit<Started>>,
    /// Devices as CUDA and NVML name them.
    pub known: device::Known,
    /// Ledger lanes of this process.
    pub lanes: account::Lanes,
    /// Who holds what.
    pub holdings: Holdings,
    /// Whether allocations may come from the host's memory.
    pub may_spill: AtomicBool,
    /// Whether the limits file itself gives a share of time: that holds whatever the region says.
    pub has_share: AtomicBool,
    /// Whether anything was ever sent to the host.
    pub has_spilled: AtomicBool,
    /// What was said of refusals.
    pub refusals: account::Refusals,
    /// What pools and graphs keep.
    pub kept: kept::Kept,
    /// What the driver takes beside requests.
    pub overhead: overhead::Overhead,
    /// GPU time under way.
    pub meter: meter::Meter,
}

// SAFETY: `started` is written before `phase` is published and only read afterwards; the rest is atomics.
unsafe impl Sync for Process {}

/// What a hook shall do.
pub enum Quota {
    /// Keep the books.
    On(&'static Process),
    /// Nothing: there is no quota.
    Off,
    /// Refuse: the quota cannot be kept, and the policy is closed.
    Closed,
}

static PROCESS: AtomicPtr<Process> = AtomicPtr::new(core::ptr::null_mut());

/// This process's quota, started if need be.
#[inline(always)]
pub fn quota() -> Quota {
    let process = PROCESS.load(Acquire);
    if !process.is_null() {
        // SAFETY: a published pointer is a mapping of Process's size that is never undone.
        let process = unsafe { &*process };
        if process.phase.load(Acquire) == READY {
            return Quota::On(process);
        }
    }
    quota_slowly()
}

#[cold]
#[inline(never)]
fn quota_slowly() -> Quota {
    let _errno = KeepErrno::new();
    let Some(process) = state() else { return Quota::Off };
    loop {
        match process.phase.load(Acquire) {
            READY => return Quota::On(process),
            OFF => return Quota::Off,
            CLOSED => return Quota::Closed,
            FRESH => {
                if process.phase.compare_exchange(FRESH, STARTING, AcqRel, Acquire).is_ok() {
                    process.start();
                }
            }
            _ => sys::sleep_until(sys::monotonic_ns().wrapping_add(100_000)),
        }
    }
}

/// The mapping, made by the first thread that asks.
fn state() -> Option<&'static Process> {
    let process = PROCESS.load(Acquire);
    if !process.is_null() {
        // SAFETY: as in `quota`.
        return Some(unsafe { &*process });
    }
    let fresh = sys::map_private(size_of::<Process>()).ok()?;
    // Kernels before 4.14 do not know it; there a child keeps its parent's books until exec.
    let _ = sys::advise_fork(fresh, size_of::<Process>(), InChild::Zeroed);
    let published = PROCESS.compare_exchange(core::ptr::null_mut(), fresh.cast(), AcqRel, Acquire);
    let process = match published {
        Ok(_) => fresh.cast(),
        Err(other) => {
            sys::unmap_private(fresh, size_of::<Process>());
            other
        }
    };
    // SAFETY: as in `quota`; all-zero bytes are a valid Process.
    Some(unsafe { &*process })
}

impl Process {
    /// Finds out what was asked. Runs once, in the thread that won `phase`.
    fn start(&self) {
        // SAFETY: only the thread that won the phase writes, and nobody reads before the phase is published.
        let started = unsafe { (*self.started.get()).write(Started::default()) };
        let phase = started.find_out();
        let limits = &started.reading.limits;
        self.may_spill.store(limits.spills(), Relaxed);
        self.has_share.store(limits.cores.iter().any(|limit| limit.source == Source::File), Relaxed);
        self.known.read_visible(environment::get("CUDA_VISIBLE_DEVICES"));
        self.phase.store(phase, Release);
    }

    fn started(&self) -> &Started {
        // SAFETY: callers hold a Process whose phase was published.
        unsafe { (*self.started.get()).assume_init_ref() }
    }

    /// The container's region; there always is one while the quota is [`Quota::On`].
    #[inline]
    pub fn region(&self) -> Option<&Region> {
        self.started().region.as_ref()
    }

    /// What the operator asked.
    pub fn limits(&self) -> &Limits {
        &self.started().reading.limits
    }

    /// Whether refusals and waits are only counted.
    #[inline]
    pub fn observes(&self) -> bool {
        self.limits().mode == Mode::Observe
    }

    /// Whether a monitor of the node blocks the container's launches for a higher priority.
    #[inline]
    pub fn is_blocked(&self) -> bool {
        let blocks = |region: &Region| feedback::blocks(region.hami());
        self.limits().mode == Mode::Enforce && self.region().is_some_and(blocks)
    }

    /// Waits until that is over or its author is gone; answers for how long.
    #[cold]
    pub fn wait_while_blocked(&self) -> u64 {
        self.region().map_or(0, |region| feedback::wait(region.hami()))
    }

    /// Whether the container's shares do not bind now, because what is idle is lent to it.
    #[inline]
    pub fn borrows(&self) -> bool {
        let lends = |region: &Region| feedback::lends(region.hami(), &region.ours().header);
        self.limits().policy == CorePolicy::BurstShare && self.region().is_some_and(lends)
    }

    /// Whether tools see the container's slice of a device: it has a cap, and the cap binds.
    pub fn shows_slice(&self, device: u8) -> bool {
        let capped = |record| self.known.memory_cap(device, record).is_some();
        !self.observes() && self.device(device).is_some_and(capped)
    }

    /// The region's path.
    pub fn path(&self) -> &CStr {
        self.started().path.as_c_str()
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
        self.region()?.ours().slots.get(self.slot_index()?)
    }

    #[cold]
    fn claim(&self) -> Option<usize> {
        let _errno = KeepErrno::new();
        let _claiming = self.claiming.lock();
        if self.slot.load(Acquire) == 0 {
            let index = slot::claim(self.region()?, self.path(), &self.file, &mut account::Heir).ok()?;
            if let Some(slot) = self.region()?.ours().slots.get(index) {
                slot.priority.store(self.limits().priority.unsigned_abs(), Relaxed);
            }
            self.slot.store((index as u32).wrapping_add(1), Release);
        }
        Some(self.slot.load(Acquire).wrapping_sub(1) as usize)
    }

    /// Gives back what dead processes of the container hold; true if there was any.
    #[cold]
    pub fn reap(&self) -> bool {
        let _errno = KeepErrno::new();
        let own = (self.slot.load(Acquire) as usize).checked_sub(1);
        let Some(region) = self.region() else { return false };
        let _reaping = self.reaping.lock();
        let reaped = self.file.with(self.path(), |file| slot::reap(region, file, own, &mut account::Heir));
        reaped.is_ok_and(|freed| freed > 0)
    }

    /// Whether a process of the container is dying, so that what it holds will be free in a moment.
    #[cold]
    pub fn any_dying(&self) -> bool {
        let Some(region) = self.region() else { return false };
        self.file.with(self.path(), |file| slot::any_dying(region, file)).unwrap_or(false)
    }

    /// As [`Self::reap`], at most every tenth of a second and only where there are other processes: the view must
    /// not keep the dead for long.
    #[inline]
    pub fn reap_sometimes(&self) {
        const PAUSE_NS: u64 = 100_000_000;
        let own = self.slot.load(Relaxed);
        // Whoever only looks has no slot, so the one slot that was ever used may be a dead process's.
        let alone = |high| high == 0 || (high == 1 && own == 1);
        if self.region().is_none_or(|region| alone(region.ours().header.slot_high.load(Relaxed))) {
            return;
        }
        let (now, last) = (sys::monotonic_coarse_ns(), self.reaped_at_ns.load(Relaxed));
        if now.saturating_sub(last) > PAUSE_NS {
            self.reaped_at_ns.store(now, Relaxed);
            self.reap();
        }
    }

    /// Whether this process is the first of its container to speak.
    fn may_speak(&self) -> bool {
        self.region().is_none_or(|region| region.ours().header.spoken.swap(1, AcqRel) == 0)
    }
}

/// At cuInit: if something is wrong with the limits, says so in one line, once per container.
#[cold]
pub fn speak() {
    let _errno = KeepErrno::new();
    let Some(process) = state() else { return };
    if process.phase.load(Acquire) < READY {
        return;
    }
    let started = process.started();
    let problems = started.problems();
    if problems == 0 || started.reading.limits.quiet || !process.may_speak() {
        return;
    }
    if let Some(region) = process.region() {
        region.event(EVENT_BAD_LIMITS, u32::MAX, u64::from(problems), 0, 0);
    }
    let mut line = Line::default();
    started.complain(&mut line, process.phase.load(Acquire) == CLOSED);
    sys::write_stderr(line.end());
}
