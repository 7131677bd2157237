//! Time slicing of one device between the processes that work on it. Pure: time and demand are arguments.
//!
//! Every process has a time of its own, its *seat time*: the wall clock less the time that it had work and
//! another process had the device (its lag). Alone it runs with the clock; while it is stalled its time
//! stands still. Work is laid out in seat time, so whoever stalls a process moves all of its work at once.

use crate::layout::SEATS;

/// The schedule of a device up to `wall`.
#[derive(Clone)]
pub struct Schedule {
    /// How far the schedule is known.
    pub wall: u64,
    /// Who has the device, and until when while others wait.
    pub current: usize,
    /// End of the current slice.
    pub slice_end: u64,
    /// Per seat, how far its time lies behind the wall clock.
    pub lag: [u64; SEATS],
}

/// What the schedule asks about work and tells about stalls.
pub trait Demand {
    /// The seats in use, ascending.
    fn seats(&self) -> &[usize];
    /// The first stretch of `seat`'s work that ends after seat time `now`.
    fn next_work(&self, seat: usize, now: u64) -> Option<(u64, u64)>;
    /// `seat` stood still at seat time `at`; its lag is now `lag`.
    fn stalled(&mut self, seat: usize, at: u64, lag: u64);
}

impl Schedule {
    /// The seat time of `seat` at the end of the known schedule.
    pub fn seat_time(&self, seat: usize) -> u64 {
        self.wall.saturating_sub(self.lag[seat])
    }

    /// Extends the schedule to wall time `until`, or to the instant when `goal`'s seat reaches its time.
    pub fn advance(
        &mut self,
        until: u64,
        slice_ns: u64,
        goal: Option<(usize, u64)>,
        demand: &mut impl Demand,
    ) {
        while self.wall < until {
            let mut horizon = until;
            let mut runnable = [false; SEATS];
            let mut ready = 0;
            let mut work_end = [0; SEATS];
            for &seat in demand.seats() {
                let now = self.seat_time(seat);
                match demand.next_work(seat, now) {
                    Some((start, end)) if start <= now => {
                        runnable[seat] = true;
                        work_end[seat] = self.wall + (end - now);
                        ready += 1;
                    }
                    Some((start, _)) => horizon = horizon.min(self.wall + (start - now)),
                    None => {}
                }
            }
            if ready > 0 {
                if !runnable[self.current] || self.wall >= self.slice_end {
                    self.current = self.next_runnable(&runnable);
                    self.slice_end = self.wall + slice_ns;
                }
                horizon = horizon.min(work_end[self.current]);
                if ready > 1 {
                    horizon = horizon.min(self.slice_end);
                }
            }
            if let Some((seat, time)) = goal {
                let now = self.seat_time(seat);
                if now >= time {
                    return;
                }
                if !runnable[seat] || seat == self.current {
                    horizon = horizon.min(self.wall + (time - now));
                }
            }
            let step = horizon - self.wall;
            for &seat in demand.seats() {
                if runnable[seat] && seat != self.current {
                    runnable[seat] = false;
                    work_end[seat] = self.seat_time(seat);
                    self.lag[seat] += step;
                } else {
                    work_end[seat] = u64::MAX;
                }
            }
            self.wall = horizon;
            for index in 0..demand.seats().len() {
                let seat = demand.seats()[index];
                if work_end[seat] != u64::MAX {
                    demand.stalled(seat, work_end[seat], self.lag[seat]);
                }
            }
        }
    }

    /// Round robin: the first seat with work after the current one.
    fn next_runnable(&self, runnable: &[bool; SEATS]) -> usize {
        (1..=SEATS)
            .map(|step| (self.current + step) % SEATS)
            .find(|seat| runnable[*seat])
            .unwrap_or(self.current)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Work {
        seats: Vec<usize>,
        stretches: Vec<(u64, u64)>,
    }

    impl Demand for Work {
        fn seats(&self) -> &[usize] {
            &self.seats
        }

        fn next_work(&self, seat: usize, now: u64) -> Option<(u64, u64)> {
            Some(self.stretches[seat]).filter(|(_, end)| *end > now)
        }

        fn stalled(&mut self, _: usize, _: u64, _: u64) {}
    }

    fn idle() -> Schedule {
        Schedule { wall: 0, current: 0, slice_end: 0, lag: [0; SEATS] }
    }

    #[test]
    fn alone_a_process_runs_with_the_clock() {
        let mut schedule = idle();
        let mut work = Work { seats: vec![0], stretches: vec![(0, 50)] };
        schedule.advance(100, 2, None, &mut work);
        assert_eq!(schedule.seat_time(0), 100);
    }

    #[test]
    fn two_busy_processes_get_half_each() {
        let mut schedule = idle();
        let mut work = Work { seats: vec![0, 1], stretches: vec![(0, 1000), (0, 1000)] };
        schedule.advance(100, 10, None, &mut work);
        assert_eq!((schedule.seat_time(0), schedule.seat_time(1)), (50, 50));
    }

    #[test]
    fn an_idle_neighbour_costs_nothing_until_its_work_begins() {
        let mut schedule = idle();
        let mut work = Work { seats: vec![0, 1], stretches: vec![(0, 1000), (60, 70)] };
        schedule.advance(60, 10, None, &mut work);
        assert_eq!(schedule.lag[0], 0);
        schedule.advance(200, 10, None, &mut work);
        assert_eq!(schedule.lag[0], 10);
    }

    #[test]
    fn a_goal_is_met_at_its_very_instant() {
        let mut schedule = idle();
        let mut work = Work { seats: vec![0, 1], stretches: vec![(0, 30), (0, 30)] };
        schedule.advance(u64::MAX, 10, Some((0, 30)), &mut work);
        // Seat 1 begins (round robin from 0), so seat 0 ends with the sixth slice.
        assert_eq!((schedule.wall, schedule.seat_time(0)), (60, 30));
    }
}
