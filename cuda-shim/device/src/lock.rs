//! A lock in the shared file that outlives the death of its holder.
//!
//! The word holds the slot of the holder's process + 1. A waiter that waits long asks whether that process
//! still lives and, if not, takes the word over; it is then told so, and mends what the lock guards.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::time::Duration;

use crate::layout::Word;

/// Attempts before the waiter starts to yield, and to sleep.
const SPINS: u32 = 100;
const YIELDS: u32 = 200;
/// Its sleeps, the first and the longest, and after how much sleep it first asks whether the holder lives, if that is still
/// the same: where hundreds wait, being awake and asking would take all of the host's time.
const SLEEP: Duration = Duration::from_micros(50);
const LONGEST_SLEEP: Duration = Duration::from_millis(20);
const PATIENCE: Duration = Duration::from_millis(2);

/// A held lock, free again when dropped.
pub struct Held<'a> {
    word: &'a Word,
}

impl Drop for Held<'_> {
    #[inline]
    fn drop(&mut self) {
        self.word.0.store(0, Release);
    }
}

/// Takes the lock for `slot`. `is_alive` judges a holder, `mend` runs under the lock after a take-over.
#[inline]
pub fn hold<'a>(
    word: &'a Word,
    slot: usize,
    is_alive: impl Fn(usize) -> bool,
    mend: impl FnOnce(),
) -> Held<'a> {
    if word.0.compare_exchange_weak(0, slot as u64 + 1, Acquire, Relaxed).is_err() {
        wait(word, slot, &is_alive, mend);
    }
    Held { word }
}

#[cold]
fn wait(word: &Word, slot: usize, is_alive: &dyn Fn(usize) -> bool, mend: impl FnOnce()) {
    let mine = slot as u64 + 1;
    let mut attempts = 0;
    let (mut sleep, mut slept, mut patience, mut seen) = (SLEEP, Duration::ZERO, PATIENCE, 0);
    loop {
        let holder = word.get();
        if holder == 0 {
            if word.0.compare_exchange(0, mine, Acquire, Relaxed).is_ok() {
                return;
            }
            continue;
        }
        attempts += 1;
        match attempts {
            ..SPINS => std::hint::spin_loop(),
            SPINS..YIELDS => std::thread::yield_now(),
            _ => {
                if holder != seen {
                    (seen, slept) = (holder, Duration::ZERO);
                } else if slept >= patience {
                    (slept, patience) = (Duration::ZERO, 2 * patience);
                    let dead = holder != mine && !is_alive(holder as usize - 1);
                    if dead && word.0.compare_exchange(holder, mine, Acquire, Relaxed).is_ok() {
                        mend();
                        return;
                    }
                }
                std::thread::sleep(sleep);
                slept += sleep;
                sleep = LONGEST_SLEEP.min(sleep * 2);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    #[test]
    fn the_lock_of_a_dead_process_is_taken_over_and_mended() {
        let word = Word::default();
        word.set(8);
        let mended = Cell::new(false);
        let held = hold(&word, 2, |slot| slot != 7, || mended.set(true));
        assert!(mended.get());
        assert_eq!(word.get(), 3);
        drop(held);
        assert_eq!(word.get(), 0);
    }
}
