//! The holdings of this process: each living allocation, by pointer or handle.
//!
//! They lie in a sharded hash table. An operation takes one shard's lock for a few nanoseconds, and its cost does not grow
//! with the number of living allocations. The tables are mappings of our own, for two reasons: the program may interpose
//! malloc, and a child made by fork must not have its parent's allocations (there the mappings are absent). Crates such as
//! `hashbrown` have paths that panic or abort when memory is short.
//!
//! # Safety
//! This file may use `unsafe` because it reads and writes the entries in mappings of its own, under the shard's
//! lock, at indices that are masked to the table's size.
#![allow(unsafe_code)]

use super::extent::Extent;
use crate::lock::{Lock, LockGuard};
use core::cell::UnsafeCell;
use core::mem::size_of;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering::Acquire, Ordering::Relaxed, Ordering::Release};
use gpuquota_region::sys::{self, InChild};

/// The kind of a key. Pointers and handles come from different spaces and may be equal as numbers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Kind {
    /// Device memory, by address.
    Memory = 1,
    /// An array or mipmapped array, by handle.
    Array = 2,
    /// Physical memory of the VMM, or a multicast object, by its number (`physical`).
    Physical = 3,
    /// A mapping of physical memory, by address.
    Mapping = 4,
    /// Memory from a pool, by address. Its bytes are part of the pool's charge.
    Pooled = 5,
    /// An executable graph that allocates, by handle. Its bytes are part of the charge of the device's graphs.
    Graph = 6,
    /// Memory of another API, by handle.
    External = 7,
    /// A binding of physical memory to a multicast object.
    Binding = 8,
    /// Memory that lies on the host, by address.
    Spilled = 9,
    /// A handle of physical memory or of a multicast object.
    Handle = 10,
    /// An array or mipmapped array of less than half a block, by handle.
    SmallArray = 11,
    /// Managed memory that lies on the host because the device had no room for it, by address. It is not charged.
    OnHost = 12,
    /// A block of the device that allocations fill in part, by number.
    Block = 13,
    /// What was opened of another process's pool and is its maker's to pay, by the pool's handle.
    Borrowed = 14,
    /// What this process keeps of a dead process's pool, by a number. No figure of the driver's contains it.
    Kept = 15,
}

/// A key. User-space addresses and handles are below 2^57; the kind takes the bits above.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Key(u64);

impl Key {
    /// The kinds with a charge of their own.
    const CHARGED: [Kind; 8] = [
        Kind::Memory,
        Kind::Array,
        Kind::SmallArray,
        Kind::Physical,
        Kind::External,
        Kind::Spilled,
        Kind::Block,
        Kind::Kept,
    ];
    /// Those of them that are in no figure of the driver's for this process.
    const ELSEWHERE: [Kind; 2] = [Kind::Spilled, Kind::Kept];

    /// The key of `value`; `None` for zero and for values that reach into the kind's bits.
    #[inline]
    pub fn new(kind: Kind, value: u64) -> Option<Self> {
        (value != 0 && value >> 60 == 0).then_some(Self(value | (kind as u64) << 60))
    }

    fn kind(self) -> u64 {
        self.0 >> 60
    }

    /// Whether its holding has a charge of its own.
    pub fn is_charged(self) -> bool {
        Self::CHARGED.iter().any(|kind| *kind as u64 == self.kind())
    }

    /// Whether it has this kind.
    pub fn is(self, kind: Kind) -> bool {
        self.kind() == kind as u64
    }

    /// The address or handle.
    pub fn value(self) -> u64 {
        self.0 & (u64::MAX >> 4)
    }

    /// Folds the product, because a product keeps the zeroes at the end of an aligned address.
    #[inline]
    fn hash(self) -> u64 {
        let product = self.0.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        product ^ product >> 32
    }
}

/// One allocation of this process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Holding {
    /// Bytes charged; for memory by address, the bytes of the allocation: its charge follows from its place (`blocks`).
    pub bytes: u64,
    /// Region index of the device.
    pub device: u8,
    /// The journal of the process that recorded the charge.
    pub journal: u8,
    /// The meaning depends on the kind. Memory, arrays, memory of other APIs: their context. Physical memory: the number of
    /// references that keep it. Handles: the memory's number (and `bytes` is the number of the handle's uses). Mappings: the
    /// memory's number. Bindings: the multicast object's number (and `bytes` is the memory's). Memory from a pool, and what is kept of one: the pool.
    /// Graphs: the device's ordinal. Blocks: the number of allocations in it.
    pub owner: u64,
}

/// What holdings are charged, bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Sums {
    /// All of them.
    pub charged: u64,
    /// Those of them that the driver's figure for this process contains.
    pub on_device: u64,
}

/// The table cannot grow.
pub struct TableFull;

#[derive(Clone, Copy)]
struct Entry {
    /// 0: free.
    key: u64,
    /// bytes << 16 | device << 8 | journal.
    charge: u64,
    owner: u64,
}

impl Entry {
    const FREE: Self = Self { key: 0, charge: 0, owner: 0 };

    fn new(key: Key, holding: Holding) -> Self {
        let charge = holding.bytes << 16 | u64::from(holding.device) << 8 | u64::from(holding.journal);
        Self { key: key.0, charge, owner: holding.owner }
    }

    /// Whether the entry has a holding with a charge of its own.
    fn is_charged(&self) -> bool {
        self.key != 0 && Key(self.key).is_charged()
    }

    fn is_owned(&self, kinds: &[Kind], owner: u64) -> bool {
        let kind = Key(self.key).kind();
        self.key != 0 && self.owner == owner && kinds.iter().any(|wanted| *wanted as u64 == kind)
    }

    /// Whether it has a holding of a kind and device that is charged any bytes.
    fn is_of(&self, kind: Kind, device: u8) -> bool {
        let holding = self.holding();
        self.key != 0 && Key(self.key).is(kind) && holding.device == device && holding.bytes != 0
    }

    fn holding(self) -> Holding {
        let [journal, device, ..] = self.charge.to_le_bytes();
        Holding { bytes: self.charge >> 16, device, journal, owner: self.owner }
    }
}

const SHARDS: usize = 64;
/// Entries of a shard's first table: one page and a half.
const FIRST_CAPACITY: usize = 256;
/// The sum of all holdings is not computed where a shard has more: reading so many takes some tens of microseconds.
const MAX_SUMMED: usize = 4096;

/// The table. All-zero bytes are an empty one.
pub struct Holdings {
    shards: [Shard; SHARDS],
    /// Whether this process has ever had memory on the host.
    spilled: AtomicBool,
    /// The numbers given to physical memory so far.
    numbers: AtomicU64,
}

#[repr(align(64))]
struct Shard {
    lock: Lock,
    table: UnsafeCell<Table>,
}

struct Table {
    /// Null until the first insertion.
    entries: *mut Entry,
    /// A power of two, or 0.
    capacity: usize,
    used: usize,
}

// SAFETY: all accesses to a shard's table hold its lock.
unsafe impl Sync for Shard {}

impl Holdings {
    #[inline(always)]
    fn shard(&self, key: Key) -> Option<&Shard> {
        self.shards.get((key.hash() >> 58) as usize % SHARDS)
    }

    #[inline(always)]
    fn with<R>(&self, key: Key, action: impl FnOnce(&mut Table, Key) -> R) -> Option<R> {
        let shard = self.shard(key)?;
        let _locked = shard.lock()?;
        // SAFETY: the lock is held, so this is the only reference to the table.
        Some(action(unsafe { &mut *shard.table.get() }, key))
    }

    /// Inserts a holding under a fresh key. Does nothing and answers false if the key has a holding, or the table has to
    /// grow first.
    #[inline(always)]
    pub fn insert_fresh(&self, key: Key, holding: Holding) -> bool {
        let Some(shard) = self.shard(key) else { return false };
        let Some(_locked) = shard.lock() else { return false };
        // SAFETY: as in `with`.
        unsafe { &mut *shard.table.get() }.insert_fresh(Entry::new(key, holding))
    }

    /// Inserts a holding. Answers the key's previous holding, whose memory must be gone, since the driver has reused its
    /// address or handle.
    pub fn insert(&self, key: Key, holding: Holding) -> Result<Option<Holding>, TableFull> {
        self.with(key, |table, key| table.insert(Entry::new(key, holding))).unwrap_or(Err(TableFull))
    }

    /// Inserts a holding unless the key has one.
    pub fn insert_unless_held(&self, key: Key, holding: Holding) -> bool {
        let insert = |table: &mut Table, key| {
            table.find(key).is_none() && table.insert(Entry::new(key, holding)).is_ok()
        };
        self.with(key, insert) == Some(true)
    }

    /// From now on this process may have memory on the host. The caller inserts the holding afterwards.
    pub fn mark_spilled(&self) {
        self.spilled.store(true, Release);
    }

    /// Whether this process has ever had memory on the host.
    #[inline]
    pub fn has_spilled(&self) -> bool {
        self.spilled.load(Acquire)
    }

    /// Removes a holding and answers it.
    #[inline(always)]
    pub fn remove(&self, key: Key) -> Option<Holding> {
        self.with(key, |table, key| table.remove(key)).flatten()
    }

    /// The holding of a key.
    pub fn get(&self, key: Key) -> Option<Holding> {
        self.with(key, |table, key| table.find(key).map(|(_, entry)| entry.holding())).flatten()
    }

    /// Adds a reference to a holding that has a number of them. False if the key has no holding.
    #[inline(always)]
    pub fn join(&self, key: Key) -> bool {
        self.with(key, |table, key| table.join(key)) == Some(true)
    }

    /// The same, and inserts the holding where the key has none. Answers whether it did.
    pub fn join_or_insert(&self, key: Key, holding: Holding) -> Result<bool, TableFull> {
        self.with(key, |table, key| match table.join(key) {
            true => Ok(false),
            false => table.insert(Entry::new(key, holding)).map(|_| true),
        })
        .unwrap_or(Err(TableFull))
    }

    /// Changes a holding, and removes it where `change` answers false. Answers what it has become.
    pub fn change(&self, key: Key, change: impl FnOnce(&mut Holding) -> bool) -> Option<Holding> {
        self.with(key, |table, key| {
            let (at, entry) = table.find(key)?;
            let mut holding = entry.holding();
            if change(&mut holding) {
                table.write(at, Entry::new(key, holding));
            } else {
                table.remove(key);
            }
            Some(holding)
        })
        .flatten()
    }

    /// A number that this process gives out once.
    pub fn next_number(&self) -> u64 {
        self.numbers.fetch_add(1, Relaxed).wrapping_add(1)
    }

    /// Gives all holdings of some kinds with the owner `from` the owner `to`.
    pub fn change_owner(&self, kinds: &[Kind], from: u64, to: u64) {
        for shard in &self.shards {
            let Some(_locked) = shard.lock() else { continue };
            // SAFETY: the lock is held.
            let table = unsafe { &mut *shard.table.get() };
            for at in 0..table.capacity {
                let entry = table.read(at);
                if entry.is_owned(kinds, from) {
                    table.set_owner(at, to);
                }
            }
        }
    }

    /// The sums of the holdings of a device whose blocks have `1 << shift` bytes. `None` where the process has so many that
    /// the sums would take too long.
    pub fn sums_of(&self, device: u8, shift: u32) -> Option<Sums> {
        let mut sums = Sums::default();
        for shard in &self.shards {
            let _locked = shard.lock()?;
            // SAFETY: the lock is held.
            let table = unsafe { &*shard.table.get() };
            if table.used > MAX_SUMMED {
                return None;
            }
            let charged = (0..table.capacity).map(|at| table.read(at)).filter(Entry::is_charged);
            for entry in charged.filter(|entry| entry.holding().device == device) {
                let (key, Holding { bytes, .. }) = (Key(entry.key), entry.holding());
                let charge = match key.is(Kind::Memory) {
                    true => Extent::of(key.value(), bytes, shift).whole,
                    false => bytes,
                };
                sums.charged = sums.charged.saturating_add(charge);
                if !Key::ELSEWHERE.iter().any(|kind| key.is(*kind)) {
                    sums.on_device = sums.on_device.saturating_add(charge);
                }
            }
        }
        Some(sums)
    }

    /// The charge of all holdings of a kind and device.
    pub fn charge_of(&self, kind: Kind, device: u8) -> u64 {
        let of_shard = |shard: &Shard| {
            let Some(_locked) = shard.lock() else { return 0 };
            // SAFETY: the lock is held.
            let table = unsafe { &*shard.table.get() };
            let entries = (0..table.capacity).map(|at| table.read(at));
            let wanted = entries.filter(|entry| entry.is_of(kind, device));
            wanted.fold(0u64, |sum, entry| sum.saturating_add(entry.holding().bytes))
        };
        self.shards.iter().map(of_shard).fold(0, u64::saturating_add)
    }

    /// The holding of a kind and device that has `before` others before it, in no order that lasts.
    pub fn nth_of(&self, kind: Kind, device: u8, before: usize) -> Option<(Key, Holding)> {
        let mut left = before;
        for shard in &self.shards {
            let Some(_locked) = shard.lock() else { continue };
            // SAFETY: the lock is held.
            let table = unsafe { &*shard.table.get() };
            let wanted = |entry: &Entry| Key(entry.key).is(kind) && entry.holding().device == device;
            for entry in (0..table.capacity).map(|at| table.read(at)).filter(wanted) {
                match left.checked_sub(1) {
                    Some(fewer) => left = fewer,
                    None => return Some((Key(entry.key), entry.holding())),
                }
            }
        }
        None
    }

    /// Takes the charge of each holding of a kind and device, and passes the holding as it was to `taken`.
    pub fn take_charges(&self, kind: Kind, device: u8, taken: impl Fn(Holding)) {
        for shard in &self.shards {
            while let Some(holding) = shard.take_charge(|entry| entry.is_of(kind, device)) {
                taken(holding);
            }
        }
    }

    /// Removes all holdings of some kinds with this owner, and passes each to `removed`.
    pub fn remove_owned(&self, kinds: &[Kind], owner: u64, mut removed: impl FnMut(Key, Holding)) {
        let is_owned = |entry: &Entry| entry.is_owned(kinds, owner);
        for shard in &self.shards {
            // A pass goes down through the table. A removal moves later entries of a run up, so a pass misses an entry only
            // where a run wraps round the end of the table. Passes repeat until one finds nothing.
            loop {
                let mut any = false;
                let mut next = usize::MAX;
                while let Some((at, entry)) = shard.remove_last_before(next, &is_owned) {
                    any = true;
                    next = at;
                    removed(Key(entry.key), entry.holding());
                }
                if !any {
                    break;
                }
            }
        }
    }
}

impl Shard {
    /// `None` where the thread cannot have the lock.
    #[inline(always)]
    fn lock(&self) -> Option<LockGuard<'_>> {
        // SAFETY: the lock is held, and whoever held it before does not come back.
        self.lock.lock(|| unsafe { &mut *self.table.get() }.repair())
    }

    /// Takes the charge of the first entry that is `wanted`, and answers its holding as it was.
    fn take_charge(&self, wanted: impl Fn(&Entry) -> bool) -> Option<Holding> {
        let _locked = self.lock()?;
        // SAFETY: the lock is held.
        let table = unsafe { &mut *self.table.get() };
        let (at, entry) =
            (0..table.capacity).map(|at| (at, table.read(at))).find(|(_, entry)| wanted(entry))?;
        let holding = entry.holding();
        table.write(at, Entry::new(Key(entry.key), Holding { bytes: 0, ..holding }));
        Some(holding)
    }

    /// Removes the last entry before `end` that is `wanted`, and answers its index. Holds the lock only for this search.
    fn remove_last_before(&self, end: usize, wanted: &impl Fn(&Entry) -> bool) -> Option<(usize, Entry)> {
        let _locked = self.lock()?;
        // SAFETY: the lock is held.
        let table = unsafe { &mut *self.table.get() };
        let (at, entry) = (0..table.capacity.min(end))
            .rev()
            .map(|at| (at, table.read(at)))
            .find(|(_, entry)| wanted(entry))?;
        table.remove(Key(entry.key));
        Some((at, entry))
    }
}

impl Table {
    fn mask(&self) -> usize {
        self.capacity.wrapping_sub(1)
    }

    fn read(&self, at: usize) -> Entry {
        #[cfg(test)]
        tests::count_read();
        // SAFETY: the index is masked to the capacity, and a table with a capacity is mapped.
        unsafe { self.entries.wrapping_add(at & self.mask()).read() }
    }

    /// Writes over an entry. The key goes first and comes last: if the thread is lost half-way, no key has another's charge.
    fn write(&mut self, at: usize, entry: Entry) {
        // SAFETY: as in `read`.
        unsafe {
            let place = self.entries.wrapping_add(at & self.mask());
            (&raw mut (*place).key).write_volatile(0);
            (&raw mut (*place).charge).write_volatile(entry.charge);
            (&raw mut (*place).owner).write_volatile(entry.owner);
            (&raw mut (*place).key).write_volatile(entry.key);
        }
    }

    fn set_owner(&mut self, at: usize, owner: u64) {
        // SAFETY: as in `read`.
        unsafe { (&raw mut (*self.entries.wrapping_add(at & self.mask())).owner).write_volatile(owner) };
    }

    fn home(&self, key: Key) -> usize {
        (key.hash() >> 20) as usize & self.mask()
    }

    /// The entry of a key, or the free entry that ends its probe. Every mapped table has a free entry.
    #[inline(always)]
    fn probe(&self, key: Key) -> (usize, Entry) {
        let mut at = self.home(key);
        loop {
            let entry = self.read(at);
            if entry.key == key.0 || entry.key == 0 {
                return (at, entry);
            }
            at = at.wrapping_add(1) & self.mask();
        }
    }

    fn find(&self, key: Key) -> Option<(usize, Entry)> {
        if self.capacity == 0 {
            return None;
        }
        Some(self.probe(key)).filter(|(_, entry)| entry.key != 0)
    }

    #[inline(always)]
    fn join(&mut self, key: Key) -> bool {
        let Some((at, entry)) = self.find(key) else { return false };
        self.write(at, Entry { owner: entry.owner.wrapping_add(1), ..entry });
        true
    }

    #[inline(always)]
    fn insert_fresh(&mut self, entry: Entry) -> bool {
        if !self.has_room() {
            return false;
        }
        let (at, before) = self.probe(Key(entry.key));
        if before.key != 0 {
            return false;
        }
        self.write(at, entry);
        self.used = self.used.wrapping_add(1);
        true
    }

    fn insert(&mut self, entry: Entry) -> Result<Option<Holding>, TableFull> {
        if let Some((at, before)) = self.find(Key(entry.key)) {
            self.write(at, entry);
            return Ok(Some(before.holding()));
        }
        if !self.has_room() && !self.grow() {
            return Err(TableFull);
        }
        if self.insert_fresh(entry) { Ok(None) } else { Err(TableFull) }
    }

    /// A table is at most half full, so probes read two entries on average and always end at a free one.
    #[inline(always)]
    fn has_room(&self) -> bool {
        self.used.wrapping_mul(2) < self.capacity
    }

    #[cold]
    fn grow(&mut self) -> bool {
        let old = Table { entries: self.entries, capacity: self.capacity, used: self.used };
        if !self.move_to(self.capacity.saturating_mul(2).max(FIRST_CAPACITY)) {
            return false;
        }
        if old.capacity != 0 {
            sys::unmap_private(old.entries.cast(), old.capacity.wrapping_mul(size_of::<Entry>()));
        }
        true
    }

    /// Makes the table whole again after an operation that was left half done: an entry may be there twice, or not be where a
    /// probe finds it. The old mapping stays, for the case that somebody still reads it.
    #[cold]
    #[inline(never)]
    fn repair(&mut self) {
        if self.capacity != 0 && !self.move_to(self.capacity) {
            // No memory: what is in the table stays charged, and it takes no more.
            self.used = self.capacity;
        }
    }

    /// Moves all entries to a new mapping with room for `capacity` of them.
    fn move_to(&mut self, capacity: usize) -> bool {
        let Some(bytes) = capacity.checked_mul(size_of::<Entry>()) else { return false };
        let Ok(entries) = sys::map_private(bytes) else { return false };
        // Miri has no fork.
        if !cfg!(miri) {
            let _ = sys::advise_fork(entries, bytes, InChild::Absent);
        }
        let mut new = Table { entries: entries.cast(), capacity, used: 0 };
        for entry in (0..self.capacity).map(|at| self.read(at)).filter(|entry| entry.key != 0) {
            let (at, before) = new.probe(Key(entry.key));
            if before.key == 0 {
                new.write(at, entry);
                new.used = new.used.wrapping_add(1);
            }
        }
        *self = new;
        true
    }

    #[inline(always)]
    fn remove(&mut self, key: Key) -> Option<Holding> {
        let (mut hole, removed) = self.find(key)?;
        // Later entries of the same run move up, so no probe ends early and the table needs no tombstones.
        let mut at = hole;
        loop {
            at = at.wrapping_add(1) & self.mask();
            let entry = self.read(at);
            if entry.key == 0 {
                break;
            }
            let distance = at.wrapping_sub(self.home(Key(entry.key))) & self.mask();
            if distance >= at.wrapping_sub(hole) & self.mask() {
                self.write(hole, entry);
                hole = at;
            }
        }
        self.write(hole, Entry::FREE);
        self.used = self.used.saturating_sub(1);
        Some(removed.holding())
    }
}

#[cfg(test)]
pub mod tests;
