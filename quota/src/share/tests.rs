//! The share in virtual time: the same code, a clock that is a number, seeds that are printed.

use super::*;
use std::boxed::Box;
use std::vec::Vec;

struct Words {
    virtual_time: AtomicU64,
    longest: AtomicU64,
    clamped: AtomicU64,
}

impl Words {
    fn new() -> Self {
        Self { virtual_time: AtomicU64::new(0), longest: AtomicU64::new(0), clamped: AtomicU64::new(0) }
    }

    fn clock(&self) -> Clock<'_> {
        Clock { virtual_time: &self.virtual_time, longest: &self.longest, clamped: &self.clamped }
    }
}

/// xorshift64*: small, seeded, good enough to vary kernel lengths.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) % bound
    }
}

fn predictor() -> Box<Predictor> {
    let entries = std::array::from_fn(|_| Entry { key: AtomicU64::new(0), mean: AtomicU64::new(0) });
    Box::new(Predictor { entries })
}

/// One saturating program on an otherwise idle device, one launch in flight at a time. Returns busy intervals.
fn simulate(percent: u32, length: impl Fn(&mut Random) -> u64, seed: u64, until_ns: u64) -> Vec<(u64, u64)> {
    let (words, predictor, mut random) = (Words::new(), predictor(), Random(seed));
    let rate = Rate::new(percent).expect("a rate that limits");
    let (mut now, mut busy) = (1_000_000_000u64, Vec::new());
    let end = now + until_ns;
    while now < end {
        let predicted = predictor.predict(7).unwrap_or(UNKNOWN_NS);
        match admit(words.clock(), now, predicted, rate) {
            Admission::Wait { until_ns } => now = until_ns,
            Admission::Go => {
                let actual = length(&mut random);
                busy.push((now, now + actual));
                now += actual;
                predictor.learn(7, actual);
                settle(words.clock(), predicted, actual, rate);
            }
        }
    }
    assert_eq!(words.clamped.load(Ordering::Relaxed), 0, "no honest debt is clamped (seed {seed})");
    busy
}

fn busy_within(busy: &[(u64, u64)], from: u64, to: u64) -> u64 {
    busy.iter().map(|(start, end)| end.min(&to).saturating_sub(*start.max(&from))).sum()
}

#[test]
fn the_mean_is_exact_and_no_window_exceeds_its_bound() {
    const SECOND: u64 = 1_000_000_000;
    for percent in [5, 10, 25, 30, 50, 75, 90] {
        for kernel in [5_000u64, 50_000, 1_000_000, 8_000_000, 20_000_000, 150_000_000] {
            for seed in 1..=3 {
                let length = |random: &mut Random| kernel / 2 + random.below(kernel);
                let run = if kernel < 50_000 { 4 * SECOND } else { 60 * SECOND };
                let busy = simulate(percent, length, seed, run);
                let start = busy[0].0;
                let used = busy_within(&busy, start + SECOND, start + run) as f64;
                let mean = 100.0 * used / (run - SECOND) as f64;
                let slack = 100.0 * (BURST_NS + 2 * kernel) as f64 / (run - SECOND) as f64 + 0.05;
                assert!(
                    (mean - f64::from(percent)).abs() <= slack,
                    "{percent}% of {kernel} ns kernels became {mean:.2}% (seed {seed})"
                );
                for window in 1..run / SECOND {
                    let from = start + window * SECOND;
                    let used = busy_within(&busy, from, from + SECOND);
                    let bound = SECOND / 100 * u64::from(percent) + BURST_NS + 3 * kernel;
                    assert!(
                        used <= bound,
                        "window {window}: {used} > {bound} ({percent}%, {kernel}, {seed})"
                    );
                }
            }
        }
    }
}

#[test]
fn a_kernel_that_grows_from_10_us_to_100_ms_is_paid_back_by_waiting() {
    let turns = std::cell::Cell::new(0u32);
    let length = |_: &mut Random| {
        turns.set(turns.get() + 1);
        if turns.get() < 2000 { 10_000 } else { 100_000_000 }
    };
    let busy = simulate(30, length, 1, 100_000_000_000);
    let (start, end) = (busy[0].0, busy[0].0 + 100_000_000_000);
    let mean = 100.0 * busy_within(&busy, start, end) as f64 / (end - start) as f64;
    assert!((mean - 30.0).abs() < 0.3, "the mean over 100 s is {mean:.2}%");
}

#[test]
fn a_burst_after_a_pause_is_at_most_the_burst_and_one_launch() {
    let words = Words::new();
    let rate = Rate::new(50).expect("a rate");
    let now = 5_000_000_000;
    let admitted =
        (0..1000).take_while(|_| admit(words.clock(), now, 1_000_000, rate) == Admission::Go).count();
    assert_eq!(admitted as u64, BURST_NS / 1_000_000 + 1);
}

#[test]
fn a_damaged_virtual_time_is_clamped_and_counted() {
    let words = Words::new();
    words.virtual_time.store(u64::MAX, Ordering::Relaxed);
    let rate = Rate::new(10).expect("a rate");
    let Admission::Wait { until_ns } = admit(words.clock(), 1_000, 1_000_000, rate) else {
        panic!("a virtual time far ahead must wait")
    };
    assert!(until_ns < 10_000_000_000, "64 kernels of 1 ms at 10% are 640 ms, not {until_ns} ns");
    assert_eq!(words.clamped.load(Ordering::Relaxed), 1);
}

#[test]
fn overlapping_work_occupies_the_device_once() {
    let horizon = AtomicU64::new(0);
    assert_eq!(newly_busy(&horizon, 100, 200), 100);
    assert_eq!(newly_busy(&horizon, 150, 260), 60);
    assert_eq!(newly_busy(&horizon, 180, 220), 0);
    assert_eq!(newly_busy(&horizon, 300, 310), 10);
}

#[test]
fn zero_and_a_hundred_percent_limit_nothing() {
    assert_eq!((Rate::new(0), Rate::new(100), Rate::new(250)), (None, None, None));
    assert_eq!(Rate::new(25).map(|rate| rate.stretch(1_000)), Some(4_000));
}

#[test]
fn a_full_table_leaves_keys_unknown_and_forgets_none() {
    let predictor = predictor();
    let mut random = Random(9);
    let keys: Vec<u64> = (0..3 * PREDICTOR_ENTRIES).map(|_| random.below(u64::MAX)).collect();
    keys.iter().for_each(|key| predictor.learn(*key, 1_000));
    let known = keys.iter().filter(|key| predictor.predict(**key) == Some(1_000)).count();
    assert!(known > PREDICTOR_ENTRIES / 2 && known <= PREDICTOR_ENTRIES, "{known} keys are known");
}
