//! Time in which the host does not let a process run is no idle time.
//!
//! A share that is not used is lost but for a burst. A CPU limit stops a process for most of a tenth of a second, in each of
//! them, and it cannot use its share meanwhile. So what the kernel says that a thread was ready and had no processor keeps
//! the virtual time as far behind, for a while in which it can be made up for.

use super::clock::Clock;
use crate::sync::{AtomicU64, Ordering};

/// The most that can be made up for, and for how long: the period of a CPU limit.
const LONGEST_NS: u64 = 100_000_000;
/// The kernel's figure takes three system calls, so it is not asked for again until so much more is lost.
const WORTH_NS: u64 = 2_000_000;

/// What one thread has waited for a processor since it was started.
#[derive(Clone, Copy, Debug)]
pub struct Delay {
    /// The thread.
    pub thread: u64,
    /// For how long.
    pub total_ns: u64,
}

/// What a process knows of it.
pub struct Starved {
    thread: AtomicU64,
    total_ns: AtomicU64,
    credit_ns: AtomicU64,
    until_ns: AtomicU64,
}

impl Starved {
    /// Of a process that has not asked yet.
    #[cfg(not(loom))]
    pub const fn unknown() -> Self {
        Self {
            thread: AtomicU64::new(0),
            total_ns: AtomicU64::new(0),
            credit_ns: AtomicU64::new(0),
            until_ns: AtomicU64::new(0),
        }
    }

    /// By how much the virtual time may stay behind the clock at a launch. `delay` asks the kernel.
    #[cold]
    pub fn credit_ns(&self, clock: Clock, now_ns: u64, delay: impl FnOnce() -> Option<Delay>) -> u64 {
        let behind_ns = now_ns.saturating_sub(clock.virtual_time.load(Ordering::Relaxed));
        let left_ns = self.until_ns.load(Ordering::Relaxed).saturating_sub(now_ns);
        let known_ns = if left_ns == 0 { 0 } else { self.credit_ns.load(Ordering::Relaxed) };
        if behind_ns < known_ns.saturating_add(WORTH_NS) {
            return known_ns;
        }
        let Some(Delay { thread, total_ns }) = delay() else { return known_ns };
        let is_same = self.thread.swap(thread, Ordering::Relaxed) == thread;
        let before_ns = self.total_ns.swap(total_ns, Ordering::Relaxed);
        // What another thread has waited says nothing.
        let starved_ns = if is_same { total_ns.saturating_sub(before_ns) } else { 0 };
        let credit_ns = known_ns.saturating_add(starved_ns).min(behind_ns).min(LONGEST_NS);
        self.credit_ns.store(credit_ns, Ordering::Relaxed);
        self.until_ns.store(now_ns.saturating_add(LONGEST_NS), Ordering::Relaxed);
        credit_ns
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::super::clock::{Admission, Rate, admit, charge};
    use super::*;

    const MS: u64 = 1_000_000;
    const NOW: u64 = 1_000_000 * MS;

    /// What a program has that launches kernels of a millisecond whenever it may, in percent of ten seconds, if the host lets it
    /// run for `runs_ns` of each 100 ms. `tells`: the kernel says how long it was not run.
    fn has(percent: u32, runs_ns: u64, tells: bool) -> u64 {
        let words: [AtomicU64; 6] = std::array::from_fn(|_| AtomicU64::new(0));
        let [virtual_time, idle_at, idle_ns, rate, largest_charge_ns, clamped] = &words;
        let clock = Clock { virtual_time, idle_at, idle_ns, rate, largest_charge_ns, clamped };
        let rate = Rate::new(percent).expect("a share");
        let starved = Starved::unknown();
        let (mut now, mut total_ns, mut used) = (NOW, 0, 0);
        while now < NOW + 10_000 * MS {
            let within = (now - NOW) % (100 * MS);
            if within >= runs_ns {
                total_ns += 100 * MS - within;
                now += 100 * MS - within;
            }
            let admission = admit(clock, now, MS, rate, 0);
            if admission == Admission::Behind {
                let delay = || tells.then_some(Delay { thread: 7, total_ns });
                charge(clock, now - starved.credit_ns(clock, now, delay), MS, rate);
            }
            now = match admission {
                Admission::Wait { until_ns } => until_ns.max(now + 50_000),
                _ => {
                    used += MS;
                    now + MS
                }
            };
        }
        used * 100 / (10_000 * MS)
    }

    #[test]
    fn a_program_that_the_host_stops_makes_up_for_it() {
        for (percent, runs_ns) in [(30, 50 * MS), (10, 20 * MS), (60, 70 * MS), (30, 40 * MS)] {
            let percent_had = has(percent, runs_ns, true);
            assert!(percent_had.abs_diff(percent.into()) <= 2, "{percent_had} of {percent}%, {runs_ns}");
        }
        assert!(has(30, 50 * MS, false) <= 26, "this is what nobody tells of");
    }

    #[test]
    fn whoever_was_idle_makes_up_for_nothing_but_a_burst() {
        let words: [AtomicU64; 6] = std::array::from_fn(|_| AtomicU64::new(0));
        let [virtual_time, idle_at, idle_ns, rate, largest_charge_ns, clamped] = &words;
        let clock = Clock { virtual_time, idle_at, idle_ns, rate, largest_charge_ns, clamped };
        let rate = Rate::new(30).expect("a share");
        let starved = Starved::unknown();
        // It has waited for a processor for long, but not since the last look.
        let delay = || Some(Delay { thread: 7, total_ns: 5_000 * MS });
        assert_eq!(starved.credit_ns(clock, NOW, delay), 0, "the first look tells nothing");
        virtual_time.store(NOW - 50 * MS, Ordering::Relaxed);
        assert_eq!(starved.credit_ns(clock, NOW, delay), 0);
        let other = || Some(Delay { thread: 8, total_ns: 9_000 * MS });
        assert_eq!(starved.credit_ns(clock, NOW, other), 0, "another thread's time");
        charge(clock, NOW, MS, rate);
        let mut went = 1;
        while admit(clock, NOW, MS, rate, 0) == Admission::Go {
            went += 1;
        }
        assert!(went <= 11, "{went} ms at once");
    }

    #[test]
    fn no_more_is_made_up_for_than_was_lost_and_only_for_a_while() {
        let words: [AtomicU64; 6] = std::array::from_fn(|_| AtomicU64::new(0));
        let [virtual_time, idle_at, idle_ns, rate, largest_charge_ns, clamped] = &words;
        let clock = Clock { virtual_time, idle_at, idle_ns, rate, largest_charge_ns, clamped };
        let starved = Starved::unknown();
        let credit =
            |now: u64, total_ns: u64| starved.credit_ns(clock, now, || Some(Delay { thread: 7, total_ns }));
        virtual_time.store(NOW, Ordering::Relaxed);
        assert_eq!(credit(NOW + 5 * MS, 0), 0);
        assert_eq!(credit(NOW + 20 * MS, 900 * MS), 20 * MS, "as far behind as it is");
        assert_eq!(credit(NOW + 21 * MS, 900 * MS), 20 * MS, "it stays so");
        virtual_time.store(NOW + 1_000 * MS, Ordering::Relaxed);
        assert_eq!(credit(NOW + 900 * MS, 900 * MS), 0, "it is not behind");
        assert_eq!(credit(NOW + 1_010 * MS, 900 * MS), 0, "that was long ago");
        assert_eq!(credit(NOW + 3_000 * MS, 9_000 * MS), LONGEST_NS);
    }
}
