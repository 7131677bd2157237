use super::*;

const NOW: u64 = 5_000_000_000;

fn steady(ns: u64) -> Cost {
    Cost { ns, proven: true, variation: 0 }
}

/// How many of `launches` are measured.
fn measured(cost: Cost, launches: u64, lane: impl Fn(u64) -> u64) -> u64 {
    let traffic = Traffic::default();
    let launch = |number: &u64| {
        let measured = traffic.depart(NOW + number * 10, cost, lane(*number), None, false);
        if measured {
            let random = number.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 44;
            traffic.land(traffic.fly(NOW, cost, random), true);
        }
        measured
    };
    (0..launches).filter(launch).count() as u64
}

#[test]
fn of_short_launches_about_one_per_millisecond_is_measured_of_shorter_ones_more() {
    let share = |ns| 10_000 / measured(steady(ns), 10_000, |_| 7);
    assert!((9..=11).contains(&share(100_000)), "{}", share(100_000));
    assert!((116..=140).contains(&share(5_000)), "{}", share(5_000));
    assert_eq!(measured(steady(SEGMENT_NS), 100, |_| 7), 100);
    let varies = 10_000 / measured(Cost { ns: 5_000, proven: true, variation: 256 }, 10_000, |_| 7);
    assert!((7..=9).contains(&varies), "{varies}");
}

#[test]
fn all_are_measured_while_two_streams_have_work() {
    assert_eq!(measured(steady(50_000), 1_000, |number| number % 2), 1_000);
}

#[test]
fn work_that_is_over_mingles_with_nothing() {
    let traffic = Traffic::default();
    traffic.depart(NOW, steady(50_000), 1, None, false);
    traffic.fly(NOW, steady(50_000), 0);
    traffic.depart(NOW + 60_000, steady(50_000), 2, None, false);
    assert!(!traffic.mingles(NOW + 60_000));
    traffic.depart(NOW + 70_000, steady(50_000), 1, None, false);
    assert!(traffic.mingles(NOW + 70_000));
    assert!(!traffic.mingles(NOW + 2 * MINGLED_NS));
}

#[test]
fn work_of_another_process_is_company_until_it_is_over() {
    let (one, two, container) = (Traffic::default(), Traffic::default(), AtomicU64::new(0));
    one.depart(NOW, steady(50_000), 1, Some(&container), true);
    one.depart(NOW, steady(50_000), 1, Some(&container), true);
    assert!(!one.mingles(NOW), "it is alone");
    two.depart(NOW + 200_000, steady(10_000), 1, Some(&container), true);
    assert!(!two.mingles(NOW + 200_000), "the other's work is over");
    one.depart(NOW + 200_000, steady(50_000), 1, Some(&container), true);
    assert!(one.mingles(NOW + 200_000));
}

#[test]
fn one_launch_never_measured_flies_at_a_time_beside_others() {
    let traffic = Traffic::default();
    assert!(!traffic.is_crowded(NOW, false));
    assert!(traffic.is_crowded(NOW, false));
    assert!(!traffic.is_crowded(NOW, true));
    traffic.land(Covered::default(), false);
    assert!(!traffic.is_crowded(NOW, false));
}

#[test]
fn four_milliseconds_are_in_flight_and_no_more() {
    let traffic = Traffic::default();
    let mut launches = 0;
    while !traffic.is_crowded(NOW, true) {
        traffic.depart(NOW, steady(1_000_000), 1, None, false);
        traffic.fly(NOW, steady(1_000_000), 0);
        launches += 1;
    }
    assert_eq!(launches, 5, "4 ms, and the one that passes them");
    traffic.land(Covered { ns: 1_000_000, weight: 1_000_000 }, true);
    assert!(!traffic.is_crowded(NOW, true));
}
