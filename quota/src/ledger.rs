//! May these bytes be had, and who holds them?
//!
//! A container's use of a device is one 64-bit word, the *total*. A reservation is one compare-and-swap on it, so
//! the check against the cap and the reservation are the same step and no number of racing threads can pass the
//! cap by a byte. The difficulty is SIGKILL: a process may die between changing the total and writing down in its
//! own record that it did. Whoever cleans up must know which of the two happened.
//!
//! # The protocol
//! Every operation runs in a *lane*, which one thread uses at a time (its process sees to that). A lane serves one
//! device and has three words:
//!
//! | word | meaning | written by |
//! |---|---|---|
//! | `amount` | bytes of the operation under way, signed | owner |
//! | `operation` | its sequence (63 bits) and whether it is known to be applied (1 bit) | owner; anybody sets the bit |
//! | `held` | bytes held through the lane (48 bits), low 16 bits of the last sequence folded in | owner |
//!
//! The total holds {bytes, lane that changed it last, low 3 bits of that lane's sequence}.
//!
//! 1. The owner writes `amount`, then `operation` = (s, not applied).
//! 2. It reads the total. If another lane changed it last, it first marks that lane's operation applied. Then it
//!    swaps in {bytes + amount, its own lane, s}, or starts over if the total has changed meanwhile.
//! 3. It folds the amount into `held`, together with s, in one store.
//!
//! If the owner dies, s was applied if and only if the total still names (lane, s), or somebody marked it: nobody
//! overwrites the total without marking first. And s was folded if and only if `held` says s. So [`recover`] can
//! always finish what the dead process began, and give its bytes back with ordinary operations *in the dead
//! process's own lane*. The cleaner itself may die at any instruction; the next one starts over.
//!
//! Why 3 bits of sequence are enough: operations of a lane are sequential, and each applied one writes the total.
//! A marker reads the total, then the lane's `operation`, then the total again. Were the pending operation s' one
//! that agrees with s in 3 bits but is later, then s'-1 had been applied before, so the total, naming this lane in
//! the second reading, names an operation of at least s'-1 that agrees with s': s' itself or one later, and in both
//! cases s' is applied. A stale mark fails, because it compares the whole 64-bit word. All this holds among operations on
//! one total, so a marker also makes sure, after it has read `operation`, that the lane still serves this device, and
//! an owner begins no operation under a number that the total names already: it did so on another total, or the total
//! is as new as the lane. Nobody but the owner can make a total name the lane, so it is enough to look once.
//!
//! An operation that is refused leaves its sequence unapplied and unused; the next one takes the same number. One that
//! was not applied when its owner died is folded as nothing.

use crate::sync::{AtomicU64, Ordering};

/// Bytes that a total can count: 64 TiB.
pub const BYTES_BITS: u32 = 46;
const LANE_BITS: u32 = 15;
const TURN_BITS: u32 = 64 - BYTES_BITS - LANE_BITS;
const FOLD_BITS: u32 = 16;
const APPLIED: u64 = 1;

/// Lanes that a book can have.
pub const LANES: u32 = 1 << LANE_BITS;

const fn mask(bits: u32) -> u64 {
    (1 << bits) - 1
}

/// The total as a value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Total(u64);

impl Total {
    fn new(bytes: u64, lane: u32, sequence: u64) -> Self {
        let turn = sequence & mask(TURN_BITS);
        Self(bytes & mask(BYTES_BITS) | u64::from(lane) << BYTES_BITS | turn << (BYTES_BITS + LANE_BITS))
    }

    fn bytes(self) -> u64 {
        self.0 & mask(BYTES_BITS)
    }

    fn lane(self) -> u32 {
        (self.0 >> BYTES_BITS & mask(LANE_BITS)) as u32
    }

    /// Whether operation `sequence` of `lane` was the last to change the total.
    fn names(self, lane: u32, sequence: u64) -> bool {
        self.lane() == lane && self.0 >> (BYTES_BITS + LANE_BITS) == sequence & mask(TURN_BITS)
    }
}

/// The words of one lane.
#[derive(Clone, Copy)]
pub struct Lane<'b> {
    /// Bytes of the operation under way, two's complement.
    pub amount: &'b AtomicU64,
    /// Sequence << 1 | applied.
    pub operation: &'b AtomicU64,
    /// Bytes << 16 | low bits of the last folded sequence.
    pub held: &'b AtomicU64,
    /// Bytes reserved for a driver call that has not yet returned; written by the owner only.
    pub reserving: &'b AtomicU64,
}

/// Where the lanes of a container are.
pub trait Book {
    /// Lane `index`, if there is one. Every lane that a total may name must be there.
    fn lane(&self, index: u32) -> Option<Lane<'_>>;

    /// Whether lane `index` now serves the device whose total is at hand. A settled lane may go on to another device while
    /// this one's total still names it: an operation that is under way there says nothing about here.
    fn serves(&self, index: u32) -> bool;
}

/// Why bytes cannot be had.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refused {
    /// The cap would be passed; `used` bytes were in use at that moment.
    Cap {
        /// Bytes in use.
        used: u64,
    },
    /// The book has no such lane, or the number of bytes is beyond all counting.
    Broken,
}

/// A cell under way: what a crash test may interrupt. In the product nothing does, and this compiles to nothing.
pub trait Fate {
    /// Called between any two steps that other processes can tell apart; `false` stops right there, as SIGKILL
    /// would.
    fn lives(&self) -> bool;
}

/// Nothing interrupts.
pub struct Lives;

impl Fate for Lives {
    #[inline(always)]
    fn lives(&self) -> bool {
        true
    }
}

/// Bytes in use by the container.
#[inline]
pub fn used(total: &AtomicU64) -> u64 {
    Total(total.load(Ordering::Acquire)).bytes()
}

/// Bytes held through a lane.
#[inline]
pub fn held(lane: &Lane) -> u64 {
    lane.held.load(Ordering::Acquire) >> FOLD_BITS
}

/// What a total may come to for memory that lies on the device: within the cap, and within `physical` but for what lies on
/// the host, which `spilled` counts. An allocation is counted in the total first and as spilled then, a free the other
/// way round, and who asks has read the total before ([`take_below`]): so what lies on the device may look larger than it
/// is, never smaller.
#[inline]
pub fn ceiling(cap: Option<u64>, physical: u64, spilled: &AtomicU64) -> u64 {
    let on_device = physical.saturating_add(used(spilled));
    cap.map_or(on_device, |cap| cap.min(on_device))
}

/// Takes `bytes` through lane `index`, if the total then stays within `cap`. Returns the total afterwards.
#[inline]
pub fn take(
    book: &impl Book,
    total: &AtomicU64,
    index: u32,
    bytes: u64,
    cap: Option<u64>,
) -> Result<u64, Refused> {
    take_below(book, total, index, bytes, || cap)
}

/// The same where the cap itself moves: it is asked for after the total was read, and holds for that total.
#[inline]
pub fn take_below(
    book: &impl Book,
    total: &AtomicU64,
    index: u32,
    bytes: u64,
    cap: impl Fn() -> Option<u64>,
) -> Result<u64, Refused> {
    let amount = i64::try_from(bytes).map_err(|_| Refused::Broken)?;
    apply(book, total, index, amount, cap, &Lives)
}

/// Gives `bytes` back that were taken through lane `index`; at most what the lane holds. Returns the total
/// afterwards.
#[inline]
pub fn give(book: &impl Book, total: &AtomicU64, index: u32, bytes: u64) -> Result<u64, Refused> {
    let lane = book.lane(index).ok_or(Refused::Broken)?;
    let bytes = bytes.min(held(&lane));
    let amount = i64::try_from(bytes).map_err(|_| Refused::Broken)?;
    apply(book, total, index, amount.wrapping_neg(), || None, &Lives)
}

#[inline]
fn apply(
    book: &impl Book,
    total: &AtomicU64,
    index: u32,
    amount: i64,
    cap: impl Fn() -> Option<u64>,
    fate: &impl Fate,
) -> Result<u64, Refused> {
    let lane = book.lane(index).ok_or(Refused::Broken)?;
    let old_held = lane.held.load(Ordering::Relaxed);
    let old_sequence = lane.operation.load(Ordering::Relaxed) >> 1;
    let folded = is_folded(old_held, old_sequence);
    let mut sequence = if folded { old_sequence.wrapping_add(1) } else { old_sequence };
    let mut seen = total.load(Ordering::Acquire);
    if Total(seen).names(index, sequence) {
        // By chance: a fresh total names lane 0, an old one the lane from when it served this device before.
        sequence = sequence.wrapping_add(1);
    }
    lane.amount.store(amount as u64, Ordering::Relaxed);
    if !fate.lives() {
        return Err(Refused::Broken);
    }
    lane.operation.store(sequence << 1, Ordering::Release);
    let after = loop {
        if !fate.lives() {
            return Err(Refused::Broken);
        }
        let now = Total(seen);
        let after = if amount >= 0 {
            let cap = cap().unwrap_or(mask(BYTES_BITS)).min(mask(BYTES_BITS));
            now.bytes().checked_add(amount as u64).filter(|after| *after <= cap)
        } else {
            Some(now.bytes().saturating_sub(amount.unsigned_abs()))
        };
        let Some(after) = after else { return Err(Refused::Cap { used: now.bytes() }) };
        if now.lane() != index && !mark(book, total, now, fate) {
            return Err(Refused::Broken);
        }
        let next = Total::new(after, index, sequence).0;
        match total.compare_exchange(seen, next, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => break after,
            Err(current) => seen = current,
        }
    };
    if !fate.lives() {
        return Err(Refused::Broken);
    }
    lane.held.store(fold(old_held, amount, sequence), Ordering::Release);
    Ok(after)
}

fn is_folded(held: u64, sequence: u64) -> bool {
    held & mask(FOLD_BITS) == sequence & mask(FOLD_BITS)
}

fn fold(held: u64, amount: i64, sequence: u64) -> u64 {
    let bytes = (held >> FOLD_BITS).saturating_add_signed(amount);
    bytes << FOLD_BITS | sequence & mask(FOLD_BITS)
}

/// Marks the operation that `now` names as applied, so that `now` may be overwritten. Returns false only when
/// `fate` ended it.
fn mark(book: &impl Book, total: &AtomicU64, now: Total, fate: &impl Fate) -> bool {
    let Some(lane) = book.lane(now.lane()) else { return true };
    let operation = lane.operation.load(Ordering::Acquire);
    if operation == 0 || operation & APPLIED != 0 || !now.names(now.lane(), operation >> 1) {
        // Never used, marked already, or folded by its owner, who has gone on.
        return true;
    }
    if !book.serves(now.lane()) || total.load(Ordering::Acquire) != now.0 {
        // It has settled what it did here, or it is too late to overwrite this one anyway.
        return true;
    }
    let marked = operation | APPLIED;
    // Failure means that the owner went on, having folded, or that somebody else marked it.
    let _ = lane.operation.compare_exchange(operation, marked, Ordering::AcqRel, Ordering::Relaxed);
    fate.lives()
}

/// Finishes the operation that a dead owner left in lane `index`. The caller has the sole right to the lane.
fn recover(book: &impl Book, total: &AtomicU64, index: u32) -> Result<(), Refused> {
    let lane = book.lane(index).ok_or(Refused::Broken)?;
    let held = lane.held.load(Ordering::Acquire);
    let sequence = lane.operation.load(Ordering::Acquire) >> 1;
    if is_folded(held, sequence) {
        return Ok(());
    }
    // The total first: whoever overwrites it has marked the operation before.
    let named = Total(total.load(Ordering::Acquire)).names(index, sequence);
    let marked = lane.operation.load(Ordering::Acquire) == sequence << 1 | APPLIED;
    let amount = if named || marked { lane.amount.load(Ordering::Relaxed) as i64 } else { 0 };
    // Folded in any case: the next owner may serve another device, whose total may name this number by chance.
    lane.held.store(fold(held, amount, sequence), Ordering::Release);
    Ok(())
}

/// Gives back everything that a dead owner held through lane `index`; returns how many bytes. The caller has the
/// sole right to the lane, and may itself die here and be followed by another.
pub fn settle_dead(book: &impl Book, total: &AtomicU64, index: u32) -> Result<u64, Refused> {
    settle(book, total, index, &Lives)
}

fn settle(book: &impl Book, total: &AtomicU64, index: u32, fate: &impl Fate) -> Result<u64, Refused> {
    recover(book, total, index)?;
    let lane = book.lane(index).ok_or(Refused::Broken)?;
    let bytes = held(&lane);
    if bytes != 0 {
        let amount = i64::try_from(bytes).map_err(|_| Refused::Broken)?;
        apply(book, total, index, amount.wrapping_neg(), || None, fate)?;
    }
    lane.reserving.store(0, Ordering::Release);
    Ok(bytes)
}

#[cfg(test)]
#[path = "ledger/tests.rs"]
mod tests;
