//! Bytes that the driver keeps for later: stream-ordered pools and the memory of graphs.
//!
//! A pool holds more than its allocations ask for: what was freed stays with it until it is trimmed. So a keeper is
//! charged for what the driver says that it holds, in use or not, and an allocation from it is admitted by how much it
//! may make the keeper grow. A card as small as the cap would take back what keepers do not use before it refuses
//! anybody; so does this room ([`Process::squeeze`]).
//!
//! Pools are not clamped by `CUmemPoolProps::maxSize`: the cap may be raised while the pool lives.

use crate::account::Verdict;
use crate::hook::cuda;
use crate::lock::Lock;
use crate::process::Process;
use core::sync::atomic::{
    AtomicBool, AtomicU8, AtomicU64, Ordering::AcqRel, Ordering::Acquire, Ordering::Relaxed,
    Ordering::Release,
};
use gpuquota_region::layout::{KIND_GRAPH, KIND_POOL};

/// Pools and devices' graphs that this process can keep books on.
const KEEPERS: usize = 64;
/// A keeper grows in blocks. What it takes beyond a request, up to so much, counts as overhead: it may lift use above
/// the cap, and then nothing more is admitted.
const GROWTH: u64 = 64 << 20;

/// What keeps bytes, as the driver names it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Name {
    /// A pool, by handle.
    Pool(u64),
    /// The graphs of a device, by its ordinal.
    Graphs(u8),
}

impl Name {
    /// As one word that is not 0: handles are pointers, so never odd.
    fn word(self) -> u64 {
        match self {
            Self::Pool(handle) => handle,
            Self::Graphs(ordinal) => u64::from(ordinal) << 1 | 1,
        }
    }

    fn of(word: u64) -> Option<Self> {
        match word {
            0 => None,
            word if word & 1 == 1 => Some(Self::Graphs((word >> 1) as u8)),
            handle => Some(Self::Pool(handle)),
        }
    }

    fn kind(self) -> u8 {
        if matches!(self, Self::Pool(_)) { KIND_POOL } else { KIND_GRAPH }
    }

    /// Bytes held and, of these, in use, as the driver has them.
    fn ask(self) -> Option<(u64, u64)> {
        match self {
            Self::Pool(handle) => cuda::pool::held_and_used(handle),
            Self::Graphs(ordinal) => cuda::graph::held_and_used(i32::from(ordinal)),
        }
    }

    /// Whether a trim may give anything back. Memory of graphs that was freed stays mapped for their next launch, and a
    /// driver counts as used what is mapped.
    fn may_spare(self) -> bool {
        self.ask().is_none_or(|(held, used)| match self {
            Self::Pool(_) => held > used,
            Self::Graphs(_) => held > 0,
        })
    }
}

/// All keepers of this process. All-zero bytes: none.
pub struct Kept {
    /// Names and charges change under it.
    settling: Lock,
    /// Whether there is any keeper.
    any: AtomicBool,
    /// Whether any of them is a device's graphs.
    graphs: AtomicBool,
    /// How often graphs were told to give memory back.
    trims: AtomicU64,
    /// Something was freed since keepers were last settled.
    stale: AtomicBool,
    names: [AtomicU64; KEEPERS],
    devices: [AtomicU8; KEEPERS],
    charged: [AtomicU64; KEEPERS],
}

impl Kept {
    fn each(&self) -> impl Iterator<Item = (Name, u8, &AtomicU64)> {
        let words = self.names.iter().zip(&self.devices).zip(&self.charged);
        words.filter_map(|((name, device), charged)| {
            Some((Name::of(name.load(Acquire))?, device.load(Relaxed), charged))
        })
    }
}

impl Process {
    /// The device of a keeper that is known.
    pub fn keeper_device(&self, name: Name) -> Option<u8> {
        self.kept.each().find(|(known, ..)| *known == name).map(|(_, device, _)| device)
    }

    /// Makes a keeper of a device known. False when there are too many.
    pub fn know_keeper(&self, name: Name, device: u8) -> bool {
        let _settling = self.kept.settling.lock();
        if self.keeper_device(name).is_some() {
            return true;
        }
        let Some(at) = self.kept.names.iter().position(|word| word.load(Relaxed) == 0) else { return false };
        let places = self.kept.names.get(at).zip(self.kept.devices.get(at)).zip(self.kept.charged.get(at));
        if let Some(((place, of_device), charged)) = places {
            of_device.store(device, Relaxed);
            charged.store(0, Relaxed);
            place.store(name.word(), Release);
            self.kept.graphs.fetch_or(matches!(name, Name::Graphs(_)), Release);
            self.kept.any.store(true, Release);
        }
        true
    }

    /// Whether there is any keeper.
    #[inline]
    pub fn has_keepers(&self) -> bool {
        self.kept.any.load(Relaxed)
    }

    /// Whether any graph of this process allocates.
    #[inline]
    pub fn has_graph_memory(&self) -> bool {
        self.kept.graphs.load(Relaxed)
    }

    /// A number that changes when graphs may have lost the memory that their last launch mapped.
    pub fn graph_memory_since(&self) -> u64 {
        self.kept.trims.load(Acquire)
    }

    /// A device's graphs were told to give back what they do not use.
    pub fn graphs_were_trimmed(&self, ordinal: u8) {
        self.kept.trims.fetch_add(1, AcqRel);
        self.settle_keeper(Name::Graphs(ordinal));
    }

    /// A keeper is gone, and is charged for nothing any more.
    pub fn forget_keeper(&self, name: Name) {
        let settling = self.kept.settling.lock();
        let word = self.kept.names.iter().find(|word| word.load(Relaxed) == name.word());
        let device = self.keeper_device(name);
        if let Some(word) = word {
            word.store(0, Release);
        }
        drop(settling);
        if let Some(device) = device {
            self.charge_keepers(device, name.kind());
        }
    }

    /// A call that makes a keeper hold `bytes` more in use. `undo` gives it back where the keeper grew by more than may
    /// be had; a call that cannot be undone has none. `None`, and nothing was done, where the driver does not tell what
    /// the keeper holds.
    pub fn take_from_keeper<R: Verdict>(
        &self,
        name: Name,
        device: u8,
        bytes: u64,
        call: impl Fn() -> R,
        undo: Option<&dyn Fn()>,
    ) -> Option<R> {
        let (held, used) = name.ask()?;
        let growth = bytes.saturating_sub(held.saturating_sub(used));
        let reservation = match growth {
            0 => None,
            growth => match self.reserve(device, growth) {
                Some(reservation) => Some(reservation),
                None => return Some(R::OUT_OF_MEMORY),
            },
        };
        let charged = self.charge_of(name);
        let answer = self.call_with_patience(device, call);
        let held = name.ask().map_or(charged, |(held, _)| held);
        let more = held.saturating_sub(charged).saturating_sub(growth);
        // What the keeper grew by beyond what was expected: by fragmentation, or because its blocks are large.
        let unexpected = if more > GROWTH { self.reserve(device, more) } else { None };
        let too_much = answer.is_success() && more > GROWTH && unexpected.is_none();
        if too_much && let Some(undo) = undo {
            undo();
        }
        if held != charged {
            self.settle_keeper(name);
        }
        for reservation in reservation.into_iter().chain(unexpected) {
            self.give_back_reservation(device, reservation);
        }
        Some(if too_much && undo.is_some() { R::OUT_OF_MEMORY } else { answer })
    }

    fn charge_of(&self, name: Name) -> u64 {
        self.kept.each().find(|(known, ..)| *known == name).map_or(0, |(_, _, charged)| charged.load(Relaxed))
    }

    /// Charges a keeper for what the driver says that it holds.
    pub fn settle_keeper(&self, name: Name) {
        let Some((device, charged)) =
            self.kept.each().find(|(known, ..)| *known == name).map(|(_, device, charged)| (device, charged))
        else {
            return;
        };
        // Threads may pass each other between asking and writing down: whoever wrote looks again.
        for _ in 0..8 {
            let Some((held, _)) = name.ask() else { return };
            if charged.swap(held, AcqRel) == held {
                break;
            }
            self.charge_keepers(device, name.kind());
        }
    }

    fn charge_keepers(&self, device: u8, kind: u8) {
        let _settling = self.kept.settling.lock();
        let of_kind = self.kept.each().filter(|(name, of, _)| *of == device && name.kind() == kind);
        let sum = of_kind.fold(0u64, |sum, (_, _, charged)| sum.saturating_add(charged.load(Acquire)));
        self.set_charge(device, kind, sum);
    }

    /// Something was freed that a keeper may give back sooner or later.
    #[inline]
    pub fn keepers_are_stale(&self) {
        if self.has_keepers() {
            self.kept.stale.store(true, Relaxed);
        }
    }

    /// Settles all keepers, if anything was freed since that was last done. Synchronizing is when a pool gives back.
    #[inline]
    pub fn settle_stale_keepers(&self) {
        if self.kept.stale.load(Relaxed) {
            self.settle_keepers();
        }
    }

    #[cold]
    fn settle_keepers(&self) {
        self.kept.stale.store(false, Relaxed);
        for (name, ..) in self.kept.each() {
            self.settle_keeper(name);
            // As long as it holds what it does not use it may still give that back.
            if name.ask().is_some_and(|(held, used)| held > used) {
                self.kept.stale.store(true, Relaxed);
            }
        }
    }

    /// Takes back what the keepers of a device hold and do not use, as the driver does on a card that is full. True if
    /// that gave anything.
    #[cold]
    pub fn squeeze(&self, device: u8) -> bool {
        if !self.has_keepers() {
            return false;
        }
        let before = self.other_bytes(device, KIND_POOL).wrapping_add(self.other_bytes(device, KIND_GRAPH));
        for (name, of, _) in self.kept.each() {
            if of == device && name.may_spare() {
                match name {
                    Name::Pool(handle) => cuda::pool::trim(handle),
                    Name::Graphs(ordinal) => {
                        cuda::graph::trim(i32::from(ordinal));
                        self.graphs_were_trimmed(ordinal);
                    }
                }
            }
            self.settle_keeper(name);
        }
        self.other_bytes(device, KIND_POOL).wrapping_add(self.other_bytes(device, KIND_GRAPH)) < before
    }
}
