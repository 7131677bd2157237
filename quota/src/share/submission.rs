//! Which part of the interval between a launch's events is the launch's own.
//!
//! An event on an idle stream is over at once, so the interval after it contains the time that the host then takes to
//! launch. Behind other work it contains the time that the device takes to go from one launch to the next instead. Both
//! contain what an event takes by itself. None of that is the kernel's ([decision
//! 12](../../../docs/decisions/012-what-an-interval-contains.md) compares the ways to tell them apart).

use super::words::remainder;

/// In a call as short as this the kernel may well begin before the call ends; on average, in the middle of it.
const SHORT_CALL_NS: u64 = 1_000;

/// A call that takes longer than this, and than twice the usual, was held up, before or behind the moment at which it handed the
/// launch over.
const LONG_CALL_NS: u64 = 50_000;

/// The least time for which any kernel has the device.
const LEAST_NS: u64 = 500;

/// The difference is not learned from launches longer than this: they vary by more.
const SHORT_NS: u64 = 200_000;

/// The largest difference between a queued launch and the same launch alone, in nanoseconds; a larger one has another reason.
const MOST_MORE_NS: i64 = 4_000;

/// The farthest that one comparison moves what was learned, nanoseconds: one in a thousand may be off by any amount.
const STEP_NS: i64 = 32;

/// Of what an event takes, a launch on an idle stream takes so much of the front end beside it, and a queued one so much more
/// than that, before anything was learned: as on the cards of decision 12. Hundredths.
const ALONE_PARTS: u64 = 40;
const QUEUED_PARTS: u64 = 130;

/// Keys whose length alone is remembered.
const KEYS: usize = 64;

/// Number of measurements alone from which on a key can be compared.
const ENOUGH: u64 = 4;

/// The weight of one measurement alone, as a shift.
const MEASUREMENT: u32 = 3;

/// After so many calls in a row behind which nothing ran any more, calls wait for their kernels.
const BLOCKING: u8 = 3;

/// What was in the stream when a launch was measured.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Queue {
    /// Nothing: the first event was over at once.
    #[default]
    Idle,
    /// Work that still ran when the launch call had returned: nothing of the host's is in the interval.
    Busy,
    /// Work that was over by then, so the interval began during the calls.
    Drained,
}

/// How a measured launch reached the device, as the host saw it. Times are CLOCK_MONOTONIC.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Submission {
    /// When the call began that recorded the first event.
    pub began_ns: u64,
    /// When that call had returned.
    pub recorded_ns: u64,
    /// When the launch call had returned.
    pub returned_ns: u64,
    /// What was in the stream.
    pub queue: Queue,
    /// Whether nothing ran any more when the launch call had returned.
    pub over: bool,
}

/// What an interval contains, nanoseconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Parts {
    /// The host's part, which comes first.
    pub host_ns: u64,
    /// The launch's own.
    pub own_ns: u64,
}

/// How long a key takes alone.
#[derive(Clone, Copy, Default)]
struct Alone {
    key: u64,
    mean_ns: u64,
    count: u64,
}

/// What is known of the intervals of a process. All-zero bytes: nothing.
#[derive(Clone, Copy)]
pub struct Intervals {
    alone: [Alone; KEYS],
    /// By how much queued launches seem longer; only valid once `compared`.
    more_ns: i64,
    compared: bool,
    /// How long calls take that launch into an idle stream: half of them take longer.
    usual_ns: u64,
    /// How far two events lay apart by themselves at the last interval.
    between_ns: u64,
    /// Calls in a row behind which nothing ran any more.
    over: u8,
}

impl Default for Intervals {
    fn default() -> Self {
        Self {
            alone: [Alone::default(); KEYS],
            more_ns: 0,
            compared: false,
            usual_ns: 0,
            between_ns: 0,
            over: 0,
        }
    }
}

impl Submission {
    /// Whether the host's part of the interval follows only from when the first event was.
    #[must_use]
    pub fn is_unsure(&self) -> bool {
        self.queue == Queue::Drained || self.queue == Queue::Idle && self.call_ns() > LONG_CALL_NS
    }

    /// How long both calls took.
    fn call_ns(&self) -> u64 {
        self.returned_ns.saturating_sub(self.began_ns)
    }

    /// The least and the most of an interval that the host can have taken. `event_ns` is when the first event was, if that
    /// is known.
    fn host_ns(&self, event_ns: Option<u64>, blocking: bool, held_up: bool) -> (u64, u64) {
        let since = |at_ns: u64| self.returned_ns.saturating_sub(at_ns);
        let (all, launching) = (since(self.began_ns), since(self.recorded_ns));
        // The clocks of device and host are matched to a microsecond or two.
        let between = |least: u64| event_ns.map_or(all, |at_ns| since(at_ns).max(least).min(all));
        match self.queue {
            Queue::Busy => (0, 0),
            _ if self.over && blocking => (0, 0),
            Queue::Idle if self.over => (0, between(launching)),
            Queue::Idle if held_up => (0, between(launching)),
            Queue::Idle if launching < SHORT_CALL_NS => (launching / 2, launching / 2),
            Queue::Idle => (launching, launching),
            Queue::Drained if event_ns.is_some() && !self.over && !held_up => (between(0), between(0)),
            Queue::Drained => (0, between(0)),
        }
    }
}

impl Intervals {
    /// The parts of an interval. `event_ns` is when the first event was, if that is known; `between_ns` how far two events lie
    /// apart by themselves; `known_ns` how long launches of the key take, once one was measured.
    pub fn parts(
        &mut self,
        key: u64,
        submission: &Submission,
        (interval_ns, event_ns): (u64, Option<u64>),
        between_ns: u64,
        known_ns: Option<u64>,
    ) -> Parts {
        self.between_ns = between_ns;
        let ran_through = submission.over && submission.queue != Queue::Busy;
        self.over = if ran_through { self.over.saturating_add(1) } else { 0 };
        // Where nobody knows the key, a call that waited for its kernel is not told from one whose thread was stopped.
        let blocking = self.over >= BLOCKING || known_ns.is_none();
        let held_up = self.is_held_up(submission);
        let (least_host, most_host) = submission.host_ns(event_ns, blocking, held_up);
        let front_end = between_ns.saturating_add(hundredths(between_ns, ALONE_PARTS));
        let without = |host_ns: u64| {
            let own_ns = interval_ns.saturating_sub(host_ns).saturating_sub(front_end);
            own_ns.max(LEAST_NS.min(interval_ns))
        };
        let (least, most) = (without(most_host), without(least_host));
        let own_ns = known_ns.map_or(least, |known_ns| known_ns.max(least).min(most));
        let own_ns = match submission.queue {
            Queue::Busy => self.without_queue(key, own_ns, between_ns),
            _ if least == most => self.alone(key, own_ns),
            _ => own_ns,
        };
        Parts { host_ns: interval_ns.saturating_sub(front_end).saturating_sub(own_ns).min(most_host), own_ns }
    }

    /// Whether a call took much longer than others. It may be the new usual length.
    fn is_held_up(&mut self, submission: &Submission) -> bool {
        let (call_ns, usual_ns) = (submission.call_ns(), self.usual_ns);
        if submission.queue == Queue::Idle && !submission.over {
            let step = (usual_ns / 8).saturating_add(100);
            self.usual_ns = if call_ns > usual_ns {
                usual_ns.saturating_add(step).min(call_ns)
            } else {
                usual_ns.saturating_sub(step).max(call_ns)
            };
        }
        call_ns > LONG_CALL_NS.max(usual_ns.saturating_mul(2))
    }

    /// Since when a launch runs whose first event was at `event_ns`.
    #[must_use]
    pub fn runs_since(&self, submission: &Submission, event_ns: u64) -> u64 {
        let after = hundredths(self.between_ns, ALONE_PARTS);
        match submission.queue {
            Queue::Busy => event_ns.saturating_add(after).saturating_add_signed(self.more_ns.max(0)),
            _ => event_ns.max(submission.returned_ns).saturating_add(after),
        }
    }

    /// A launch that was alone: remembers how long it took.
    fn alone(&mut self, key: u64, own_ns: u64) -> u64 {
        if let Some(alone) = self.alone.get_mut(remainder(key, KEYS)) {
            alone.learn(key, own_ns);
        }
        own_ns
    }

    /// A queued launch without the time by which it seems longer for that; learns it from keys that were also alone.
    fn without_queue(&mut self, key: u64, own_ns: u64, between_ns: u64) -> u64 {
        if !self.compared {
            self.more_ns = hundredths(between_ns, QUEUED_PARTS).cast_signed().min(MOST_MORE_NS);
        }
        let alone = self.alone.get(remainder(key, KEYS)).copied().unwrap_or_default();
        if alone.key == key && alone.count >= ENOUGH && alone.mean_ns < SHORT_NS {
            let more_ns = own_ns.cast_signed().saturating_sub(alone.mean_ns.cast_signed());
            if more_ns.abs() <= 2 * MOST_MORE_NS {
                let step = (more_ns.saturating_sub(self.more_ns) / 4).clamp(-STEP_NS, STEP_NS);
                self.more_ns = self.more_ns.saturating_add(step).clamp(-MOST_MORE_NS, MOST_MORE_NS);
                self.compared = true;
            }
        }
        let more_ns = u64::try_from(self.more_ns).unwrap_or(0);
        own_ns.saturating_sub(more_ns).max(LEAST_NS.min(own_ns))
    }
}

impl Alone {
    fn learn(&mut self, key: u64, own_ns: u64) {
        if self.key != key {
            *self = Self { key, mean_ns: own_ns, count: 0 };
        }
        let away = own_ns.cast_signed().saturating_sub(self.mean_ns.cast_signed());
        self.mean_ns = self.mean_ns.saturating_add_signed(away >> MEASUREMENT);
        self.count = self.count.saturating_add(1);
    }
}

fn hundredths(ns: u64, parts: u64) -> u64 {
    ns.saturating_mul(parts) / 100
}

/// Probes of how far two events lie apart by themselves.
const PROBES: usize = 9;
/// More than that is not the events' own.
const MOST_BETWEEN_NS: u32 = 4_000;

/// How far two events of a context lie apart by themselves: the median of some probes, because single ones lie half as
/// far apart or twice as far. All-zero bytes: not known.
#[derive(Clone, Copy, Default)]
pub struct EventGap {
    /// The probes so far, the longest first.
    probes: [u32; PROBES],
    count: u8,
}

impl EventGap {
    /// Whether there should be more probes.
    #[must_use]
    pub fn wants_probe(&self) -> bool {
        usize::from(self.count) < PROBES
    }

    /// Two events with nothing between them were so far apart.
    pub fn add(&mut self, apart_ns: u64) {
        let mut apart = u32::try_from(apart_ns).unwrap_or(u32::MAX);
        for kept in &mut self.probes {
            if *kept < apart {
                core::mem::swap(kept, &mut apart);
            }
        }
        self.count = self.count.saturating_add(1);
    }

    /// The median; 0 while that is not known.
    #[must_use]
    pub fn ns(&self) -> u64 {
        let median = self.probes.get(usize::from(self.count / 2)).copied().unwrap_or(0);
        if median > MOST_BETWEEN_NS { 0 } else { median.into() }
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
