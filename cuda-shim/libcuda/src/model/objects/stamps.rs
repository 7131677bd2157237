//! Launches that kernels are still to write down.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;

/// How many are to be written on all devices: whoever has none passes by.
pub static PENDING: AtomicUsize = AtomicUsize::new(0);

/// A launch that is to be written down. In the order of their ends; those of one stream then are in theirs.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
pub struct Stamp {
    /// Seat time.
    pub end: u64,
    pub number: u64,
    pub begin: u64,
    pub log: u64,
}

/// What is still to be written of a device's kernels.
#[derive(Default)]
pub struct Stamps {
    pub pending: BinaryHeap<Reverse<Stamp>>,
    /// How many there were.
    pub number: u64,
}

impl Drop for Stamps {
    fn drop(&mut self) {
        PENDING.fetch_sub(self.pending.len(), Relaxed);
    }
}
