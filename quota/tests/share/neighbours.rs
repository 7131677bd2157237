//! Several containers on one device, each with a share of its own.

use gpuquota_quota::share::scheduler::LONG_QUANTUM_NS;

use crate::case::{BURST, Outcome, percent};
use crate::program::{Lengths, Program, ahead, bursts, collective, saturating, sync, then};
use crate::random::Random;
use crate::world::{Host, MS, SECOND, START, US, Ways, World, world};

/// Shares of containers that could each use up the device.
const SHARES: [&[u32]; 5] = [&[50, 50], &[10, 90], &[30, 70], &[20, 30, 50], &[25, 25, 25, 25]];

/// How long to watch: so that one kernel more or less is a fifth of what a share may be off.
fn watched(lengths: &Lengths) -> (u64, u64) {
    match lengths.longest() {
        0..MS => (START + 2 * SECOND, START + 7 * SECOND),
        _ => (START + 15 * SECOND, START + 55 * SECOND),
    }
}

/// The time that containers with these shares have, in percent, all with such programs.
fn have(shares: &[u32], lengths: &Lengths, prepare: impl FnOnce(&mut World<'_>)) -> Vec<f64> {
    world(Host::CALM, 1, |world| {
        for cores in shares {
            let container = world.container(*cores);
            world.process(container, [saturating(lengths.clone())]);
        }
        prepare(world);
        let (from, to) = watched(lengths);
        world.run(to);
        (0..shares.len()).map(|at| percent(world.gpu.used(at, from, to), to - from)).collect()
    })
}

/// Without an agent a container is also charged time that others had, so it has less rather than more.
#[test]
fn without_an_agent_no_neighbour_makes_a_share_larger() {
    for shares in SHARES {
        for length in [100 * US, MS, 5 * MS, 20 * MS] {
            let seen = have(shares, &Lengths::Around(length), |_| {});
            let most = seen.iter().zip(shares).all(|(seen, share)| *seen <= f64::from(*share) + 0.2);
            assert!(most, "{length} ns at {shares:?}: {seen:?}");
        }
    }
}

/// Whatever their kernels, and whether the share is a cap or only a weight.
#[test]
fn by_leases_each_has_its_share_and_the_device_is_busy() {
    for shares in SHARES {
        for length in [20 * US, 100 * US, 500 * US, MS, 2 * MS, 3 * MS, 5 * MS, 20 * MS, 100 * MS] {
            for lengths in [Lengths::Fixed(length), Lengths::Around(length)] {
                for (burst, ways) in Ways::with([false, true]) {
                    let seen = have(shares, &lengths, |world| {
                        world.containers.iter_mut().for_each(|container| container.may_burst = burst);
                        world.agent(ways);
                    });
                    let off = |(seen, share): (&f64, &u32)| (seen - f64::from(*share)).abs();
                    let off = seen.iter().zip(shares).map(off).fold(0.0, f64::max);
                    let busy: f64 = seen.iter().sum();
                    assert!(
                        off <= 1.5 && busy >= 98.0,
                        "{ways:?}, {lengths:?} at {shares:?}, {burst}: {seen:.2?}, {busy:.2}"
                    );
                }
            }
        }
    }
}

/// The time that a container has beside a saturating one, and that one, in percent.
fn beside(ways: Ways, shares: [u32; 2], program: Program, neighbour: Lengths, burst: bool) -> [f64; 2] {
    world(Host::CALM, 3, |world| {
        for (cores, program) in shares.into_iter().zip([program, saturating(neighbour)]) {
            let container = world.container(cores);
            world.containers[container].may_burst = burst;
            world.process(container, [program]);
        }
        world.agent(ways);
        let (from, to) = (START + 5 * SECOND, START + 35 * SECOND);
        world.run(to);
        [0, 1].map(|at| percent(world.gpu.used(at, from, to), to - from))
    })
}

/// A container that may burst has the time that another one leaves; one that may not is bound by its share as if it were
/// alone.
#[test]
fn a_container_may_burst_into_the_time_that_another_leaves() {
    let rarely = || bursts(Lengths::Fixed(MS), 5, 100 * MS);
    for (length, ways) in Ways::with([200 * US, 2 * MS, 20 * MS]) {
        let [own, others] = beside(ways, [50, 50], rarely(), Lengths::Fixed(length), true);
        assert!(own > 4.2 && own + others >= 98.0, "{ways:?}, {length}: {own:.2} and {others:.2}");
        let [own, others] = beside(ways, [50, 50], rarely(), Lengths::Fixed(length), false);
        assert!(own > 4.2 && (47.0..=50.2).contains(&others), "{ways:?}, {length}: {own:.2} and {others:.2}");
    }
}

/// Programs that wait for each launch, with so much work on the host between; and what they have at least of the half
/// that is theirs. A lease is for the whole device: idle time within it is lost.
#[test]
fn a_program_that_waits_for_each_launch_is_not_pushed_aside() {
    for (length, host_ns, least) in [
        (100 * US, 10 * US, 38.0),
        (100 * US, 100 * US, 22.0),
        (100 * US, MS, 4.5),
        (MS, 10 * US, 48.0),
        (MS, 100 * US, 44.0),
        (MS, MS, 25.0),
        (10 * MS, MS, 44.0),
    ] {
        for ways in Ways::ALL {
            let program = sync(Lengths::Fixed(length), host_ns);
            let [own, others] = beside(ways, [50, 50], program, Lengths::Fixed(MS), true);
            let kept = own >= least && others >= 48.0;
            assert!(kept, "{ways:?}, {length} and {host_ns}: {own:.2} and {others:.2}");
        }
    }
}

/// By so much, as a part, the known mean of lengths that vary by half may be off.
const UNKNOWN: f64 = 0.03;

/// Any containers beside each other, which come and go: none has more than its share, in the long run and in any second. While
/// they may launch beside each other, no measurement corrects a charge, and of lengths that vary only the mean is known.
#[test]
fn by_leases_no_container_has_more_than_its_share() {
    for (seed, ways) in Ways::with(0..60) {
        world(Host::CALM, seed, |world| {
            let mut described: Vec<String> = Vec::new();
            let random = &mut Random::new(seed);
            let mut longest = 0;
            for _ in 0..2 + random.below(3) {
                let magnitude = *random.pick(&[50 * US, 500 * US, 3 * MS, 15 * MS]);
                let lengths = Lengths::Around(random.around(magnitude));
                longest = longest.max(lengths.longest());
                described.push(format!("{lengths:?}"));
                let program = match random.below(4) {
                    0 => sync(lengths, random.below(2 * MS)),
                    1 => bursts(lengths, 1 + random.below(50) as usize, 1 + random.below(300 * MS)),
                    2 => ahead(lengths, 3, 24),
                    _ => saturating(lengths),
                };
                let container = world.container(5 + random.below(60) as u32);
                world.process(container, [program]);
            }
            world.agent(ways);
            let (from, to) = (START + 5 * SECOND, START + 45 * SECOND);
            world.run(to);
            for (at, container) in world.containers.iter().enumerate() {
                let outcome = Outcome::of(&world.gpu, at, from, to, container.cores.into());
                let share = f64::from(container.cores);
                let most = percent(BURST + LONG_QUANTUM_NS + longest, SECOND);
                let unknown = if ways == Ways::Both { share * UNKNOWN } else { 0.0 };
                let above = outcome.highest - share - unknown;
                assert!(
                    outcome.mean <= share + 0.5 + unknown && above <= most,
                    "{ways:?}, seed {seed}, container {at} of {share}%: {:.2}, at most {:.2}: {described:?}",
                    outcome.mean,
                    outcome.highest
                );
            }
        });
    }
}

/// Two programs that are as unlike as can be, whose caps leave time over: neither is without the device for long.
#[test]
fn caps_of_unlike_programs_hold_in_every_second() {
    for (seed, ways) in Ways::with(0..8) {
        world(Host::CALM, seed, |world| {
            let [streams, waiting] = [44, 21].map(|cores| world.container(cores));
            world.process(streams, [ahead(Lengths::Around(57 * US), 3, 24)]);
            world.process(waiting, [sync(Lengths::Around(330 * US), 138 * US)]);
            world.agent(ways);
            let (from, to) = (START + 5 * SECOND, START + 45 * SECOND);
            world.run(to);
            for (at, share) in [(streams, 44.0), (waiting, 21.0)] {
                let outcome = Outcome::of(&world.gpu, at, from, to, share);
                let most = percent(BURST + LONG_QUANTUM_NS, SECOND) + share * UNKNOWN;
                let kept = outcome.mean >= 0.9 * share && outcome.window <= most + 0.1 * share;
                assert!(kept, "{ways:?}, seed {seed}, {share}%: {outcome:?}");
            }
        });
    }
}

/// A container that had the device alone for long is not pushed aside by one that arrives.
#[test]
fn use_of_an_idle_device_is_not_counted() {
    for (burst, ways) in Ways::with([false, true]) {
        world(Host::CALM, 4, |world| {
            let (early, late) = (world.container(30), world.container(70));
            world.containers.iter_mut().for_each(|container| container.may_burst = burst);
            world.process(early, [saturating(Lengths::Fixed(MS))]);
            world.agent(ways);
            let comes = START + 20 * SECOND;
            world.run(comes);
            world.process(late, [saturating(Lengths::Fixed(MS))]);
            world.run(comes + SECOND);
            let own = percent(world.gpu.used(early, comes, comes + SECOND), SECOND);
            assert!((28.0..=33.0).contains(&own), "{own:.2}");
        });
    }
}

/// A container that mostly left the device idle may launch beside others at any time. Once it wants the device, it has its
/// part of it again, and so has its neighbour: also where the device's slices give neither of them what it wants.
#[test]
fn a_container_that_begins_to_want_the_device_gets_leases_again() {
    for (shares, ways) in Ways::with([[30, 70], [70, 30], [50, 50], [10, 90]]) {
        for (length, waits) in [(50 * US, false), (50 * US, true), (200 * US, true), (MS, false), (MS, true)]
        {
            world(Host::CALM, 11, |world| {
                for cores in shares {
                    let container = world.container(cores);
                    world.containers[container].may_burst = true;
                    let fixed = || Lengths::Fixed(length);
                    let eager = if waits { sync(fixed(), 8 * US) } else { saturating(fixed()) };
                    // Three seconds of a launch in five milliseconds.
                    world.process(container, [then(sync(fixed(), 5 * MS), 600, eager)]);
                }
                world.agent(ways);
                let (from, to) = (START + 8 * SECOND, START + 18 * SECOND);
                world.run(to);
                let seen = [0, 1].map(|at| percent(world.gpu.used(at, from, to), to - from));
                let all = seen[0] + seen[1];
                let off = seen[0] - all * f64::from(shares[0]) / 100.0;
                assert!(off.abs() <= 2.0, "{ways:?}, {length} ns at {shares:?}, waits {waits}: {seen:.2?}");
            });
        }
    }
}

/// How a device goes from one context's kernel to the next one's: at once, as under MPS, or as an H200 does.
const SWITCHES: [u64; 2] = [0, 137 * US];

/// What containers do beside each other, in percent of the device's time: with leases, or without the library.
#[derive(Clone, Copy)]
struct Group {
    shares: &'static [u32],
    /// Whether a share is a weight rather than a cap.
    burst: bool,
    length: u64,
    /// Time on the host between kernels that the program waits for; `None`: it launches ahead.
    gap: Option<u64>,
    switch: u64,
}

impl Group {
    /// The mean of three programs whose gaps differ a little: with one gap alone two programs may fall into step, and always or
    /// never meet.
    fn have(&self, leases: bool) -> Vec<f64> {
        let gaps: &[u64] = if self.gap.is_some() { &[97, 100, 103] } else { &[100] };
        let one = |hundredths: &u64| {
            Self { gap: self.gap.map(|gap| gap * hundredths / 100), ..*self }.have_once(leases)
        };
        let all: Vec<Vec<f64>> = gaps.iter().map(one).collect();
        (0..self.shares.len())
            .map(|at| all.iter().map(|have| have[at]).sum::<f64>() / all.len() as f64)
            .collect()
    }

    fn have_once(&self, leases: bool) -> Vec<f64> {
        let Self { shares, burst, length, gap, switch } = *self;
        world(Host::CALM, 13, |world| {
            world.gpu.switch = switch;
            for cores in shares {
                let container = world.container(if leases { *cores } else { 100 });
                world.containers[container].may_burst = burst;
                let lengths = Lengths::Fixed(length);
                let program = match gap {
                    Some(gap) => sync(lengths, gap),
                    None => saturating(lengths),
                };
                world.process(container, [program]);
            }
            if leases {
                world.agent(Ways::Both);
            }
            let (from, to) = (START + 8 * SECOND, START + 20 * SECOND);
            world.run(to);
            (0..shares.len()).map(|at| percent(world.gpu.used(at, from, to), to - from)).collect()
        })
    }

    /// The work that all do, in percent of what they do without leases, and what each has; printed for people.
    fn kept(&self) -> (f64, Vec<f64>, Vec<f64>) {
        let (mut bare, have) = (self.have(false), self.have(true));
        if !self.burst {
            bare.iter_mut().zip(self.shares).for_each(|(bare, share)| *bare = bare.min(f64::from(*share)));
        }
        let kept = 100.0 * have.iter().sum::<f64>() / bare.iter().sum::<f64>();
        let gap = self.gap.map_or("ahead".to_owned(), |gap| format!("gap {} us", gap / US));
        let (way, length, burst) =
            (if self.switch == 0 { "beside" } else { "slices" }, self.length / US, self.burst);
        println!(
            "{way} {:?} burst {burst}, {length} us, {gap}: {kept:.1}%  {have:.1?} for {bare:.1?}",
            self.shares
        );
        (kept, have, bare)
    }

    /// All groups with these shares.
    fn all(shares: &'static [u32], lengths: &[u64]) -> Vec<Self> {
        let mut all = Vec::new();
        for switch in SWITCHES {
            for burst in [true, false] {
                for length in lengths {
                    for gap in [Some(8 * US), Some(100 * US), Some(2 * MS), None] {
                        all.push(Self { shares, burst, length: *length, gap, switch });
                    }
                }
            }
        }
        all
    }
}

/// Whether the device fills gaps of one container with kernels of another one, or slices its time and takes long to switch.
#[test]
fn containers_with_equal_shares_do_as_much_as_without_leases() {
    for shares in [&[50, 50][..], &[25; 4]] {
        for group in Group::all(shares, &[50 * US, 200 * US, MS]) {
            let (kept, have, _) = group.kept();
            let due = have.iter().sum::<f64>() / have.len() as f64;
            assert!(kept >= 97.0, "{kept:.1}%");
            let off = have.iter().map(|have| (have - due).abs()).fold(0.0, f64::max);
            assert!(off <= 2.0, "{have:.1?}");
        }
    }
}

/// A heavier container that waits for each kernel leaves time that a lighter one may not have: to let it launch would delay
/// the heavier one's next kernel. Nothing else is lost.
#[test]
fn containers_with_unequal_shares_lose_only_what_the_shares_demand() {
    for shares in [&[30, 70][..], &[10, 90]] {
        for group in Group::all(shares, &[50 * US, 200 * US, MS]) {
            let (kept, have, bare) = group.kept();
            let off = 100.0 * have[0] / (have[0] + have[1]) - f64::from(shares[0]);
            let satisfied = have[1] >= 0.9 * bare[1];
            assert!(off.abs() <= 2.0 || (satisfied && kept >= 93.0), "{off:.1} points, {kept:.1}%");
        }
    }
}

/// Kernels that several streams of a container run at the same time count once, also while containers launch beside each other.
/// By how much they do depends on how they fall into each other's gaps, so some of the share may be lost.
#[test]
fn what_the_streams_of_a_container_do_at_the_same_time_counts_once_beside_others_too() {
    for (shares, burst) in [([50, 50], false), ([30, 70], false), ([30, 30], true), ([40, 40], false)] {
        for length in [30 * US, 200 * US, MS] {
            world(Host::CALM, 17, |world| {
                let [streams, waiting] = shares.map(|cores| {
                    let container = world.container(cores);
                    world.containers[container].may_burst = burst;
                    container
                });
                world.process(streams, [ahead(Lengths::Around(length), 3, 24)]);
                world.process(waiting, [sync(Lengths::Fixed(50 * US), 100 * US)]);
                world.agent(Ways::Both);
                let (from, to) = (START + 8 * SECOND, START + 38 * SECOND);
                world.run(to);
                let seen = [streams, waiting].map(|at| percent(world.gpu.used(at, from, to), to - from));
                let due = if burst { 50.0 } else { f64::from(shares[0]) };
                let kept = (0.9 * due..=if burst { 100.0 } else { due + 1.0 }).contains(&seen[0]);
                assert!(kept && seen[1] >= 14.0, "{length} ns at {shares:?}: {seen:.2?}");
            });
        }
    }
}

/// No launch waits for ever: not beside many containers, nor beside kernels that are longer than any lease.
#[test]
fn every_container_gets_a_lease() {
    for (length, others) in [(MS, 3), (MS, 7), (200 * MS, 1), (200 * MS, 3)] {
        world(Host::LOADED, 7, |world| {
            let small = world.container(5);
            let process = world.process(small, [ahead(Lengths::Fixed(MS), 1, 20)]);
            for _ in 0..others {
                let container = world.container(95 / others);
                world.process(container, [saturating(Lengths::Fixed(length))]);
            }
            world.containers.iter_mut().for_each(|container| container.may_burst = true);
            world.agent(Ways::Both);
            world.run(START + 60 * SECOND);
            // A twentieth: twenty times what it may use at once, and all others' longest; and twice that on a busy host.
            let most = 2 * (20 * (LONG_QUANTUM_NS + MS) + 20 * length);
            let longest = world.longest_wait(process);
            assert!(longest < most, "{others} others with {length} ns: waited {longest} ns");
        });
    }
}

/// Two kernels that run until both are there, of one thread, while others want the device too.
#[test]
fn by_leases_a_kernel_that_waits_for_a_later_launch_goes_on() {
    for length in [10 * US, 3 * MS, 50 * MS] {
        world(Host::CALM, 5, |world| {
            let container = world.container(50);
            let process = world.process(container, [collective(length)]);
            let other = world.container(50);
            world.process(other, [sync(Lengths::Fixed(MS), 20 * US)]);
            world.agent(Ways::Both);
            world.run(START + 60 * SECOND);
            let pairs = world.launches(process) / 2;
            assert!(pairs > 200, "{pairs} pairs of {length} ns");
        });
    }
}

/// When the agent stops, no container is left without a lease, and each keeps its own share.
#[test]
fn without_the_agent_each_keeps_its_own_share_again() {
    world(Host::CALM, 9, |world| {
        for cores in [30, 30] {
            let container = world.container(cores);
            world.process(container, [saturating(Lengths::Fixed(MS))]);
            world.containers[container].may_burst = true;
        }
        world.agent(Ways::Both);
        let (gone, to) = (START + 5 * SECOND, START + 15 * SECOND);
        world.run(gone);
        world.no_agent();
        world.run(to);
        for at in 0..2 {
            let before = percent(world.gpu.used(at, START + SECOND, gone), gone - START - SECOND);
            let after = percent(world.gpu.used(at, gone, to), to - gone);
            assert!(before >= 49.0 && (28.0..=30.5).contains(&after), "{before:.2}, then {after:.2}");
        }
    });
}

#[test]
fn the_time_that_one_holds_while_others_wait_is_counted() {
    world(Host::CALM, 9, |world| {
        for cores in [30, 70] {
            let container = world.container(cores);
            world.process(container, [saturating(Lengths::Fixed(MS))]);
        }
        world.agent(Ways::Both);
        world.run(START + 20 * SECOND);
        for (container, seconds) in [(0, 6.0), (1, 14.0)] {
            let held = world.held_ns(container) as f64 / 1e9;
            assert!((held - seconds).abs() < 0.5, "{container} held it for {held} s");
        }
    });
}

/// The heavier one waits for each kernel, and the lighter one for its lag.
#[test]
fn beside_others_the_time_that_one_uses_while_others_wait_is_counted() {
    world(Host::CALM, 9, |world| {
        for cores in [30, 70] {
            let container = world.container(cores);
            world.containers[container].may_burst = true;
            world.process(container, [sync(Lengths::Fixed(50 * US), 8 * US)]);
        }
        world.agent(Ways::Both);
        let (from, to) = (START + 8 * SECOND, START + 18 * SECOND);
        world.run(from);
        let before = [0, 1].map(|container| world.held_ns(container));
        world.run(to);
        let held = [0, 1].map(|container| percent(world.held_ns(container) - before[container], to - from));
        let used = percent(world.gpu.used(1, from, to), to - from);
        assert!(held[1] >= 0.3 * used && held[1] <= used + 1.0 && held[0] < 10.0, "{held:.1?} of {used:.1}");
    });
}

/// The container itself enforces a share that a limits file sets, whatever its lease is; that costs a part of the share where
/// all shares together are the whole device.
#[test]
fn by_leases_a_share_of_a_limits_file_binds_too() {
    for shares in SHARES {
        for length in [100 * US, MS, 5 * MS] {
            let seen = have(shares, &Lengths::Fixed(length), |world| {
                world.containers.iter_mut().for_each(|container| container.by_file = true);
                world.agent(Ways::Both);
            });
            let about = |(seen, share): (&f64, &u32)| {
                *seen <= f64::from(*share) + 0.3 && *seen >= 0.85 * f64::from(*share)
            };
            assert!(seen.iter().zip(shares).all(about), "{length} ns at {shares:?}: {seen:.2?}");
        }
    }
}
