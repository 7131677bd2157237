use super::*;

const US: u64 = 1_000;
/// The machine has been up for a while.
const T: u64 = 77_000_000_000_000;

#[cfg(not(loom))]
mod real {
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    #[test]
    fn overlapping_work_occupies_the_device_once() {
        let words = BusyWords::default();
        let occupy = |start: u64, end: u64| words.busy().occupy(T + start * US, T + end * US) / US;
        assert_eq!(occupy(100, 200), 100);
        assert_eq!(occupy(150, 260), 60);
        assert_eq!(occupy(180, 220), 0);
        assert_eq!(occupy(300, 310), 10);
    }

    #[test]
    fn work_reported_late_is_charged_where_the_device_was_idle() {
        let words = BusyWords::default();
        let occupy =
            |start: u64, end: u64| words.busy().occupy(T + start * 64 * US, T + end * 64 * US) / US / 64;
        assert_eq!(occupy(0, 10), 10);
        assert_eq!(occupy(50, 60), 10);
        assert_eq!(occupy(20, 30), 10);
        assert_eq!(occupy(25, 55), 20, "30 to 50 was idle");
        assert_eq!(occupy(0, 60), 10, "10 to 20 was idle");
        assert_eq!(occupy(0, 60), 0);
    }

    #[test]
    fn late_work_is_charged_all_the_idle_time_of_many_gaps() {
        let words = BusyWords::default();
        words.busy().occupy(T - 2_000_000 * US, T);
        let work = |round: u64| words.busy().occupy(T + round * 128 * US, T + (round * 128 + 32) * US);
        assert_eq!((0..200).map(work).sum::<u64>(), 200 * 32 * US);
        let (late, idle) = (words.busy().occupy(T, T + 200 * 128 * US), 200 * 96 * US);
        assert!(late.abs_diff(idle) < idle / 100, "{late} of {idle} ns");
        assert_eq!(words.busy().occupy(T, T + 200 * 128 * US), 0);
    }

    #[test]
    fn work_older_than_the_kept_gaps_is_charged_in_full() {
        let words = BusyWords::default();
        words.busy().occupy(T, T + US);
        words.busy().occupy(T + 5_000_000 * US, T + 5_000_001 * US);
        assert_eq!(words.busy().occupy(T, T + 1_000_000 * US), 1_000_000 * US);
        let late = words.busy().occupy(T + 4_500_000 * US, T + 5_000_001 * US);
        assert!(late.abs_diff(500_000 * US) < US, "{late}");
    }

    /// The union, the long way.
    fn union(intervals: &[(u64, u64)]) -> u64 {
        let mut sorted = intervals.to_vec();
        sorted.sort_unstable();
        let mut until = 0;
        sorted.iter().fold(0, |sum, (start, end)| {
            let new = end.saturating_sub(until.max(*start));
            until = until.max(*end);
            sum + new
        })
    }

    proptest! {
        /// In whatever order they are reported, while no more gaps are open than are kept.
        #[test]
        fn the_charge_is_the_union_of_all_intervals(
            reported in proptest::collection::vec((0..200u64, 1..40u64), 1..13)
        ) {
            let words = BusyWords::default();
            let grain = 256 * US;
            let all: Vec<_> =
                reported.iter().map(|(at, length)| (T + at * grain, T + (at + length) * grain)).collect();
            let charged: u64 = all.iter().map(|(start, end)| words.busy().occupy(*start, *end)).sum();
            prop_assert_eq!(charged, union(&all));
        }
    }
}

#[cfg(loom)]
mod model {
    use super::*;
    use loom::sync::Arc;

    #[test]
    fn loom_nothing_is_charged_twice() {
        loom::model(|| {
            let words = Arc::new(BusyWords::default());
            words.busy().occupy(T, T + 1_000 * US);
            words.busy().occupy(T + 2_000 * US, T + 3_000 * US);
            let report = |from: u64, to: u64| {
                let words = Arc::clone(&words);
                loom::thread::spawn(move || words.busy().occupy(T + from * US, T + to * US))
            };
            let both = [report(1_200, 3_500), report(1_100, 1_900)];
            let charged: u64 = both.map(|one| one.join().expect("no panic")).iter().sum();
            assert!(charged <= 1_400 * US, "900 us of the gap and 500 us behind it, not {charged} ns");
            // One report may miss the part of a gap that the other is just about to keep.
            assert!(charged >= 1_300 * US, "{charged} ns");
        });
    }
}
