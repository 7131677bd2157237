//! One container alone on a device: a case is what its programs do, an outcome is the share that they had.

use crate::gpu::Gpu;
use crate::program::{Lengths, Program, ahead, bursts, sync};
use crate::random::Random;
use crate::world::{Host, MS, SECOND, START, US, World, world};

/// The burst of `share::clock`, restated.
pub const BURST: u64 = 10 * MS;

/// How programs launch.
#[derive(Clone, Copy, Debug)]
pub enum Pattern {
    /// One at a time, waiting for each, with so much host work between.
    Sync(u64),
    /// Ahead of the device, into so many streams.
    Ahead(usize),
    /// So many at once, then a pause.
    Bursts(usize, u64),
}

/// One case.
#[derive(Clone, Debug)]
pub struct Case {
    /// Percent.
    pub cores: u32,
    pub lengths: Lengths,
    pub pattern: Pattern,
    pub processes: usize,
    pub threads: usize,
    pub host: Host,
    pub seed: u64,
}

impl Case {
    fn program(&self) -> Program {
        match self.pattern {
            Pattern::Sync(host_ns) => sync(self.lengths.clone(), host_ns),
            Pattern::Ahead(streams) => ahead(self.lengths.clone(), streams, 8 * streams),
            Pattern::Bursts(launches, pause) => bursts(self.lengths.clone(), launches, pause),
        }
    }

    /// Any case at all, by a seed.
    pub fn any(seed: u64) -> Self {
        let random = &mut Random::new(seed);
        let length = |random: &mut Random| {
            let magnitude = *random.pick(&[5 * US, 50 * US, 500 * US, 2 * MS, 8 * MS, 30 * MS]);
            random.around(magnitude)
        };
        let lengths = match random.below(4) {
            0 => Lengths::Fixed(length(random)),
            1 => Lengths::Around(length(random)),
            2 => Lengths::Mix((0..2 + random.below(4)).map(|_| length(random)).collect()),
            _ => Lengths::Jump(random.below(2_000), 10 * US, 100 * MS),
        };
        let pattern = match random.below(4) {
            0 => Pattern::Sync(random.below(200 * US)),
            1 => Pattern::Ahead(1),
            2 => Pattern::Ahead(2 + random.below(5) as usize),
            _ => Pattern::Bursts(1 + random.below(50) as usize, 1 + random.below(200 * MS)),
        };
        Self {
            cores: 1 + random.below(99) as u32,
            lengths,
            pattern,
            processes: 1 + random.below(4) as usize,
            threads: 1 + random.below(2) as usize,
            host: *random.pick(&[Host::CALM, Host::LOADED]),
            seed,
        }
    }

    /// Sets the world up; the container is number 0, and processes are numbered in order.
    pub fn set_up(&self, world: &mut World<'_>) {
        let container = world.container(self.cores);
        for _ in 0..self.processes {
            world.process(container, (0..self.threads).map(|_| self.program()));
        }
    }

    /// How long it runs: so that one kernel more or less is a tenth of what a mean may be off.
    fn duration(&self) -> u64 {
        let windows = if self.lengths.longest() < 10 * US { 3 * SECOND } else { 12 * SECOND };
        windows.max(2_000 * self.lengths.longest())
    }

    /// Runs it. The debt for the first launches, whose lengths were unknown, is paid before the time that counts.
    pub fn run(&self) -> Outcome {
        world(self.host, self.seed, |world| {
            self.set_up(world);
            let mut now = START;
            while (0..self.processes).any(|process| world.launches(process) < 10) {
                now += SECOND;
                world.run(now);
            }
            let all = (self.processes * self.threads) as u64 * self.lengths.longest();
            let from = now + SECOND + all * 100 / u64::from(self.cores);
            let to = from + self.duration();
            world.run(to);
            let clamped = world.containers[0].clamped.load(std::sync::atomic::Ordering::Relaxed);
            assert_eq!(clamped, 0, "an honest debt was forgiven in {self:?}");
            Outcome::of(&world.gpu, 0, from, to, f64::from(self.cores))
        })
    }

    /// How busy the device is without a limit, in percent.
    pub fn uncapped(&self) -> f64 {
        let case = Self { cores: 100, ..self.clone() };
        world(case.host, case.seed, |world| {
            case.set_up(world);
            let to = START + (SECOND).max(20 * case.lengths.longest());
            world.run(to);
            percent(world.gpu.used(0, START, to), to - START)
        })
    }
}

/// The share that a container had.
#[derive(Clone, Copy, Debug)]
pub struct Outcome {
    /// Percent over all.
    pub mean: f64,
    /// The largest error of any window of a second, in points.
    pub window: f64,
    /// The most of any such window, in percent.
    pub highest: f64,
}

impl Outcome {
    pub fn of(gpu: &Gpu, container: usize, from: u64, to: u64, due: f64) -> Self {
        let starts = (from..to - SECOND).step_by(SECOND as usize / 10);
        let used = starts.map(|at| percent(gpu.used(container, at, at + SECOND), SECOND));
        let (window, highest) = used.fold((0f64, 0f64), |(window, highest), used| {
            (window.max((used - due).abs()), highest.max(used))
        });
        Self { mean: percent(gpu.used(container, from, to), to - from), window, highest }
    }
}

/// A part in percent of a whole.
pub fn percent(part: u64, whole: u64) -> f64 {
    100.0 * part as f64 / whole as f64
}
