use super::*;

const BEGAN: u64 = 1_000_000_000;

/// A launch into an idle stream whose call took so long, after a record call of a microsecond.
const fn alone(launching_ns: u64) -> Submission {
    let recorded_ns = BEGAN + 1_000;
    let returned_ns = recorded_ns + launching_ns;
    Submission { began_ns: BEGAN, recorded_ns, returned_ns, queue: Queue::Idle, over: false }
}

/// The own time of one launch of a new process on a device whose events take no time.
fn own(submission: Submission, interval_ns: u64, known_ns: Option<u64>) -> u64 {
    Intervals::default().parts(7, &submission, (interval_ns, None), 0, known_ns).own_ns
}

#[test]
fn the_time_that_the_host_took_to_launch_is_not_the_kernels() {
    assert_eq!(own(alone(4_000), 14_000, Some(10_000)), 10_000);
    assert_eq!(own(alone(30_000_000), 30_010_000, None), 9_000, "its code was loaded");
    assert_eq!(own(alone(900), 10_900, Some(10_000)), 10_450, "it began within the call");
    let behind = Submission { queue: Queue::Busy, ..alone(4_000) };
    assert_eq!(own(behind, 14_000, None), 14_000);
}

#[test]
fn in_a_call_that_was_held_up_the_kernel_took_what_it_usually_takes() {
    // Stopped before the launch, and behind it; and one that can only have been longer, or shorter.
    assert_eq!(own(alone(10_000_000), 10_200_000, Some(200_000)), 200_000);
    assert_eq!(own(alone(10_000_000), 10_000_100, Some(5_000_000)), 5_000_000);
    assert_eq!(own(alone(10_000_000), 17_000_000, Some(200_000)), 6_999_000);
    assert_eq!(own(alone(60_000), 100_000, Some(200_000)), 100_000);
}

#[test]
fn a_thread_that_was_stopped_in_the_call_that_records_the_event_is_not_the_kernels_time() {
    let stopped = Submission { began_ns: BEGAN - 10_000_000, ..alone(4_000) };
    let mut intervals = Intervals::default();
    // The event was at the begin of the call.
    let event_ns = Some(BEGAN - 9_999_000);
    let parts = intervals.parts(7, &stopped, (10_053_000, event_ns), 0, Some(50_000));
    assert_eq!(parts.own_ns, 50_000);
}

#[test]
fn a_queue_that_drained_before_the_launch_had_gone_contains_some_of_the_host() {
    let drained = Submission { queue: Queue::Drained, ..alone(20_000) };
    assert!(drained.is_unsure());
    let mut intervals = Intervals::default();
    let event_ns = Some(drained.returned_ns - 15_000);
    let parts = intervals.parts(7, &drained, (25_000, event_ns), 0, Some(5_000));
    assert_eq!(parts, Parts { host_ns: 15_000, own_ns: 10_000 });
    // Where nobody knows when the event was, it took what it usually takes.
    assert_eq!(intervals.parts(7, &drained, (25_000, None), 0, Some(9_000)).own_ns, 9_000);
}

#[test]
fn a_thread_that_was_stopped_after_the_launch_does_not_charge_the_stop() {
    let stopped = Submission { over: true, ..alone(40_000_000) };
    assert_eq!(own(stopped, 40_000_000, Some(50_000)), 50_000);
}

#[test]
fn calls_that_wait_for_their_kernels_are_charged_them() {
    let blocking = |ns| Submission { over: true, ..alone(ns) };
    let mut intervals = Intervals::default();
    let mut own = |ns, known| intervals.parts(7, &blocking(ns), (ns, None), 0, known).own_ns;
    assert_eq!(own(10_000, None), 10_000);
    own(10_000, Some(10_000));
    for longer in [1_000_000, 30_000, 5_000_000] {
        assert_eq!(own(longer, Some(10_000)), longer);
    }
}

#[test]
fn what_events_and_the_front_end_take_is_not_the_kernels() {
    let mut intervals = Intervals::default();
    let behind = Submission { queue: Queue::Busy, ..alone(4_000) };
    let mut own =
        |submission, interval_ns| intervals.parts(7, &submission, (interval_ns, None), 1_300, None).own_ns;
    // As on three cards: alone less the call 1.7 to 2.1 us, queued 3.3 to 3.7.
    assert!(own(alone(4_000), 15_900).abs_diff(10_000) < 300);
    assert!(own(behind, 13_500).abs_diff(10_000) < 300);
}

#[test]
fn no_launch_is_free() {
    assert_eq!(own(alone(4_000), 4_100, None), LEAST_NS);
    assert_eq!(own(alone(4_000), 100, None), 100);
}

/// Intervals of kernels of three lengths that vary, queued ones longer by so much.
fn after(intervals: &mut Intervals, more_ns: u64, rounds: u64) -> [u64; 3] {
    let lengths = [10_000, 50_000, 300_000];
    let mut seen = [0; 3];
    for round in 0..rounds {
        for (key, length) in (1..).zip(lengths) {
            let varies = round * 7919 % 400;
            let queued = round % 3 != 0;
            let queue = if queued { Queue::Busy } else { Queue::Idle };
            let submission = Submission { queue, ..alone(0) };
            let interval = length + varies + if queued { more_ns } else { 0 };
            let own = intervals.parts(key, &submission, (interval, None), 0, Some(length)).own_ns;
            if let Some(seen) =
                seen.get_mut(usize::try_from(key).expect("a small number") - 1).filter(|_| queued)
            {
                *seen = own.abs_diff(length + varies);
            }
        }
    }
    seen
}

#[test]
fn the_difference_of_queued_launches_is_learned_from_launches_that_ran_alone() {
    let mut intervals = Intervals::default();
    let off = after(&mut intervals, 2_140, 3_000);
    assert!(off.iter().all(|off| *off < 250), "{off:?}");
    let off = after(&mut intervals, 0, 3_000);
    assert!(off.iter().all(|off| *off < 250), "{off:?}: it is learned anew");
}

#[test]
fn a_much_longer_launch_has_another_reason() {
    let mut intervals = Intervals::default();
    let behind = Submission { queue: Queue::Busy, ..alone(0) };
    let own = |intervals: &mut Intervals, ns| intervals.parts(1, &behind, (ns, None), 0, None).own_ns;
    after(&mut intervals, 50_000, 3_000);
    assert_eq!(own(&mut intervals, 60_000), 60_000);
    after(&mut intervals, 7_000, 30_000);
    let own = own(&mut intervals, 17_000);
    assert!(own >= 17_000 - MOST_MORE_NS.unsigned_abs(), "{own}");
}

#[test]
fn launches_that_were_always_queued_keep_their_interval_where_events_take_no_time() {
    let behind = Submission { queue: Queue::Busy, ..alone(0) };
    assert_eq!(own(behind, 12_000, Some(9_000)), 12_000);
}

#[test]
fn single_probes_that_are_off_do_not_count() {
    let mut gap = EventGap::default();
    assert_eq!(gap.ns(), 0);
    for apart in [650, 1_300, 2_600, 1_310, 1_300, 650, 1_300, 1_320, 9_000_000] {
        assert!(gap.wants_probe());
        gap.add(apart);
    }
    assert_eq!((gap.ns(), gap.wants_probe()), (1_300, false));
}
