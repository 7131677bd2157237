use super::*;

/// Admits a launch of a process that was idle because it wanted to be.
fn admit(clock: Clock, now_ns: u64, cost_ns: u64, rate: Rate, waited_ns: u64) -> Admission {
    match super::admit(clock, now_ns, cost_ns, rate, waited_ns) {
        Admission::Behind => {
            charge(clock, now_ns, cost_ns, rate);
            Admission::Go
        }
        admission => admission,
    }
}

struct ClockWords {
    virtual_time: AtomicU64,
    idle_at: AtomicU64,
    idle_ns: AtomicU64,
    rate: AtomicU64,
    largest_charge_ns: AtomicU64,
    clamped: AtomicU64,
}

impl ClockWords {
    fn new(virtual_time: u64) -> Self {
        let word = AtomicU64::new;
        let [idle_at, idle_ns, rate, largest_charge_ns, clamped] = [0; 5].map(word);
        Self { virtual_time: word(virtual_time), idle_at, idle_ns, rate, largest_charge_ns, clamped }
    }

    fn clock(&self) -> Clock<'_> {
        let Self { virtual_time, idle_at, idle_ns, rate, largest_charge_ns, clamped } = self;
        Clock { virtual_time, idle_at, idle_ns, rate, largest_charge_ns, clamped }
    }
}

/// Longer than it takes to be let in first.
const LONG: u64 = 1_000_000_000;

fn rate(percent: u32) -> Rate {
    Rate::new(percent).expect("a rate that limits")
}

#[cfg(not(loom))]
mod real {
    use super::*;
    use crate::promise::Promise;
    use proptest::prelude::*;

    #[test]
    fn zero_and_a_hundred_percent_limit_nothing() {
        assert_eq!((Rate::new(0), Rate::new(100), Rate::new(250)), (None, None, None));
        assert_eq!(Rate::new(25).map(|rate| rate.stretch(1_000)), Some(4_000));
    }

    #[test]
    fn a_burst_after_a_pause_is_at_most_the_burst_and_one_launch() {
        let words = ClockWords::new(0);
        let go = || admit(words.clock(), 5_000_000_000, 1_000_000, rate(50), LONG) == Admission::Go;
        assert_eq!((0..1000).take_while(|_| go()).map(|_| 1).sum::<u64>(), BURST_NS / 1_000_000 + 1);
    }

    #[test]
    fn a_launch_that_has_waited_longer_goes_first() {
        let words = ClockWords::new(0);
        let rate = rate(50);
        let now = 1_000_000_000;
        words.largest_charge_ns.store(1_000_000, Ordering::Relaxed);
        words.virtual_time.store(now + rate.stretch(BURST_NS), Ordering::Relaxed);
        let waits = |waited| match admit(words.clock(), now, 1, rate, waited) {
            Admission::Wait { until_ns } => until_ns - now,
            Admission::Go | Admission::Behind => 0,
        };
        assert_eq!([0, 1_000_000, 250_000_000, LONG].map(waits), [1_000_000, 969_000, 500_000, 0]);
    }

    #[test]
    fn a_charge_that_idle_time_has_paid_is_not_given_back() {
        let promise = &Promise::to(&["HAMi-core#147"]);
        let words = ClockWords::new(0);
        let (clock, rate, now) = (words.clock(), rate(50), 1_000_000_000);
        assert_eq!(admit(clock, now, 5_000_000, rate, LONG), Admission::Go);
        let took = |charged_ns, actual_ns| Correction {
            charged_at_ns: now,
            charged_ns,
            actual_ns,
            credit: Credit::default(),
        };
        correct(clock, took(5_000_000, 4_000_000), rate);
        assert_eq!(words.virtual_time.load(Ordering::Relaxed), now + 8_000_000);
        let later = now + 500_000_000;
        assert_eq!(admit(clock, later, 5_000_000, rate, LONG), Admission::Go);
        correct(clock, took(4_000_000, 1_000_000), rate);
        promise.asserts(|| assert_eq!(words.virtual_time.load(Ordering::Relaxed), later + 10_000_000));
    }

    /// A launch overruns by 90 ms; meanwhile small ones keep virtual time at the clock. Had it been known, it would be
    /// 90 ms ahead now at 50%, not 180.
    #[test]
    fn an_overrun_is_not_paid_twice() {
        let words = ClockWords::new(0);
        let (clock, rate, start) = (words.clock(), rate(50), 1_000_000_000);
        assert_eq!(admit(clock, start, 10_000_000, rate, LONG), Admission::Go);
        let before = clock.idle_ns.load(Ordering::Relaxed);
        for later in (20_000_000..=100_000_000).step_by(1_000_000) {
            admit(clock, start + later, 1, rate, LONG);
        }
        let behind_ns = clock.idle_ns.load(Ordering::Relaxed) - before;
        assert!(behind_ns.abs_diff(80_000_000) < 1_000, "{behind_ns}");
        let credit = Credit { since_ns: before, most_ns: behind_ns };
        let correction =
            Correction { charged_at_ns: start, charged_ns: 10_000_000, actual_ns: 100_000_000, credit };
        correct(clock, correction, rate);
        let ahead = words.virtual_time.load(Ordering::Relaxed) - (start + 100_000_000);
        assert!(ahead.abs_diff(100_000_000) < 1_000, "{ahead}");
    }

    #[test]
    fn a_damaged_virtual_time_is_clamped_and_counted() {
        let promise = &Promise::to(&["HAMi-core#147"]);
        let words = ClockWords::new(u64::MAX);
        let Admission::Wait { until_ns } = admit(words.clock(), 1_000, 1_000_000, rate(10), LONG) else {
            panic!("a virtual time far ahead must wait")
        };
        promise.asserts(|| {
            assert!(until_ns < 10_000_000_000, "64 charges of 1 ms at 10% are 640 ms, not {until_ns} ns")
        });
        assert_eq!(words.clamped.load(Ordering::Relaxed), 1);
    }

    /// At any time of the clock, and by however much.
    #[test]
    fn a_virtual_time_far_ahead_is_never_taken_for_one_that_is_behind() {
        for now in [1_000, 5_000_000_000, 1 << 62] {
            for damaged in [u64::MAX, u64::MAX / 2 + 1, 1 << 63, now + (1 << 61)] {
                let words = ClockWords::new(damaged);
                let admission = super::super::admit(words.clock(), now, 1_000_000, rate(10), LONG);
                assert!(matches!(admission, Admission::Wait { .. }), "{damaged} at {now}: {admission:?}");
                assert_eq!(words.clamped.load(Ordering::Relaxed), 1, "{damaged} at {now}");
            }
        }
    }

    #[test]
    fn a_debt_of_gpu_time_is_paid_at_the_new_rate_from_the_moment_of_the_change_on() {
        let words = ClockWords::new(0);
        let now = 1_000_000_000;
        assert_eq!(admit(words.clock(), now, 100_000_000, rate(10), LONG), Admission::Go);
        let wait = |percent| match admit(words.clock(), now, 1, rate(percent), LONG) {
            Admission::Wait { until_ns } => until_ns - now,
            Admission::Go | Admission::Behind => panic!("90 ms of GPU time are owed"),
        };
        for (percent, due) in [(10, 900_000_000), (90, 100_000_000), (50, 180_000_000), (10, 900_000_000)] {
            let waits = wait(percent);
            assert!(waits.abs_diff(due) < 1_000, "at {percent}% it waits {waits} ns, not {due}");
        }
    }

    proptest! {
        /// Any window admits at most what the rate gives, the burst and one launch: the theorem of the word itself,
        /// without predictions.
        #[test]
        fn no_window_admits_more_than_its_rate_the_burst_and_one_launch(
            percent in 1..100u32,
            asks in proptest::collection::vec((0..50_000_000u64, 1..200_000_000u64), 1..200),
        ) {
            let words = ClockWords::new(0);
            let (mut now, mut admitted) = (1_000_000_000u64, std::vec::Vec::new());
            for (pause, cost) in asks {
                now += pause;
                let (clock, asked) = (words.clock(), now);
                while let Admission::Wait { until_ns } = admit(clock, now, cost, rate(percent), now - asked) {
                    prop_assert!(until_ns > now);
                    now = until_ns;
                }
                admitted.push((now, cost));
            }
            for (from, (start, _)) in admitted.iter().enumerate() {
                let (mut sum, mut longest) = (0, 0);
                for (at, cost) in &admitted[from..] {
                    (sum, longest) = (sum + cost, longest.max(*cost));
                    let due = (at - start) * u64::from(percent) / 100;
                    prop_assert!(sum <= due + BURST_NS + longest + 1_000, "{sum} in {} ns", at - start);
                }
            }
            prop_assert_eq!(words.clamped.load(Ordering::Relaxed), 0);
        }
    }
}

/// Checked over all interleavings: `RUSTFLAGS="--cfg loom" cargo test -p gpuquota-quota --lib --release loom`.
#[cfg(loom)]
mod model {
    use super::*;
    use loom::sync::Arc;

    const NOW: u64 = 1_000_000_000;

    #[test]
    fn loom_no_charge_and_no_correction_is_lost() {
        loom::model(|| {
            let words = Arc::new(ClockWords::new(0));
            let (one, two) = (Arc::clone(&words), Arc::clone(&words));
            let one = loom::thread::spawn(move || {
                assert_eq!(admit(one.clock(), NOW, 3_000, rate(50), LONG), Admission::Go);
                let correction = Correction {
                    charged_at_ns: NOW,
                    charged_ns: 3_000,
                    actual_ns: 1_000,
                    credit: Credit::default(),
                };
                correct(one.clock(), correction, rate(50));
            });
            let two = loom::thread::spawn(move || charge(two.clock(), NOW, 5_000, rate(50)));
            one.join().expect("no panic");
            two.join().expect("no panic");
            assert_eq!(words.virtual_time.load(Ordering::Relaxed), NOW + 2 * (1_000 + 5_000));
        });
    }

    /// Two processes whose launches ran beyond their charges through the same idle time.
    #[test]
    fn loom_idle_time_pays_for_one_late_charge_only() {
        loom::model(|| {
            let words = Arc::new(ClockWords::new(NOW));
            words.idle_ns.store(7_000, Ordering::Relaxed);
            let late = |words: Arc<ClockWords>| {
                loom::thread::spawn(move || {
                    let credit = Credit { since_ns: 2_000, most_ns: 6_000 };
                    let correction =
                        Correction { charged_at_ns: NOW, charged_ns: 0, actual_ns: 2_000, credit };
                    correct(words.clock(), correction, rate(50));
                })
            };
            let both = [late(Arc::clone(&words)), late(Arc::clone(&words))];
            both.into_iter().for_each(|one| one.join().expect("no panic"));
            // 8 us are owed, and 5 us were idle since.
            assert_eq!(words.virtual_time.load(Ordering::Relaxed), NOW + 3_000);
            assert_eq!(words.idle_ns.load(Ordering::Relaxed), 2_000);
        });
    }

    #[test]
    fn loom_of_two_launches_one_takes_the_last_of_the_burst() {
        loom::model(|| {
            let full = NOW + rate(50).stretch(BURST_NS);
            let words = Arc::new(ClockWords::new(full));
            let ask = |words: Arc<ClockWords>| {
                loom::thread::spawn(move || admit(words.clock(), NOW, 1_000, rate(50), LONG) == Admission::Go)
            };
            let both = [ask(Arc::clone(&words)), ask(Arc::clone(&words))];
            let gone: u32 = both.map(|one| u32::from(one.join().expect("no panic"))).iter().sum();
            assert_eq!(gone, 1);
        });
    }
}
