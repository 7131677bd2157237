//! A turn: when a container may launch beside others, as the node's agent tells it.
//!
//! A driver gives contexts that have work a slice each, whatever their shares, and a kernel's time on the clock then
//! contains slices of others. So the agent lets containers that want a device have it by turns (`share::turns`), and
//! within a turn a container is alone: what its kernels take is what the clock says.

use crate::sync::{AtomicU64, Ordering};

/// An agent that has said nothing for so long is gone, and everybody keeps its own share again.
pub const SILENCE_NS: u64 = 50_000_000;

/// Work that was launched and not measured yet may take so much at most.
const LOOSE_NS: u64 = 1_000_000;

/// From when until when launches may go, CLOCK_MONOTONIC nanoseconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Turn {
    /// The first instant.
    pub from_ns: u64,
    /// The first instant that is not in it any more.
    pub until_ns: u64,
}

const LENGTH_BITS: u32 = 16;
const LENGTH_MASK: u64 = (1 << LENGTH_BITS) - 1;
/// Grain of the start, nanoseconds; as a shift that of the length: 16 us, so that the longest turn lasts a second.
const GRAIN_NS: u64 = 1_000;
const LENGTH_GRAIN: u32 = 14;

impl Turn {
    /// None: whoever wants one has to ask.
    pub const NONE: Self = Self { from_ns: GRAIN_NS, until_ns: GRAIN_NS };
    /// One without an end.
    pub const ENDLESS: Self = Self { from_ns: GRAIN_NS, until_ns: u64::MAX };

    /// As it stands in the region; never 0, which says that there are no turns.
    #[must_use]
    pub fn word(self) -> u64 {
        let from = (self.from_ns / GRAIN_NS).max(1) << LENGTH_BITS;
        let length = self.until_ns.saturating_sub(self.from_ns) >> LENGTH_GRAIN;
        from | if self.until_ns == u64::MAX { LENGTH_MASK } else { length.min(LENGTH_MASK - 1) }
    }

    /// What a word says; `None` where there are no turns.
    #[inline]
    #[must_use]
    pub fn read(word: u64) -> Option<Self> {
        let from_ns = (word >> LENGTH_BITS).saturating_mul(GRAIN_NS);
        let length = word & LENGTH_MASK;
        let until_ns = match length {
            LENGTH_MASK => u64::MAX,
            length => from_ns.saturating_add(length << LENGTH_GRAIN),
        };
        (word != 0).then_some(Self { from_ns, until_ns })
    }

    /// Whether a launch may go now that would begin at `begins_ns`.
    #[inline]
    #[must_use]
    pub fn admits(self, now_ns: u64, begins_ns: u64) -> bool {
        (self.from_ns..self.until_ns).contains(&now_ns) && begins_ns < self.until_ns
    }
}

/// The words of one device by which a container and the agent speak.
#[derive(Clone, Copy)]
pub struct Words<'a> {
    /// The container's turn, where an agent gives turns.
    pub turn: Option<Turn>,
    /// Whether the agent then also keeps the container to its share: not where a limits file sets it, which outranks all
    /// that the region says.
    pub keeps_share: bool,
    /// When a launch last waited for a turn.
    pub asked_at: &'a AtomicU64,
    /// Predicted time of what is in flight and measured, of all processes.
    pub in_flight_ns: &'a AtomicU64,
    /// By how much that may be wrong.
    pub doubt_ns: &'a AtomicU64,
}

/// When work that is in flight should be over, where it should be by `until_ns`, one after the other, and measured ones
/// of `in_flight_ns` have not landed: what runs at the same time is over earlier.
#[inline]
#[must_use]
pub fn drains_at(now_ns: u64, until_ns: u64, in_flight_ns: u64) -> u64 {
    until_ns.min(now_ns.saturating_add(in_flight_ns).saturating_add(LOOSE_NS))
}

impl Words<'_> {
    /// Whether a launch may go now in this turn; if not, it has asked.
    #[inline]
    pub fn is_open(&self, turn: Turn, now_ns: u64, until_ns: u64) -> bool {
        let begins = drains_at(now_ns, until_ns, self.in_flight_ns.load(Ordering::Relaxed));
        let open = turn.admits(now_ns, begins.max(now_ns));
        if !open {
            self.asked_at.store(now_ns, Ordering::Relaxed);
        }
        open
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn a_word_says_what_the_turn_was() {
        let from_ns = 400 * 24 * 3_600 * 1_000 * MS;
        let turn = Turn { from_ns, until_ns: from_ns + (500 << LENGTH_GRAIN) };
        for turn in [turn, Turn::NONE, Turn::ENDLESS] {
            assert_eq!(Turn::read(turn.word()), Some(turn));
        }
        assert_eq!(Turn::read(0), None);
        let long = Turn { from_ns, until_ns: from_ns + 5_000 * MS };
        assert!(Turn::read(long.word()).is_some_and(|turn| turn.until_ns - from_ns > 1_000 * MS));
    }

    #[test]
    fn a_launch_goes_in_its_turn_if_it_begins_in_it() {
        let turn = Turn { from_ns: 10 * MS, until_ns: 18 * MS };
        assert!(turn.admits(10 * MS, 17 * MS));
        assert!(!turn.admits(9 * MS, 9 * MS), "before");
        assert!(!turn.admits(18 * MS, 18 * MS), "behind");
        assert!(!turn.admits(16 * MS, 19 * MS), "what is in flight takes all of it");
        assert!(!Turn::NONE.admits(20 * MS, 20 * MS));
    }

    #[test]
    fn what_runs_at_the_same_time_is_over_earlier() {
        assert_eq!(drains_at(10 * MS, 12 * MS, 4 * MS), 12 * MS);
        assert_eq!(drains_at(10 * MS, 90 * MS, 4 * MS), 15 * MS);
    }
}
