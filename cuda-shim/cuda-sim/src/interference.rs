//! What the host does to a command: it stops it, as under a CPU limit, and holds up its calls, as a busy scheduler does.
//!
//! # Safety
//! Stops and continues the group of processes that the command was started in.
#![allow(unsafe_code)]

use std::process::{Child, ExitStatus};
use std::time::{Duration, Instant};
use std::{io, thread};

use clap::Args;
use cuda_shim_device::machine::parse_duration;
use cuda_shim_device::{Delays, Machine};

/// How often it looks whether the command has ended.
const LOOK: Duration = Duration::from_millis(1);

/// Options of `cuda-sim run`.
#[derive(Args)]
pub struct Interference {
    /// Stop the command but for so long of each such period, as under a CPU limit: 50ms/100ms.
    #[arg(long, value_name = "TIME/PERIOD", value_parser = quota)]
    cpu_quota: Option<Quota>,
    /// Hold calls up at random, before or after their work, by a time between these two: 1ms..10ms.
    #[arg(long, value_name = "LEAST..MOST", value_parser = range)]
    delay: Option<(u64, u64)>,
    /// One of so many calls is held up.
    #[arg(long, value_name = "CALLS", default_value_t = 1000, requires = "delay",
        value_parser = clap::value_parser!(u64).range(1..))]
    delay_one_in: u64,
}

impl Interference {
    /// The machine on which calls are held up.
    pub fn on(&self, mut machine: Machine) -> Machine {
        if let Some((least, most)) = self.delay {
            let seed = machine.startup.jitter.seed;
            let delays = Delays { one_in: self.delay_one_in, least_ns: least, most_ns: most, seed };
            machine.delays = Some(delays);
        }
        machine
    }

    /// How much of the host's time the command has.
    pub fn quota(&self) -> Option<Quota> {
        self.cpu_quota
    }
}

/// A command runs for `time` of each `period`.
#[derive(Clone, Copy)]
pub struct Quota {
    time: Duration,
    period: Duration,
}

impl Quota {
    /// Lets a command run and stops it in turns until it has ended. It leads a group of processes of its own.
    pub fn pace(self, child: &mut Child) -> io::Result<ExitStatus> {
        let group = -(child.id() as i32);
        // SAFETY: sends a signal to the command's group, which is there as long as the command was not waited for.
        let signal = |signal| unsafe { libc::kill(group, signal) };
        let mut begin = Instant::now();
        loop {
            for (signalled, until) in
                [(libc::SIGCONT, begin + self.time), (libc::SIGSTOP, begin + self.period)]
            {
                signal(signalled);
                while Instant::now() < until {
                    if let Some(status) = child.try_wait()? {
                        // Its children may go on.
                        signal(libc::SIGCONT);
                        return Ok(status);
                    }
                    thread::sleep(LOOK.min(until.saturating_duration_since(Instant::now())));
                }
            }
            begin += self.period;
        }
    }
}

fn duration(text: &str) -> Option<Duration> {
    let longest = Duration::from_secs(10);
    parse_duration(text).map(Duration::from_nanos).filter(|duration| *duration <= longest)
}

fn quota(text: &str) -> Result<Quota, String> {
    let read = || {
        let (time, period) = text.split_once('/')?;
        Some(Quota { time: duration(time)?, period: duration(period)? })
    };
    read()
        .filter(|quota| quota.time >= LOOK && quota.time < quota.period)
        .ok_or_else(|| "write the time and the period, such as 50ms/100ms: 1ms or more, less than the period, 10s at most".into())
}

fn range(text: &str) -> Result<(u64, u64), String> {
    let read = || {
        let (least, most) = text.split_once("..")?;
        Some((duration(least)?.as_nanos() as u64, duration(most)?.as_nanos() as u64))
    };
    read()
        .filter(|(least, most)| least <= most && *most > 0)
        .ok_or_else(|| "write the least and the most, such as 1ms..10ms, 10s at most".into())
}
