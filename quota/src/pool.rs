//! What is a pool charged, and what may an allocation from it take?
//!
//! A pool of the driver holds memory for later, and its allocations make it grow by amounts that only the driver knows. The
//! *charge* of a pool must never be below what it holds. What it holds is known only by asking the driver, and an answer
//! may be late: the thread that asked may be stopped, while others make the pool grow.
//!
//! So an allocation *reserves* the most by which it can make the pool grow before it calls the driver, and gives that back
//! when the charge contains its growth. All threads together keep this true at every instant:
//!
//! > the pool holds at most its charge and the reservations of the calls that have not settled
//!
//! A call settles with an answer that it asked for after its call. Two cases:
//!
//! - Nobody has settled since it asked. Then all growth that the answer may lack belongs to calls that still have their
//!   reservations, so the answer becomes the charge. The charge may fall here.
//! - Somebody has. The answer may lack growth whose reservation is gone. It contains the growth of this call all the same, so
//!   the charge becomes the larger of the two.
//!
//! A call may also need no growth, where the pool has memory that no allocation uses. It then takes a *promise* of these
//! bytes, so that two threads do not count on the same ones. The charge contains them already, and keeps them until the call
//! has settled.
//!
//! The driver makes a pool grow by blocks, whose size it does not say. [`PoolBooks::unit`] is the least size that explains what
//! was seen.
//!
//! A lock of the caller's guards each method; the caller asks the driver outside it.

use crate::sync::{AtomicU64, Ordering::Relaxed};

/// The largest block of a pool that is believed.
const LARGEST_UNIT: u64 = 64 << 20;

/// The books of one pool. All-zero bytes: it holds nothing.
#[derive(Default)]
pub struct PoolBooks {
    /// Bytes that the pool is charged.
    charged: AtomicU64,
    /// Bytes that calls which have not settled may make it grow.
    reserved: AtomicU64,
    /// Bytes of the pool that calls which have not settled may use.
    promised: AtomicU64,
    /// How often the charge was set.
    settled: AtomicU64,
    /// The block by which the pool grows, as far as was seen; 0: nothing was seen.
    unit: AtomicU64,
}

/// The moment before the driver is asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Asked(u64);

/// What an allocation may take.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Part {
    /// It may make the pool grow by these bytes.
    Growth(u64),
    /// It uses these bytes of the pool's.
    Unused(u64),
}

impl PoolBooks {
    /// Forgets everything: the pool is a new one.
    pub fn clear(&self) {
        for word in [&self.charged, &self.reserved, &self.promised, &self.settled, &self.unit] {
            word.store(0, Relaxed);
        }
    }

    /// The charge, bytes.
    #[must_use]
    pub fn charged(&self) -> u64 {
        self.charged.load(Relaxed)
    }

    /// Bytes that are promised to calls under way.
    #[must_use]
    pub fn promised(&self) -> u64 {
        self.promised.load(Relaxed)
    }

    /// The block by which the pool grows, as far as is known; at least `least`.
    #[must_use]
    pub fn unit(&self, least: u64) -> u64 {
        self.unit.load(Relaxed).max(least).max(1)
    }

    /// The driver will be asked now.
    #[must_use]
    pub fn ask(&self) -> Asked {
        Asked(self.settled.load(Relaxed))
    }

    /// A call that has reserved `bytes` beforehand will be made now.
    pub fn reserve(&self, bytes: u64) {
        self.reserved.store(self.reserved.load(Relaxed).saturating_add(bytes), Relaxed);
    }

    /// Promises `bytes` of the pool's memory to a call. `unused`: what the driver's answer to the question of `asked` leaves
    /// unused. False where that does not suffice, or somebody has settled since.
    #[must_use]
    pub fn promise(&self, asked: Asked, unused: u64, bytes: u64) -> bool {
        let promised = self.promised.load(Relaxed);
        let fits = promised.checked_add(bytes).is_some_and(|sum| sum <= unused);
        let may = fits && asked == self.ask();
        if may {
            self.promised.store(promised.saturating_add(bytes), Relaxed);
        }
        may
    }

    /// By how much the pool has grown beyond the charge and all reservations, when it holds `held`.
    #[must_use]
    pub fn unexpected(&self, held: u64) -> u64 {
        held.saturating_sub(self.charged.load(Relaxed)).saturating_sub(self.reserved.load(Relaxed))
    }

    /// A call is over: the driver has answered the question of `asked` that the pool holds `held`. `bytes`: its request, if
    /// it was successful. Answers the new charge, after which the caller gives its reservation back.
    pub fn settle(&self, asked: Asked, held: u64, part: Part, bytes: Option<u64>) -> u64 {
        let is_current = asked == self.ask();
        let before = self.charged.load(Relaxed);
        match part {
            Part::Growth(growth) => {
                if let Some(bytes) = bytes.filter(|_| is_current && growth == self.reserved.load(Relaxed)) {
                    self.learn(held.saturating_sub(before), bytes);
                }
                self.reserved.store(self.reserved.load(Relaxed).saturating_sub(growth), Relaxed);
            }
            Part::Unused(bytes) => {
                self.promised.store(self.promised.load(Relaxed).saturating_sub(bytes), Relaxed);
            }
        }
        self.charge(if is_current { self.with_promises(held) } else { before.max(held) })
    }

    /// A call has failed, or the driver does not say what the pool holds: the charge stays.
    pub fn forget(&self, part: Part) {
        let (word, bytes) = match part {
            Part::Growth(bytes) => (&self.reserved, bytes),
            Part::Unused(bytes) => (&self.promised, bytes),
        };
        word.store(word.load(Relaxed).saturating_sub(bytes), Relaxed);
    }

    /// The driver has answered a question that belongs to no call. Answers the new charge; `None` where somebody has settled
    /// since, so that the answer may be old.
    #[must_use]
    pub fn update(&self, asked: Asked, held: u64) -> Option<u64> {
        (asked == self.ask()).then(|| self.charge(self.with_promises(held)))
    }

    /// The charge of a pool that holds `held`. A trim may take bytes that are promised, and then the pool grows by them again.
    fn with_promises(&self, held: u64) -> u64 {
        let with = held.saturating_add(self.promised.load(Relaxed));
        held.max(self.charged.load(Relaxed).min(with))
    }

    fn charge(&self, bytes: u64) -> u64 {
        self.charged.store(bytes, Relaxed);
        self.settled.store(self.settled.load(Relaxed).wrapping_add(1), Relaxed);
        bytes
    }

    /// The pool has grown by `growth` for one request of `bytes`: blocks of half the size would have grown it by less.
    fn learn(&self, growth: u64, bytes: u64) {
        let Some(more) = growth.checked_sub(bytes) else { return };
        let unit = more.saturating_add(1).checked_next_power_of_two().unwrap_or(u64::MAX);
        if unit <= LARGEST_UNIT && unit > self.unit.load(Relaxed) {
            self.unit.store(unit, Relaxed);
        }
    }
}

/// `bytes` in whole blocks of `unit` bytes.
#[must_use]
pub fn in_units(bytes: u64, unit: u64) -> u64 {
    bytes.checked_next_multiple_of(unit.max(1)).unwrap_or(u64::MAX)
}

#[cfg(test)]
#[path = "pool/tests.rs"]
mod tests;
