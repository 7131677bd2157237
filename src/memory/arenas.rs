//! What arenas are charged: stream-ordered pools and the memory of graphs, which the driver keeps for later.
//!
//! A pool holds more than its allocations ask for: what was freed stays with it until it is trimmed. So an arena is
//! charged for what the driver says that it holds, in use or not, and an allocation from it is admitted by how much it
//! may make the arena grow (`reserve`). A card as small as the cap would take back what arenas do not use before it refuses
//! a request; so does this file ([`Arenas::trim`]).
//!
//! Pools are not clamped by `CUmemPoolProps::maxSize`: the cap may be raised while the pool lives.

use super::books::Books;
use crate::driver::cuda::arenas::{Arena, Usage};
use crate::lock::Lock;
use core::sync::atomic::{
    AtomicBool, AtomicU8, AtomicU64, Ordering::AcqRel, Ordering::Acquire, Ordering::Relaxed,
    Ordering::Release,
};
use gpuquota_region::layout::{KIND_GRAPH, KIND_POOL};

/// Arenas that this process can keep books on.
const ARENAS: usize = 64;

/// All arenas of this process. All-zero bytes: none.
pub struct Arenas {
    /// Names and charges change under it.
    settling: Lock,
    /// Whether there is any.
    any: AtomicBool,
    /// Whether any of them is a device's graphs.
    graphs: AtomicBool,
    /// How often graphs were told to give memory back.
    trims: AtomicU64,
    /// Something was freed since charges were last brought up to date.
    stale: AtomicBool,
    /// [`Arena::word`]; 0: a free place.
    words: [AtomicU64; ARENAS],
    devices: [AtomicU8; ARENAS],
    charged: [AtomicU64; ARENAS],
}

/// An arena that is known.
struct Known<'a> {
    arena: Arena,
    device: u8,
    /// Bytes that it was last found to hold.
    charged: &'a AtomicU64,
}

fn kind_of(arena: Arena) -> u8 {
    if matches!(arena, Arena::Pool(_)) { KIND_POOL } else { KIND_GRAPH }
}

impl Arenas {
    fn each(&self) -> impl Iterator<Item = Known<'_>> {
        let words = self.words.iter().zip(&self.devices).zip(&self.charged);
        words.filter_map(|((word, device), charged)| {
            Some(Known { arena: Arena::of(word.load(Acquire))?, device: device.load(Relaxed), charged })
        })
    }

    fn find(&self, arena: Arena) -> Option<Known<'_>> {
        self.each().find(|known| known.arena == arena)
    }

    /// The device of an arena that is known.
    pub fn device_of(&self, arena: Arena) -> Option<u8> {
        self.find(arena).map(|known| known.device)
    }

    /// Makes an arena of a device known. False when there are too many.
    pub fn know(&self, arena: Arena, device: u8) -> bool {
        let _settling = self.settling.lock();
        if self.find(arena).is_some() {
            return true;
        }
        let Some(at) = self.words.iter().position(|word| word.load(Relaxed) == 0) else { return false };
        let places = self.words.get(at).zip(self.devices.get(at)).zip(self.charged.get(at));
        if let Some(((word, of_device), charged)) = places {
            of_device.store(device, Relaxed);
            charged.store(0, Relaxed);
            word.store(arena.word(), Release);
            self.graphs.fetch_or(matches!(arena, Arena::Graphs(_)), Release);
            self.any.store(true, Release);
        }
        true
    }

    /// Whether there is any arena.
    #[inline]
    pub fn any(&self) -> bool {
        self.any.load(Relaxed)
    }

    /// Whether any graph of this process allocates.
    #[inline]
    pub fn any_graphs(&self) -> bool {
        self.graphs.load(Relaxed)
    }

    /// A number that changes when graphs may have lost the memory that their last launch mapped.
    pub fn graph_trims(&self) -> u64 {
        self.trims.load(Acquire)
    }

    /// A device's graphs were told to give back what they do not use.
    pub fn graphs_were_trimmed(&self, books: Books<'_>, ordinal: u8) {
        self.trims.fetch_add(1, AcqRel);
        self.update_charge(books, Arena::Graphs(ordinal));
    }

    /// An arena is gone, and is charged for nothing any more.
    pub fn forget(&self, books: Books<'_>, arena: Arena) {
        let settling = self.settling.lock();
        let word = self.words.iter().find(|word| word.load(Relaxed) == arena.word());
        let device = self.device_of(arena);
        if let Some(word) = word {
            word.store(0, Release);
        }
        drop(settling);
        if let Some(device) = device {
            self.charge(books, device, kind_of(arena));
        }
    }

    /// Bytes that an arena is charged.
    pub fn charge_of(&self, arena: Arena) -> u64 {
        self.find(arena).map_or(0, |known| known.charged.load(Relaxed))
    }

    /// Charges an arena for what the driver says that it holds.
    pub fn update_charge(&self, books: Books<'_>, arena: Arena) {
        let Some(Known { device, charged, .. }) = self.find(arena) else { return };
        // Threads may pass each other between asking and writing down, so each looks again after it has written.
        for _ in 0..8 {
            let Some(Usage { held, .. }) = arena.usage() else { return };
            if charged.swap(held, AcqRel) == held {
                break;
            }
            self.charge(books, device, kind_of(arena));
        }
    }

    fn charge(&self, books: Books<'_>, device: u8, kind: u8) {
        let _settling = self.settling.lock();
        let of_kind = self.each().filter(|known| known.device == device && kind_of(known.arena) == kind);
        let sum = of_kind.fold(0u64, |sum, known| sum.saturating_add(known.charged.load(Acquire)));
        if let Some(device) = books.container().device(device) {
            books.accounts.journals.set_charge(books.container(), device, kind, sum);
        }
    }

    /// Something was freed that an arena may give back sooner or later.
    #[inline]
    pub fn mark_stale(&self) {
        if self.any() {
            self.stale.store(true, Relaxed);
        }
    }

    /// Brings all charges up to date, if anything was freed since that was last done. Synchronizing is when a pool gives back.
    #[inline]
    pub fn update_stale(&self, books: Books<'_>) {
        if self.stale.load(Relaxed) {
            self.update_all(books);
        }
    }

    #[cold]
    fn update_all(&self, books: Books<'_>) {
        self.stale.store(false, Relaxed);
        for Known { arena, .. } in self.each() {
            self.update_charge(books, arena);
            // As long as it holds what it does not use it may still give that back.
            if arena.usage().is_some_and(|usage| usage.held > usage.used) {
                self.stale.store(true, Relaxed);
            }
        }
    }

    /// Takes back what the arenas of a device hold and do not use, as the driver does on a card that is full.
    #[cold]
    pub fn trim(&self, books: Books<'_>, device: u8) {
        for Known { arena, device: of, .. } in self.each() {
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
