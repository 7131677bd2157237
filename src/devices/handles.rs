//! Handles that were met before.

use core::sync::atomic::{
    AtomicU8, AtomicU64, Ordering::AcqRel, Ordering::Acquire, Ordering::Relaxed, Ordering::Release,
};

/// Contexts and NVML handles remembered; more are asked for anew each time.
const REMEMBERED: usize = 64;

/// A small table from a handle to a region index, without locks. 0 is no handle: it is never found.
pub struct Handles {
    keys: [AtomicU64; REMEMBERED],
    values: [AtomicU8; REMEMBERED],
}

impl Handles {
    /// Where a handle is kept if the place is free: handles are pointers, whose last bits are equal.
    #[inline]
    fn home(key: u64) -> usize {
        (key ^ key >> 12) as usize / 16 % REMEMBERED
    }

    #[inline]
    fn at(&self, place: usize) -> Option<(&AtomicU64, &AtomicU8)> {
        self.keys.get(place).zip(self.values.get(place))
    }

    /// The index of a handle.
    #[inline(always)]
    pub fn get(&self, key: u64) -> Option<u8> {
        match self.at(Self::home(key)) {
            Some((found, value)) if found.load(Acquire) == key && key != 0 => {
                value.load(Relaxed).checked_sub(1)
            }
            _ => self.look_for(key),
        }
    }

    #[inline(never)]
    fn look_for(&self, key: u64) -> Option<u8> {
        if key == 0 {
            return None;
        }
        let mut pairs = self.keys.iter().zip(&self.values);
        let (_, value) = pairs.find(|(found, _)| found.load(Acquire) == key)?;
        value.load(Relaxed).checked_sub(1)
    }

    /// Remembers a handle, unless it is known already or there is no room.
    pub fn put(&self, key: u64, index: u8) {
        if key == 0 || self.get(key).is_some() {
            return;
        }
        let take = |(found, value): &(&AtomicU64, &AtomicU8)| {
            found.load(Relaxed) == 0
                && value.compare_exchange(0, index.wrapping_add(1), AcqRel, Relaxed).is_ok()
        };
        let home = self.at(Self::home(key)).filter(|place| take(place));
        if let Some((found, _)) = home.or_else(|| self.keys.iter().zip(&self.values).find(take)) {
            found.store(key, Release);
        }
    }

    /// Forgets a handle that is gone.
    pub fn forget(&self, key: u64) {
        for (found, value) in self.keys.iter().zip(&self.values) {
            if found.compare_exchange(key, 0, AcqRel, Relaxed).is_ok() {
                value.store(0, Release);
            }
        }
    }
}

#[cfg(test)]
mod tests;
