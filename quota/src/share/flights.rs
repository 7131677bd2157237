//! Measured launches in flight, and what is charged when they land.
//!
//! A process keeps them in one table, in the order of their launch, and looks at it whenever it launches or waits.
//! What was predicted is charged at departure; a landing settles the difference, for itself and for the launches
//! that it speaks for. Where streams or processes overlap, a landing is charged what it occupied the device beyond
//! what others were charged already (`share::busy`). A launch that runs much longer than predicted raises the prediction
//! of its key while it runs, so that no more of it are let in at the old price.

use super::clock::Correction;
use super::landing::{Books, Landed};
use super::predict::{Predictor, Spoken};
use super::submission::{Queueing, Submission};
use super::traffic::{Covered, Traffic};

/// Measured launches that one process may have in flight.
pub const FLIGHTS: usize = 64;

/// How often a landing is looked for that is late: at first, and at last.
const LOOK_NS: (u64, u64) = (100_000, 1_000_000);

/// A launch this much later than twice its prediction is overdue.
const OVERDUE_NS: u64 = 1_000_000;

/// A measured launch, or a place for one.
#[derive(Clone, Copy, Default)]
pub struct Flight<H> {
    /// What the caller measures it with; kept for the next launch of the same context.
    pub events: H,
    /// Where `events` belong; 0 for a place without.
    pub context: u64,
    /// What was launched.
    pub key: u64,
    /// Into which stream.
    pub lane: u64,
    /// On which device of the region.
    pub device: u8,
    /// Whether its key had been measured before.
    pub proven: bool,
    /// When.
    pub launched_at_ns: u64,
    /// What it was charged.
    pub predicted_ns: u64,
    /// It and the launches before it that are over when it is.
    pub covered: Covered,
    /// By how much its length may be wrong, and how much earlier than expected it may well be over.
    pub doubt_ns: u64,
    pub(super) early_ns: u64,
    /// Launches of its key that it speaks for.
    pub spoken: Spoken,
    /// How it came to the device.
    pub submission: Submission,
    /// When the container's turn ends in which it was launched; u64::MAX where it has the device alone.
    pub turn_until_ns: u64,
    /// How far virtual time had been behind till then.
    pub idle_ns: u64,
    pub(super) flying: bool,
    /// The launch after this one: its place + 1, or 0.
    pub(super) next: u8,
    /// When it began, once that is known.
    pub(super) since_ns: u64,
    /// What it was charged so far.
    pub(super) paid_ns: u64,
    /// Whether it raised the prediction of its key.
    pub(super) raised: bool,
    /// What launches that ran beside it were charged for the time in which it ran.
    pub(super) prepaid_ns: u64,
}

/// What the driver says of a measured launch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Seen {
    /// It has not begun, or nobody asked.
    Waiting,
    /// It has begun, at this time.
    Running {
        /// CLOCK_MONOTONIC.
        since_ns: u64,
    },
    /// It is over.
    Over {
        /// When it began, if that was asked and can be told.
        since_ns: Option<u64>,
        /// How long it took; `None` where the driver does not tell any more.
        elapsed_ns: Option<u64>,
    },
}

/// A place for a launch that is to be measured.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place<H> {
    /// With the events of an earlier launch of the same context.
    Used(H),
    /// Without events.
    Fresh,
}

/// The measured launches of a process. All-zero bytes: none.
pub struct Flights<H> {
    places: [Flight<H>; FLIGHTS],
    /// The first and the last of those that fly, in the order of their launch: place + 1, or 0.
    first: u8,
    last: u8,
    queueing: Queueing,
}

impl<H: Copy + Default> Default for Flights<H> {
    fn default() -> Self {
        Self { places: [Flight::default(); FLIGHTS], first: 0, last: 0, queueing: Queueing::default() }
    }
}

impl<H: Copy> Flights<H> {
    /// Takes a place for a launch of a context; `None` while all are taken. [`Self::enter`] or
    /// [`Self::park`] fills it.
    pub fn place(&mut self, context: u64) -> Option<Place<H>> {
        let used = |flight: &&mut Flight<H>| flight.context == context && !flight.flying;
        if let Some(flight) = self.places.iter_mut().find(used) {
            flight.context = 0;
            return Some(Place::Used(flight.events));
        }
        self.places.iter().any(|flight| flight.context == 0).then_some(Place::Fresh)
    }

    /// Gives events back whose launch does not fly after all. False if there is no place for them.
    pub fn park(&mut self, events: H, context: u64) -> bool {
        let Some(place) = self.places.iter_mut().find(|place| place.context == 0) else { return false };
        place.events = events;
        place.context = context;
        true
    }

    /// Enters a launch that flies. False if there is no place after all.
    pub fn enter(&mut self, flight: Flight<H>, traffic: &Traffic) -> bool {
        let beside =
            |other: &Flight<H>| other.flying && other.device == flight.device && other.lane != flight.lane;
        if self.places.iter().any(beside) {
            traffic.mingle_streams(flight.launched_at_ns);
        }
        let mut places = self.places.iter_mut().zip(1..);
        let Some((place, number)) = places.find(|(place, _)| place.context == 0) else { return false };
        *place = Flight { flying: true, next: 0, paid_ns: flight.predicted_ns, ..flight };
        self.link(self.last, number);
        self.last = number;
        true
    }

    /// The flight in a place, counted from 1.
    fn at(&mut self, number: u8) -> Option<&mut Flight<H>> {
        self.places.get_mut(usize::from(number).wrapping_sub(1))
    }

    /// Puts one flight after another, or first.
    fn link(&mut self, before: u8, number: u8) {
        match self.at(before) {
            Some(flight) => flight.next = number,
            None => self.first = number,
        }
    }

    /// Takes the flight after `before` out.
    fn unlink(&mut self, before: u8, number: u8) {
        let next = self.at(number).map_or(0, |flight| {
            flight.flying = false;
            core::mem::take(&mut flight.next)
        });
        self.link(before, next);
        if self.last == number {
            self.last = before;
        }
    }

    /// Takes all places of a context out, which is about to go: what flies stays charged as predicted.
    pub fn forget(&mut self, context: u64, mut gone: impl FnMut(&Flight<H>)) {
        let (mut before, mut number) = (0, self.first);
        while let Some(flight) = self.at(number) {
            let next = flight.next;
            if flight.context == context {
                gone(flight);
                self.unlink(before, number);
            } else {
                before = number;
            }
            number = next;
        }
        for flight in self.places.iter_mut().filter(|flight| flight.context == context) {
            flight.context = 0;
        }
    }

    /// Settles the launches that are over. `look` asks the driver after one, and also when it began if told so;
    /// `at` finds the device's traffic and books.
    pub fn settle<'b>(
        &mut self,
        now_ns: u64,
        predictor: &Predictor,
        at: impl Fn(u8) -> Option<(&'b Traffic, Books<'b>)>,
        mut look: impl FnMut(&Flight<H>, bool) -> Seen,
    ) {
        let (mut before, mut number, mut waiting) = (0, self.first, Lanes::default());
        let mut devices = 0u64;
        while let Some(flight) = self.at(number) {
            let (this, next) = (number, flight.next);
            number = next;
            let Some((traffic, books)) = at(flight.device) else {
                before = this;
                continue;
            };
            let device = 1u64.wrapping_shl(flight.device.into());
            if devices & device == 0 {
                devices |= device;
                traffic.looked();
            }
            let shared = books.company || traffic.mingles_streams(now_ns);
            let begun = flight.since_ns != 0;
            // Within a stream nothing lands before what was launched earlier.
            let seen = match waiting.contains(flight.lane) {
                true => Seen::Waiting,
                false => look(flight, !begun && (shared || flight.is_overdue(now_ns))),
            };
            if let Seen::Over { since_ns, elapsed_ns } = seen {
                let since_ns = if begun { Some(flight.since_ns) } else { since_ns };
                let mut landed = Landed { flight: *flight, since_ns, elapsed_ns, shared };
                landed.keep_own(&mut self.queueing);
                self.unlink(before, this);
                let occupied = landed.settle(now_ns, predictor, traffic, &books);
                if let (true, Some(since), Some(elapsed)) = (shared, landed.since_ns, landed.elapsed_ns) {
                    self.prepay(since.saturating_add(elapsed), occupied, landed.flight.device, &books);
                }
                continue;
            }
            before = this;
            waiting.insert(flight.lane);
            if let Seen::Running { since_ns } = seen {
                flight.since_ns = since_ns;
            }
            if flight.since_ns != 0 && flight.is_overdue(now_ns) {
                predictor.raise(flight.key, now_ns.saturating_sub(flight.since_ns));
                flight.raised = true;
            }
            let over_ns =
                flight.launched_at_ns.saturating_add(flight.covered.ns).saturating_sub(flight.early_ns);
            let pause_ns = (now_ns.saturating_sub(over_ns) / 16).clamp(LOOK_NS.0, LOOK_NS.1);
            traffic.look_at(over_ns.max(now_ns.saturating_add(pause_ns)));
        }
    }

    /// What has just been charged for a time up to `end_ns` is not charged again to what ran beside it. What that was
    /// charged already is given back now: a credit that is settled too late is lost.
    fn prepay(&mut self, end_ns: u64, occupied: u64, device: u8, books: &Books) {
        let beside = |flight: &&mut Flight<H>| {
            flight.flying && flight.device == device && flight.since_ns != 0 && flight.since_ns < end_ns
        };
        for flight in self.places.iter_mut().filter(beside) {
            let both = occupied.min(end_ns.saturating_sub(flight.since_ns));
            flight.prepaid_ns = flight.prepaid_ns.saturating_add(both);
            let back = both.min(flight.paid_ns);
            flight.paid_ns = flight.paid_ns.saturating_sub(back);
            books.correct(Correction {
                charged_at_ns: flight.launched_at_ns,
                charged_ns: back,
                actual_ns: 0,
                behind_ns: 0,
            });
        }
    }
}

impl<H> Flight<H> {
    /// Nobody will hear of it again: it stays charged as predicted.
    pub fn lose(&self, traffic: &Traffic, books: &Books) {
        traffic.land(self.covered, self.proven);
        books.land(self.covered, self.doubt_ns);
    }

    fn is_overdue(&self, now_ns: u64) -> bool {
        let late = self.covered.ns.saturating_mul(2).saturating_add(OVERDUE_NS);
        now_ns.saturating_sub(self.launched_at_ns) > late
    }
}

/// Streams in which something is still in flight, as many as fit: of others the driver is asked once too often.
#[derive(Default)]
struct Lanes {
    lanes: [u64; 8],
    count: usize,
}

impl Lanes {
    fn contains(&self, lane: u64) -> bool {
        self.lanes.iter().take(self.count).any(|known| *known == lane)
    }

    fn insert(&mut self, lane: u64) {
        if self.contains(lane) {
            return;
        }
        if let Some(place) = self.lanes.get_mut(self.count) {
            *place = lane;
            self.count = self.count.wrapping_add(1);
        }
    }
}
