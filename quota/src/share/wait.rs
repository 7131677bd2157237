//! One launch's wait, step by step: first for room in flight, then for the share.
//!
//! Only virtual time may delay a launch without limit. Work in flight may itself wait for a launch that this very
//! thread has yet to make (a kernel that spins for another one, a stream that waits for the host), so a wait for room
//! ends after [`PATIENCE_NS`] without a landing; and until something lands again, nobody waits for room at all.

use super::clock::{self, Admission};
use super::landing::Books;
use super::predict::Cost;
use super::traffic::{PATIENCE_NS, Traffic};
use crate::sync::Ordering;

/// Longest nap, so that a changed limit is noticed.
pub const NAP_NS: u64 = 2_000_000;
/// Shortest nap.
const SHORTEST_NAP_NS: u64 = 20_000;

/// What a launch waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cause {
    /// For work of this process that is in flight.
    Flight,
    /// For the container's share.
    Share,
    /// For other containers.
    Turn,
}

/// What a launch is to do next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// Go; the prediction is charged.
    Go,
    /// Sleep until then, settle what is over, and ask again.
    Nap {
        /// CLOCK_MONOTONIC.
        until_ns: u64,
    },
}

/// A launch that asks to go.
pub struct Wait {
    cost: Cost,
    asked_ns: u64,
    has_room: bool,
    /// Landings when last looked, and since when there were no more.
    landed: u64,
    still_since_ns: u64,
    /// What the last nap was for, and when it began.
    napping: Option<(Cause, u64)>,
    /// How long it has waited so far.
    pub waited: Waited,
}

/// How long a launch has waited, by what for, nanoseconds.
#[derive(Clone, Copy, Default, Debug)]
pub struct Waited {
    /// For room in flight.
    pub flight_ns: u64,
    /// For the share.
    pub share_ns: u64,
    /// For other containers.
    pub turn_ns: u64,
}

impl Waited {
    /// For whatever.
    #[inline]
    pub fn total_ns(&self) -> u64 {
        self.flight_ns.saturating_add(self.share_ns).saturating_add(self.turn_ns)
    }
}

impl Wait {
    /// A launch of this cost.
    #[inline]
    pub fn new(now_ns: u64, cost: Cost, traffic: &Traffic) -> Self {
        Self {
            cost,
            asked_ns: now_ns,
            has_room: false,
            landed: traffic.landed(),
            still_since_ns: now_ns,
            napping: None,
            waited: Waited::default(),
        }
    }

    /// What to do now.
    #[inline]
    pub fn step(&mut self, now_ns: u64, traffic: &Traffic, books: &Books) -> Step {
        self.account(now_ns);
        if !self.has_room && traffic.is_crowded(now_ns, self.cost.proven) {
            if !self.is_in_vain(now_ns, traffic) {
                let still = now_ns.saturating_sub(self.still_since_ns);
                let until_ns = now_ns.saturating_add((still / 8).clamp(SHORTEST_NAP_NS, NAP_NS));
                let until_ns = traffic.opens_at(now_ns).map_or(until_ns, |at| until_ns.min(at));
                return self.nap(Cause::Flight, now_ns, until_ns, traffic);
            }
            traffic.squeeze_in(self.cost.proven);
        }
        self.has_room = true;
        if let Some(turn) = books.turns.turn
            && !books.turns.is_open(turn, now_ns, books.until.load(Ordering::Relaxed))
        {
            let until_ns = if turn.from_ns > now_ns { turn.from_ns } else { u64::MAX };
            return self.nap(Cause::Turn, now_ns, until_ns, traffic);
        }
        let Some(rate) = books.rate else { return Step::Go };
        if books.turns.turn.is_some() && books.turns.keeps_share {
            clock::note(books.clock, now_ns, self.cost.ns, rate);
            return Step::Go;
        }
        let waited = now_ns.saturating_sub(self.asked_ns);
        match clock::admit(books.clock, now_ns, self.cost.ns, rate, waited) {
            Admission::Go => Step::Go,
            Admission::Wait { until_ns } => self.nap(Cause::Share, now_ns, until_ns, traffic),
        }
    }

    /// Whether it makes no sense to wait for a landing any longer.
    fn is_in_vain(&mut self, now_ns: u64, traffic: &Traffic) -> bool {
        if traffic.landed() != self.landed {
            self.landed = traffic.landed();
            self.still_since_ns = now_ns;
        }
        // Where nothing flies, a launch that went first still waits for its share.
        let patience = if traffic.is_idle() { 10 * PATIENCE_NS } else { PATIENCE_NS };
        let in_vain = traffic.is_stuck() || now_ns.saturating_sub(self.still_since_ns) >= patience;
        if in_vain {
            traffic.give_up();
        }
        in_vain
    }

    /// What it waits for now.
    pub fn waits_for(&self) -> Option<Cause> {
        self.napping.map(|(cause, _)| cause)
    }

    /// A nap, but not past the moment at which the next launch should be over: a credit that is settled too late is
    /// lost.
    fn nap(&mut self, cause: Cause, now_ns: u64, until_ns: u64, traffic: &Traffic) -> Step {
        self.napping = Some((cause, now_ns));
        let look = traffic.next_look().unwrap_or(u64::MAX);
        let latest = now_ns.saturating_add(NAP_NS);
        Step::Nap { until_ns: until_ns.min(latest).min(look).max(now_ns.saturating_add(SHORTEST_NAP_NS)) }
    }

    #[inline]
    fn account(&mut self, now_ns: u64) {
        if let Some((cause, since_ns)) = self.napping.take() {
            let waited = now_ns.saturating_sub(since_ns);
            let sum = match cause {
                Cause::Flight => &mut self.waited.flight_ns,
                Cause::Share => &mut self.waited.share_ns,
                Cause::Turn => &mut self.waited.turn_ns,
            };
            *sum = sum.saturating_add(waited);
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::share::busy::Own;
    use crate::share::turn::Words;
    use crate::share::{Clock, Rate};
    use crate::sync::AtomicU64;

    const NOW: u64 = 5_000_000_000;

    /// Steps until the launch goes; answers when.
    fn goes_at(mut now: u64, cost: Cost, traffic: &Traffic, land_at: Option<u64>) -> u64 {
        let words: [AtomicU64; 12] = std::array::from_fn(|_| AtomicU64::new(0));
        let [
            virtual_time,
            idle_at,
            idle_ns,
            rate,
            longest,
            clamped,
            until,
            gpu_time_ns,
            pending_ns,
            asked_at,
            in_flight_ns,
            doubt_ns,
        ] = &words;
        let own = Own::default();
        let books = Books {
            clock: Clock { virtual_time, idle_at, idle_ns, rate, longest, clamped },
            busy: own.busy(),
            until,
            gpu_time_ns,
            pending_ns,
            rate: Rate::new(50),
            company: false,
            turns: Words { turn: None, keeps_share: true, asked_at, in_flight_ns, doubt_ns },
        };
        let mut wait = Wait::new(now, cost, traffic);
        let mut land_at = land_at;
        while let Step::Nap { until_ns } = wait.step(now, traffic, &books) {
            assert!(until_ns > now && until_ns <= now + NAP_NS);
            now = until_ns;
            if land_at.is_some_and(|at| at <= now) {
                traffic.land(traffic.fly(now, cost, 0), false);
                land_at = None;
            }
        }
        assert_eq!(clamped.load(Ordering::Relaxed), 0);
        now
    }

    #[test]
    fn a_launch_that_lands_makes_room_at_once() {
        let traffic = Traffic::default();
        assert_eq!(goes_at(NOW, Cost::UNKNOWN, &traffic, None), NOW);
        let went = goes_at(NOW, Cost::UNKNOWN, &traffic, Some(NOW + 1_000_000));
        assert!((NOW + 1_000_000..NOW + 1_500_000).contains(&went), "{}", went - NOW);
    }

    #[test]
    fn when_nothing_lands_one_launch_loses_its_patience_for_all() {
        let traffic = Traffic::default();
        goes_at(NOW, Cost::UNKNOWN, &traffic, None);
        let covered = traffic.fly(NOW, Cost::UNKNOWN, 0);
        let went = goes_at(NOW, Cost::UNKNOWN, &traffic, None);
        assert!((PATIENCE_NS..2 * PATIENCE_NS).contains(&(went - NOW)));
        assert_eq!(goes_at(went, Cost::UNKNOWN, &traffic, None), went, "known to be stuck");
        let late = went + PATIENCE_NS;
        traffic.land(covered, false);
        traffic.fly(late, Cost::UNKNOWN, 0);
        let again = goes_at(late, Cost::UNKNOWN, &traffic, None);
        assert!(again - late >= PATIENCE_NS, "what lands may land again");
    }
}
