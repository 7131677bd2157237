use super::*;

const NOW: u64 = 5_000_000_000;

fn steady(ns: u64) -> Cost {
    Cost { ns, proven: true, variation: 0 }
}

/// Where the calls before a measured launch take as long as on a card.
fn on_a_card() -> InFlight {
    let in_flight = InFlight::default();
    (0..100).for_each(|_| in_flight.note_measuring(1_400));
    in_flight
}

/// How many of `launches` are measured.
fn measured(cost: Cost, launches: u64, stream: impl Fn(u64) -> u64) -> u64 {
    let in_flight = on_a_card();
    let launch = |number: &u64| {
        let measured = in_flight.submit(NOW + number * 10, cost, stream(*number), None, false);
        if measured {
            let random = number.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 44;
            let covered = in_flight.submit_measured(NOW, cost, stream(*number), random);
            in_flight.phase(NOW, cost.ns, covered.ns, cost.ns);
            in_flight.complete(covered, true);
        }
        measured
    };
    (0..launches).filter(launch).map(|_| 1).sum()
}

#[test]
fn about_one_short_launch_per_millisecond_is_measured_and_more_of_shorter_ones() {
    let share = |ns| 10_000 / measured(steady(ns), 10_000, |_| 7);
    assert!((9..=11).contains(&share(100_000)), "{}", share(100_000));
    assert!((116..=140).contains(&share(5_000)), "{}", share(5_000));
    assert_eq!(measured(steady(SAMPLE_NS), 100, |_| 7), 100);
    let varies = 10_000 / measured(Cost { ns: 5_000, proven: true, variation: 256 }, 10_000, |_| 7);
    assert!((7..=9).contains(&varies), "{varies}");
}

#[test]
fn while_two_streams_have_work_bursts_and_long_launches_are_measured() {
    assert_eq!(measured(steady(LONG_NS), 1_000, |number| number % 2), 1_000);
    assert_eq!(measured(steady(5_000), 32, |number| number % 2), 32);
    let rare = 20_000 / measured(steady(5_000), 20_000, |number| number % 2);
    assert!((60..140).contains(&rare), "one of {rare}");
}

#[test]
fn while_two_streams_have_work_all_is_measured_where_that_takes_next_to_nothing() {
    let in_flight = InFlight::default();
    in_flight.note_stream_overlap(NOW);
    in_flight.overlap.next(0, 0);
    let is_measured = |ns| in_flight.is_certain(NOW, steady(ns));
    assert!(is_measured(5_000), "it is not known to take any time");
    in_flight.note_measuring(100);
    assert!(is_measured(5_000));
    (0..100).for_each(|_| in_flight.note_measuring(100));
    assert!(in_flight.measuring_ns.load(Ordering::Relaxed).abs_diff(100) < 10);
    in_flight.note_measuring(5_000_000);
    assert!(in_flight.measuring_ns.load(Ordering::Relaxed) < 300, "a thread was stopped");
}

#[test]
fn work_that_is_over_overlaps_with_nothing() {
    let in_flight = InFlight::default();
    in_flight.submit(NOW, steady(50_000), 1, None, false);
    in_flight.submit_measured(NOW, steady(50_000), 1, 0);
    in_flight.submit(NOW + 60_000, steady(50_000), 2, None, false);
    assert!(!in_flight.streams_overlap(NOW + 60_000));
    in_flight.submit(NOW + 70_000, steady(50_000), 1, None, false);
    assert!(in_flight.streams_overlap(NOW + 70_000));
    assert!(!in_flight.streams_overlap(NOW + 2 * OVERLAP_NS));
}

#[test]
fn work_of_another_process_overlaps_until_it_is_over() {
    let (one, two, container) = (InFlight::default(), InFlight::default(), AtomicU64::new(0));
    one.submit(NOW, steady(50_000), 1, Some(&container), true);
    one.submit(NOW, steady(50_000), 1, Some(&container), true);
    assert!(!one.peers_overlap(NOW), "it is alone");
    two.submit(NOW + 200_000, steady(10_000), 1, Some(&container), true);
    assert!(!two.peers_overlap(NOW + 200_000), "the other's work is over");
    one.submit(NOW + 200_000, steady(50_000), 1, Some(&container), true);
    assert!(one.peers_overlap(NOW + 200_000));
}

#[test]
fn one_launch_of_unknown_length_is_in_flight_at_a_time() {
    let in_flight = InFlight::default();
    assert!(!in_flight.is_full(NOW, false));
    assert!(in_flight.is_full(NOW, false));
    assert!(!in_flight.is_full(NOW, true));
    in_flight.complete(Covered::default(), false);
    assert!(!in_flight.is_full(NOW, false));
}

#[test]
fn four_milliseconds_are_in_flight_and_no_more() {
    let in_flight = InFlight::default();
    let mut launches = 0;
    while !in_flight.is_full(NOW, true) {
        in_flight.submit(NOW, steady(1_000_000), 1, None, false);
        in_flight.submit_measured(NOW, steady(1_000_000), 1, 0);
        launches += 1;
    }
    assert_eq!(launches, 5, "4 ms, and the one that passes them");
    in_flight.complete(Covered { ns: 1_000_000, weight: 1_000_000 }, true);
    assert!(!in_flight.is_full(NOW, true));
}
