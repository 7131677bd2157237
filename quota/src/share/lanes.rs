//! When the work of each stream of a process should be over.
//!
//! Streams are told apart by their numbers, not by a hash of them: of streams that had one place together, work would seem to
//! come one after the other that runs beside each other. Only of more streams with work in flight than there are places do
//! several have one.

use super::words::{self, remainder};
use crate::sync::{AtomicU64, Ordering};

/// Streams with work in flight that are told apart.
const LANES: usize = 32;

/// Places that a stream may have.
const PROBES: usize = 16;

/// Two events, and a kernel that is queued behind an event instead of a kernel, take so many hundredths of what one event takes
/// (decision 12: two of 1.31 us, and 2.05 instead of 1.31 us).
const EVENTS_PARTS: u64 = 256;

/// The streams with work in flight. All-zero bytes: none.
#[derive(Default)]
pub struct Lanes {
    lanes: [Lane; LANES],
    /// When the work of all streams should be over, if they run beside each other.
    until: AtomicU64,
    /// What the front end takes between two launches of a stream: as long as an event, as far as is known.
    gap_ns: AtomicU64,
}

#[derive(Default)]
struct Lane {
    stream: AtomicU64,
    /// When its work should be over; another stream may take the place after that.
    until: AtomicU64,
}

impl Lane {
    fn is_of(&self, stream: u64) -> bool {
        self.stream.load(Ordering::Relaxed) == stream
    }
}

impl Lanes {
    /// The first place of a stream. The last bits of its number are those of an address.
    #[inline]
    fn first(stream: u64) -> usize {
        remainder(stream.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 59, LANES)
    }

    /// The places that a stream may have.
    fn places(&self, stream: u64) -> impl Iterator<Item = &Lane> {
        let (before, from) = self.lanes.split_at_checked(Self::first(stream)).unwrap_or((&[], &self.lanes));
        from.iter().chain(before).take(PROBES)
    }

    /// The place of a stream: its own, or a free one, or one that others have, too.
    #[inline]
    fn find(&self, now_ns: u64, stream: u64) -> Option<&Lane> {
        let first = self.lanes.get(Self::first(stream)).filter(|lane| lane.is_of(stream));
        first.or_else(|| self.search(now_ns, stream))
    }

    #[inline(never)]
    fn search(&self, now_ns: u64, stream: u64) -> Option<&Lane> {
        let own = self.places(stream).find(|lane| lane.is_of(stream));
        let is_free = |lane: &&Lane| lane.until.load(Ordering::Relaxed) <= now_ns;
        own.or_else(|| self.places(stream).find(is_free)).or_else(|| self.places(stream).next())
    }

    /// When new work of a stream would begin.
    #[inline]
    fn begins(&self, lane: Option<&Lane>, now_ns: u64) -> u64 {
        let over_ns = lane.map_or(0, |lane| lane.until.load(Ordering::Relaxed));
        over_ns.saturating_add(self.gap_ns.load(Ordering::Relaxed)).max(now_ns)
    }

    /// Two events with nothing between them lie so far apart.
    pub(super) fn note_gap(&self, between_ns: u64) {
        self.gap_ns.store(between_ns, Ordering::Relaxed);
    }

    /// Events are recorded around what was just appended to a stream, for which the front end takes time, too.
    pub(super) fn append_events(&self, stream: u64) {
        if let Some(lane) = self.places(stream).find(|lane| lane.is_of(stream)) {
            let events_ns = self.gap_ns.load(Ordering::Relaxed).saturating_mul(EVENTS_PARTS) / 100;
            lane.until.store(lane.until.load(Ordering::Relaxed).saturating_add(events_ns), Ordering::Relaxed);
        }
    }

    /// Appends work to a stream, and returns whether another stream has work that is over later. Of two threads at the same
    /// moment one may be lost.
    #[inline]
    pub(super) fn append(&self, now_ns: u64, cost_ns: u64, stream: u64) -> bool {
        let lane = self.find(now_ns, stream);
        let begins = self.begins(lane, now_ns);
        let ends = begins.saturating_add(cost_ns);
        if let Some(lane) = lane {
            if lane.until.load(Ordering::Relaxed) <= now_ns {
                lane.stream.store(stream, Ordering::Relaxed);
            }
            lane.until.store(ends, Ordering::Relaxed);
        }
        let all = self.until.load(Ordering::Relaxed);
        self.until.store(all.max(ends), Ordering::Relaxed);
        all > begins
    }

    /// How much of new work of a stream should run while other work does, if each stream's work runs without pauses.
    #[inline]
    pub(super) fn overlaps_ns(&self, now_ns: u64, cost_ns: u64, stream: u64) -> u64 {
        let begins = self.begins(self.find(now_ns, stream), now_ns);
        self.until.load(Ordering::Relaxed).saturating_sub(begins).min(cost_ns)
    }

    /// Work that was appended to a stream does not come.
    #[cold]
    pub(super) fn take_back(&self, cost_ns: u64, stream: u64) {
        if let Some(lane) = self.places(stream).find(|lane| lane.is_of(stream)) {
            words::subtract(&lane.until, cost_ns);
        }
        let last = self.lanes.iter().map(|lane| lane.until.load(Ordering::Relaxed)).max();
        self.until.store(last.unwrap_or(0), Ordering::Relaxed);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    const NOW: u64 = 1_000_000;

    #[test]
    fn streams_whose_handles_are_addresses_are_told_apart() {
        for step in [16, 64, 256, 4096, 0x1b40, 1 << 20, 1 << 32] {
            let lanes = Lanes::default();
            let streams: [u64; 12] = core::array::from_fn(|number| 0x55_5555_5000 + number as u64 * step);
            streams.iter().for_each(|stream| _ = lanes.append(NOW, 10_000, *stream));
            let overlaps = streams.map(|stream| lanes.overlaps_ns(NOW, 20_000, stream));
            assert_eq!(overlaps, [0; 12], "streams {step} apart");
        }
    }

    #[test]
    fn work_of_one_stream_comes_one_after_the_other() {
        let lanes = Lanes::default();
        assert!(!lanes.append(NOW, 10_000, 7));
        assert!(!lanes.append(NOW + 4_000, 10_000, 7));
        assert_eq!(lanes.overlaps_ns(NOW + 4_000, 10_000, 7), 0);
        assert_eq!(lanes.overlaps_ns(NOW + 14_000, 10_000, 8), 6_000);
        assert!(lanes.append(NOW + 14_000, 10_000, 8));
        lanes.take_back(10_000, 8);
        assert_eq!(lanes.overlaps_ns(NOW + 14_000, 10_000, 8), 6_000);
    }

    #[test]
    fn of_more_streams_than_there_are_places_several_have_one() {
        let lanes = Lanes::default();
        let streams = 0..2 * LANES as u64;
        let overlapping: u64 = streams
            .map(|stream| {
                let overlaps = lanes.overlaps_ns(NOW, 10_000, stream << 4);
                lanes.append(NOW, 10_000, stream << 4);
                overlaps
            })
            .sum();
        assert!(overlapping > 40 * 10_000, "{overlapping}");
    }
}
