use super::*;
use std::boxed::Box;

fn mean(predictor: &Predictor, key: u64) -> Option<u64> {
    predictor.find(key).map(|known| known.cost().ns)
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
    for turn in 0..100 {
        predictor.learn(1, 50_000 + turn % 2 * 500);
        predictor.learn(2, 25_000 + turn % 2 * 50_000);
    }
    let way = |key| predictor.find(key).map_or(0, |known| known.cost().way());
    assert!((50_000..=50_500).contains(&way(1)), "{}", way(1));
    assert!((700_000..=900_000).contains(&way(2)), "{}", way(2));
}

#[test]
fn very_short_kernels_are_not_measured_more_often_because_events_are_not_exact() {
    let predictor = Box::<Predictor>::default();
    for turn in 0..100 {
        predictor.learn(1, 1_500 + turn % 2 * 900);
        predictor.learn(2, 5_000 + turn % 2 * 10_000);
    }
    let way = |key| predictor.find(key).map_or(0, |known| known.cost().way());
    assert_eq!(way(1), LEAST_WAY_NS);
    assert!(way(2) > 10 * LEAST_WAY_NS, "{}", way(2));
}

#[test]
fn a_measured_launch_speaks_for_those_of_its_key_since_the_last() {
    let predictor = Box::<Predictor>::default();
    predictor.learn(7, 1_000);
    let known = predictor.find(7).expect("just learned");
    assert_eq!(known.speak().count, 0);
    [10, 20, 30].iter().for_each(|now| known.skip(*now));
    assert_eq!(known.speak(), Spoken { count: 3, since_ns: 10 });
    assert_eq!(known.speak().count, 0);
}

#[test]
fn what_runs_longer_than_predicted_is_predicted_longer_before_it_is_over() {
    let predictor = Box::<Predictor>::default();
    predictor.learn(7, 1_000);
    predictor.raise(7, 500);
    assert_eq!(mean(&predictor, 7), Some(1_000));
    predictor.raise(7, 90_000);
    assert_eq!(mean(&predictor, 7), Some(90_000));
    predictor.raise(8, 70_000);
    predictor.learn(8, 75_000);
    assert_eq!(mean(&predictor, 8), Some(75_000), "a first measurement counts alone");
    predictor.restore(7, Some(1_000));
    assert_eq!(mean(&predictor, 7), Some(1_000));
}

#[test]
fn a_full_table_forgets_old_keys_for_new_ones() {
    let predictor = Box::<Predictor>::default();
    for number in 0..3 * PREDICTOR_ENTRIES as u64 {
        let new = key(&[number]);
        predictor.learn(new, 1_000);
        assert_eq!(mean(&predictor, new), Some(1_000), "key {number}");
    }
}
