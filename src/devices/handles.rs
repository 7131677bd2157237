//! A cache from handles to devices of the region.

use core::sync::atomic::{
    AtomicU8, AtomicU64, Ordering::AcqRel, Ordering::Acquire, Ordering::Relaxed, Ordering::Release,
};

/// Handles that the cache holds; the library queries further ones each time.
const CAPACITY: usize = 64;

/// A small table from a handle to a region index, without locks. 0 is no handle: the table never finds it.
pub struct Handles {
    keys: [AtomicU64; CAPACITY],
    values: [AtomicU8; CAPACITY],
}

impl Handles {
    /// The preferred entry of a handle. Handles are pointers, whose last bits are equal.
    #[inline]
    fn home(key: u64) -> usize {
        (key ^ key >> 12) as usize / 16 % CAPACITY
    }

    #[inline]
    fn at(&self, entry: usize) -> Option<(&AtomicU64, &AtomicU8)> {
        self.keys.get(entry).zip(self.values.get(entry))
    }

    /// The index of a handle.
    #[inline(always)]
    pub fn get(&self, key: u64) -> Option<u8> {
        match self.at(Self::home(key)) {
            Some((stored, value)) if stored.load(Acquire) == key && key != 0 => {
                value.load(Relaxed).checked_sub(1)
            }
            _ => self.search(key),
        }
    }

    #[inline(never)]
    fn search(&self, key: u64) -> Option<u8> {
        if key == 0 {
            return None;
        }
        let mut pairs = self.keys.iter().zip(&self.values);
        let (_, value) = pairs.find(|(stored, _)| stored.load(Acquire) == key)?;
        value.load(Relaxed).checked_sub(1)
    }

    /// Adds a handle, unless the table has it or is full.
    pub fn insert(&self, key: u64, index: u8) {
        if key == 0 || self.get(key).is_some() {
            return;
        }
        let claim = |(stored, value): &(&AtomicU64, &AtomicU8)| {
            stored.load(Relaxed) == 0
                && value.compare_exchange(0, index.wrapping_add(1), AcqRel, Relaxed).is_ok()
        };
        let home = self.at(Self::home(key)).filter(|entry| claim(entry));
        if let Some((stored, _)) = home.or_else(|| self.keys.iter().zip(&self.values).find(claim)) {
            stored.store(key, Release);
        }
    }

    /// Removes a handle.
    pub fn remove(&self, key: u64) {
        for (stored, value) in self.keys.iter().zip(&self.values) {
            if stored.compare_exchange(key, 0, AcqRel, Relaxed).is_ok() {
                value.store(0, Release);
            }
        }
    }
}

#[cfg(test)]
mod tests;
