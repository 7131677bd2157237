//! The bytes that processes agree on.
//!
//! Offsets are from the start of the file unless said otherwise. All integers are little-endian and naturally aligned.
//! Every byte is part of an atomic, the reserved ones too: other processes may change any of them at any time.
//!
//! `docs/region.md` states the version rule: a minor version may give a meaning to reserved bytes, bits and codes and
//! may make records longer; whatever else changes is a new major version.

use crate::check::{numbers, record};
use crate::hami::View;
use core::sync::atomic::{AtomicU8, AtomicU32, AtomicU64};

numbers! { "GPUQUOTA_";
    /// Where our part begins: HAMi's view (2,008,952 bytes) rounded up to a page.
    OURS: usize = 0x1E_B000;
    /// Bytes of a region file of this version.
    FILE_BYTES: usize = size_of::<File>();
    /// "GPUQUOTA" read as a little-endian integer.
    MAGIC: u64 = u64::from_le_bytes(*b"GPUQUOTA");
    /// Major version: readers and writers refuse any other.
    ABI_MAJOR: u32 = 1;
    /// Minor version: readers and writers accept others.
    ABI_MINOR: u32 = 4;

    /// Kinds of records: device, slot, journal, event.
    ARRAYS: usize = 4;
    /// Devices that one region can hold.
    DEVICES: usize = 32;
    /// Processes that one region can hold at a time; the same number as HAMi's, whose slot i is our slot i.
    SLOTS: usize = 1024;
    /// Journals of one process; each serves one device and one kind of bytes (see `quota::ledger`).
    JOURNALS: usize = 32;
    /// Length of the event ring.
    EVENTS: usize = 256;
    /// Rows of [`Ours::limits`]: one for each slot, [`OPERATOR_ROW`] and [`END_ROW`]; the others are reserved.
    LIMIT_ROWS: usize = SLOTS + 8;
    /// The row of [`Ours::limits`] in which the operator's limits stand (`gpuquota limit`, the agent).
    OPERATOR_ROW: usize = SLOTS;
    /// The row of [`Ours::limits`] whose last word, the last one of the file, repeats [`Header::created_at_ns`].
    END_ROW: usize = LIMIT_ROWS - 1;
    /// Idle gaps that are remembered of one device.
    GAPS: usize = 14;
    /// Classes of waiting times; the last one has no upper bound, the others end at 100 us and every tenfold of it.
    WAIT_TIMES: usize = 8;
    /// Bytes of a device's UUID text, zero-padded: "GPU-" or "MIG-" and 36 characters, as NVML writes it.
    UUID_BYTES: usize = 96;

    /// [`Header::state`]: being initialised, or never finished.
    STATE_EMPTY: u32 = 0;
    /// [`Header::state`]: every field is valid. Written last.
    STATE_READY: u32 = 1;

    /// The bits of [`LeaseRecord::policy`] that are a percentage.
    POLICY_REQUEST: u32 = 0xFF;
    /// [`LeaseRecord::policy`]: the container may have what others leave, beyond its core limit.
    POLICY_BURST: u32 = 1 << 8;
    /// [`LeaseRecord::policy`]: the container has only what others leave.
    POLICY_IDLE_ONLY: u32 = 1 << 9;

    /// [`Header::shares`]: a device has, or had, a core limit, or the agent gives leases.
    SHARES_SOME: u32 = 1;
    /// [`Header::shares`]: the bit of the word of a region without any of these. The other bits differ between regions.
    SHARES_NONE: u32 = 1 << 31;

    /// [`Device::state`]: free.
    DEVICE_FREE: u32 = 0;
    /// [`Device::state`]: a process is writing the UUID.
    DEVICE_CLAIMED: u32 = 1;
    /// [`Device::state`]: valid.
    DEVICE_READY: u32 = 2;

    /// [`Device::context_bytes`]: a context was made, and the driver showed nothing that it takes.
    CONTEXT_BYTES_UNSEEN: u64 = 1;

    /// The bits of [`LimitRecord::memory`] and [`LimitRecord::physical`] that count bytes; 0: no limit.
    LIMIT_BYTES: u64 = (1 << 46) - 1;
    /// [`LimitRecord::memory`] and [`LimitRecord::physical`]: the limits file sets these bytes.
    LIMIT_BYTES_FROM_FILE: u64 = 1 << 47;
    /// By how many bits [`LimitRecord::memory`] is shifted to the right for the share in percent (7 bits; 0: none).
    LIMIT_CORES_SHIFT: u32 = 48;
    /// [`LimitRecord::memory`]: the limits file sets the share.
    LIMIT_CORES_FROM_FILE: u64 = 1 << 55;
    /// By how many bits [`LimitRecord::memory`] is shifted to the right for the request in percent (7 bits; 0: none).
    LIMIT_REQUEST_SHIFT: u32 = 56;
    /// [`LimitRecord::memory`]: the limits file sets the request.
    LIMIT_REQUEST_FROM_FILE: u64 = 1 << 63;
    /// [`LimitRecord::physical`]: the policy for the device's time is [`POLICY_BURST`].
    LIMIT_BURST: u64 = 1 << 48;
    /// [`LimitRecord::physical`]: the policy for the device's time is [`POLICY_IDLE_ONLY`].
    LIMIT_IDLE_ONLY: u64 = 1 << 49;
    /// [`LimitRecord::physical`]: the record was written. A process that has no limit has written none.
    LIMIT_WRITTEN: u64 = 1 << 50;

    /// [`Slot::state`]: free. What is left in the slot's journals belongs to nobody.
    SLOT_FREE: u32 = 0;
    /// [`Slot::state`]: held by a process, alive or not (its lock tells).
    SLOT_TAKEN: u32 = 1;
    /// [`Slot::state`]: its process is dead, and another one may keep memory that it shared.
    SLOT_LEFT: u32 = 2;

    /// [`Slot::journal_kind`]: what programs asked for: memory, arrays, physical memory.
    KIND_DATA: u8 = 0;
    /// [`Slot::journal_kind`]: contexts, as measured.
    KIND_CONTEXT: u8 = 1;
    /// [`Slot::journal_kind`]: whatever else the driver takes without being asked: code, heaps, local memory, as measured.
    KIND_MODULE: u8 = 2;
    /// [`Slot::journal_kind`]: what stream-ordered pools hold, in use or not.
    KIND_POOL: u8 = 3;
    /// [`Slot::journal_kind`]: what graphs hold, in use or not.
    KIND_GRAPH: u8 = 4;
    /// How many kinds there are that add up to what is charged.
    KINDS: usize = 5;
    /// [`Slot::journal_kind`]: which of the bytes asked for lie on the host. Counted in [`Device::spilled`].
    KIND_SPILLED: u8 = 5;

    /// [`Event::code`]: a request for memory was refused. requested, used and limit are bytes.
    EVENT_DENIED: u32 = 1;
    /// [`Event::code`]: limits could not be understood; `requested` holds the number of problems.
    EVENT_BAD_LIMITS: u32 = 2;
    /// [`Event::code`]: a dead process's bytes were given back; `used` holds how many.
    EVENT_REAPED: u32 = 3;
    /// [`Event::code`]: the writer initialised the file anew: it was of another boot, or its initialisation had been
    /// interrupted. The first event of its generation.
    EVENT_STARTED_ANEW: u32 = 4;
    /// [`Event::code`]: the holders of most bytes when the writer was refused, after that event: `requested` is the
    /// holder's pid, `used` its bytes, `limit` the `KIND_` code of most of them.
    EVENT_HOLDER: u32 = 5;
    /// [`Event::code`]: a process of lower priority was killed to make room: `requested` holds its pid, `used` its bytes,
    /// `limit` its priority.
    EVENT_KILLED: u32 = 6;
    /// [`Event::code`]: the writer asked for another limit than the one that holds: `requested` is what it asked for,
    /// `used` the `LIMIT_KIND_` code, `limit` what holds. Bytes or percent.
    EVENT_LIMIT_DIFFERS: u32 = 7;
    /// [`Event::code`]: the writer changed the limit in force: `requested` is the limit before, `used` the `LIMIT_KIND_`
    /// code, `limit` the limit from now on; 0: none. Bytes or percent.
    EVENT_LIMIT_CHANGED: u32 = 8;
    /// [`Event::code`]: the region's path was gone or named another file while living processes held the region; the writer
    /// made it name the region again, or joined the region without a name: `requested` is 1 then, `used` the pid of a holder.
    EVENT_NAME_RESTORED: u32 = 9;
    /// [`Event::code`]: living processes hold two regions of this path, each with a cap of its own: `used` holds the pid of a
    /// holder of the other one, 0 if it cannot be told.
    EVENT_TWO_REGIONS: u32 = 10;
    /// [`Event::code`]: the writer shares the default region with another user or container: `requested` is the user that
    /// made it, `used` its mount namespace.
    EVENT_SHARED: u32 = 11;
    /// [`Event::code`]: the file was truncated or overwritten while processes held the region, and the writer has put back what it
    /// holds: `requested` is 1 if it made the contents anew, `used` the bytes that it put back, of all devices.
    EVENT_CONTENTS_LOST: u32 = 12;

    /// How many reasons of refusals are counted ([`Header::refusals`]), those that are reserved too.
    REASONS: usize = 8;
    /// Reason of a refusal: the cap on memory would have been passed.
    REFUSED_MEMORY_LIMIT: usize = 0;
    /// Reason of a refusal: the physical cap would have been passed, and the cap on memory not.
    REFUSED_PHYSICAL_LIMIT: usize = 1;
    /// Reason of a refusal: a context does not fit.
    REFUSED_CONTEXT: usize = 2;
    /// Reason of a refusal: code that was loaded does not fit, with what it takes besides.
    REFUSED_CODE: usize = 3;
    /// Reason of a refusal: nothing can be charged to the process, because all slots are taken or the file cannot be opened.
    REFUSED_UNCOUNTED: usize = 4;
    /// The limits allowed it, and the driver had no room: the device is full, or a limit of the driver's own holds. It is not
    /// in [`Device::denied`].
    REFUSED_BY_DRIVER: usize = 5;

    /// In events on limits: the cap on memory.
    LIMIT_KIND_MEMORY: u64 = 0;
    /// In events on limits: the physical cap.
    LIMIT_KIND_PHYSICAL: u64 = 1;
    /// In events on limits: the share of time.
    LIMIT_KIND_CORES: u64 = 2;
    /// In events on limits: the request.
    LIMIT_KIND_REQUEST: u64 = 3;
    /// In events on limits: the policy, as `POLICY_` bits.
    LIMIT_KIND_POLICY: u64 = 4;

    /// [`Event::device`] of an event that concerns no device.
    NO_DEVICE: u32 = u32::MAX;

    /// The bits of [`Device::used`] and [`Device::spilled`] that count bytes: up to 64 TiB.
    USED_MASK: u64 = (1 << 46) - 1;
    /// By how many bits [`JournalRecord::held`] is shifted to the right to count bytes.
    HELD_SHIFT: u32 = 16;
}

/// The head of our part. One 4,096-byte page. It has the same fields at the same places in every minor version.
#[repr(C, align(4096))]
pub struct Header {
    /// [`MAGIC`].
    pub magic: AtomicU64,
    /// [`ABI_MAJOR`].
    pub abi_major: AtomicU32,
    /// [`ABI_MINOR`] of the process that initialised the file.
    pub abi_minor: AtomicU32,
    /// Bytes of the whole file.
    pub length: AtomicU64,
    /// Bytes of one [`Device`], [`Slot`], [`JournalRecord`], [`Event`] record.
    pub record_bytes: [AtomicU32; ARRAYS],
    /// How many of each there are, in the same order; journals are counted per slot.
    pub record_count: [AtomicU32; ARRAYS],
    /// Where each array begins, in the same order.
    pub record_offset: [AtomicU64; ARRAYS],
    /// How often this file has been initialised: 1 at first, one more after each boot.
    pub generation: AtomicU64,
    /// `/proc/sys/kernel/random/boot_id` as 16 bytes: clocks and process ids of another boot mean nothing.
    pub boot_id: [AtomicU64; 2],
    /// Inode of the time namespace whose CLOCK_MONOTONIC the virtual times are in.
    pub time_namespace: AtomicU64,
    /// When this generation began, nanoseconds since 1970.
    pub created_at_ns: AtomicU64,
    /// [`STATE_EMPTY`] or [`STATE_READY`]. Written last.
    pub state: AtomicU32,
    /// 1 once a process has written the container's one line on stderr about wrong limits.
    pub warned: AtomicU32,
    /// Slots `0..slot_high` have been used at some time.
    pub slot_high: AtomicU32,
    _pad0: AtomicU32,
    /// Events written so far; event n lies at index n % [`EVENTS`].
    pub event_next: AtomicU64,
    /// Incidents that the library survived by falling back to the driver's own answer.
    pub fallbacks: AtomicU64,
    /// Launches look at this word first: [`SHARES_NONE`] with other bits, [`SHARES_SOME`] once any device has a core limit or the
    /// node's agent gives leases. A writer that sets a core limit sets it too.
    pub shares: AtomicU32,
    /// Counts changes of [`Ours::limits`]: a process that computes the limits in force begins again if it has changed.
    pub limits_seq: AtomicU32,
    /// When a monitor of HAMi's kind was last seen to have counted launches down, CLOCK_MONOTONIC nanoseconds.
    pub monitor_ns: AtomicU64,
    /// Effective user of the process that initialised the file.
    pub maker_user: AtomicU32,
    /// Inode of its mount namespace; 0: not known.
    pub maker_mounts: AtomicU32,
    /// Inode of its PID namespace.
    pub maker_pids: AtomicU32,
    /// 1 once a process of another user or container has been told that it shares the region.
    pub shared_told: AtomicU32,
    /// The lease of each device.
    pub leases: [LeaseRecord; DEVICES],
    /// Requests for memory refused so far, by device and reason (`REFUSED_` codes). They stop at the highest number.
    pub refusals: [[AtomicU32; REASONS]; DEVICES],
    _reserved: [AtomicU64; 104],
}

/// What the container and the node's agent tell each other about one device that other containers share: the agent gives
/// the container a lease of the device, and the container says what it wants. One cache line.
#[repr(C, align(64))]
pub struct LeaseRecord {
    /// Written by the agent: from when until when launches may go (start in us, 48 bits | length in 16,384 ns, 16 bits, all
    /// ones: no end; from 2 us on without an end: beside other containers); 0 where no agent gives leases.
    pub lease: AtomicU64,
    /// Written by the agent: when it last wrote `lease` or repeated it, CLOCK_MONOTONIC nanoseconds.
    pub renewed_at_ns: AtomicU64,
    /// Written by the agent: counts changes of `lease`. A futex, on which launches that wait for a lease sleep.
    pub wake_seq: AtomicU32,
    /// Written by the container: the percentage that it requests ([`POLICY_REQUEST`]; 0: its core limit), [`POLICY_BURST`]
    /// and [`POLICY_IDLE_ONLY`].
    pub policy: AtomicU32,
    /// Written by the container: when a launch last waited for a lease, CLOCK_MONOTONIC nanoseconds.
    pub asked_at_ns: AtomicU64,
    /// Written by the container: predicted GPU time of measured launches in flight, nanoseconds.
    pub in_flight_ns: AtomicU64,
    /// Written by the container: by how much `in_flight_ns` may be wrong, nanoseconds.
    pub uncertainty_ns: AtomicU64,
    /// Written by the container: time that launches waited for a lease, nanoseconds.
    pub waited_ns: AtomicU64,
    /// Written by the agent: for how long the container had the device while others waited for it, nanoseconds.
    pub held_ns: AtomicU64,
}

/// The percentage that a [`LeaseRecord::policy`] requests, where it requests another one than the core limit. Never more
/// than the limit, which may have been lowered since.
#[must_use]
pub fn request_percent(policy: u32, core_limit: u32) -> Option<u32> {
    let most = if core_limit == 0 { 100 } else { core_limit };
    Some(policy & POLICY_REQUEST).filter(|request| *request != 0).map(|request| request.min(most))
}

/// One device of the container.
#[repr(C, align(64))]
pub struct Device {
    /// UUID text, zero-padded; written once, before `state` becomes [`DEVICE_READY`].
    pub uuid: [AtomicU64; UUID_BYTES / 8],
    /// [`DEVICE_FREE`], [`DEVICE_CLAIMED`] or [`DEVICE_READY`].
    pub state: AtomicU32,
    /// Core limit in force, in percent of GPU time, 1..=100; 0 and 100 mean none.
    pub core_limit: AtomicU32,
    /// Cap in force on bytes in use; 0 means none. [`Ours::limits`] has the limits that it follows from.
    pub memory_limit: AtomicU64,
    /// The device's real memory, bytes.
    pub memory_total: AtomicU64,
    /// Pid of the process that is writing the record while `state` is [`DEVICE_CLAIMED`].
    pub claimed_by: AtomicU32,
    _pad0: AtomicU32,

    /// The ledger's word: bytes in use (46 bits), the journal that changed it last (15), the low bits of its sequence (3).
    pub used: AtomicU64,
    /// Highest number of bytes in use so far.
    pub peak: AtomicU64,
    /// Requests refused so far.
    pub denied: AtomicU64,
    /// Requests that would have been refused (observe mode).
    pub would_deny: AtomicU64,
    /// CLOCK_MONOTONIC nanoseconds at which a dead process's bytes were last given back here.
    pub reaped_at_ns: AtomicU64,
    /// Of the bytes in use, those that lie on the host because there was no room on the device: a word like `used`.
    pub spilled: AtomicU64,
    /// How many allocations were sent to the host so far.
    pub spills: AtomicU64,
    /// Cap on bytes in use that do not lie on the host; 0 means none but `memory_limit`.
    pub physical_limit: AtomicU64,

    /// Virtual time of the share, CLOCK_MONOTONIC nanoseconds (`quota::share`). A cache line of its own.
    pub virtual_time_ns: AtomicU64,
    /// Until when the container's measured kernels have occupied the device, CLOCK_MONOTONIC nanoseconds.
    pub busy_until_ns: AtomicU64,
    /// Largest charge so far, of one launch or of its correction, nanoseconds: the bound of a plausible virtual time.
    pub largest_charge_ns: AtomicU64,
    /// The percentage at which the lead of the virtual time is reckoned; 0 at first.
    pub virtual_percent: AtomicU64,
    /// When a launch last found the virtual time behind the clock, CLOCK_MONOTONIC nanoseconds.
    pub idle_at_ns: AtomicU64,
    /// When all that the container has in flight should be over, one after the other, CLOCK_MONOTONIC nanoseconds.
    pub in_flight_until_ns: AtomicU64,
    /// Gaps before this are not remembered, CLOCK_MONOTONIC nanoseconds.
    pub gaps_from_ns: AtomicU64,
    /// By how much launches found the virtual time behind the clock, all in all, less what was charged since, nanoseconds.
    pub idle_ns: AtomicU64,

    /// GPU time charged so far, nanoseconds.
    pub gpu_time_ns: AtomicU64,
    /// Time that launches waited for the share or for a higher priority, nanoseconds.
    pub waited_ns: AtomicU64,
    /// Launches admitted under a core limit.
    pub launches: AtomicU64,
    /// Launches that waited, for whatever.
    pub waits: AtomicU64,
    /// Launches that would have waited (observe mode).
    pub would_wait: AtomicU64,
    /// Virtual times clamped because they were further ahead than any charge explains.
    pub clamped: AtomicU64,
    /// Time that launches waited for work of their own process that was in flight, nanoseconds.
    pub waited_in_flight_ns: AtomicU64,
    /// How often a process was held to another limit than it asked for.
    pub limit_conflicts: AtomicU64,

    /// Idle gaps before `busy_until_ns` (`quota::share::busy`): start in 64 ns (34 bits) | length in 256 ns (22 bits) | how
    /// much of it is idle, less one, in 1/256 (8 bits).
    pub gaps: [AtomicU64; GAPS],
    /// Launches that waited, by how long: up to 100 us, 1 ms, 10 ms, 100 ms, 1 s, 10 s, 100 s, and longer.
    pub wait_times: [AtomicU64; WAIT_TIMES],
    /// What a context takes on this device, bytes, as far as a process or the agent has seen; 0: nobody has made one;
    /// [`CONTEXT_BYTES_UNSEEN`].
    pub context_bytes: AtomicU64,
    /// Contexts that were charged with `context_bytes`, because the driver did not give a figure.
    pub estimated_contexts: AtomicU64,
}

/// One process of the container.
#[repr(C, align(64))]
pub struct Slot {
    /// [`SLOT_FREE`], [`SLOT_TAKEN`] or [`SLOT_LEFT`].
    pub state: AtomicU32,
    /// Process id in the namespace of the process itself.
    pub pid: AtomicU32,
    /// Start time of the process, clock ticks since boot (`/proc/PID/stat` field 22).
    pub start_time: AtomicU64,
    /// Inode of the process's PID namespace.
    pub pid_namespace: AtomicU64,
    /// 1: the process has opened memory that another one made, and measures what it keeps of it.
    pub imports: AtomicU32,
    /// Priority of the process's task, 0 is the highest.
    pub priority: AtomicU32,
    /// When the process last launched under a share, or took the slot, CLOCK_MONOTONIC nanoseconds.
    pub last_launch_ns: AtomicU64,
    /// Bytes of this process that others may have opened, at most.
    pub exported: AtomicU64,
    /// How often a process was found dead whose memory this one may keep.
    pub exporters_lost: AtomicU64,
    /// How many of those this process had measured: its charge contains what it keeps of them.
    pub losses_measured: AtomicU64,
    /// Which device each journal serves: region index + 1, 0 for a journal not yet in use.
    pub journal_device: [AtomicU8; JOURNALS],
    /// What the bytes of each journal are: one of the `KIND_` codes.
    pub journal_kind: [AtomicU8; JOURNALS],
    /// GPU time admitted and not yet measured, per device, nanoseconds; given back when the process dies.
    pub pending_ns: [AtomicU64; DEVICES],
    _reserved: [AtomicU64; 16],
}

/// One journal of a process: what it holds, and the operation under way. The protocol stands in `quota::ledger`.
#[repr(C, align(32))]
pub struct JournalRecord {
    /// Bytes of the operation under way, two's complement.
    pub amount: AtomicU64,
    /// Sequence of the operation under way (63 bits), applied (1 bit).
    pub operation: AtomicU64,
    /// Bytes held through this journal (48 bits) and the low 16 bits of the last folded sequence.
    pub held: AtomicU64,
    /// Bytes reserved for a driver call that has not yet returned.
    pub reserving: AtomicU64,
}

/// The bytes in [`JournalRecord::held`].
#[must_use]
pub const fn held_bytes(held: u64) -> u64 {
    held >> HELD_SHIFT
}

/// The limits on one device that one process brought, or that the operator set. `region::limits` combines them.
#[repr(C, align(16))]
pub struct LimitRecord {
    /// Cap on bytes in use (46 bits), share and request in percent, and which of them the limits file sets.
    pub memory: AtomicU64,
    /// Physical cap (46 bits), and the policy.
    pub physical: AtomicU64,
}

/// One incident. A writer takes a number from [`Header::event_next`], zeroes `stamp`, writes the fields and stores
/// `stamp = number + 1`. A reader that finds another stamp there after reading than before throws the event away.
#[repr(C, align(64))]
pub struct Event {
    /// Its number + 1 once it is complete.
    pub stamp: AtomicU64,
    /// One of the `EVENT_` codes.
    pub code: AtomicU32,
    /// Process id of the writer, in its own namespace.
    pub pid: AtomicU32,
    /// Region index of the device, or [`NO_DEVICE`].
    pub device: AtomicU32,
    _pad0: AtomicU32,
    /// What was asked for.
    pub requested: AtomicU64,
    /// What was in use.
    pub used: AtomicU64,
    /// The limit at that time.
    pub limit: AtomicU64,
    /// When, nanoseconds since 1970.
    pub time_ns: AtomicU64,
    _pad1: AtomicU64,
}

/// Everything from [`OURS`] on.
#[repr(C)]
pub struct Ours {
    /// The head.
    pub header: Header,
    /// Devices in the order in which the container's processes met them.
    pub devices: [Device; DEVICES],
    /// Processes.
    pub slots: [Slot; SLOTS],
    /// Journals, slot by slot.
    pub journals: [[JournalRecord; JOURNALS]; SLOTS],
    /// The event ring.
    pub events: [Event; EVENTS],
    /// Limits by row and device: row i is what the process in slot i brought.
    pub limits: [[LimitRecord; DEVICES]; LIMIT_ROWS],
}

impl Ours {
    /// The last word of the file: once more when the contents were made. A file that was cut has lost it.
    #[inline(always)]
    #[must_use]
    pub fn end(&self) -> &AtomicU64 {
        let [.., row] = &self.limits;
        let [.., last] = row;
        &last.physical
    }
}

/// The whole file.
#[repr(C)]
pub struct File {
    /// HAMi's view.
    pub hami: View,
    _gap: [AtomicU64; (OURS - size_of::<View>()) / 8],
    /// Our part.
    pub ours: Ours,
}

record!(Header as "gpuquota_header", 4096; magic: 0, abi_major: 8, abi_minor: 12, length: 16, record_bytes: 24,
    record_count: 40, record_offset: 56, generation: 88, boot_id: 96, time_namespace: 112, created_at_ns: 120,
    state: 128, warned: 132, slot_high: 136, _pad0: 140, event_next: 144, fallbacks: 152, shares: 160, limits_seq: 164,
    monitor_ns: 168, maker_user: 176, maker_mounts: 180, maker_pids: 184, shared_told: 188,
    leases: 192, refusals: 2240, _reserved: 3264);
record!(LeaseRecord as "gpuquota_lease", 64; lease: 0, renewed_at_ns: 8, wake_seq: 16, policy: 20, asked_at_ns: 24,
    in_flight_ns: 32, uncertainty_ns: 40, waited_ns: 48, held_ns: 56);
record!(Device as "gpuquota_device", 512; uuid: 0, state: 96, core_limit: 100, memory_limit: 104, memory_total: 112,
    claimed_by: 120, _pad0: 124, used: 128, peak: 136, denied: 144, would_deny: 152, reaped_at_ns: 160, spilled: 168,
    spills: 176, physical_limit: 184, virtual_time_ns: 192, busy_until_ns: 200, largest_charge_ns: 208,
    virtual_percent: 216, idle_at_ns: 224, in_flight_until_ns: 232, gaps_from_ns: 240, idle_ns: 248, gpu_time_ns: 256,
    waited_ns: 264, launches: 272, waits: 280, would_wait: 288, clamped: 296, waited_in_flight_ns: 304,
    limit_conflicts: 312, gaps: 320, wait_times: 432, context_bytes: 496, estimated_contexts: 504);
record!(Slot as "gpuquota_slot", 512; state: 0, pid: 4, start_time: 8, pid_namespace: 16, imports: 24,
    priority: 28, last_launch_ns: 32, exported: 40, exporters_lost: 48, losses_measured: 56, journal_device: 64, journal_kind: 96, pending_ns: 128, _reserved: 384);
record!(JournalRecord as "gpuquota_journal", 32; amount: 0, operation: 8, held: 16, reserving: 24);
record!(LimitRecord as "gpuquota_limit", 16; memory: 0, physical: 8);
record!(Event as "gpuquota_event", 64; stamp: 0, code: 8, pid: 12, device: 16, _pad0: 20, requested: 24, used: 32,
    limit: 40, time_ns: 48, _pad1: 56);
record!(Ours as "gpuquota_ours", 0x20_A000; header: 0, devices: 0x1000, slots: 0x5000, journals: 0x8_5000,
    events: 0x18_5000, limits: 0x18_9000);
record!(File as "gpuquota_file", OURS + 0x20_A000; hami: 0, _gap: 2_008_952, ours: OURS);
const _: () = assert!(align_of::<File>() == 4096);
