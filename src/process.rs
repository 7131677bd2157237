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

use crate::environment::{self, Environment};
use crate::{account, device, driver, holdings::Holdings, lock::Lock, meter};
use core::cell::UnsafeCell;
use core::ffi::CStr;
use core::mem::{MaybeUninit, size_of};
use core::sync::atomic::{
    AtomicPtr, AtomicU32, AtomicU64, Ordering::AcqRel, Ordering::Acquire, Ordering::Relaxed,
    Ordering::Release,
};
use gpuquota_quota::limits::{self, DEFAULT_REGION, Limits, Mode, OnError, Problem, Reading};
use gpuquota_quota::text::{Fixed, Line};
use gpuquota_region::layout::{EVENT_BAD_LIMITS, Slot};
use gpuquota_region::sys::{self, InChild, KeepErrno};
use gpuquota_region::{OpenError, Region, slot};

/// The limits file: read-only, mounted by whoever runs the container; it outranks the environment.
pub const LIMITS_FILE: &CStr = c"/etc/gpuquota/limits";

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
    /// When the dead were last looked for, CLOCK_MONOTONIC nanoseconds.
    reaped_at_ns: AtomicU64,
    started: UnsafeCell<MaybeUninit<Started>>,
    /// Devices as CUDA and NVML name them.
    pub known: device::Known,
    /// Ledger lanes of this process.
    pub lanes: account::Lanes,
    /// Who holds what.
    pub holdings: Holdings,
    /// GPU time under way.
    pub meter: meter::Meter,
}

// SAFETY: `started` is written before `phase` is published and only read afterwards; the rest is atomics.
unsafe impl Sync for Process {}

/// What start found out.
struct Started {
    region: Option<Region>,
    path: limits::Path,
    reading: Reading,
    trouble: Option<Trouble>,
}

/// Why there is no quota although one was asked for.
#[derive(Clone, Copy)]
enum Trouble {
    Path(Problem),
    Region(OpenError),
}

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
    /// Reads the limits and opens the region. Runs once, in the thread that won `phase`.
    fn start(&self) {
        let mut file = [0u8; 8192];
        let file = sys::read_file(LIMITS_FILE, &mut file).ok();
        let environment = Environment::read();
        let reading = limits::read(&|name| environment.get(name), file);
        let (phase, started) = if reading.limits.mode == Mode::Off || !driver::is_first_copy() {
            (OFF, Started { region: None, path: Fixed::default(), reading, trouble: None })
        } else {
            Self::open(reading, &environment)
        };
        self.known.read_visible(environment::get("CUDA_VISIBLE_DEVICES"));
        // SAFETY: only the thread that won the phase writes, and nobody reads before the phase is published.
        unsafe { (*self.started.get()).write(started) };
        self.phase.store(phase, Release);
    }

    fn open(reading: Reading, environment: &Environment) -> (u32, Started) {
        let mut path = Fixed::default();
        let ask = |name: &str| environment.get(name);
        let opened = limits::region_path(&ask).map_err(Trouble::Path).and_then(|found| {
            path = found.path;
            let priority = reading.limits.priority;
            match Region::open(path.as_c_str(), priority) {
                Err(_) if found.may_fall_back => {
                    path = Fixed::copy_of(DEFAULT_REGION.as_bytes()).unwrap_or_default();
                    Region::open(path.as_c_str(), priority).map_err(Trouble::Region)
                }
                opened => opened.map_err(Trouble::Region),
            }
        });
        let (region, trouble) = match opened {
            Ok(region) => (Some(region), None),
            Err(trouble) => (None, Some(trouble)),
        };
        let asked =
            reading.limits.memory.iter().next().is_some() || reading.limits.cores.iter().next().is_some();
        let strict = reading.limits.mode == Mode::Enforce && reading.limits.on_error == OnError::Closed;
        let phase = match region {
            _ if reading.closed() => CLOSED,
            Some(_) => READY,
            None if asked && strict => CLOSED,
            None => OFF,
        };
        (phase, Started { region, path, reading, trouble: trouble.filter(|_| asked) })
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
            let index = slot::claim(self.region()?, self.path(), &mut account::Heir).ok()?;
            self.slot.store((index as u32).wrapping_add(1), Release);
        }
        Some(self.slot.load(Acquire).wrapping_sub(1) as usize)
    }

    /// Gives back what dead processes of the container hold; true if there was any.
    #[cold]
    pub fn reap(&self) -> bool {
        let _errno = KeepErrno::new();
        let own = (self.slot.load(Acquire) as usize).checked_sub(1);
        let reap = |region| slot::reap(region, self.path(), own, &mut account::Heir).unwrap_or(0);
        self.region().map_or(0, reap) > 0
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
    let Started { reading, trouble, .. } = process.started();
    let closed = process.phase.load(Acquire) == CLOSED;
    let problems = reading.problems.errors().saturating_add(reading.problems.warnings());
    if (problems == 0 && trouble.is_none()) || !process.may_speak() {
        return;
    }
    if let Some(region) = process.region() {
        region.event(EVENT_BAD_LIMITS, u32::MAX, u64::from(problems), 0, 0);
    }
    let mut line = Line::<900>::default();
    line.push_str("gpuquota: ");
    let mut rest = problems;
    let first_error =
        reading.problems.iter().find(|problem| problem.reason.severity() == limits::Severity::Error);
    match (trouble, first_error.or(reading.problems.iter().next())) {
        (_, Some(problem)) => {
            problem.write(&mut line, reading.consequence());
            rest = rest.saturating_sub(1);
        }
        (Some(Trouble::Path(problem)), _) => problem.write(&mut line, reading.consequence()),
        (Some(Trouble::Region(error)), _) => {
            line.push_str("the quota's region ").push_escaped(process.path().to_bytes(), 200).push_str(": ");
            line.push_str(error.reason())
                .push_str(". Without a region that all processes share there is no quota");
            line.push_str(if closed {
                ", so there is no GPU here. "
            } else {
                "; programs run without one. "
            });
            line.push_str("Set GPUQUOTA_REGION to a path that can be written, or GPUQUOTA_ON_ERROR=open.");
        }
        (None, None) => {}
    }
    if rest > 0 {
        line.push_str(" (and ").push_u64(u64::from(rest)).push_str(" more)");
    }
    sys::write_stderr(line.end());
}
