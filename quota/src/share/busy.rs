//! What several streams and processes of the container do at the same time occupies the device once: what they are
//! charged is the union of their intervals.
//!
//! One word says until when the device is known to have been occupied. Intervals do not come in order (a process
//! tells of its work when it next looks), so the idle gaps before that moment are kept, each in one word: whoever
//! comes later with work that lies in a gap takes it from there by compare-and-swap, so no nanosecond is charged
//! twice. What is older than the oldest gap that is still known is charged in full.

use crate::sync::{AtomicU64, Ordering};

/// Gaps that are remembered.
pub const GAPS: usize = if cfg!(loom) { 2 } else { 14 };

/// Grain of a gap's word, as a shift: 64 ns.
const GRAIN: u32 = 6;
const LENGTH_BITS: u32 = 26;
/// Longest gap that is remembered whole: 4.3 s.
const LONGEST_GAP_NS: u64 = ((1 << LENGTH_BITS) - 1) << GRAIN;
/// A gap not worth an entry.
const SHORTEST_GAP_NS: u64 = 1_000;

/// The words of one device that tell what was occupied.
#[derive(Clone, Copy)]
pub struct Busy<'a> {
    /// Until when the device is known to have been occupied.
    pub until: &'a AtomicU64,
    /// Gaps before this are forgotten.
    pub known_from: &'a AtomicU64,
    /// Idle gaps before `until`: start | length, in grains; 0 for none.
    pub gaps: &'a [AtomicU64; GAPS],
}

/// The same words of one process, for its own streams. All-zero bytes: nothing was occupied yet.
#[derive(Default)]
pub struct Own {
    until: AtomicU64,
    known_from: AtomicU64,
    gaps: [AtomicU64; GAPS],
}

impl Own {
    /// Its words.
    pub fn busy(&self) -> Busy<'_> {
        Busy { until: &self.until, known_from: &self.known_from, gaps: &self.gaps }
    }
}

/// An idle stretch, as it stands in its word.
#[derive(Clone, Copy)]
struct Gap {
    start: u64,
    end: u64,
}

impl Gap {
    fn word(self) -> u64 {
        let grains = self.end.saturating_sub(self.start) >> GRAIN;
        if grains == 0 { 0 } else { self.start >> GRAIN << LENGTH_BITS | grains }
    }

    /// The word keeps 38 bits of the start (4.9 hours), the rest is that of `until`, which lies behind it.
    fn read(word: u64, until: u64) -> Option<Self> {
        let length = (word & ((1 << LENGTH_BITS) - 1)) << GRAIN;
        let back = (until >> GRAIN).wrapping_sub(word >> LENGTH_BITS) << LENGTH_BITS >> LENGTH_BITS;
        let start = (until >> GRAIN).checked_sub(back)? << GRAIN;
        (length != 0).then_some(Self { start, end: start.saturating_add(length) })
    }

    fn length(self) -> u64 {
        self.end.saturating_sub(self.start)
    }
}

impl Busy<'_> {
    /// Notes that the device was occupied from `start_ns` to `end_ns`, and answers how much of that was not known.
    pub fn occupy(&self, start_ns: u64, end_ns: u64) -> u64 {
        let until = self.until.fetch_max(end_ns, Ordering::AcqRel);
        if start_ns >= until {
            self.remember(Gap { start: until.max(start_ns.saturating_sub(LONGEST_GAP_NS)), end: start_ns });
            return end_ns.saturating_sub(start_ns);
        }
        let late = Gap { start: start_ns, end: end_ns.min(until) };
        end_ns.saturating_sub(until).saturating_add(self.take(late))
    }

    fn remember(&self, gap: Gap) {
        if gap.length() < SHORTEST_GAP_NS {
            return;
        }
        // A free place, else that of the oldest gap.
        let until = self.until.load(Ordering::Acquire);
        let begin = |place: &&AtomicU64| {
            Gap::read(place.load(Ordering::Relaxed), until).map_or(0, |known| known.start)
        };
        let Some(place) = self.gaps.iter().min_by_key(begin) else { return };
        let before = place.swap(gap.word(), Ordering::AcqRel);
        if let Some(forgotten) = Gap::read(before, until) {
            self.known_from.fetch_max(forgotten.end, Ordering::AcqRel);
        }
    }

    /// Takes what lies in gaps out of them.
    fn take(&self, late: Gap) -> u64 {
        let known_from = self.known_from.load(Ordering::Acquire);
        let forgotten = late.end.min(known_from).saturating_sub(late.start);
        let late = Gap { start: late.start.max(known_from), end: late.end };
        if late.length() == 0 {
            return forgotten;
        }
        let taken = self.gaps.iter().map(|place| self.take_from(place, late));
        taken.fold(forgotten, u64::saturating_add)
    }

    /// Takes what `late` has of the gap in a place. The longer side of what remains stays there, the other one gets a
    /// place of its own.
    fn take_from(&self, place: &AtomicU64, late: Gap) -> u64 {
        let mut word = place.load(Ordering::Acquire);
        while let Some(gap) = Gap::read(word, self.until.load(Ordering::Acquire)) {
            let (start, end) = (gap.start.max(late.start), gap.end.min(late.end));
            if start >= end {
                return 0;
            }
            let (before, behind) = (Gap { start: gap.start, end: start }, Gap { start: end, end: gap.end });
            let (longer, other) =
                if before.length() > behind.length() { (before, behind) } else { (behind, before) };
            match place.compare_exchange(word, longer.word(), Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => {
                    self.remember(other);
                    return end.saturating_sub(start);
                }
                Err(current) => word = current,
            }
        }
        0
    }
}

#[cfg(test)]
mod tests;
