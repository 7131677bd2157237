//! Arithmetic on words: changes that several threads or processes make and that saturate, and places in tables.

use crate::sync::{AtomicU64, Ordering};

/// Takes an amount from a word, or as much as it holds.
pub(super) fn subtract(word: &AtomicU64, amount: u64) {
    let rest = |now: u64| Some(now.saturating_sub(amount));
    let _ = word.fetch_update(Ordering::Relaxed, Ordering::Relaxed, rest);
}

/// Appends work to a word that holds the time at which work should be over; returns its new value.
pub(super) fn append(until: &AtomicU64, now_ns: u64, cost_ns: u64) -> u64 {
    let next = |seen: u64| seen.max(now_ns).saturating_add(cost_ns);
    let change = |seen| Some(next(seen));
    until.fetch_update(Ordering::Relaxed, Ordering::Relaxed, change).map_or(0, next)
}

/// Moves such a word by the difference between what work took and what was predicted.
pub(super) fn shift(until: &AtomicU64, predicted_ns: u64, actual_ns: u64) {
    let change = |seen: u64| Some(seen.saturating_add(actual_ns).saturating_sub(predicted_ns));
    let _ = until.fetch_update(Ordering::Relaxed, Ordering::Relaxed, change);
}

/// The place of a key in a table of `length` entries.
#[inline]
pub(super) fn remainder(key: u64, length: usize) -> usize {
    let length = u64::try_from(length).unwrap_or(u64::MAX);
    let place = key.checked_rem(length).unwrap_or(0);
    usize::try_from(place).unwrap_or(0)
}
