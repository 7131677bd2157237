//! Programs: the calls that they make, one after the other.

use crate::random::Random;
use crate::world::MS;

/// What is launched.
#[derive(Clone, Copy, Debug)]
pub struct Kernel {
    pub stream: usize,
    /// The library's key for it.
    pub key: u64,
    pub length: u64,
    /// It spins until so many kernels have been launched on the whole device.
    pub spins_for: usize,
}

/// One call, or time between calls.
#[derive(Clone, Copy, Debug)]
pub enum Call {
    Launch(Kernel),
    /// Waits until all kernels of this thread are over.
    Synchronize,
    /// Works on the host.
    Host(u64),
}

/// A program, one call at a time.
pub type Program = Box<dyn FnMut(&mut Random) -> Call>;

/// How long kernels take.
#[derive(Clone, Debug)]
pub enum Lengths {
    /// Always the same.
    Fixed(u64),
    /// Half as long to half as long again, under one key.
    Around(u64),
    /// One of several kernels, each around its own length.
    Mix(Vec<u64>),
    /// Short for so many launches, then long, under one key.
    Jump(u64, u64, u64),
}

impl Lengths {
    /// A source of keys and lengths.
    fn source(self) -> impl FnMut(&mut Random) -> (u64, u64) {
        let mut launches = 0;
        move |random| {
            launches += 1;
            match &self {
                Self::Fixed(length) => (1, *length),
                Self::Around(length) => (1, random.around(*length)),
                Self::Mix(lengths) => {
                    let length = *random.pick(lengths);
                    (length, random.around(length))
                }
                Self::Jump(at, short, long) => (1, if launches <= *at { *short } else { *long }),
            }
        }
    }

    /// Whether short ones of one key differ.
    pub fn vary(&self) -> bool {
        matches!(self, Self::Around(_) | Self::Mix(_))
    }

    /// By how much one can be longer than the prediction of its key.
    pub fn surprise(&self) -> u64 {
        match self {
            Self::Fixed(_) => 0,
            Self::Around(_) | Self::Mix(_) => self.longest() / 3,
            Self::Jump(_, short, long) => long.abs_diff(*short),
        }
    }

    /// The longest that there can be.
    pub fn longest(&self) -> u64 {
        match self {
            Self::Fixed(length) => *length,
            Self::Around(length) => length * 3 / 2,
            Self::Mix(lengths) => lengths.iter().max().map_or(0, |length| length * 3 / 2),
            Self::Jump(_, short, long) => *short.max(long),
        }
    }
}

/// Launches and waits, one at a time, with a little work between.
pub fn sync(lengths: Lengths, host_ns: u64) -> Program {
    let (mut next, mut round) = (lengths.source(), 0);
    Box::new(move |random| {
        round += 1;
        match round % 3 {
            1 => launch(0, next(random)),
            2 => Call::Synchronize,
            _ => Call::Host(host_ns),
        }
    })
}

/// Launches into `streams` streams in turn, and waits for all every `ahead` launches.
pub fn ahead(lengths: Lengths, streams: usize, ahead: usize) -> Program {
    let (mut next, mut round) = (lengths.source(), 0);
    Box::new(move |random| {
        round += 1;
        if round % (ahead + 1) == 0 { Call::Synchronize } else { launch(round % streams, next(random)) }
    })
}

/// Makes so many launches of another program, and then waits for the device for ever.
pub fn finite(mut program: Program, launches: usize) -> Program {
    let (mut left, mut round) = (launches, 0);
    Box::new(move |random| {
        round += 1;
        if left == 0 {
            return if round % 2 == 0 { Call::Synchronize } else { Call::Host(1_000_000) };
        }
        let call = program(random);
        left -= usize::from(matches!(call, Call::Launch(_)));
        call
    })
}

/// Does as one program for so many launches, and then as another.
pub fn then(mut first: Program, launches: usize, mut second: Program) -> Program {
    let mut left = launches;
    Box::new(move |random| {
        let call = if left == 0 { second(random) } else { first(random) };
        left -= usize::from(left != 0 && matches!(call, Call::Launch(_)));
        call
    })
}

/// Two kernels that wait for each other on the device, in two streams, of one thread.
pub fn collective(length: u64) -> Program {
    let mut round = 0usize;
    Box::new(move |_| {
        round += 1;
        let spins_for = round / 3 * 2 + 2;
        match round % 3 {
            1 => Call::Launch(Kernel { stream: 0, key: 1, length, spins_for }),
            2 => Call::Launch(Kernel { stream: 1, key: 2, length, spins_for }),
            _ => Call::Synchronize,
        }
    })
}

/// Sleeps, then launches a burst, and so on.
pub fn bursts(lengths: Lengths, launches: usize, pause_ns: u64) -> Program {
    let (mut next, mut round) = (lengths.source(), 0);
    Box::new(move |random| {
        round += 1;
        match round % (launches + 2) {
            0 => Call::Host(random.around(pause_ns)),
            at if at == launches + 1 => Call::Synchronize,
            _ => launch(0, next(random)),
        }
    })
}

fn launch(stream: usize, (key, length): (u64, u64)) -> Call {
    Call::Launch(Kernel { stream, key, length, spins_for: 0 })
}

/// A program that keeps the device at work all by itself.
pub fn saturating(lengths: Lengths) -> Program {
    let launches = (40 * MS / lengths.longest()).clamp(1, 1_024) as usize;
    ahead(lengths, 1, launches)
}
