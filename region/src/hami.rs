//! HAMi's shared region v1.2, as a view: written so that its monitors read true numbers, never read by us to decide, but
//! for `recent_kernel` and `utilization_switch`, in which its monitor speaks to us.
//!
//! Offsets follow the published C header of HAMi-core and were measured with a C compiler; `include/gpuquota_region.h`
//! repeats them. Both `sem_t` hold the value 1 for ever: no process under this library waits on them.

use crate::check::{numbers, record};
use core::sync::atomic::{AtomicI32, AtomicU32, AtomicU64, Ordering::Relaxed, Ordering::Release};

numbers! { "GPUQUOTA_HAMI_";
    /// [`View::initialized_flag`] of a valid region.
    MAGIC: i32 = 19_920_718;
    /// [`View::major`].
    MAJOR: u32 = 1;
    /// [`View::minor`].
    MINOR: u32 = 2;
    /// Devices that the view can show; ours beyond these are not shown there.
    DEVICES: usize = 16;
    /// Process slots.
    SLOTS: usize = 1024;
}

/// Bytes of one device held by one process.
#[repr(C)]
pub struct Used {
    /// Contexts.
    pub context: AtomicU64,
    /// Modules.
    pub module: AtomicU64,
    /// Allocations.
    pub data: AtomicU64,
    /// Not used by anybody.
    pub offset: AtomicU64,
    /// Sum of the above.
    pub total: AtomicU64,
    _unused: [AtomicU64; 3],
}

/// Utilisation of one device by one process.
#[repr(C)]
pub struct Utilization {
    /// Decoder, encoder and SM utilisation, percent. Always 0: not told here. The library has no thread of its own, so what
    /// it had written last would stand there while the program is idle, and without a share it measures no kernels.
    pub dec_enc_sm: [AtomicU64; 3],
    _unused: [AtomicU64; 3],
}

/// One process.
#[repr(C)]
pub struct Process {
    /// Process id in the container; 0 for a hole.
    pub pid: AtomicI32,
    /// Process id on the host; 0 when unknown.
    pub host_pid: AtomicI32,
    /// Memory per device.
    pub used: [Used; DEVICES],
    /// Memory as a monitor saw it; not written by us.
    pub monitor_used: [AtomicU64; DEVICES],
    /// Utilisation per device.
    pub utilization: [Utilization; DEVICES],
    /// 1 running, 0 hole.
    pub status: AtomicI32,
    _pad: AtomicU32,
    /// HAMi-core's sequence lock: always even here.
    pub sequence: AtomicU64,
    _unused: [AtomicU64; 2],
}

/// A `sem_t` of glibc as an inert pattern.
#[repr(C)]
pub struct InertSemaphore([AtomicU64; 4]);

/// The whole view.
#[repr(C)]
pub struct View {
    /// [`MAGIC`], stored last.
    pub initialized_flag: AtomicI32,
    /// [`MAJOR`].
    pub major: AtomicU32,
    /// [`MINOR`].
    pub minor: AtomicU32,
    _sm_init_flag: AtomicU32,
    _owner_pid: AtomicU64,
    sem: InertSemaphore,
    /// Number of devices. 0 makes a monitor overlook the container.
    pub device_num: AtomicU64,
    /// UUIDs as text, zero-padded.
    pub uuids: [[AtomicU64; 12]; DEVICES],
    /// Memory limits, bytes; 0 for none.
    pub limit: [AtomicU64; DEVICES],
    /// Core limits, percent.
    pub sm_limit: [AtomicU64; DEVICES],
    /// Processes; holes have status 0 and zero sizes.
    pub procs: [Process; SLOTS],
    /// High-water mark of `procs`.
    pub proc_num: AtomicI32,
    /// 1: throttle, 0: run free; flipped by HAMi's monitor under the default policy.
    pub utilization_switch: AtomicI32,
    /// 0 before the first launch, 2 after each; a monitor counts it down, and a negative value asks launches to wait.
    pub recent_kernel: AtomicI32,
    /// 0 high, 1 low.
    pub priority: AtomicI32,
    /// A launch, unix seconds: the first one, and each first one after a monitor has counted `recent_kernel` down.
    pub last_kernel_time: AtomicU64,
    sem_postinit: InertSemaphore,
}

record!(Used as "gpuquota_hami_used", 64; context: 0, module: 8, data: 16, offset: 24, total: 32, _unused: 40);
record!(Utilization as "gpuquota_hami_utilization", 48; dec_enc_sm: 0, _unused: 24);
record!(Process as "gpuquota_hami_process", 1960; pid: 0, host_pid: 4, used: 8, monitor_used: 1032, utilization: 1160,
    status: 1928, _pad: 1932, sequence: 1936, _unused: 1944);
record!(View as "gpuquota_hami_view", 2_008_952; initialized_flag: 0, major: 4, minor: 8, _sm_init_flag: 12,
    _owner_pid: 16, sem: 24, device_num: 56, uuids: 64, limit: 1600, sm_limit: 1728, procs: 1856, proc_num: 2_008_896,
    utilization_switch: 2_008_900, recent_kernel: 2_008_904, priority: 2_008_908, last_kernel_time: 2_008_912,
    sem_postinit: 2_008_920);

impl InertSemaphore {
    /// glibc: value 1, no waiters, shared between processes (128).
    fn set(&self) {
        let [value, private, ..] = &self.0;
        value.store(1, Relaxed);
        private.store(128, Relaxed);
    }
}

impl View {
    /// Fills in an empty view; the caller holds the initialisation lock. The magic goes last.
    pub(crate) fn initialise(&self, priority: i32) {
        self.major.store(MAJOR, Relaxed);
        self.minor.store(MINOR, Relaxed);
        self.sem.set();
        self.sem_postinit.set();
        self.utilization_switch.store(1, Relaxed);
        self.recent_kernel.store(0, Relaxed);
        self.priority.store(priority, Relaxed);
        self.sm_limit.iter().for_each(|sm_limit| sm_limit.store(100, Relaxed));
        self.initialized_flag.store(MAGIC, Release);
    }

    /// Whether the container has launched at some time.
    #[must_use]
    pub fn has_launched(&self) -> bool {
        self.last_kernel_time.load(Relaxed) != 0
    }

    /// Shows that there was a launch at `unix_ns`, nanoseconds since 1970. The time shown never goes back.
    pub fn show_launch(&self, unix_ns: u64) {
        self.last_kernel_time.fetch_max(unix_ns / 1_000_000_000, Relaxed);
    }
}

impl Process {
    /// Turns the record into a hole.
    pub(crate) fn clear(&self) {
        self.status.store(0, Relaxed);
        self.pid.store(0, Relaxed);
        self.host_pid.store(0, Relaxed);
        for used in &self.used {
            used.show_left(0);
        }
        for utilization in &self.utilization {
            utilization.dec_enc_sm.iter().for_each(|word| word.store(0, Relaxed));
        }
    }

    /// Shows a running process.
    pub(crate) fn show(&self, pid: u32) {
        self.pid.store(pid.cast_signed(), Relaxed);
        self.status.store(1, Release);
    }
}

impl Used {
    /// Shows bytes of a dead process's allocations and nothing else.
    pub(crate) fn show_left(&self, bytes: u64) {
        self.context.store(0, Relaxed);
        self.module.store(0, Relaxed);
        self.set_data(bytes, bytes);
    }

    /// Shows bytes of allocations, and of everything.
    #[inline]
    pub fn set_data(&self, data: u64, total: u64) {
        self.data.store(data, Relaxed);
        self.total.store(total, Relaxed);
    }
}
