//! One launch from the question to the flight: what the library does on the real clock and the tests in virtual time.

use super::clock::{self, Admission};
use super::flights::Flight;
use super::landing::Books;
use super::predict::{Cost, Known, Predictor};
use super::traffic::Traffic;
use super::wait::{Step, Wait};
use crate::sync::Ordering;

/// What is launched, into what.
#[derive(Clone, Copy)]
pub struct What {
    /// Function and geometry, or graph.
    pub key: u64,
    /// The stream.
    pub lane: u64,
    /// Region index of the device.
    pub device: u8,
}

/// A launch that asks to go.
pub struct Launch<'p> {
    what: What,
    cost: Cost,
    known: Option<&'p Known>,
    /// How it has waited.
    pub wait: Wait,
}

impl<'p> Launch<'p> {
    /// A launch at this time.
    #[inline]
    pub fn new(now_ns: u64, what: What, predictor: &'p Predictor, traffic: &Traffic) -> Self {
        let known = predictor.find(what.key);
        let cost = known.map_or(Cost::UNKNOWN, Known::cost);
        Self { what, cost, known, wait: Wait::new(now_ns, cost, traffic) }
    }

    /// What it is charged when it goes.
    pub fn predicted_ns(&self) -> u64 {
        self.cost.ns
    }

    /// What to do now; see [`Wait::step`].
    #[inline]
    pub fn step(&mut self, now_ns: u64, traffic: &Traffic, books: &Books) -> Step {
        self.wait.step(now_ns, traffic, books)
    }

    /// Goes at once and is charged all the same; answers whether it would have waited for the share.
    pub fn force(&mut self, now_ns: u64, traffic: &Traffic, books: &Books) -> bool {
        traffic.squeeze_in(self.cost.proven);
        let Some(rate) = books.rate else { return false };
        let waits = clock::admit(books.clock, now_ns, self.cost.ns, rate, 0) != Admission::Go;
        if waits {
            clock::charge(books.clock, now_ns, self.cost.ns, rate);
        }
        waits
    }

    /// It goes: writes the prediction down, and answers whether it is to be measured. If so, [`Self::flight`] follows
    /// or [`Self::unmeasured`].
    #[inline]
    pub fn depart(&self, now_ns: u64, traffic: &Traffic, books: &Books) -> bool {
        books.gpu_time_ns.fetch_add(self.cost.ns, Ordering::Relaxed);
        let waited_ns = self.wait.waited.total_ns();
        if waited_ns != 0 {
            traffic.late(now_ns, waited_ns);
        }
        let noted = books.company || books.turns.turn.is_some();
        let container_until = noted.then_some(books.until);
        let measured = traffic.depart(now_ns, self.cost, self.what.lane, container_until, books.company);
        if let (false, Some(known)) = (measured, self.known) {
            known.skip(now_ns);
        }
        measured
    }

    /// It went without events, although it was to be measured.
    pub fn unmeasured(&self, now_ns: u64, traffic: &Traffic) {
        traffic.resign(self.cost.proven);
        if let Some(known) = self.known {
            known.skip(now_ns);
        }
    }

    /// The driver has refused it: it never was.
    pub fn cancel(&self, now_ns: u64, traffic: &Traffic, books: &Books) {
        if !self.cost.proven {
            traffic.resign(false);
        }
        books.cancel(now_ns, self.cost.ns);
    }

    /// It was launched at this time, with events of a context. `random` decides when the next one is measured.
    pub fn flight<H: Default>(
        &self,
        events: H,
        context: u64,
        launched_at_ns: u64,
        random: u64,
        traffic: &Traffic,
        books: &Books,
    ) -> Flight<H> {
        let covered = traffic.fly(launched_at_ns, self.cost, random);
        let doubt_ns = self.cost.doubt_ns();
        books.fly(covered, doubt_ns);
        Flight {
            events,
            context,
            key: self.what.key,
            lane: self.what.lane,
            device: self.what.device,
            proven: self.cost.proven,
            launched_at_ns,
            predicted_ns: self.cost.ns,
            covered,
            doubt_ns,
            early_ns: self.cost.early_ns(),
            spoken: self.known.map_or_else(Default::default, Known::speak),
            turn_until_ns: books.turns.turn.map_or(u64::MAX, |turn| turn.until_ns),
            idle_ns: books.clock.idle_ns.load(Ordering::Relaxed),
            ..Flight::default()
        }
    }
}
