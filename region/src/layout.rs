//! What bytes do processes agree on?
//!
//! Offsets are from the start of the file unless said otherwise. All integers are little-endian and naturally
//! aligned. Growth happens by minor version: records keep their order and may get longer (their lengths stand in
//! the header), so a reader steps by the lengths it finds and accepts a larger minor than its own.

use core::mem::{align_of, offset_of, size_of};
use core::sync::atomic::{AtomicU8, AtomicU32, AtomicU64};

/// Where our part begins: HAMi's view (2,008,952 bytes) rounded up to a page.
pub const OURS: usize = 0x1E_B000;
/// "GPUQUOTA" read as a little-endian integer.
pub const MAGIC: u64 = u64::from_le_bytes(*b"GPUQUOTA");
/// Major version: a reader refuses any other.
pub const ABI_MAJOR: u32 = 1;
/// Minor version: a reader accepts larger ones.
pub const ABI_MINOR: u32 = 1;

/// Devices that one region can hold.
pub const DEVICES: usize = 32;
/// Processes that one region can hold at a time; the same number as HAMi's, whose slot i is our slot i.
pub const SLOTS: usize = 1024;
/// Ledger lanes of one process; each serves one device (see `quota::ledger`).
pub const LANES: usize = 32;
/// Length of the event ring.
pub const EVENTS: usize = 256;
/// Idle gaps that are remembered of one device.
pub const GAPS: usize = 14;
/// Classes of waiting times; the last one has no upper bound, the others end at 100 us and every tenfold of it.
pub const WAIT_TIMES: usize = 8;
/// Bytes of a device's UUID text, zero-padded: "GPU-" or "MIG-" and 36 characters, as NVML writes it.
pub const UUID_BYTES: usize = 96;

/// `Header::state`: being initialised, or never finished.
pub const STATE_EMPTY: u32 = 0;
/// `Header::state`: every field is valid. Written last.
pub const STATE_READY: u32 = 1;

/// The head of our part. One 4,096-byte page.
#[repr(C, align(4096))]
pub struct Header {
    /// [`MAGIC`].
    pub magic: AtomicU64,
    /// [`ABI_MAJOR`].
    pub abi_major: AtomicU32,
    /// [`ABI_MINOR`].
    pub abi_minor: AtomicU32,
    /// Bytes of the whole file.
    pub length: AtomicU64,
    /// Bytes of one [`Device`], [`Slot`], [`Lane`], [`Event`] record.
    pub record_bytes: [AtomicU32; 4],
    /// How many of each there are, in the same order; lanes are counted per slot.
    pub record_count: [AtomicU32; 4],
    /// Where each array begins, in the same order.
    pub record_offset: [AtomicU64; 4],
    /// How often this file has been initialised (a reboot starts it anew).
    pub generation: AtomicU64,
    /// `/proc/sys/kernel/random/boot_id` as 16 bytes: clocks and process ids of another boot mean nothing.
    pub boot_id: [AtomicU64; 2],
    /// Inode of the time namespace whose CLOCK_MONOTONIC the virtual times are in.
    pub time_namespace: AtomicU64,
    /// When this generation began, nanoseconds since 1970.
    pub created_at_ns: AtomicU64,
    /// [`STATE_EMPTY`] or [`STATE_READY`]. Written last.
    pub state: AtomicU32,
    /// 1 once the container's one line on stderr was written.
    pub spoken: AtomicU32,
    /// Slots `0..slot_high` have been used at some time.
    pub slot_high: AtomicU32,
    /// `quota::limits::Mode` of the container: 0 enforce, 1 observe, 2 off.
    pub mode: AtomicU32,
    /// Events written so far; event n lies at index n % [`EVENTS`].
    pub event_next: AtomicU64,
    /// Incidents that the library survived by falling back to the driver's own answer.
    pub fallbacks: AtomicU64,
    /// Not 0 once any device has a core limit or the node's agent gives turns: launches look at this word first. Whoever
    /// sets a limit sets it too.
    pub shares: AtomicU32,
    _pad0: u32,
    /// When a monitor of HAMi's kind was last seen to have counted launches down, CLOCK_MONOTONIC nanoseconds.
    pub monitor_ns: AtomicU64,
    _pad1: [u64; 2],
    /// Of each device, what the container and the node's agent say of turns.
    pub turns: [Turns; DEVICES],
    _reserved: [u64; 232],
}

/// What a container and the node's agent say to each other about one device that other containers share
/// (`quota::share::lease`). One cache line.
#[repr(C, align(64))]
pub struct Turns {
    /// The agent: from when until when launches may go (start in us, 48 bits | length in 16,384 ns, 16 bits); 0 where there
    /// are no turns.
    pub turn: AtomicU64,
    /// The agent: when it last said anything, CLOCK_MONOTONIC nanoseconds.
    pub told_at: AtomicU64,
    /// The agent: counts changes of `turn`; launches that wait for one sleep on it (futex).
    pub bell: AtomicU32,
    /// The container: the percentage of the turns that it is to have (low 8 bits; 0: its core limit) and the
    /// `TERMS_` bits.
    pub terms: AtomicU32,
    /// The container: when a launch last waited for a turn, CLOCK_MONOTONIC nanoseconds.
    pub asked_at: AtomicU64,
    /// The container: predicted GPU time of measured launches in flight, nanoseconds.
    pub in_flight_ns: AtomicU64,
    /// The container: by how much that may be wrong, nanoseconds.
    pub doubt_ns: AtomicU64,
    /// The container: time that launches waited for a turn, nanoseconds.
    pub waited_ns: AtomicU64,
    /// The agent: for how long the container had the device while others waited for it, nanoseconds.
    pub held_ns: AtomicU64,
}

/// `Turns::terms`: the container may have what others leave, beyond its core limit.
pub const TERMS_BORROWS: u32 = 1 << 8;
/// `Turns::terms`: the container has only what others leave.
pub const TERMS_LEAVINGS: u32 = 1 << 9;
/// The bits of `Turns::terms` that are a percentage.
const TERMS_REQUEST: u32 = 0xFF;

/// What is guaranteed beside others by `Turns::terms`, in percent, where more than the core limit says so. Never more than
/// the limit, which may have been lowered since.
#[must_use]
pub fn request(terms: u32, core_limit: u32) -> Option<u32> {
    let most = if core_limit == 0 { 100 } else { core_limit };
    Some(terms & TERMS_REQUEST).filter(|request| *request != 0).map(|request| request.min(most))
}

/// `Device::state`: free.
pub const DEVICE_FREE: u32 = 0;
/// `Device::state`: a process is writing the UUID.
pub const DEVICE_CLAIMED: u32 = 1;
/// `Device::state`: valid.
pub const DEVICE_READY: u32 = 2;

/// One device of the container.
#[repr(C, align(64))]
pub struct Device {
    /// UUID text, zero-padded; written once, before `state` turns [`DEVICE_READY`].
    pub uuid: [AtomicU64; UUID_BYTES / 8],
    /// [`DEVICE_FREE`], [`DEVICE_CLAIMED`] or [`DEVICE_READY`].
    pub state: AtomicU32,
    /// Core limit in percent of GPU time, 1..=100; 0 and 100 mean none.
    pub core_limit: AtomicU32,
    /// Cap on requested bytes; 0 means none.
    pub memory_limit: AtomicU64,
    /// The device's real memory, bytes.
    pub memory_total: AtomicU64,
    /// Pid of the process that is writing the record while `state` is [`DEVICE_CLAIMED`].
    pub claimed_by: AtomicU32,
    _pad0: u32,

    /// The ledger's word: bytes in use (46 bits), the lane that changed it last (15), its turn (3).
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
    pub virtual_time: AtomicU64,
    /// Until when the container's measured kernels have occupied the device, CLOCK_MONOTONIC nanoseconds.
    pub busy_until: AtomicU64,
    /// Largest charge of one admission or settlement so far, nanoseconds: the bound of a plausible virtual time.
    pub longest: AtomicU64,
    /// The percentage in which the lead of the virtual time is reckoned; 0 at first.
    pub virtual_rate: AtomicU64,
    /// When the virtual time was last found behind the clock, CLOCK_MONOTONIC nanoseconds.
    pub idle_at: AtomicU64,
    /// When all that the container has in flight should be over, one after the other, CLOCK_MONOTONIC nanoseconds.
    pub flight_until: AtomicU64,
    /// Gaps in what was occupied are not remembered before this, CLOCK_MONOTONIC nanoseconds.
    pub gaps_from: AtomicU64,
    /// By how much the virtual time was found behind, all in all, less what has been made up for, nanoseconds.
    pub idle_ns: AtomicU64,

    /// GPU time charged so far, nanoseconds.
    pub gpu_time_ns: AtomicU64,
    /// Time that launches waited for the share, nanoseconds.
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
    pub waited_flight_ns: AtomicU64,
    _pad1: u64,

    /// Idle gaps before `busy_until` (`quota::share::busy`): start in 64 ns (34 bits) | length in 256 ns (22 bits) | how
    /// much of it is idle, less one, in 1/256 (8 bits).
    pub gaps: [AtomicU64; GAPS],
    /// Launches that waited, by how long: up to 100 us, 1 ms, 10 ms, 100 ms, 1 s, 10 s, 100 s, and longer.
    pub wait_times: [AtomicU64; WAIT_TIMES],
    _reserved: [u64; 2],
}

/// `Slot::state`: free. What is left in the slot's lanes belongs to nobody.
pub const SLOT_FREE: u32 = 0;
/// `Slot::state`: held by a process, alive or not (its lock tells).
pub const SLOT_TAKEN: u32 = 1;

/// `Slot::lane_kind`: what programs asked for: memory, arrays, physical memory.
pub const KIND_DATA: u8 = 0;
/// `Slot::lane_kind`: contexts, as measured.
pub const KIND_CONTEXT: u8 = 1;
/// `Slot::lane_kind`: whatever else the driver takes without being asked: code, heaps, local memory, as measured.
pub const KIND_MODULE: u8 = 2;
/// `Slot::lane_kind`: what stream-ordered pools hold, in use or not.
pub const KIND_POOL: u8 = 3;
/// `Slot::lane_kind`: what graphs hold, in use or not.
pub const KIND_GRAPH: u8 = 4;
/// How many kinds there are that add up to what is charged.
pub const KINDS: usize = 5;
/// `Slot::lane_kind`: which of the bytes asked for lie on the host. Counted in [`Device::spilled`].
pub const KIND_SPILLED: u8 = 5;

/// One process of the container.
#[repr(C, align(64))]
pub struct Slot {
    /// [`SLOT_FREE`] or [`SLOT_TAKEN`].
    pub state: AtomicU32,
    /// Process id in the namespace of the process itself.
    pub pid: AtomicU32,
    /// Start time of the process, clock ticks since boot (`/proc/PID/stat` field 22).
    pub start_time: AtomicU64,
    /// Inode of the process's PID namespace.
    pub pid_namespace: AtomicU64,
    /// Process id on the node, filled in by the agent; 0 until then.
    pub host_pid: AtomicU32,
    /// Priority of the process's task, 0 is the highest.
    pub priority: AtomicU32,
    /// Last time the process was seen at work, CLOCK_MONOTONIC nanoseconds.
    pub heartbeat_ns: AtomicU64,
    _pad1: [u64; 3],
    /// Which device each lane serves: region index + 1, 0 for a lane not yet in use.
    pub lane_device: [AtomicU8; LANES],
    /// What the bytes of each lane are: one of the `KIND_` codes.
    pub lane_kind: [AtomicU8; LANES],
    /// GPU time admitted but not yet settled, per device, nanoseconds; given back when the process dies.
    pub pending_ns: [AtomicU64; DEVICES],
    _reserved: [u64; 16],
}

/// One lane of a process's ledger. The protocol stands in `quota::ledger`.
#[repr(C, align(32))]
pub struct Lane {
    /// Bytes of the operation under way, two's complement.
    pub amount: AtomicU64,
    /// Sequence of the operation under way (63 bits), applied (1 bit).
    pub operation: AtomicU64,
    /// Bytes held through this lane (48 bits) and the low 16 bits of the last folded sequence.
    pub held: AtomicU64,
    /// Bytes reserved for a driver call that has not yet returned.
    pub reserving: AtomicU64,
}

/// `Event::code`: a request for memory was refused. requested, used and limit are bytes.
pub const EVENT_DENIED: u32 = 1;
/// `Event::code`: limits could not be understood; `requested` holds the number of problems.
pub const EVENT_BAD_LIMITS: u32 = 2;
/// `Event::code`: a dead process's bytes were given back; `used` holds how many.
pub const EVENT_REAPED: u32 = 3;
/// `Event::code`: the file came from another boot and was started anew.
pub const EVENT_STARTED_ANEW: u32 = 4;
/// `Event::code`: who held most when the writer was refused, after that event: `requested` holds the holder's pid,
/// `used` its bytes, `limit` the `KIND_` code of most of them.
pub const EVENT_HOLDER: u32 = 5;
/// `Event::code`: a process of lower priority was killed to make room: `requested` holds its pid, `used` its bytes,
/// `limit` its priority.
pub const EVENT_KILLED: u32 = 6;

/// The bits of [`Device::used`] that count bytes: up to 64 TiB.
pub const USED_MASK: u64 = (1 << 46) - 1;

/// The bytes in [`Lane::held`].
#[must_use]
pub const fn held_bytes(held: u64) -> u64 {
    held >> 16
}

/// One incident. A writer takes a number from `Header::event_next`, zeroes `stamp`, writes the fields and stores
/// its number + 1 in `stamp` last; a reader that finds another stamp before or after reading skips the record.
#[repr(C, align(64))]
pub struct Event {
    /// Number of the event + 1 once complete.
    pub stamp: AtomicU64,
    /// One of the `EVENT_` codes.
    pub code: AtomicU32,
    /// Process id of the writer, in its own namespace.
    pub pid: AtomicU32,
    /// Region index of the device, or u32::MAX.
    pub device: AtomicU32,
    _pad0: u32,
    /// What was asked for.
    pub requested: AtomicU64,
    /// What was in use.
    pub used: AtomicU64,
    /// The limit at that time.
    pub limit: AtomicU64,
    /// When, nanoseconds since 1970.
    pub time_ns: AtomicU64,
    _pad1: u64,
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
    /// Lanes, slot by slot.
    pub lanes: [[Lane; LANES]; SLOTS],
    /// The event ring.
    pub events: [Event; EVENTS],
}

/// The whole file.
#[repr(C)]
pub struct File {
    /// HAMi's view.
    pub hami: crate::hami::View,
    _gap: [u64; (OURS - size_of::<crate::hami::View>()) / 8],
    /// Our part.
    pub ours: Ours,
}

/// Bytes of a region file of this version.
pub const FILE_BYTES: usize = size_of::<File>();

/// Asserts a struct's size and the offsets of its fields, so that a slip here or in the C header does not compile.
macro_rules! layout {
    ($type:ty, size $size:expr, $($field:ident = $offset:expr),+ $(,)?) => {
        const _: () = {
            assert!(size_of::<$type>() == $size);
            $(assert!(offset_of!($type, $field) == $offset);)+
        };
    };
}
pub(crate) use layout;

layout!(Header, size 4096, magic = 0, abi_major = 8, abi_minor = 12, length = 16, record_bytes = 24,
    record_count = 40, record_offset = 56, generation = 88, boot_id = 96, time_namespace = 112,
    created_at_ns = 120, state = 128, spoken = 132, slot_high = 136, mode = 140, event_next = 144,
    fallbacks = 152, shares = 160, monitor_ns = 168, turns = 192);
layout!(Device, size 512, uuid = 0, state = 96, core_limit = 100, memory_limit = 104, memory_total = 112,
    claimed_by = 120, used = 128, peak = 136, denied = 144, would_deny = 152, reaped_at_ns = 160, spilled = 168,
    spills = 176, physical_limit = 184, virtual_time = 192, busy_until = 200, longest = 208, virtual_rate = 216,
    idle_at = 224, flight_until = 232, gaps_from = 240, idle_ns = 248, gpu_time_ns = 256, waited_ns = 264, launches = 272,
    waits = 280, would_wait = 288, clamped = 296, waited_flight_ns = 304, gaps = 320, wait_times = 432);
layout!(Turns, size 64, turn = 0, told_at = 8, bell = 16, terms = 20, asked_at = 24, in_flight_ns = 32,
    doubt_ns = 40, waited_ns = 48, held_ns = 56);
layout!(Slot, size 512, state = 0, pid = 4, start_time = 8, pid_namespace = 16, host_pid = 24,
    priority = 28, heartbeat_ns = 32, lane_device = 64, lane_kind = 96, pending_ns = 128);
layout!(Lane, size 32, amount = 0, operation = 8, held = 16, reserving = 24);
layout!(Event, size 64, stamp = 0, code = 8, pid = 12, device = 16, requested = 24, used = 32, limit = 40,
    time_ns = 48);
layout!(Ours, size 0x1000 + 0x4000 + 0x8_0000 + 0x10_0000 + 0x4000, header = 0, devices = 0x1000,
    slots = 0x5000, lanes = 0x8_5000, events = 0x18_5000);
layout!(File, size OURS + 0x18_9000, hami = 0, ours = OURS);
const _: () = assert!(align_of::<File>() == 4096);
