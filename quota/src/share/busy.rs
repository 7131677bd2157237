//! Streams and processes of a container that work at the same time occupy the device once: they are charged the union of
//! their intervals.
//!
//! One word holds the time until which the device is known to have been occupied. Intervals do not arrive in order (a
//! process reports its work when it next checks), so the idle gaps before that time are kept, one in a word: a later report
//! of work in a gap takes its part of the gap by compare-and-swap, so no nanosecond is charged twice. At most 14 gaps are
//! kept. When all are in use, a gap older than 250 ms is dropped, and work that is reported for it later is charged in full;
//! if no gap is that old, the two with the least work between them become one gap that stores its idle fraction. Work
//! reported inside such a gap is charged as if it had used the idle part first: never too little.

use crate::sync::{AtomicU64, Ordering};

/// Gaps that are kept.
pub const GAPS: usize = if cfg!(loom) { 2 } else { 14 };

/// Grain of a gap's start, as a shift: 64 ns.
const GRAIN: u32 = 6;
/// Grain of its length: 256 ns.
const LENGTH_GRAIN: u32 = 8;
const LENGTH_BITS: u32 = 22;
/// How much of it is idle, less one, in 1/256.
const IDLE_BITS: u32 = 8;
const START_SHIFT: u32 = LENGTH_BITS + IDLE_BITS;
/// Longest gap that is kept: 1.07 s. Work that is reported for an earlier time is charged in full.
const LONGEST_GAP_NS: u64 = mask(LENGTH_BITS) << LENGTH_GRAIN;
/// A gap older than this makes room for a new one: hardly any process still reports work of that time.
const OLD_NS: u64 = 250_000_000;
/// A shorter gap is not kept.
const SHORTEST_GAP_NS: u64 = 1_000;

const fn mask(bits: u32) -> u64 {
    (1 << bits) - 1
}

/// The words of one device that hold when it was occupied.
#[derive(Clone, Copy)]
pub struct Busy<'a> {
    /// Until when the device is known to have been occupied.
    pub until: &'a AtomicU64,
    /// Gaps before this are not known.
    pub known_from: &'a AtomicU64,
    /// Idle gaps before `until`; 0 for none.
    pub gaps: &'a [AtomicU64; GAPS],
}

/// The same words of one process, for its own streams. All-zero bytes: the device was never occupied.
#[derive(Default)]
pub struct BusyWords {
    until: AtomicU64,
    known_from: AtomicU64,
    gaps: [AtomicU64; GAPS],
}

impl BusyWords {
    /// A view of them.
    pub fn busy(&self) -> Busy<'_> {
        Busy { until: &self.until, known_from: &self.known_from, gaps: &self.gaps }
    }
}

/// An idle stretch; a word holds it in grains.
#[derive(Clone, Copy)]
struct Gap {
    start: u64,
    end: u64,
    /// How much of it is idle, 1 to 256, in 1/256.
    idle: u64,
}

impl Gap {
    const ALL: u64 = 1 << IDLE_BITS;

    fn word(self) -> u64 {
        let length = self.length() >> LENGTH_GRAIN;
        if length == 0 {
            return 0;
        }
        let idle = self.idle.saturating_sub(1) & mask(IDLE_BITS);
        self.start >> GRAIN << START_SHIFT | length.min(mask(LENGTH_BITS)) << IDLE_BITS | idle
    }

    /// The word holds 34 bits of the start (18 minutes); the rest is that of `until`, which is later.
    fn read(word: u64, until: u64) -> Option<Self> {
        let length = (word >> IDLE_BITS & mask(LENGTH_BITS)) << LENGTH_GRAIN;
        let back = (until >> GRAIN).wrapping_sub(word >> START_SHIFT) << START_SHIFT >> START_SHIFT;
        let start = (until >> GRAIN).checked_sub(back)? << GRAIN;
        let idle = (word & mask(IDLE_BITS)).saturating_add(1);
        (length != 0).then_some(Self { start, end: start.saturating_add(length), idle })
    }

    fn length(self) -> u64 {
        self.end.saturating_sub(self.start)
    }

    fn idle_ns(self) -> u64 {
        self.length().saturating_mul(self.idle) >> IDLE_BITS
    }

    /// A stretch of which so much is idle. The stretch is shortened so that its length times the idle fraction is exactly that
    /// much: the fraction has few bits, and rounding errors would add up.
    fn partly(start: u64, end: u64, idle_ns: u64) -> Self {
        let (length, all) = (end.saturating_sub(start), idle_ns << IDLE_BITS);
        let idle = all.checked_div(length).unwrap_or(0).saturating_add(1).min(Self::ALL);
        let exact = all.checked_div(idle).unwrap_or(0).min(length);
        Self { start: end.saturating_sub(exact), end, idle }
    }

    /// This gap, a later one and the work between them as one gap.
    fn join(self, later: Self) -> Self {
        let idle_ns = self.idle_ns().saturating_add(later.idle_ns());
        Self::partly(self.start, self.end.max(later.end), idle_ns)
    }

    /// The part of the gap that work from `start` to `end` takes, and the one or two gaps that remain. Where only the idle
    /// fraction is known, the work takes as much of it as it can: no process is charged too little.
    fn without(self, start: u64, end: u64) -> (u64, Self, Option<Self>) {
        let within = end.saturating_sub(start);
        let (before, behind) = (Self { end: start, ..self }, Self { start: end, ..self });
        if self.idle == Self::ALL {
            let (longer, other) =
                if before.length() > behind.length() { (before, behind) } else { (behind, before) };
            return (within, longer, Some(other));
        }
        let taken = within.min(self.idle_ns());
        let rest = match (before.length(), behind.length()) {
            (0, _) => behind,
            (_, 0) => before,
            _ => self,
        };
        (taken, Self::partly(rest.start, rest.end, self.idle_ns().saturating_sub(taken)), None)
    }
}

impl Busy<'_> {
    /// Notes that the device was occupied from `start_ns` to `end_ns`, and returns how much of that was not known before.
    pub fn occupy(&self, start_ns: u64, end_ns: u64) -> u64 {
        let until = self.until.fetch_max(end_ns, Ordering::AcqRel);
        if start_ns >= until {
            let oldest = start_ns.saturating_sub(LONGEST_GAP_NS);
            if oldest > until {
                self.known_from.fetch_max(oldest, Ordering::AcqRel);
            }
            self.keep(Gap { start: until.max(oldest), end: start_ns, idle: Gap::ALL });
            return end_ns.saturating_sub(start_ns);
        }
        let late = Gap { start: start_ns, end: end_ns.min(until), idle: Gap::ALL };
        end_ns.saturating_sub(until).saturating_add(self.take(late))
    }

    /// Keeps a gap.
    fn keep(&self, gap: Gap) {
        if gap.length() < SHORTEST_GAP_NS {
            return;
        }
        let free = |place: &&AtomicU64| {
            place.compare_exchange(0, gap.word(), Ordering::AcqRel, Ordering::Relaxed).is_ok()
        };
        if self.gaps.iter().find(free).is_none() {
            self.make_room(gap);
        }
    }

    /// Makes room for a new gap, and keeps it.
    #[cold]
    fn make_room(&self, gap: Gap) {
        let until = self.until.load(Ordering::Acquire);
        let read = |place: &AtomicU64| Gap::read(place.load(Ordering::Relaxed), until);
        let old =
            |place: &&AtomicU64| read(place).is_some_and(|kept| kept.end.saturating_add(OLD_NS) < gap.start);
        if let Some(place) = self.gaps.iter().find(old) {
            let dropped = Gap::read(place.swap(gap.word(), Ordering::AcqRel), until);
            self.known_from.fetch_max(dropped.map_or(0, |gap| gap.end), Ordering::AcqRel);
            return;
        }
        let next = |gap: Gap| {
            let later = self.gaps.iter().filter_map(|place| Some((place, read(place)?)));
            later.filter(|(_, other)| other.start > gap.start).min_by_key(|(_, other)| other.start)
        };
        let pairs = self.gaps.iter().filter_map(|place| {
            let earlier = read(place)?;
            let (later_place, later) = next(earlier)?;
            Some((place, later_place, later.start.saturating_sub(earlier.end)))
        });
        let Some((earlier, later, _)) = pairs.min_by_key(|(_, _, between)| *between) else { return };
        let Some(second) = Gap::read(later.swap(gap.word(), Ordering::AcqRel), until) else { return };
        let join = |word| {
            let joined = Gap::read(word, until).map_or(second, |first| first.join(second));
            // A word cannot hold an earlier start.
            let start = joined.start.max(joined.end.saturating_sub(LONGEST_GAP_NS));
            if start > joined.start {
                self.known_from.fetch_max(start, Ordering::AcqRel);
            }
            Some(Gap { start, ..joined }.word())
        };
        let _ = earlier.fetch_update(Ordering::AcqRel, Ordering::Acquire, join);
    }

    /// Takes the part of `late` that lies in gaps out of them, and returns how much that is.
    fn take(&self, late: Gap) -> u64 {
        let known_from = self.known_from.load(Ordering::Acquire);
        let unknown = late.end.min(known_from).saturating_sub(late.start);
        let late = Gap { start: late.start.max(known_from), ..late };
        if late.length() == 0 {
            return unknown;
        }
        let taken = self.gaps.iter().map(|place| self.take_from(place, late));
        taken.fold(unknown, u64::saturating_add)
    }

    /// Takes the part of `late` that lies in the gap of a word. The rest of the gap stays in the word; if that is two gaps, the
    /// other one is kept in another word.
    fn take_from(&self, place: &AtomicU64, late: Gap) -> u64 {
        let mut word = place.load(Ordering::Acquire);
        while let Some(gap) = Gap::read(word, self.until.load(Ordering::Acquire)) {
            let (start, end) = (gap.start.max(late.start), gap.end.min(late.end));
            if start >= end {
                return 0;
            }
            let (taken, rest, other) = gap.without(start, end);
            match place.compare_exchange(word, rest.word(), Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => {
                    if let Some(other) = other {
                        self.keep(other);
                    }
                    return taken;
                }
                Err(current) => word = current,
            }
        }
        0
    }
}

#[cfg(test)]
mod tests;
