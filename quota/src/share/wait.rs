//! One launch's wait, step by step: first for room in flight, then for the lease, then for the share.
//!
//! Only virtual time may delay a launch without limit. Work in flight may itself wait for a launch that this very
//! thread has yet to make (a kernel that spins for another one, a stream that waits for the host), so a wait for room
//! ends after [`PATIENCE_NS`] without a completion; and until something completes again, no launch waits for room.

use super::books::Books;
use super::clock::{self, Admission};
use super::in_flight::{InFlight, PATIENCE_NS};
use super::lease::Lease;
use crate::sync::Ordering;

/// Longest sleep, so that a changed limit is noticed.
pub const LONGEST_SLEEP_NS: u64 = 2_000_000;
/// Shortest sleep.
const SHORTEST_SLEEP_NS: u64 = 20_000;

/// What a launch waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cause {
    /// For a completion, so that there is room in flight.
    Room,
    /// For the container's share.
    Share,
    /// For another lease than this one.
    Lease(Lease),
}

/// The answer to a launch that asks to go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// Go; the prediction is charged.
    Go,
    /// Sleep until then, complete what is over, and ask again.
    Sleep {
        /// CLOCK_MONOTONIC.
        until_ns: u64,
        /// A wait for a lease also ends when the agent changes the lease.
        cause: Cause,
    },
    /// Find out why the container has used less than its share, charge it ([`super::Gate::go_behind`]), and go.
    Behind,
}

/// A launch that asks to go.
pub struct Wait {
    proven: bool,
    asked_ns: u64,
    has_room: bool,
    /// Completions when last asked, and since when their number has not changed.
    completions: u64,
    unchanged_since_ns: u64,
    /// What the last sleep was for, and when it began.
    sleeping: Option<(Cause, u64)>,
    /// How long it has waited so far.
    pub waited: Waited,
}

/// How long a launch has waited, by cause, nanoseconds.
#[derive(Clone, Copy, Default, Debug)]
pub struct Waited {
    /// For room in flight.
    pub room_ns: u64,
    /// For the share.
    pub share_ns: u64,
    /// For a lease.
    pub lease_ns: u64,
}

impl Waited {
    /// For any cause.
    #[inline]
    pub fn total_ns(&self) -> u64 {
        self.room_ns.saturating_add(self.share_ns).saturating_add(self.lease_ns)
    }
}

impl Wait {
    /// A launch whose key was measured before, or not.
    #[inline]
    pub fn new(now_ns: u64, proven: bool, in_flight: &InFlight) -> Self {
        Self {
            proven,
            asked_ns: now_ns,
            has_room: false,
            completions: in_flight.completions(),
            unchanged_since_ns: now_ns,
            sleeping: None,
            waited: Waited::default(),
        }
    }

    /// What to do now; if it goes, it is charged so much.
    #[inline]
    pub fn step(&mut self, now_ns: u64, charge_ns: u64, in_flight: &InFlight, books: &Books) -> Step {
        self.add_up(now_ns);
        if !self.has_room && in_flight.is_full(now_ns, self.proven) {
            if !self.is_in_vain(now_ns, in_flight) {
                let unchanged = now_ns.saturating_sub(self.unchanged_since_ns);
                let pause_ns = (unchanged / 8).clamp(SHORTEST_SLEEP_NS, LONGEST_SLEEP_NS);
                let until_ns = now_ns.saturating_add(pause_ns);
                let until_ns = in_flight.has_room_at(now_ns).map_or(until_ns, |at| until_ns.min(at));
                return self.sleep(Cause::Room, now_ns, until_ns, in_flight);
            }
            in_flight.admit_over_limit(self.proven);
        }
        self.has_room = true;
        if let Some(lease) = books.agent.lease
            && !books.agent.admits(lease, now_ns, books.in_flight_until.load(Ordering::Relaxed))
        {
            let until_ns = if lease.from_ns > now_ns { lease.from_ns } else { u64::MAX };
            return self.sleep(Cause::Lease(lease), now_ns, until_ns, in_flight);
        }
        let Some(rate) = books.rate else { return Step::Go };
        if books.agent.lease.is_some() && books.agent.enforces_share {
            clock::charge_bounded(books.clock, now_ns, charge_ns, rate);
            return Step::Go;
        }
        let waited = now_ns.saturating_sub(self.asked_ns);
        match clock::admit(books.clock, now_ns, charge_ns, rate, waited) {
            Admission::Go => Step::Go,
            Admission::Wait { until_ns } => self.sleep(Cause::Share, now_ns, until_ns, in_flight),
            Admission::Behind => Step::Behind,
        }
    }

    /// Whether it makes no sense to wait for a completion any longer.
    fn is_in_vain(&mut self, now_ns: u64, in_flight: &InFlight) -> bool {
        if in_flight.completions() != self.completions {
            self.completions = in_flight.completions();
            self.unchanged_since_ns = now_ns;
        }
        // Where no measured launch is in flight, the launch that claimed the room still waits for its share.
        let patience = if in_flight.is_idle() { 10 * PATIENCE_NS } else { PATIENCE_NS };
        let unchanged = now_ns.saturating_sub(self.unchanged_since_ns);
        let in_vain = in_flight.is_stalled() || unchanged >= patience;
        if in_vain {
            if in_flight.is_idle() {
                // Or that launch will never come: its thread was cancelled, or has jumped out of the wait.
                in_flight.drop_claims();
            }
            in_flight.mark_stalled();
        }
        in_vain
    }

    /// A sleep, but not past the moment at which the next launch should be over: a credit that comes too late is lost.
    fn sleep(&mut self, cause: Cause, now_ns: u64, until_ns: u64, in_flight: &InFlight) -> Step {
        self.sleeping = Some((cause, now_ns));
        let check = in_flight.next_check().unwrap_or(u64::MAX);
        let latest = now_ns.saturating_add(LONGEST_SLEEP_NS);
        let earliest = now_ns.saturating_add(SHORTEST_SLEEP_NS);
        Step::Sleep { until_ns: until_ns.min(latest).min(check).max(earliest), cause }
    }

    /// Adds the last sleep to what it has waited.
    #[inline]
    fn add_up(&mut self, now_ns: u64) {
        if let Some((cause, since_ns)) = self.sleeping.take() {
            let waited = now_ns.saturating_sub(since_ns);
            let sum = match cause {
                Cause::Room => &mut self.waited.room_ns,
                Cause::Share => &mut self.waited.share_ns,
                Cause::Lease(_) => &mut self.waited.lease_ns,
            };
            *sum = sum.saturating_add(waited);
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::share::busy::BusyWords;
    use crate::share::lease::AgentWords;
    use crate::share::types::Cost;
    use crate::share::{Clock, Rate};
    use crate::sync::AtomicU64;

    const NOW: u64 = 5_000_000_000;

    /// Steps until the launch may go; returns when.
    fn goes_at(mut now: u64, cost: Cost, in_flight: &InFlight, complete_at: Option<u64>) -> u64 {
        let words: [AtomicU64; 12] = std::array::from_fn(|_| AtomicU64::new(0));
        let [
            virtual_time,
            idle_at,
            idle_ns,
            rate,
            largest_charge_ns,
            clamped,
            in_flight_until,
            gpu_time_ns,
            pending_ns,
            asked_at,
            in_flight_ns,
            uncertainty_ns,
        ] = &words;
        let busy = BusyWords::default();
        let books = Books {
            clock: Clock { virtual_time, idle_at, idle_ns, rate, largest_charge_ns, clamped },
            busy: busy.busy(),
            in_flight_until,
            gpu_time_ns,
            pending_ns,
            rate: Rate::new(50),
            has_peers: false,
            agent: AgentWords { lease: None, enforces_share: true, asked_at, in_flight_ns, uncertainty_ns },
        };
        let mut wait = Wait::new(now, cost.proven, in_flight);
        let mut complete_at = complete_at;
        while let Step::Sleep { until_ns, .. } = wait.step(now, cost.ns, in_flight, &books) {
            assert!(until_ns > now && until_ns <= now + LONGEST_SLEEP_NS);
            now = until_ns;
            if complete_at.is_some_and(|at| at <= now) {
                in_flight.complete(in_flight.submit_measured(now, cost, 1, 0), false);
                complete_at = None;
            }
        }
        assert_eq!(clamped.load(Ordering::Relaxed), 0);
        now
    }

    #[test]
    fn a_completion_makes_room_at_once() {
        let in_flight = InFlight::default();
        assert_eq!(goes_at(NOW, Cost::UNKNOWN, &in_flight, None), NOW);
        let went = goes_at(NOW, Cost::UNKNOWN, &in_flight, Some(NOW + 1_000_000));
        assert!((NOW + 1_000_000..NOW + 1_500_000).contains(&went), "{}", went - NOW);
    }

    #[test]
    fn when_nothing_completes_one_launch_loses_its_patience_for_all() {
        let in_flight = InFlight::default();
        goes_at(NOW, Cost::UNKNOWN, &in_flight, None);
        let covered = in_flight.submit_measured(NOW, Cost::UNKNOWN, 1, 0);
        let went = goes_at(NOW, Cost::UNKNOWN, &in_flight, None);
        assert!((PATIENCE_NS..2 * PATIENCE_NS).contains(&(went - NOW)));
        assert_eq!(goes_at(went, Cost::UNKNOWN, &in_flight, None), went, "known to be stalled");
        let late = went + PATIENCE_NS;
        in_flight.complete(covered, false);
        in_flight.submit_measured(late, Cost::UNKNOWN, 1, 0);
        let again = goes_at(late, Cost::UNKNOWN, &in_flight, None);
        assert!(again - late >= PATIENCE_NS, "after a completion another one may follow");
    }

    #[test]
    fn the_claim_of_a_thread_that_was_lost_delays_others_once() {
        let in_flight = InFlight::default();
        goes_at(NOW, Cost::UNKNOWN, &in_flight, None);
        let mut now = goes_at(NOW, Cost::UNKNOWN, &in_flight, None);
        assert!(now - NOW >= 10 * PATIENCE_NS);
        for _ in 0..3 {
            let covered = in_flight.submit_measured(now, Cost::UNKNOWN, 1, 0);
            in_flight.complete(covered, false);
            let went = goes_at(now, Cost::UNKNOWN, &in_flight, None);
            assert_eq!(went, now, "nothing is in flight, and nobody waits to launch");
            now = went + PATIENCE_NS;
        }
    }
}
