//! Containers that launch beside each other, and whether that loses less than turns.
//!
//! In turns a container has the device alone, so its kernels take what the clock says, and what it leaves idle is lost. Beside
//! each other nothing is lost on a driver that fills one container's gaps with the kernels of another one; on a driver that
//! switches between contexts by time slices far more is lost. No driver tells which it is, so the scheduler tries: the way by
//! which more GPU time is charged is kept, and the other one is tried again now and then. Beside others a launch is
//! charged what its key takes alone, as its turns have shown.
//!
//! Shares are kept by lag: a container that has had more than the others, by its weight, waits until they have caught up. Beside
//! one that could not use its part of the time alone either, it only waits for what it has had beyond its own part.

use super::client::Client;
use super::lease::Lease;
use super::pace::Work;

/// How long one way is tried, and how much of that is not counted: work of the other way is still under way.
const TRIAL_NS: u64 = 300_000_000;
const UNCOUNTED_NS: u64 = 30_000_000;
/// How long the better way is kept before the other one is tried again: at first, and at most.
const KEPT_NS: (u64, u64) = (1_000_000_000, 64_000_000_000);
/// A trial ends early once it has done worse for so long, by this part.
const WORSE_NS: u64 = 30_000_000;
const WORSE: u64 = 8;
/// While so much of the time is charged in turns, in millionths, nothing else is tried: there is next to nothing to win.
const FULL: u64 = 970_000;
/// A way has to do better by this part to be taken instead of the other one.
const BETTER: u64 = 50;

/// How far back the work of a way is remembered, at least; it is judged after so many times what is in flight, at most.
const REMEMBERED_NS: u64 = 4_000_000_000;
const STEADY: u64 = 60;
const LONGEST_STEADY_NS: u64 = 30_000_000_000;

/// How far ahead of the one that has had the least a container may be.
const LAG_NS: u64 = 2_000_000;
/// While one waits for others to catch up, the device must be at work for half of such a time.
const WATCHED_NS: u64 = 3_000_000;
/// Two things alternate: those that are ahead wait, and all launch. The one that helps the client that is behind lasts for
/// `USUAL_NS`. The other one is only tried, for `TRIED_NS` and eight times the work in flight, at most `LONGEST_TRIED_NS`. The
/// first `SETTLING_NS` of each do not count.
const TRIED_NS: u64 = 60_000_000;
const LONGEST_TRIED_NS: u64 = 400_000_000;
const USUAL_NS: u64 = 1_000_000_000;
const SETTLING_NS: u64 = 10_000_000;

/// How containers share a contended device.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) enum Way {
    /// One at a time.
    #[default]
    Turns,
    /// All of them, while nobody is too far ahead.
    Beside,
}

impl Way {
    fn other(self) -> Self {
        match self {
            Self::Turns => Self::Beside,
            Self::Beside => Self::Turns,
        }
    }
}

/// Which way loses less.
#[derive(Default, Debug)]
pub(super) struct Comparison {
    way: Way,
    is_trial: bool,
    /// For how long it has been used, and its work; and for how long it is used.
    work: Work,
    used_ns: u64,
    kept_ns: u64,
    /// All work of the way that is kept, since it was taken up or since `REMEMBERED_NS`.
    all: Work,
    /// How long that has to be before it is judged.
    steady_ns: u64,
    /// The work of the last whole time of the way that is kept, and of the other way when it was compared.
    rate: u64,
    other_rate: u64,
}

impl Comparison {
    pub(super) fn way(&self) -> Way {
        self.way
    }

    /// Only turns come into question now.
    pub(super) fn keep_turns(&mut self) {
        if self.way != Way::Turns || self.is_trial {
            self.begin(Way::Turns, false);
        }
        self.used_ns = 0;
    }

    /// Time has passed in which several wanted the device, and all were charged so much; `in_flight_ns` is the most that one of
    /// them has in flight.
    pub(super) fn pass(&mut self, passed_ns: u64, charged_ns: i64, in_flight_ns: u64) {
        self.used_ns = self.used_ns.saturating_add(passed_ns);
        if self.is_trial && self.used_ns < UNCOUNTED_NS {
            return;
        }
        self.work.add(passed_ns, charged_ns);
        self.all.add(passed_ns, charged_ns);
        // What is charged and not yet done, or the reverse, is to be little beside it.
        self.steady_ns = self.steady_ns.max(in_flight_ns.saturating_mul(STEADY)).min(LONGEST_STEADY_NS);
        if self.all.passed_ns > self.steady_ns.saturating_mul(2).max(REMEMBERED_NS) {
            self.all.halve();
            self.steady_ns /= 2;
        }
        if self.is_trial {
            self.end_trial();
        } else {
            self.end_kept();
        }
    }

    fn end_trial(&mut self) {
        let rate = self.work.rate();
        let is_worse = self.work.passed_ns >= WORSE_NS && rate.saturating_add(self.rate / WORSE) < self.rate;
        if self.used_ns < TRIAL_NS && !is_worse {
            return;
        }
        let is_better = rate > self.rate.saturating_add(self.rate / BETTER);
        self.other_rate = if is_better { self.rate } else { rate };
        self.kept_ns = if is_better { KEPT_NS.0 } else { self.kept_ns.saturating_mul(2).min(KEPT_NS.1) };
        self.begin(if is_better { self.way } else { self.way.other() }, false);
    }

    fn end_kept(&mut self) {
        if self.work.passed_ns >= TRIAL_NS {
            self.rate = self.work.rate();
            self.work = Work::default();
        }
        // Less than the other way did: programs have changed, or a container tells less than it does.
        let has_fallen = self.rate.saturating_add(self.other_rate / WORSE) < self.other_rate;
        let kept_ns = if has_fallen { KEPT_NS.0 } else { self.kept_ns.max(KEPT_NS.0) };
        let may_win = self.all.passed_ns >= self.steady_ns && self.all.rate() < FULL;
        if self.used_ns >= kept_ns && (self.way == Way::Beside || may_win) {
            self.begin(self.way.other(), true);
        }
    }

    fn begin(&mut self, way: Way, is_trial: bool) {
        (self.way, self.is_trial, self.work, self.used_ns) = (way, is_trial, Work::default(), 0);
        (self.all, self.steady_ns) = (Work::default(), 0);
    }
}

/// Who waits until others have caught up.
#[derive(Default, Debug)]
pub(super) struct Catching {
    /// Whether those that are ahead wait at all; since when, and for how long.
    is_on: bool,
    since_ns: u64,
    lasts_ns: u64,
    watched_ns: u64,
    busy_ns: u64,
}

impl Catching {
    /// Lets all launch but those that are too far ahead, and returns whether somebody waits.
    pub(super) fn grant(&mut self, all: &mut [Client], passed_ns: u64, now_ns: u64) -> bool {
        let waited = all.iter().any(|client| client.asks(now_ns) && client.lease == Some(Lease::NONE));
        let settled = now_ns.saturating_sub(self.since_ns) > SETTLING_NS;
        let mut charged = 0i64;
        let weights = all.iter().filter(|client| client.wants(now_ns)).map(Client::weight).sum();
        for client in all.iter_mut() {
            let own = client.pass_beside(passed_ns);
            client.pass_part(passed_ns, own, weights);
            if waited {
                client.held_ns = client.held_ns.saturating_add(own.max(0).unsigned_abs());
            }
            charged = charged.saturating_add(own);
            if settled {
                client.pace.pass(passed_ns, own, self.is_on);
            }
        }
        let wanting = all.iter().filter(|client| client.wants(now_ns));
        let least = wanting.min_by_key(|client| client.vruntime);
        let (lowest, helps) = least.map_or((0, true), |client| (client.vruntime, client.pace.is_helped()));
        // Others keep their parts beside one that could not use its own.
        let keep_parts = least.is_some_and(|client| client.wants_little(weights));
        let is_over = now_ns.saturating_sub(self.since_ns) >= self.lasts_ns;
        let waits = |client: &Client| !client.is_away(now_ns) && client.lease == Some(Lease::NONE);
        let mut evens = false;
        if is_over {
            evens = !helps;
            self.turn_over(helps, all, now_ns);
        } else if self.is_on && all.iter().any(waits) {
            evens = self.is_idle(all, passed_ns, charged, now_ns);
        }
        let highest = all.iter().map(|client| client.vruntime).max().unwrap_or(0);
        let mut waits = false;
        for client in all.iter_mut() {
            if evens {
                client.even(highest);
            }
            client.launch_beside();
            if self.is_on && client.ahead_ns(if evens { highest } else { lowest }, keep_parts) > LAG_NS {
                client.lease = Some(Lease::NONE);
            }
            waits |= client.lease == Some(Lease::NONE);
        }
        waits
    }

    /// Begins or ends to let those wait that are ahead.
    fn turn_over(&mut self, helps: bool, all: &mut [Client], now_ns: u64) {
        self.is_on = !self.is_on;
        all.iter_mut().for_each(|client| client.pace.forget(self.is_on));
        self.since_ns = now_ns;
        let longest = all.iter().map(Client::in_flight_ns).max().unwrap_or(0);
        let tried_ns = TRIED_NS.saturating_add(longest.saturating_mul(8)).min(LONGEST_TRIED_NS);
        self.lasts_ns = if self.is_on == helps { USUAL_NS } else { tried_ns };
        (self.watched_ns, self.busy_ns) = (0, 0);
    }

    /// Whether the device is mostly idle while somebody waits: those that are behind do not want more.
    fn is_idle(&mut self, all: &[Client], passed_ns: u64, charged_ns: i64, now_ns: u64) -> bool {
        let at_work = all.iter().any(|client| client.is_at_work(now_ns));
        let busy_ns = if at_work { passed_ns } else { charged_ns.max(0).unsigned_abs().min(passed_ns) };
        self.watched_ns = self.watched_ns.saturating_add(passed_ns);
        self.busy_ns = self.busy_ns.saturating_add(busy_ns);
        if self.watched_ns < WATCHED_NS {
            return false;
        }
        let idle = self.busy_ns.saturating_mul(2) < self.watched_ns;
        (self.watched_ns, self.busy_ns) = (0, 0);
        idle
    }
}
