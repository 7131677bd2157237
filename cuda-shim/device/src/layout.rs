//! The layout of the state file: fixed-width words, no pointers, valid when all bytes are zero.
//!
//! Every cell is an atomic word, so a mapping of a file that somebody else writes stays sound. Who may
//! write what is said at each struct; the guards live in [`crate::memory`] and [`crate::seat`].

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::latency;
use crate::machine::{EXPORTS, MAX_DEVICES, MAX_FAULTS, MAX_PATTERN, MAX_RULES};
use crate::spec::{ATTRIBUTES, MAX_NAME};

/// First word of a finished state file. The number at its end is the version of the layout.
pub const MAGIC: u64 = u64::from_le_bytes(*b"cudasim\x0c");
/// Process slots, ended processes included.
pub const SLOTS: usize = 4096;
/// Processes that can work on one device at the same time.
pub const SEATS: usize = 2048;
/// Stalls remembered per seat, enough for seconds of history.
pub const STALLS: usize = 512;
/// Stretches of pending work that a seat tells apart; further ones are joined. Where kernels lie apart in their streams
/// there are as many as launches, else few.
pub const STRETCHES: usize = 1280;
/// The few.
pub const FEW_STRETCHES: usize = 32;
/// Cgroups of a process that are known: its own, and so many above it less one.
pub const CGROUPS: usize = 16;
/// Pieces of memory of one device that several processes hold.
pub const SHARED: usize = 256;
/// Events of one device that several processes know.
pub const SHARED_EVENTS: usize = 256;
/// Buckets of the utilisation history, and nanoseconds of one.
pub const BUCKETS: usize = 64;
/// Nanoseconds of one utilisation bucket.
pub const BUCKET_NS: u64 = 1 << 24;

/// A 64-bit cell. Plain accesses are relaxed: order comes from the locks and the seats' sequence words.
#[repr(transparent)]
#[derive(Default)]
pub struct Word(pub AtomicU64);

impl Word {
    /// The value.
    #[inline]
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }

    /// Stores `value`.
    #[inline]
    pub fn set(&self, value: u64) {
        self.0.store(value, Relaxed);
    }

    /// Adds without a locked instruction; for cells with one writer at a time.
    #[inline]
    pub fn add(&self, amount: u64) {
        self.set(self.get().wrapping_add(amount));
    }

    /// Subtracts likewise.
    #[inline]
    pub fn sub(&self, amount: u64) {
        self.set(self.get().wrapping_sub(amount));
    }

    /// Raises the cell to `value` if that is higher.
    #[inline]
    pub fn raise(&self, value: u64) {
        if value > self.get() {
            self.set(value);
        }
    }
}

/// One device of the machine description. Written once, before [`Header::magic`].
#[repr(C)]
pub struct SpecCells {
    pub name: [Word; MAX_NAME / 8],
    pub uuid: [Word; 2],
    /// The numeric fields, in the order of `state::spec_numbers`.
    pub numbers: [Word; 25],
    /// In the order of `Latency::numbers`.
    pub latency: [Word; latency::NUMBERS],
    /// By number: 0 if unknown, else the value with bit 32 set.
    pub attributes: [Word; ATTRIBUTES],
}

/// One kernel rule. Written once, before [`Header::magic`].
#[repr(C)]
pub struct RuleCells {
    pub pattern: [Word; MAX_PATTERN / 8],
    pub duration_ns: Word,
    pub per_block_ns: Word,
    /// Number + 1 of the parameter, 0 for none.
    pub argument: Word,
    /// Likewise.
    pub stamps: Word,
}

/// One fault. Written once, before [`Header::magic`].
#[repr(C)]
pub struct FaultCells {
    pub call: [Word; MAX_PATTERN / 8],
    /// 0 for every call.
    pub nth: Word,
    pub error: Word,
    pub delay_ns: Word,
    pub late_ns: Word,
    /// 0 for every call.
    pub one_in: Word,
    pub sticky: Word,
    /// Index + 1 of the device that is lost, 0 for none.
    pub lost: Word,
    pub kill: Word,
    /// Empty for every program.
    pub program: [Word; MAX_PATTERN / 8],
}

/// Bytes and work of one process on one device. Memory cells: under the device's memory lock.
/// `busy_ns` and `kernels`: the sum over the seats that the process has left.
#[repr(C)]
pub struct Share {
    pub requested: Word,
    pub requested_peak: Word,
    pub physical: Word,
    pub physical_peak: Word,
    pub context: Word,
    pub busy_ns: Word,
    pub kernels: Word,
    /// What it pays of the memory that it shares with others: added up from [`SharedCells`].
    pub paid_requested: Word,
    pub paid_physical: Word,
}

impl Share {
    /// Bytes asked for and held, shared ones that it pays for included.
    #[inline]
    pub fn all_requested(&self) -> u64 {
        self.requested.get() + self.paid_requested.get()
    }

    /// Bytes taken of the device, likewise.
    #[inline]
    pub fn all_physical(&self) -> u64 {
        self.physical.get() + self.paid_physical.get()
    }
}

/// States of a process slot.
pub mod slot_state {
    /// Never used.
    pub const FREE: u64 = 0;
    /// Held by a process (alive while it holds the lock of its byte).
    pub const LIVE: u64 = 1;
    /// The process is dead, its memory still taken.
    pub const TEARDOWN: u64 = 2;
    /// Everything was given back; kept for the record.
    pub const ENDED: u64 = 3;
}

/// One process.
#[repr(C)]
pub struct Slot {
    pub state: Word,
    pub pid: Word,
    /// 1 once the process had a context: observers are not shown.
    pub client: Word,
    pub release_at: Word,
    /// Inode of the process's PID namespace: with its pid it names one process of the machine.
    pub namespace: Word,
    /// When it first worked on a device, and when it was found dead; 0 before.
    pub started: Word,
    pub ended: Word,
    /// The cgroups that the process is in, its own first ([`crate::cgroup`]); 0 behind the last.
    pub cgroups: [Word; CGROUPS],
    _spare: Word,
}

/// How far one seat lags behind, in a [`Round`].
#[repr(C)]
pub struct LagCells {
    pub lag: Word,
    pub stalls: Word,
}

/// One copy of a device's schedule; the active one is switched by a single store.
#[repr(C)]
pub struct Round {
    pub wall: Word,
    pub current: Word,
    pub slice_end: Word,
    /// Before this instant `current` is still switched to.
    pub begin: Word,
    pub lags: [LagCells; SEATS],
}

/// A stall: after seat time `at`, the seat lags `lag` behind the wall clock.
#[repr(C)]
pub struct StallCells {
    pub at: Word,
    pub lag: Word,
}

/// Pending work of a seat, `[start, end)` in seat time.
#[repr(C)]
pub struct StretchCells {
    pub start: Word,
    pub end: Word,
}

/// Busy time of one bucket of wall time.
#[repr(C)]
pub struct BucketCells {
    pub number: Word,
    pub busy_ns: Word,
}

/// The place of one process at one device. All but `stalls` is written by its process alone, between two
/// steps of `sequence`; `stalls` by whoever holds the device's schedule lock.
#[repr(C)]
pub struct SeatCells {
    /// Slot + 1 of the process, 0 if empty.
    pub owner: Word,
    pub sequence: Word,
    /// The process's totals when it took the seat.
    pub base_busy_ns: Word,
    pub base_kernels: Word,
    /// Work that left `stretches`.
    pub done_ns: Word,
    pub kernels: Word,
    pub count: Word,
    _spare: Word,
    pub buckets: [BucketCells; BUCKETS],
    pub stretches: [StretchCells; STRETCHES],
    pub stalls: [StallCells; STALLS],
}

/// No process pays for a row that has holders.
pub const NOBODY: u64 = u64::MAX;

/// Memory that several processes hold. Under the device's memory lock.
#[repr(C)]
pub struct SharedCells {
    /// Slot + 1 of the process that pays; 0 if the row is empty, [`NOBODY`] if no process pays.
    pub payer: Word,
    pub inode: Word,
    pub offset: Word,
    pub requested: Word,
    pub physical: Word,
    /// 1: memory of a pool, which its maker pays as part of the pool, and after that nobody.
    pub pooled: Word,
    /// A bit for each slot.
    pub holders: [Word; SLOTS / 64],
}

/// An event that several processes know. Under the device's schedule lock.
#[repr(C)]
pub struct SharedEventCells {
    /// Slot + 1 of the process that made it; 0 if the row is empty.
    pub owner: Word,
    pub generation: Word,
    /// Slot + 1 of the process that recorded it last; 0 if none did.
    pub recorder: Word,
    /// That process's seat, and the time there.
    pub seat: Word,
    pub time: Word,
}

/// One device.
#[repr(C)]
pub struct Device {
    pub memory_lock: Word,
    pub requested: Word,
    pub requested_peak: Word,
    pub physical: Word,
    pub physical_peak: Word,
    pub context: Word,
    /// Rows of `shared` ever used.
    pub shared_used: Word,
    /// 1 once the device is lost.
    pub lost: Word,
    pub schedule_lock: Word,
    /// Occupied seats.
    pub seated: Word,
    pub occupied: [Word; SEATS / 64],
    pub active_round: Word,
    /// Since when the driver keeps account of processes, 0 if it does not, and when it last forgot the ended ones.
    pub accounting_since: Word,
    pub accounting_cleared: Word,
    _spare2: Word,
    pub rounds: [Round; 2],
    pub seats: [SeatCells; SEATS],
    pub shared: [SharedCells; SHARED],
    pub events: [SharedEventCells; SHARED_EVENTS],
}

/// The start of the file.
#[repr(C)]
pub struct Header {
    /// [`MAGIC`], stored last.
    pub magic: Word,
    /// Bytes of the file.
    pub length: Word,
    pub reap_lock: Word,
    /// Wall time of the last reap.
    pub reaped_at: Word,
    /// Slots ever used.
    pub slots_used: Word,
    pub device_count: Word,
    pub cuda_version: Word,
    pub slice_ns: Word,
    pub teardown_ns: Word,
    pub launch_queue: Word,
    pub rule_count: Word,
    /// Slots that are live or in teardown, as the last reap found them.
    pub living: Word,
    pub fault_count: Word,
    /// Inode of the PID namespace in which the machine was made: the node's own.
    pub namespace: Word,
    /// 1 if handles of what is gone are dealt out again.
    pub reuses_handles: Word,
    /// In the order of `state::startup_numbers`.
    pub startup: [Word; 4],
    /// In the order of `state::delay_numbers`; zeroes if no call is held up.
    pub delays: [Word; 4],
    pub driver_version: [Word; 8],
    /// A bit for each export that the driver does not hand out.
    pub lacks: [Word; EXPORTS / 64],
    pub specs: [SpecCells; MAX_DEVICES],
    pub rules: [RuleCells; MAX_RULES],
    pub faults: [FaultCells; MAX_FAULTS],
}

/// The whole file.
#[repr(C)]
pub struct Layout {
    pub header: Header,
    /// Apart from what they have of the devices: whoever looks for the living reads all of them.
    pub slots: [Slot; SLOTS],
    pub shares: [[Share; MAX_DEVICES]; SLOTS],
    pub devices: [Device; MAX_DEVICES],
}

/// Length of the mapped part of the file.
pub const LENGTH: usize = size_of::<Layout>();
/// Bytes beyond this offset are never stored: slot `i` is alive while byte `LIVES + i` is locked.
pub const LIVES: i64 = 1 << 40;

const _: () = assert!(align_of::<Layout>() == 8 && LENGTH.is_multiple_of(8));

/// Packs a string into words, zero-padded; what does not fit is cut.
pub fn write_text(cells: &[Word], text: &str) {
    let mut bytes = text.bytes();
    for cell in cells {
        let mut word = [0; 8];
        for byte in &mut word {
            *byte = bytes.next().unwrap_or(0);
        }
        cell.set(u64::from_le_bytes(word));
    }
}

/// Reads back what [`write_text`] packed.
pub fn read_text(cells: &[Word]) -> String {
    let bytes: Vec<u8> =
        cells.iter().flat_map(|cell| cell.get().to_le_bytes()).take_while(|byte| *byte != 0).collect();
    String::from_utf8_lossy(&bytes).into_owned()
}
