//! On a card: what is charged is the kernel's time, by several estimators beside each other, and shares are exact.
//! `cargo test -p gpuquota-quota --test share on_a_card -- --nocapture` prints the tables of decision 12.

use std::collections::HashMap;

use gpuquota_quota::share::submission::Intervals;
use gpuquota_quota::share::{EventGap, Queue, Submission};

use crate::card::Card;
use crate::case::{Case, Pattern};
use crate::gpu::Record;
use crate::program::Lengths;
use crate::random::Random;
use crate::world::{Host, MS, SECOND, START, Sample, US, world};

/// What happens on a card and its host.
const SCENES: [(&str, Card); 5] = [
    ("H200", Card::H200),
    ("H100", Card::H100),
    ("launches that sleep 60 us", Card::SLEEPY),
    ("threads stopped for 5 ms", Card::STOPPED),
    ("no latencies", Card::NONE),
];

const PATTERNS: [Pattern; 3] = [Pattern::Sync(2 * US), Pattern::Ahead(1), Pattern::Ahead(4)];

fn case(card: Card, lengths: Lengths, pattern: Pattern) -> Case {
    let host = Host { card: Some(card), ..Host::CALM };
    Case { cores: 30, lengths, pattern, processes: 1, threads: 1, host, seed: 1 }
}

/// A sample as an estimator sees it.
struct Seen {
    key: u64,
    submission: Submission,
    interval_ns: u64,
    began_ns: Option<u64>,
    /// From the second event of the launch before it, where that was measured.
    since_end_ns: Option<u64>,
    /// How far events lie apart by themselves: the median of nine probes, and the least of four.
    between_ns: u64,
    least_ns: u64,
}

/// How long a kernel took.
type Estimator = Box<dyn FnMut(&Seen) -> u64>;

/// The interval without the time from the first event to the return of the launch call.
fn without_call(seen: &Seen) -> u64 {
    let Submission { recorded_ns, returned_ns, queue, over, .. } = seen.submission;
    let host_ns = if queue == Queue::Idle && !over { returned_ns - recorded_ns } else { 0 };
    seen.interval_ns.saturating_sub(host_ns).max(500.min(seen.interval_ns))
}

/// What was built before: less the least of four probes, and less what queued launches seem longer on average.
fn before() -> Estimator {
    let (mut alone, mut more) = (HashMap::new(), 0i64);
    Box::new(move |seen| {
        let own = without_call(seen).saturating_sub(seen.least_ns);
        let (mean, count) = alone.entry(seen.key).or_insert((own as i64, 0));
        if seen.submission.queue == Queue::Idle {
            *mean += (own as i64 - *mean) / 8;
            *count += 1;
            return own;
        }
        let away = own as i64 - *mean;
        if *count >= 4 && away.abs() < 8_000 {
            more += (away - more) / 64;
        }
        own.saturating_sub(more.max(0) as u64)
    })
}

/// The difference of the ends of neighbours, where the stream was never empty.
fn ends() -> Estimator {
    Box::new(|seen| {
        let queued = seen.since_end_ns.filter(|_| seen.submission.queue == Queue::Busy);
        queued.unwrap_or_else(|| without_call(seen)).saturating_sub(seen.between_ns)
    })
}

/// From the return of the launch call, or the first event if that was later, to the second event, on the host's clock.
fn on_the_hosts_clock() -> Estimator {
    Box::new(|seen| {
        let Some(began_ns) = seen.began_ns else { return without_call(seen) };
        let end_ns = began_ns + seen.interval_ns;
        let since_ns = began_ns.max(seen.submission.returned_ns);
        end_ns.saturating_sub(since_ns).saturating_sub(seen.between_ns)
    })
}

/// The least or the median of the last eight of a key.
fn of_eight(rank: usize) -> Estimator {
    let mut last: HashMap<u64, Vec<u64>> = HashMap::new();
    Box::new(move |seen| {
        let of_key = last.entry(seen.key).or_default();
        of_key.push(without_call(seen).saturating_sub(seen.between_ns));
        if of_key.len() > 8 {
            of_key.remove(0);
        }
        let mut sorted = of_key.clone();
        sorted.sort_unstable();
        sorted[rank.min(sorted.len() - 1)]
    })
}

/// What is built.
fn built() -> Estimator {
    let (mut intervals, mut means) = (Intervals::default(), HashMap::new());
    Box::new(move |seen| {
        let known = means.get(&seen.key).copied();
        let interval = (seen.interval_ns, seen.began_ns);
        let own = intervals.parts(seen.key, &seen.submission, interval, seen.between_ns, known).own_ns;
        let mean = known.map_or(own, |mean: u64| mean.saturating_add_signed((own as i64 - mean as i64) / 16));
        means.insert(seen.key, mean);
        own
    })
}

fn estimators() -> [(&'static str, Estimator); 7] {
    [
        ("the interval", Box::new(|seen| seen.interval_ns)),
        ("before", before()),
        ("ends", ends()),
        ("clock", on_the_hosts_clock()),
        ("least", of_eight(0)),
        ("median", of_eight(4)),
        ("built", built()),
    ]
}

/// The measured launches of a case that runs for two seconds, and how long each kernel ran.
fn samples(case: &Case, card: Card) -> Vec<(Seen, u64)> {
    let random = &mut Random::new(7);
    let (mut gap, mut least_ns) = (EventGap::default(), u64::MAX);
    for probe in 0..9 {
        let apart = card.probe(random);
        gap.add(apart);
        least_ns = if probe < 4 { least_ns.min(apart) } else { least_ns };
    }
    world(case.host, case.seed, |world| {
        world.samples = Some(Vec::new());
        case.set_up(world);
        world.run(START + 2 * SECOND);
        let all = world.samples.take().unwrap_or_default();
        let seen = |sample: &Sample| {
            let records: &[Record] = &world.gpu.records;
            let Record { start, end } = records[sample.crossing.kernel];
            let seen = Seen {
                key: sample.key,
                submission: sample.submission,
                interval_ns: sample.elapsed_ns?,
                began_ns: sample.began_ns,
                since_end_ns: sample.crossing.since_end(records),
                between_ns: gap.ns(),
                least_ns,
            };
            Some((seen, end? - start?))
        };
        all.iter().filter_map(seen).collect()
    })
}

#[test]
fn what_is_charged_on_a_card_is_the_kernels_time() {
    println!("| scene | kernels | {} |", estimators().map(|(name, _)| name).join(" | "));
    let mut wrong = Vec::new();
    for (scene, card) in SCENES {
        for pattern in PATTERNS {
            for lengths in [Lengths::Fixed(10 * US), Lengths::Around(50 * US), Lengths::Fixed(MS)] {
                let samples = samples(&case(card, lengths.clone(), pattern), card);
                // The first ones teach.
                let taught = samples.len() / 10;
                let errors = estimators().map(|(name, mut estimate)| {
                    let errors = samples.iter().map(|(seen, ran)| estimate(seen) as i64 - *ran as i64);
                    let errors: Vec<i64> = errors.skip(taught).collect();
                    let mean = errors.iter().sum::<i64>() / errors.len().max(1) as i64;
                    let most = 1_000.max(lengths.longest() / 100) as i64;
                    if name == "built" && mean.abs() > most {
                        wrong.push(format!("{mean} ns: {scene}, {lengths:?}, {pattern:?}"));
                    }
                    format!("{:.2}", mean as f64 / 1_000.0)
                });
                println!("| {scene} | {lengths:?}, {pattern:?} | {} |", errors.join(" | "));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn a_share_is_exact_on_a_card() {
    println!("| scene | kernels | without a limit | of 30 | worst second |");
    let mut wrong = Vec::new();
    for (scene, card) in SCENES {
        for length in [10, 20, 50, 200] {
            for pattern in PATTERNS {
                let case = case(card, Lengths::Fixed(length * US), pattern);
                let (uncapped, outcome) = (case.uncapped(), case.run());
                let line = format!(
                    "| {scene} | {length} us, {pattern:?} | {uncapped:.1} | {:.2} | {:.2} |",
                    outcome.mean, outcome.window
                );
                println!("{line}");
                // A microsecond of a kernel, and what stops of milliseconds shift.
                let most = 0.2 + 30.0 / length as f64 / if length > 20 { 1.0 } else { 2.0 };
                // Decision 12 has this as missed: streams beside each other whose threads are stopped have up to 37.
                let is_known = card.one_in != 0 && matches!(pattern, Pattern::Ahead(2..));
                if uncapped > 33.0 && (outcome.mean - 30.0).abs() > most && !is_known {
                    wrong.push(line);
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
