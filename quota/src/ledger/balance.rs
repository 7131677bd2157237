//! The books after their words were lost, because somebody has truncated or overwritten the file in which they lie.
//!
//! Each process knows what it holds through its journals, and puts that back ([`put_back`]). Operations that were under way at the
//! loss may have changed the old total and the new journal, or the other way round. So whoever has put its journals back makes
//! the total the sum of all journals ([`balance`]). After the last process has done so, the books are what they were.

use super::{APPLIED, BYTES_BITS, FOLD_BITS, Journals, Refused, Total, is_folded, mask};
use crate::sync::{AtomicU64, Ordering};

/// How often a sum is begun again because operations have changed the books meanwhile.
const TRIES: usize = 1000;

/// Makes `bytes` the bytes that journal `index` holds, without a change of the total. The caller has the sole right to it.
pub fn put_back(journals: &impl Journals, index: u32, bytes: u64) -> Result<(), Refused> {
    let journal = journals.journal(index).ok_or(Refused::Broken)?;
    let sequence = journal.operation.load(Ordering::Acquire) >> 1;
    journal.held.store(bytes << FOLD_BITS | sequence & mask(FOLD_BITS), Ordering::Release);
    Ok(())
}

/// Makes the total the sum of the first `count` journals that serve it. False where others have changed it all the time.
pub fn balance(journals: &impl Journals, total: &AtomicU64, count: u32) -> bool {
    for _ in 0..TRIES {
        let seen = total.load(Ordering::Acquire);
        let Some(sum) = sum_of(journals, Total(seen), count) else { continue };
        // Whoever changed it last stays named.
        let next = seen & !mask(BYTES_BITS) | sum & mask(BYTES_BITS);
        if total.compare_exchange(seen, next, Ordering::AcqRel, Ordering::Acquire).is_ok() {
            return true;
        }
    }
    false
}

/// The bytes that journals hold beside a total that reads `now`, each with its operation if that was applied and not folded.
/// `None` where a journal has changed meanwhile.
fn sum_of(journals: &impl Journals, now: Total, count: u32) -> Option<u64> {
    let mut sum = 0u64;
    for index in (0..count).filter(|index| journals.serves(*index)) {
        let Some(journal) = journals.journal(index) else { continue };
        let operation = journal.operation.load(Ordering::Acquire);
        let held = journal.held.load(Ordering::Acquire);
        let sequence = operation >> 1;
        let applied = operation & APPLIED != 0 || now.is_last(index, sequence);
        let under_way = applied && !is_folded(held, sequence);
        let amount = if under_way { journal.amount.load(Ordering::Relaxed).cast_signed() } else { 0 };
        let same = journal.operation.load(Ordering::Acquire) == operation;
        if !same || journal.held.load(Ordering::Acquire) != held {
            return None;
        }
        sum = sum.wrapping_add(held >> FOLD_BITS).wrapping_add_signed(amount);
    }
    Some(sum)
}
