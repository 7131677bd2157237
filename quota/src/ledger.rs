//! May these bytes be had, and which journal holds them?
//!
//! A container's use of a device is one 64-bit word, the *total*. A reservation is one compare-and-swap on it, so
//! the check against the cap and the reservation are the same step and no number of racing threads can pass the
//! cap by a byte. The difficulty is SIGKILL: a process may die between changing the total and writing down in its
//! own record that it did. The process that cleans up must know which of the two happened.
//!
//! # The protocol
//! Every operation runs through a *journal*, which one thread uses at a time (its process sees to that). A journal serves
//! one device and has three words:
//!
//! | word | meaning | written by |
//! |---|---|---|
//! | `amount` | bytes of the operation under way, signed | owner |
//! | `operation` | its sequence number (63 bits) and whether it is known to be applied (1 bit) | owner; any process sets the bit |
//! | `held` | bytes held through the journal (48 bits), low 16 bits of the last sequence number folded in | owner |
//!
//! The total holds {bytes, journal that changed it last, low 3 bits of that operation's sequence number}.
//!
//! 1. The owner writes `amount`, then `operation` = (s, not applied).
//! 2. The owner reads the total. If another journal changed it last, the owner first marks that journal's operation as
//!    applied. Then it swaps in {bytes + amount, its own journal, s}, or starts over if the total has changed meanwhile.
//! 3. The owner folds the amount into `held`, together with s, in one store.
//!
//! If the owner dies, s was applied if and only if the total still names (journal, s), or a process marked it: nobody
//! overwrites the total without marking first. And s was folded if and only if `held` contains s. So [`recover`] can
//! always finish what the dead process began, and give its bytes back with ordinary operations *in the dead
//! process's own journal*. The cleaner itself may die at any instruction; the next one starts over.
//!
//! Why 3 bits of the sequence number are enough: operations of a journal are sequential, and each applied one writes the
//! total. A marker reads the total, then the journal's `operation`, then the total again. Were the pending operation s' one
//! that agrees with s in 3 bits but is later, then s'-1 had been applied before, so the total, naming this journal in
//! the second reading, names an operation of at least s'-1 that agrees with s': s' itself or one later, and in both
//! cases s' is applied. A stale mark fails, because it compares the whole 64-bit word.
//!
//! All this holds among operations on one total, but a journal may serve several devices, one after the other. Its sequence
//! numbers continue when it is reassigned. So a marker also checks, after it has read `operation`, that the journal still
//! serves this device. An owner skips a sequence number that the total already shows: the journal wrote it when it served
//! this device before, or the total is as new as the journal. Only the owner can make a total name its journal, so it is
//! enough to check once.
//!
//! An operation that is refused leaves its sequence number unapplied and unused; the next one takes the same number. If an
//! owner dies before its operation was applied, the cleaner folds it as zero bytes.

pub mod balance;

use crate::sync::{AtomicU64, Ordering};

/// Bytes that a total can count: 64 TiB.
pub const BYTES_BITS: u32 = 46;
const JOURNAL_BITS: u32 = 15;
const SEQUENCE_BITS: u32 = 64 - BYTES_BITS - JOURNAL_BITS;
const FOLD_BITS: u32 = 16;
const APPLIED: u64 = 1;

/// Journals that a container can have.
pub const JOURNALS: u32 = 1 << JOURNAL_BITS;

const fn mask(bits: u32) -> u64 {
    (1 << bits) - 1
}

/// The total as a value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Total(u64);

impl Total {
    fn new(bytes: u64, journal: u32, sequence: u64) -> Self {
        let low = sequence & mask(SEQUENCE_BITS);
        Self(bytes & mask(BYTES_BITS) | u64::from(journal) << BYTES_BITS | low << (BYTES_BITS + JOURNAL_BITS))
    }

    fn bytes(self) -> u64 {
        self.0 & mask(BYTES_BITS)
    }

    fn journal(self) -> u32 {
        u32::try_from(self.0 >> BYTES_BITS & mask(JOURNAL_BITS)).unwrap_or(0)
    }

    /// Whether operation `sequence` of `journal` was the last one to change the total.
    fn is_last(self, journal: u32, sequence: u64) -> bool {
        self.journal() == journal && self.0 >> (BYTES_BITS + JOURNAL_BITS) == sequence & mask(SEQUENCE_BITS)
    }
}

/// The words of one journal.
#[derive(Clone, Copy)]
pub struct Journal<'b> {
    /// Bytes of the operation under way, two's complement.
    pub amount: &'b AtomicU64,
    /// Sequence << 1 | applied.
    pub operation: &'b AtomicU64,
    /// Bytes << 16 | low bits of the last folded sequence.
    pub held: &'b AtomicU64,
    /// Bytes reserved for a driver call that has not yet returned; written by the owner only.
    pub reserving: &'b AtomicU64,
}

/// The journals of a container.
pub trait Journals {
    /// Journal `index`, if there is one. Every journal that a total may name must be there.
    fn journal(&self, index: u32) -> Option<Journal<'_>>;

    /// Whether journal `index` now serves this device. A reaped journal may go on to another device while this device's total
    /// still names it: an operation that is under way there says nothing about this total.
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
    /// There is no such journal, or the number of bytes is out of range.
    Broken,
}

/// Where a crash test may interrupt an operation. In the product nothing does, and this compiles to nothing.
trait Interruption {
    /// Called between any two steps that other processes can tell apart; `false` ends the operation right there, as SIGKILL
    /// would.
    fn continues(&self) -> bool;
}

/// Nothing interrupts.
struct Uninterrupted;

impl Interruption for Uninterrupted {
    #[inline(always)]
    fn continues(&self) -> bool {
        true
    }
}

/// Bytes in use by the container.
#[inline]
pub fn used(total: &AtomicU64) -> u64 {
    Total(total.load(Ordering::Acquire)).bytes()
}

/// Bytes held through a journal.
#[inline]
pub fn held(journal: &Journal) -> u64 {
    journal.held.load(Ordering::Acquire) >> FOLD_BITS
}

/// The largest value of a total for memory on the device: at most the cap, and at most `physical` plus the bytes on the
/// host, which `spilled` counts. An allocation is counted in the total first and as spilled after that, a free the other
/// way round, and the caller has read the total before it asks ([`take_below`]): so the bytes on the device may look more
/// than they are, never fewer.
#[inline]
pub fn ceiling(cap: Option<u64>, physical: u64, spilled: &AtomicU64) -> u64 {
    let on_device = physical.saturating_add(used(spilled));
    cap.map_or(on_device, |cap| cap.min(on_device))
}

/// Takes `bytes` through journal `index`, if the total then stays within `cap`. Returns the total afterwards.
#[inline(always)]
pub fn take(
    journals: &impl Journals,
    total: &AtomicU64,
    index: u32,
    bytes: u64,
    cap: Option<u64>,
) -> Result<u64, Refused> {
    take_below(journals, total, index, bytes, || cap)
}

/// The same where the cap itself moves: `cap` is called after the total was read, and its answer holds for that total.
#[inline(always)]
pub fn take_below(
    journals: &impl Journals,
    total: &AtomicU64,
    index: u32,
    bytes: u64,
    cap: impl Fn() -> Option<u64>,
) -> Result<u64, Refused> {
    let amount = i64::try_from(bytes).map_err(|_| Refused::Broken)?;
    apply(journals, total, index, amount, cap, &Uninterrupted)
}

/// Gives `bytes` back that were taken through journal `index`, at most the bytes that the journal holds. Returns the total
/// afterwards.
#[inline(always)]
pub fn give(journals: &impl Journals, total: &AtomicU64, index: u32, bytes: u64) -> Result<u64, Refused> {
    let journal = journals.journal(index).ok_or(Refused::Broken)?;
    let bytes = bytes.min(held(&journal));
    let amount = i64::try_from(bytes).map_err(|_| Refused::Broken)?;
    apply(journals, total, index, amount.wrapping_neg(), || None, &Uninterrupted)
}

#[inline(always)]
fn apply(
    journals: &impl Journals,
    total: &AtomicU64,
    index: u32,
    amount: i64,
    cap: impl Fn() -> Option<u64>,
    interruption: &impl Interruption,
) -> Result<u64, Refused> {
    let journal = journals.journal(index).ok_or(Refused::Broken)?;
    let old_held = journal.held.load(Ordering::Relaxed);
    let old_sequence = journal.operation.load(Ordering::Relaxed) >> 1;
    let folded = is_folded(old_held, old_sequence);
    let mut sequence = if folded { old_sequence.wrapping_add(1) } else { old_sequence };
    let mut seen = total.load(Ordering::Acquire);
    if Total(seen).is_last(index, sequence) {
        // By chance: a fresh total names journal 0, an old one a journal that served this device before.
        sequence = sequence.wrapping_add(1);
    }
    journal.amount.store(amount.cast_unsigned(), Ordering::Relaxed);
    if !interruption.continues() {
        return Err(Refused::Broken);
    }
    journal.operation.store(sequence << 1, Ordering::Release);
    let after = loop {
        if !interruption.continues() {
            return Err(Refused::Broken);
        }
        let now = Total(seen);
        let after = if amount >= 0 {
            let cap = cap().unwrap_or(mask(BYTES_BITS)).min(mask(BYTES_BITS));
            // Neither has more than 63 bits, so the sum is exact.
            let after = now.bytes().wrapping_add(amount.cast_unsigned());
            if after > cap {
                return Err(Refused::Cap { used: now.bytes() });
            }
            after
        } else {
            now.bytes().saturating_sub(amount.unsigned_abs())
        };
        if now.journal() != index && !mark(journals, total, now, interruption) {
            return Err(Refused::Broken);
        }
        let next = Total::new(after, index, sequence).0;
        match total.compare_exchange(seen, next, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => break after,
            Err(current) => seen = current,
        }
    };
    if !interruption.continues() {
        return Err(Refused::Broken);
    }
    journal.held.store(fold(old_held, amount, sequence), Ordering::Release);
    Ok(after)
}

fn is_folded(held: u64, sequence: u64) -> bool {
    held & mask(FOLD_BITS) == sequence & mask(FOLD_BITS)
}

fn fold(held: u64, amount: i64, sequence: u64) -> u64 {
    // A damaged word wraps; the bytes that a journal takes and gives are in range.
    let bytes = (held >> FOLD_BITS).wrapping_add_signed(amount);
    bytes << FOLD_BITS | sequence & mask(FOLD_BITS)
}

/// Marks the operation that `now` names as applied, so that `now` may be overwritten. Returns false only if the
/// `interruption` ended it.
fn mark(journals: &impl Journals, total: &AtomicU64, now: Total, interruption: &impl Interruption) -> bool {
    let Some(journal) = journals.journal(now.journal()) else { return true };
    let operation = journal.operation.load(Ordering::Acquire);
    if operation == 0 || operation & APPLIED != 0 || !now.is_last(now.journal(), operation >> 1) {
        // Never used, marked already, or folded by its owner, which has gone on.
        return true;
    }
    if !journals.serves(now.journal()) || total.load(Ordering::Acquire) != now.0 {
        // It was reaped before it went to another device, or the total has changed and the swap will fail.
        return true;
    }
    let marked = operation | APPLIED;
    // Failure means that the owner folded and went on, or that another process marked it.
    let _ = journal.operation.compare_exchange(operation, marked, Ordering::AcqRel, Ordering::Relaxed);
    interruption.continues()
}

/// Finishes the operation that a dead owner left in journal `index`, or one that has lost its way. The caller has the sole right
/// to the journal.
pub fn recover(journals: &impl Journals, total: &AtomicU64, index: u32) -> Result<(), Refused> {
    let journal = journals.journal(index).ok_or(Refused::Broken)?;
    let held = journal.held.load(Ordering::Acquire);
    let sequence = journal.operation.load(Ordering::Acquire) >> 1;
    if is_folded(held, sequence) {
        return Ok(());
    }
    // The total first: a process that overwrites it has marked the operation before.
    let named = Total(total.load(Ordering::Acquire)).is_last(index, sequence);
    let marked = journal.operation.load(Ordering::Acquire) == sequence << 1 | APPLIED;
    let amount = if named || marked { journal.amount.load(Ordering::Relaxed).cast_signed() } else { 0 };
    // Folded in any case: the next owner may serve another device, whose total may show this number by chance.
    journal.held.store(fold(held, amount, sequence), Ordering::Release);
    Ok(())
}

/// What became of a dead owner's bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Reaped {
    /// Bytes given back.
    pub given: u64,
    /// Bytes that its journal still holds.
    pub kept: u64,
}

/// Gives back all bytes that a dead owner held through journal `index`; returns how many. The caller has the sole right to
/// the journal; if the caller dies here, the next one starts over.
pub fn reap(journals: &impl Journals, total: &AtomicU64, index: u32) -> Result<u64, Refused> {
    reap_until(journals, total, index, 0, &Uninterrupted).map(|reaped| reaped.given)
}

/// The same for all but `keep` bytes, which are not the dead owner's alone.
pub fn reap_but(
    journals: &impl Journals,
    total: &AtomicU64,
    index: u32,
    keep: u64,
) -> Result<Reaped, Refused> {
    reap_until(journals, total, index, keep, &Uninterrupted)
}

fn reap_until(
    journals: &impl Journals,
    total: &AtomicU64,
    index: u32,
    keep: u64,
    interruption: &impl Interruption,
) -> Result<Reaped, Refused> {
    recover(journals, total, index)?;
    let journal = journals.journal(index).ok_or(Refused::Broken)?;
    let kept = held(&journal).min(keep);
    let given = held(&journal).wrapping_sub(kept);
    if given != 0 {
        let amount = i64::try_from(given).map_err(|_| Refused::Broken)?;
        apply(journals, total, index, amount.wrapping_neg(), || None, interruption)?;
    }
    journal.reserving.store(0, Ordering::Release);
    Ok(Reaped { given, kept })
}

#[cfg(test)]
#[path = "ledger/tests.rs"]
mod tests;
