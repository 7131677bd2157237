use super::*;
use crate::share::types::LEAST_CREDIT_NS;
use std::boxed::Box;

fn mean(predictor: &Predictor, key: u64) -> Option<u64> {
    predictor.find(key).map(|estimate| estimate.cost().ns)
}

#[test]
fn the_first_measurement_is_the_prediction_and_later_ones_move_it() {
    let predictor = Box::<Predictor>::default();
    assert!(predictor.find(7).is_none());
    predictor.learn(7, 1_000);
    assert_eq!(mean(&predictor, 7), Some(1_000));
    predictor.learn(7, 3_000);
    assert_eq!(mean(&predictor, 7), Some(2_000));
    (0..200).for_each(|_| predictor.learn(7, 9_000));
    assert!(mean(&predictor, 7).is_some_and(|mean| mean > 8_900));
}

#[test]
fn a_key_whose_lengths_vary_is_measured_more_often() {
    let predictor = Box::<Predictor>::default();
    for round in 0..100 {
        predictor.learn(1, 50_000 + round % 2 * 500);
        predictor.learn(2, 25_000 + round % 2 * 50_000);
    }
    let credit = |key| predictor.find(key).map_or(0, |estimate| estimate.cost().sampling_credit_ns());
    assert!((50_000..=50_500).contains(&credit(1)), "{}", credit(1));
    assert!((700_000..=900_000).contains(&credit(2)), "{}", credit(2));
}

#[test]
fn very_short_kernels_are_not_measured_more_often_because_events_are_not_exact() {
    let predictor = Box::<Predictor>::default();
    for round in 0..100 {
        predictor.learn(1, 1_500 + round % 2 * 900);
        predictor.learn(2, 5_000 + round % 2 * 10_000);
    }
    let credit = |key| predictor.find(key).map_or(0, |estimate| estimate.cost().sampling_credit_ns());
    assert_eq!(credit(1), LEAST_CREDIT_NS);
    assert!(credit(2) > 10 * LEAST_CREDIT_NS, "{}", credit(2));
}

#[test]
fn a_measurement_stands_for_the_launches_of_its_key_since_the_last_one() {
    let predictor = Box::<Predictor>::default();
    predictor.learn(7, 1_000);
    let estimate = predictor.find(7).expect("just learned");
    assert_eq!(estimate.take_unmeasured().count, 0);
    [10, 20, 30].iter().for_each(|now| estimate.skip(*now));
    assert_eq!(estimate.take_unmeasured(), Unmeasured { count: 3, since_ns: 10 });
    assert_eq!(estimate.take_unmeasured().count, 0);
}

#[test]
fn a_launch_that_overruns_raises_the_prediction_before_it_is_over() {
    let predictor = Box::<Predictor>::default();
    predictor.learn(7, 1_000);
    predictor.set_floor(7, 500);
    assert_eq!(mean(&predictor, 7), Some(1_000));
    predictor.set_floor(7, 90_000);
    assert_eq!(mean(&predictor, 7), Some(90_000));
    predictor.set_floor(8, 70_000);
    predictor.learn(8, 75_000);
    assert_eq!(mean(&predictor, 8), Some(75_000), "a first measurement counts alone");
    predictor.clear_floor(7, Some(1_000));
    assert_eq!(mean(&predictor, 7), Some(1_000));
}

#[test]
fn a_full_table_forgets_old_keys_for_new_ones() {
    let predictor = Box::<Predictor>::default();
    for (number, _) in (0u64..).zip(0..3 * PREDICTOR_ENTRIES) {
        let new = key(&[number]);
        predictor.learn(new, 1_000);
        assert_eq!(mean(&predictor, new), Some(1_000), "key {number}");
    }
}

fn beside(predictor: &Predictor, key: u64) -> Option<u64> {
    predictor.find(key).map(|estimate| estimate.cost_beside().ns)
}

/// A key whose lengths are 50, 75, 100, 125 and 150 us in turn.
fn varies(predictor: &Predictor, key: u64, launches: u64) {
    (0..launches).for_each(|launch| predictor.learn(key, 50_000 + launch % 5 * 25_000));
}

#[test]
fn beside_others_a_key_is_charged_a_mean_of_many_measurements() {
    let predictor = Box::<Predictor>::default();
    varies(&predictor, 7, 1_000);
    (0..6).for_each(|_| predictor.learn(7, 150_000));
    assert!(mean(&predictor, 7).is_some_and(|mean| mean > 110_000), "the short one follows");
    assert!(beside(&predictor, 7).is_some_and(|mean| (98_000..104_000).contains(&mean)));
    (0..200).for_each(|_| predictor.learn(7, 400_000));
    assert!(beside(&predictor, 7).is_some_and(|mean| mean > 380_000), "a key that has changed");
}

#[test]
fn a_first_measurement_that_is_too_long_counts_for_nothing_beside_others() {
    let predictor = Box::<Predictor>::default();
    predictor.learn(7, 2_000_000);
    (0..15).for_each(|_| predictor.learn(7, 1_000_000));
    assert!(beside(&predictor, 7).is_some_and(|mean| mean < 1_070_000), "{:?}", beside(&predictor, 7));
    (0..60).for_each(|_| predictor.learn(7, 1_000_000));
    assert!(beside(&predictor, 7).is_some_and(|mean| mean < 1_002_000), "{:?}", beside(&predictor, 7));
}

#[test]
fn beside_others_only_many_intervals_together_tell_that_a_key_takes_less() {
    let predictor = Box::<Predictor>::default();
    varies(&predictor, 7, 1_000);
    let before = beside(&predictor, 7);
    for launch in 0..10 * BESIDE {
        predictor.learn_beside(7, 50_000 + launch % 5 * 25_000);
    }
    assert_eq!(beside(&predictor, 7), before, "as short as ever");
    (0..2 * BESIDE).for_each(|_| predictor.learn_beside(7, 900_000));
    assert_eq!(beside(&predictor, 7), before, "what is longer contains others' kernels");
    (0..2 * BESIDE).for_each(|_| predictor.learn_beside(7, 40_000));
    assert_eq!(beside(&predictor, 7), Some(40_000));
}
