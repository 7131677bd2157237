//! The charges of arenas: stream-ordered pools and the memory of graphs, which the driver keeps for later.
//!
//! A pool holds more than its allocations use: it keeps freed memory until it is trimmed. So the charge of an arena is all
//! that the driver says that it holds, in use or not. An allocation from an arena is admitted by the bytes by which it may
//! make the arena grow (`taking`). On a card as small as the cap the driver would trim its arenas before it refuses a request;
//! so does this file ([`Arenas::trim`]).
//!
//! `quota::arena` has the book of an arena, which holds whoever else takes, trims or asks meanwhile; this file gives it the
//! process's entries and lock. One thread of the process at a time takes memory from a pool, so that nobody is refused for
//! what another's call has claimed.
//!
//! The library does not clamp pools by `CUmemPoolProps::maxSize`, because the cap may rise while the pool lives.

use super::books::Books;
use super::due;
use crate::container::DeviceRef;
use crate::driver::cuda::arenas::Arena;
use crate::lock::{Lock, LockGuard};
use core::sync::atomic::{
    AtomicBool, AtomicU8, AtomicU64, Ordering::AcqRel, Ordering::Acquire, Ordering::Relaxed,
    Ordering::Release,
};
use gpuquota_quota::arena::{self, Book, Charged, Usage};
use gpuquota_region::layout::{DEVICES, KIND_GRAPH, KIND_POOL};

/// The graphs of a device grow in blocks, and a launch cannot be undone. Up to so many bytes beyond a request count as overhead:
/// they may lift use above the cap, and then the library admits nothing more.
const BLOCKS: u64 = 64 << 20;
/// The library charges so many arenas of a process.
const ARENAS: usize = 64;

/// The registered arenas of this process. All-zero bytes: none.
pub struct Arenas {
    /// A thread holds it while it changes entries or charges.
    changing: Lock,
    /// A thread holds it while it takes memory from a pool.
    taking: Lock,
    /// Whether any arena is registered.
    any: AtomicBool,
    /// Whether any of them is a device's graphs.
    graphs: AtomicBool,
    /// How often the graphs of a device were trimmed.
    trims: AtomicU64,
    /// Whether memory was freed since the last update of charges.
    stale: AtomicBool,
    entries: [Entry; ARENAS],
    /// The charges of pools that are about to be destroyed, by device.
    leaving: [AtomicU64; DEVICES],
}

/// A place for an arena.
struct Entry {
    /// [`Arena::word`]; 0: it is free.
    word: AtomicU64,
    device: AtomicU8,
    book: Book,
    /// The driver has said what the arena holds.
    is_known: AtomicBool,
    /// The most by which the arena has grown beyond a request.
    beyond: AtomicU64,
}

/// A registered arena.
#[derive(Clone, Copy)]
struct Registered<'a> {
    arena: Arena,
    device: u8,
    entry: &'a Entry,
}

fn kind_of(arena: Arena) -> u8 {
    if matches!(arena, Arena::Pool(_)) { KIND_POOL } else { KIND_GRAPH }
}

/// The bytes by which an arena may grow beyond what was reserved, without a reservation.
pub fn allowed_excess(arena: Arena) -> u64 {
    if matches!(arena, Arena::Pool(_)) { 0 } else { BLOCKS }
}

/// An arena with its book, for one call. `usage` asks the driver.
pub struct Open<'a, U> {
    arenas: &'a Arenas,
    books: Books<'a>,
    registered: Registered<'a>,
    usage: U,
}

impl<U> Open<'_, U> {
    /// Whether the driver has ever said what the arena holds.
    pub fn is_known(&self) -> bool {
        self.registered.entry.is_known.load(Relaxed)
    }
}

impl<U: Fn() -> Option<Usage>> Charged for Open<'_, U> {
    fn book(&self) -> &Book {
        &self.registered.entry.book
    }

    fn usage(&self) -> Option<Usage> {
        let usage = (self.usage)();
        if usage.is_some() {
            self.registered.entry.is_known.store(true, Relaxed);
        }
        usage
    }

    fn locked<T>(&self, change: impl FnOnce(&Book) -> T) -> Option<T> {
        let _changing = self.arenas.changing.lock(|| {})?;
        let Registered { arena, device, entry } = self.registered;
        // The entry may be another arena's by now.
        if entry.word.load(Acquire) != arena.word() {
            return None;
        }
        let answer = change(&entry.book);
        self.arenas.charge_locked(self.books, device, kind_of(arena));
        Some(answer)
    }
}

impl Arenas {
    fn each(&self) -> impl Iterator<Item = Registered<'_>> {
        self.entries.iter().filter_map(|entry| {
            let arena = Arena::of(entry.word.load(Acquire))?;
            Some(Registered { arena, device: entry.device.load(Relaxed), entry })
        })
    }

    fn find(&self, arena: Arena) -> Option<Registered<'_>> {
        self.each().find(|registered| registered.arena == arena)
    }

    /// The device of a registered arena.
    pub fn device_of(&self, arena: Arena) -> Option<u8> {
        self.find(arena).map(|registered| registered.device)
    }

    /// Registers an arena of a device. False where the table is full.
    pub fn register(&self, arena: Arena, device: u8) -> bool {
        let Some(_changing) = self.changing.lock(|| {}) else { return false };
        if self.find(arena).is_some() {
            return true;
        }
        let is_free = |entry: &&Entry| entry.word.load(Relaxed) == 0;
        let Some(entry) = self.entries.iter().find(is_free) else { return false };
        entry.device.store(device, Relaxed);
        entry.book.clear();
        entry.is_known.store(false, Relaxed);
        entry.beyond.store(0, Relaxed);
        entry.word.store(arena.word(), Release);
        self.graphs.fetch_or(matches!(arena, Arena::Graphs(_)), Release);
        self.any.store(true, Release);
        true
    }

    /// Whether this process has any arena.
    #[inline]
    pub fn any(&self) -> bool {
        self.any.load(Relaxed)
    }

    /// Whether any graph of this process allocates.
    #[inline]
    pub fn any_graphs(&self) -> bool {
        self.graphs.load(Relaxed)
    }

    /// The number of trims of graphs. A trim may take the memory that a graph's last launch mapped.
    pub fn graph_trims(&self) -> u64 {
        self.trims.load(Acquire)
    }

    /// Counts a trim of a device's graphs that the program has made, and updates their charge.
    pub fn graphs_were_trimmed(&self, books: Books<'_>, ordinal: u8) {
        self.trims.fetch_add(1, AcqRel);
        self.update_charge(books, Arena::Graphs(ordinal));
    }

    /// Takes a pool that may be destroyed out of the table; a new one may soon have its handle. Its charge stays. Answers its
    /// device and this charge.
    pub fn set_aside(&self, books: Books<'_>, pool: Arena) -> Option<(DeviceRef, u64)> {
        let _changing = self.changing.lock(|| {})?;
        let Registered { device, entry, .. } = self.find(pool)?;
        let device = books.container().device(device)?;
        let charge = entry.book.charged();
        self.leaving.get(usize::from(device.index))?.fetch_add(charge, AcqRel);
        entry.word.store(0, Release);
        Some((device, charge))
    }

    /// The charge of a pool that was set aside is no longer needed.
    pub fn forget_aside(&self, books: Books<'_>, device: DeviceRef, charge: u64) {
        if let Some(leaving) = self.leaving.get(usize::from(device.index)) {
            leaving.fetch_sub(charge, AcqRel);
        }
        self.charge(books, device.index, KIND_POOL);
    }

    /// Takes the turn to take memory from an arena. A launch of a graph may wait for its share, so graphs need none. `None`
    /// also after a long wait.
    pub fn take_turn(&self, arena: Arena) -> Option<LockGuard<'_>> {
        if matches!(arena, Arena::Pool(_)) { self.taking.lock(|| {}) } else { None }
    }

    /// The most by which an arena has grown beyond a request, bytes.
    pub fn usual_excess(&self, arena: Arena) -> u64 {
        self.find(arena).map_or(0, |registered| registered.entry.beyond.load(Relaxed))
    }

    /// An arena has grown by `bytes` beyond a request.
    pub fn note_excess(&self, arena: Arena, bytes: u64) {
        if let Some(registered) = self.find(arena) {
            registered.entry.beyond.fetch_max(bytes, Relaxed);
        }
    }

    /// The charge of an arena, bytes.
    #[cfg(test)]
    pub fn charge_of(&self, arena: Arena) -> u64 {
        self.find(arena).map_or(0, |registered| registered.entry.book.charged())
    }

    /// Sets the charge of an arena to the bytes that the driver says that it holds.
    pub fn update_charge(&self, books: Books<'_>, arena: Arena) {
        self.update_charge_to(books, arena, || arena.usage());
    }

    /// The same with the driver's answer from `usage`.
    pub fn update_charge_to(&self, books: Books<'_>, arena: Arena, usage: impl Fn() -> Option<Usage>) {
        let Some(open) = self.open(books, arena, usage) else { return };
        if !arena::update(&open) {
            // The next update asks again.
            self.stale.store(true, Relaxed);
        }
    }

    /// Opens an arena for a call. `None`: it is not registered.
    pub fn open<'a, U: Fn() -> Option<Usage>>(
        &'a self,
        books: Books<'a>,
        arena: Arena,
        usage: U,
    ) -> Option<Open<'a, U>> {
        Some(Open { arenas: self, books, registered: self.find(arena)?, usage })
    }

    fn charge(&self, books: Books<'_>, device: u8, kind: u8) {
        if let Some(_changing) = self.changing.lock(|| {}) {
            self.charge_locked(books, device, kind);
        }
    }

    /// Charges the sum of a kind. The caller holds `changing`.
    fn charge_locked(&self, books: Books<'_>, device: u8, kind: u8) {
        let of_kind = self.each().filter(|each| each.device == device && kind_of(each.arena) == kind);
        let leaving = self.leaving.get(usize::from(device)).filter(|_| kind == KIND_POOL);
        let leaving = leaving.map_or(0, |leaving| leaving.load(Acquire));
        let sum = of_kind.fold(leaving, |sum, each| sum.saturating_add(each.entry.book.charged()));
        if let Some(device) = books.container().device(device) {
            books.accounts.journals.set_charge(books.container(), device, kind, sum);
            books.accounts.due.add(device.index, due::ARENAS);
        }
    }

    /// Marks all charges as stale: memory was freed, and an arena may give it back sooner or later.
    #[inline]
    pub fn mark_stale(&self) {
        if self.any() {
            self.stale.store(true, Relaxed);
        }
    }

    /// Updates all charges if they are stale. Pools give memory back when the program synchronizes.
    #[inline]
    pub fn update_stale(&self, books: Books<'_>) {
        if self.stale.load(Relaxed) {
            self.update_all(books);
        }
    }

    /// The number of settings of a device's charges where each is what the driver says that the arena holds, and no call is under
    /// way. `None` where one is not.
    pub fn exact(&self, device: u8) -> Option<u64> {
        let leaving = self.leaving.get(usize::from(device)).map_or(0, |leaving| leaving.load(Acquire));
        let of_device = self.each().filter(|each| each.device == device && each.entry.is_known.load(Relaxed));
        of_device
            .map(|each| each.entry.book.exact(each.arena.usage()?.held))
            .try_fold(Some(0u64).filter(|_| leaving == 0)?, |sum, settings| Some(sum.wrapping_add(settings?)))
    }

    /// Updates the charges of a device.
    pub fn update_device(&self, books: Books<'_>, device: u8) {
        let of_device = self.each().filter(|each| each.device == device);
        of_device.for_each(|Registered { arena, .. }| self.update_charge(books, arena));
    }

    #[cold]
    fn update_all(&self, books: Books<'_>) {
        self.stale.store(false, Relaxed);
        for Registered { arena, .. } in self.each() {
            self.update_charge(books, arena);
            // It may still give back the memory that it holds and does not use.
            if arena.usage().is_some_and(|usage| usage.held > usage.used) {
                self.stale.store(true, Relaxed);
            }
        }
    }

    /// Trims all arenas of a device, as the driver does on a full card.
    #[cold]
    pub fn trim(&self, books: Books<'_>, device: u8) {
        for Registered { arena, device: of, .. } in self.each() {
            if of == device && arena.may_shrink() {
                arena.trim();
                if let Arena::Graphs(_) = arena {
                    self.trims.fetch_add(1, AcqRel);
                }
            }
            self.update_charge(books, arena);
        }
    }
}

#[cfg(test)]
mod tests;
