//! Time slicing of one device between the processes that work on it. Pure: time and demand are arguments.
//!
//! Every process has a time of its own, its *seat time*: the wall clock less the time that it had work and
//! did not have the device (its lag). Alone it runs with the clock; while it is stalled its time
//! stands still. Work is laid out in seat time, so whoever stalls a process moves all of its work at once.
//!
//! When the device goes from one process to another, both stand still for as long as the switch takes.

/// How processes take turns at a device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Turns {
    /// How long a process has the device while others wait.
    pub slice_ns: u64,
    /// What a switch takes that interrupts a process's work.
    pub preempt_ns: u64,
    /// What one takes from a process that has no work.
    pub switch_ns: u64,
    /// A process keeps the device between two kernels that are queued and lie no further apart.
    pub keep_ns: u64,
}

/// The schedule of a device up to `wall`.
#[derive(Clone)]
pub struct Schedule {
    /// How far the schedule is known.
    pub wall: u64,
    /// The seat that has the device, until when while others wait, and from when: before that it is switched to.
    pub current: usize,
    pub slice_end: u64,
    pub begin: u64,
    /// How far the time of each seat lies behind the wall clock, in the order of [`Demand::seats`].
    pub lag: Vec<u64>,
}

/// What the schedule asks about work and tells about stalls. Seats are told by their place in `seats`.
pub trait Demand {
    /// The numbers of the seats in use, ascending.
    fn seats(&self) -> &[usize];
    /// The first stretch of a seat's work that ends after seat time `now`.
    fn next_work(&self, place: usize, now: u64) -> Option<(u64, u64)>;
    /// A seat stood still at seat time `at`; its lag is now `lag`.
    fn stalled(&mut self, place: usize, at: u64, lag: u64);
}

impl Schedule {
    /// The seat time at `place` at the end of the known schedule.
    pub fn seat_time(&self, place: usize) -> u64 {
        self.wall.saturating_sub(self.lag[place])
    }

    /// Extends the schedule to wall time `until`, or to the instant when the seat at `goal`'s place reaches its time.
    pub fn advance(
        &mut self,
        until: u64,
        turns: Turns,
        goal: Option<(usize, u64)>,
        demand: &mut impl Demand,
    ) {
        let count = demand.seats().len();
        let mut runnable = vec![false; count];
        let mut work_end = vec![0; count];
        while self.wall < until {
            let mut horizon = until;
            let mut ready = 0;
            let current = demand.seats().binary_search(&self.current).ok();
            for place in 0..count {
                let now = self.seat_time(place);
                runnable[place] = false;
                match demand.next_work(place, now) {
                    Some((start, end)) if start <= now => {
                        runnable[place] = true;
                        work_end[place] = self.wall + (end - now);
                        ready += 1;
                    }
                    Some((start, _)) => {
                        let begins = self.wall + (start - now);
                        horizon = horizon.min(begins);
                        if current == Some(place) && start - now <= turns.keep_ns {
                            runnable[place] = true;
                            work_end[place] = begins;
                            ready += 1;
                        }
                    }
                    None => {}
                }
            }
            let mut running = None;
            if ready > 0 {
                let current = self.take_turns(turns, &runnable, demand.seats());
                if self.wall < self.begin {
                    horizon = horizon.min(self.begin);
                } else {
                    running = Some(current);
                    horizon = horizon.min(work_end[current]);
                    if ready > 1 {
                        horizon = horizon.min(self.slice_end);
                    }
                }
            }
            if let Some((place, time)) = goal {
                let now = self.seat_time(place);
                if now >= time {
                    return;
                }
                if !runnable[place] || running == Some(place) {
                    horizon = horizon.min(self.wall + (time - now));
                }
            }
            let step = horizon - self.wall;
            self.wall = horizon;
            for place in (0..count).filter(|place| runnable[*place] && running != Some(*place)) {
                let at = horizon - step - self.lag[place];
                self.lag[place] += step;
                demand.stalled(place, at, self.lag[place]);
            }
        }
    }

    /// Whose turn it is: another's where the current one has no work or its slice is over. Answers the place.
    fn take_turns(&mut self, turns: Turns, runnable: &[bool], seats: &[usize]) -> usize {
        let current = seats.binary_search(&self.current).ok();
        let works = current.filter(|place| runnable[*place]);
        if let Some(place) = works {
            // Behind the end of its slice it was alone: it had one slice after the other, and a newcomer waits for the end of
            // the last one, whoever has looked when.
            let over = self.wall.saturating_sub(self.slice_end);
            self.slice_end += over.next_multiple_of(turns.slice_ns.max(1));
            if self.wall < self.slice_end {
                return place;
            }
        }
        // Round robin: the first seat with work after the current one.
        let after = seats.partition_point(|seat| *seat <= self.current);
        let order = (after..seats.len()).chain(0..after);
        let next = order.into_iter().find(|place| runnable[*place]).or(works).unwrap_or(0);
        if current != Some(next) {
            let takes = if works.is_some() { turns.preempt_ns } else { turns.switch_ns };
            self.begin = self.wall + takes;
            self.current = seats[next];
        }
        self.slice_end = self.wall.max(self.begin) + turns.slice_ns;
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Work {
        seats: Vec<usize>,
        stretches: Vec<Vec<(u64, u64)>>,
    }

    fn work(stretches: &[&[(u64, u64)]]) -> Work {
        let stretches: Vec<_> = stretches.iter().map(|own| own.to_vec()).collect();
        Work { seats: (0..stretches.len()).collect(), stretches }
    }

    impl Demand for Work {
        fn seats(&self) -> &[usize] {
            &self.seats
        }

        fn next_work(&self, place: usize, now: u64) -> Option<(u64, u64)> {
            self.stretches[place].iter().find(|(_, end)| *end > now).copied()
        }

        fn stalled(&mut self, _: usize, _: u64, _: u64) {}
    }

    fn idle(seats: usize) -> Schedule {
        Schedule { wall: 0, current: 0, slice_end: 0, begin: 0, lag: vec![0; seats] }
    }

    fn slices(slice_ns: u64) -> Turns {
        Turns { slice_ns, ..Turns::default() }
    }

    #[test]
    fn alone_a_process_runs_with_the_clock() {
        let mut schedule = idle(1);
        schedule.advance(100, slices(2), None, &mut work(&[&[(0, 50)]]));
        assert_eq!(schedule.seat_time(0), 100);
    }

    #[test]
    fn two_busy_processes_get_half_each() {
        let mut schedule = idle(2);
        schedule.advance(100, slices(10), None, &mut work(&[&[(0, 1000)], &[(0, 1000)]]));
        assert_eq!((schedule.seat_time(0), schedule.seat_time(1)), (50, 50));
    }

    #[test]
    fn an_idle_neighbour_costs_nothing_until_its_work_begins() {
        let mut schedule = idle(2);
        let mut work = work(&[&[(0, 1000)], &[(60, 70)]]);
        schedule.advance(60, slices(10), None, &mut work);
        assert_eq!(schedule.lag[0], 0);
        schedule.advance(200, slices(10), None, &mut work);
        assert_eq!(schedule.lag[0], 10);
    }

    #[test]
    fn a_newcomer_waits_for_the_end_of_a_slice_however_long_nobody_looked() {
        for looks in [vec![37], vec![13, 37], (1..=37).collect(), vec![]] {
            let mut schedule = idle(2);
            schedule.advance(2, slices(10), None, &mut work(&[&[(0, 1000)], &[]]));
            for wall in looks {
                schedule.advance(wall, slices(10), None, &mut work(&[&[(0, 1000)], &[]]));
            }
            // Nobody looks where a process is alone.
            schedule.wall = 37;
            schedule.advance(60, slices(10), None, &mut work(&[&[(0, 1000)], &[(37, 42)]]));
            assert_eq!((schedule.lag[0], schedule.lag[1]), (5, 3));
        }
    }

    #[test]
    fn a_goal_is_met_at_its_very_instant() {
        let mut schedule = idle(2);
        schedule.advance(u64::MAX, slices(10), Some((0, 30)), &mut work(&[&[(0, 30)], &[(0, 30)]]));
        // Seat 1 begins (round robin from 0), so seat 0 ends with the sixth slice.
        assert_eq!((schedule.wall, schedule.seat_time(0)), (60, 30));
    }

    /// A slice, and a switch that interrupts work, as an H200 has them, in tenths of microseconds.
    const CARD: Turns = Turns { slice_ns: 20_910, preempt_ns: 1526, switch_ns: 1370, keep_ns: 100 };

    #[test]
    fn a_switch_that_interrupts_work_stops_all_of_them() {
        for count in [2, 3] {
            let mut schedule = idle(count);
            let always: &[(u64, u64)] = &[(0, u64::MAX / 2)];
            let round = count as u64 * (20_910 + 1526);
            schedule.advance(10 * round, CARD, None, &mut work(&vec![always; count]));
            for place in 0..count {
                assert_eq!(schedule.lag[place], 10 * (round - 20_910), "{count}");
            }
        }
    }

    #[test]
    fn gaps_between_queued_kernels_do_not_end_a_turn() {
        let kernels: Vec<_> = (0..1000).map(|index| (index * 513, index * 513 + 500)).collect();
        let mut schedule = idle(2);
        let round = 2 * (20_910 + 1526);
        schedule.advance(10 * round, CARD, None, &mut work(&[&kernels, &kernels]));
        assert!(
            schedule.lag.iter().all(|lag| lag.abs_diff(10 * (round - 20_910)) < 10 * 13),
            "{:?}",
            schedule.lag
        );
    }

    #[test]
    fn a_process_that_waits_gets_its_turn_when_the_other_ends_its_work() {
        // Each has kernels of 500 and launches the next one when it has heard of the last one's end.
        let kernels: Vec<_> = (0..10).map(|index| (index * 700, index * 700 + 500)).collect();
        let mut schedule = Schedule { slice_end: u64::MAX, ..idle(2) };
        schedule.advance(u64::MAX, CARD, Some((0, 9 * 700 + 500)), &mut work(&[&kernels, &kernels]));
        assert_eq!(schedule.wall, 18 * (500 + 1370) + 500);
    }
}
