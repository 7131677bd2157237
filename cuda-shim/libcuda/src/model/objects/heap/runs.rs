//! Runs of blocks that nothing lies in, by length.

use std::collections::BTreeMap;

/// Runs of up to this many blocks are found by index.
const SHORT: usize = 64;

/// The free runs of a heap's blocks.
pub struct Runs {
    /// Blocks from here on were never dealt out; there are `all`.
    fresh: u32,
    all: u32,
    short: Vec<Vec<u32>>,
    long: BTreeMap<u32, Vec<u32>>,
}

impl Runs {
    /// `all` blocks, none of them dealt out.
    pub fn new(all: u32) -> Runs {
        Runs { fresh: 0, all, short: (0..=SHORT).map(|_| Vec::new()).collect(), long: BTreeMap::new() }
    }

    /// Takes `length` blocks; where they begin.
    pub fn take(&mut self, length: u32) -> Option<u32> {
        let reused = match self.short.get_mut(length as usize) {
            Some(runs) => runs.pop(),
            None => self.long.get_mut(&length).and_then(Vec::pop),
        };
        if reused.is_some() {
            return reused;
        }
        if length > self.all - self.fresh {
            return self.take_joined(length);
        }
        self.fresh += length;
        Some(self.fresh - length)
    }

    /// Gives blocks back.
    pub fn give(&mut self, start: u32, length: u32) {
        match self.short.get_mut(length as usize) {
            Some(runs) => runs.push(start),
            None => self.long.entry(length).or_default().push(start),
        }
    }

    /// All blocks were dealt out once: joins free neighbours and takes the first run that is long enough.
    #[cold]
    fn take_joined(&mut self, length: u32) -> Option<u32> {
        let short = self.short.iter_mut().enumerate().map(|(length, runs)| (length as u32, runs));
        let long = self.long.iter_mut().map(|(length, runs)| (*length, runs));
        let mut runs: Vec<(u32, u32)> = short
            .chain(long)
            .flat_map(|(length, runs)| runs.drain(..).map(move |start| (start, length)))
            .collect();
        runs.sort_unstable();
        let mut joined: Vec<(u32, u32)> = Vec::with_capacity(runs.len());
        for (start, length) in runs {
            match joined.last_mut() {
                Some(last) if last.0 + last.1 == start => last.1 += length,
                _ => joined.push((start, length)),
            }
        }
        let found = joined.iter().position(|run| run.1 >= length);
        let taken = found.map(|index| {
            let run = &mut joined[index];
            let start = run.0;
            *run = (start + length, run.1 - length);
            start
        });
        for (start, length) in joined.into_iter().filter(|run| run.1 > 0) {
            self.give(start, length);
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_neighbours_are_joined_before_a_run_is_refused() {
        let mut runs = Runs::new(8);
        assert_eq!([3, 2, 3].map(|length| runs.take(length)), [Some(0), Some(3), Some(5)]);
        runs.give(0, 3);
        runs.give(5, 3);
        assert_eq!(runs.take(5), None);
        runs.give(3, 2);
        assert_eq!(runs.take(7), Some(0));
        assert_eq!((runs.take(1), runs.take(1)), (Some(7), None));
    }
}
