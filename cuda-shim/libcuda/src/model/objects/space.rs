//! Addresses of the arena beyond the heaps, for reservations and for what other processes share.

use std::collections::BTreeMap;

use crate::tools::bytes::BLOCK;

/// The free addresses: start and length of each run, apart from each other.
pub struct Space(BTreeMap<u64, u64>);

impl Space {
    /// All of `[start, start + length)`, which begins at a block's start.
    pub fn new(start: u64, length: u64) -> Space {
        Space(BTreeMap::from([(start, length)]))
    }

    /// Takes `length` addresses, a multiple of the block, the first of them a multiple of `alignment`, a power
    /// of two.
    pub fn take(&mut self, length: u64, alignment: u64) -> Option<u64> {
        let alignment = alignment.max(BLOCK);
        let fits = |(run, extent): (&u64, &u64)| {
            let start = run.checked_next_multiple_of(alignment)?;
            let end = start.checked_add(length)?;
            (end <= run + extent).then_some((*run, *extent, start))
        };
        let (run, extent, start) = self.0.iter().find_map(fits)?;
        self.0.remove(&run);
        let (end, last) = (start + length, run + extent);
        if start > run {
            self.0.insert(run, start - run);
        }
        if last > end {
            self.0.insert(end, last - end);
        }
        Some(start)
    }

    /// Gives addresses back.
    pub fn give(&mut self, start: u64, length: u64) {
        let (mut start, mut length) = (start, length);
        if let Some((run, extent)) = self.0.range(..start).next_back().map(|(run, extent)| (*run, *extent))
            && run + extent == start
        {
            self.0.remove(&run);
            (start, length) = (run, extent + length);
        }
        if let Some(extent) = self.0.remove(&(start + length)) {
            length += extent;
        }
        self.0.insert(start, length);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_back_is_whole_again() {
        let mut space = Space::new(BLOCK, 16 * BLOCK);
        let all: Vec<_> = [1, 4, 2, 1].map(|blocks| space.take(blocks * BLOCK, 4 * BLOCK).unwrap()).into();
        assert!(all.iter().all(|start| start.is_multiple_of(4 * BLOCK)));
        assert_eq!(space.take(8 * BLOCK, 0), None);
        for (start, blocks) in all.iter().zip([1, 4, 2, 1]) {
            space.give(*start, blocks * BLOCK);
        }
        assert_eq!(space.take(16 * BLOCK, 0), Some(BLOCK));
    }
}
