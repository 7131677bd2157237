use super::*;

const fn alone(host_ns: u64) -> Submission {
    Submission { host_ns, queued: false }
}

#[test]
fn the_time_that_the_host_took_to_launch_is_not_the_kernels() {
    assert_eq!(alone(4_000).without_host(14_000, Some(10_000)), 10_000);
    assert_eq!(alone(30_000_000).without_host(30_010_000, None), 10_000, "its code was loaded");
    assert_eq!(alone(900).without_host(10_900, Some(10_000)), 10_450, "it began within the call");
    assert_eq!(Submission { host_ns: 0, queued: true }.without_host(14_000, None), 14_000);
}

#[test]
fn in_a_call_that_was_held_up_the_kernel_took_what_it_usually_takes() {
    // Stopped before the launch, and behind it; and one that can only have been longer, or shorter.
    assert_eq!(alone(10_000_000).without_host(10_200_000, Some(200_000)), 200_000);
    assert_eq!(alone(10_000_000).without_host(10_000_100, Some(5_000_000)), 5_000_000);
    assert_eq!(alone(10_000_000).without_host(17_000_000, Some(200_000)), 7_000_000);
    assert_eq!(alone(60_000).without_host(100_000, Some(200_000)), 100_000);
}

#[test]
fn no_launch_is_free() {
    assert_eq!(alone(4_000).without_host(4_100, None), LEAST_NS);
    assert_eq!(alone(4_000).without_host(100, None), 100);
}

/// Intervals of kernels of three lengths that vary, queued ones longer by so much.
fn after(queueing: &mut Queueing, more_ns: u64, rounds: u64) -> [u64; 3] {
    let lengths = [10_000, 50_000, 300_000];
    let mut seen = [0; 3];
    for round in 0..rounds {
        for (key, length) in (1..).zip(lengths) {
            let varies = round * 7919 % 400;
            let queued = round % 3 != 0;
            let interval = length + varies + if queued { more_ns } else { 0 };
            let own = queueing.without_queue(key, queued, interval);
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
    let mut queueing = Queueing::default();
    let off = after(&mut queueing, 2_140, 3_000);
    assert!(off.iter().all(|off| *off < 250), "{off:?}");
    let off = after(&mut queueing, 0, 3_000);
    assert!(off.iter().all(|off| *off < 250), "{off:?}: it is learned anew");
}

#[test]
fn a_much_longer_launch_has_another_reason() {
    let mut queueing = Queueing::default();
    after(&mut queueing, 50_000, 3_000);
    assert_eq!(queueing.without_queue(1, true, 60_000), 60_000);
    after(&mut queueing, 7_000, 30_000);
    let own = queueing.without_queue(1, true, 17_000);
    assert!(own >= 17_000 - MOST_MORE_NS.unsigned_abs(), "{own}");
}

#[test]
fn launches_that_were_always_queued_keep_their_interval() {
    let mut queueing = Queueing::default();
    for _ in 0..1_000 {
        assert_eq!(queueing.without_queue(1, true, 12_000), 12_000);
    }
}
