//! One container at a device: what the agent sees of it, and what follows for its turns.

use super::{LONG_QUANTUM_NS, QUANTUM_NS};
use crate::share::clock::BURST_NS;
use crate::share::turn::{Turn, drains_at};

/// What is left of a share must be worth a turn of at least so long.
const LEAST: i64 = 1_500_000;
/// What of a share can be left over.
const BURST: i64 = BURST_NS.cast_signed();
/// What was charged and not had, and may still be corrected.
const LEFT_OVER: i64 = 3_000_000;
/// How long a launch that waits counts as waiting: it says so again and again.
const FRESH_NS: u64 = 5_000_000;
/// Who has had nothing in flight for so long loses its turn.
const IDLE_NS: u64 = 300_000;
/// Who has not launched anything in its turn for so long loses it.
const WAKE_NS: u64 = 2_000_000;
/// Who has done nothing for so long takes no part.
const AWAY_NS: u64 = 50_000_000;
/// Who has wanted no turn for so long has saved up nothing.
const LAPSE_NS: u64 = 20_000_000;
/// How long what is in flight may take longer than predicted before nobody waits for it: half of the turn, within this.
const PATIENCE_NS: (u64, u64) = (1_000_000, 100_000_000);
/// Work whose end is known no better than this is waited for.
const DOUBT_NS: u64 = 500_000;
/// How long a container's habits are watched.
const WATCH_NS: u64 = 100_000_000;
/// After so many turns it shows whether they are left early.
const TURNS: u64 = 4;
/// Who uses so much of the time that its share leaves it, in percent, takes turns.
const DENSE: u64 = 85;

/// What the agent sees of a container at a device.
#[derive(Clone, Copy, Default, Debug)]
pub struct Wants {
    /// Percent of the turns that it is to have; 0 counts as 1.
    pub weight: u32,
    /// GPU time charged so far.
    pub total_ns: u64,
    /// When a launch last waited for a turn, CLOCK_MONOTONIC nanoseconds.
    pub asked_at_ns: u64,
    /// When all that is in flight should be over, likewise.
    pub until_ns: u64,
    /// Predicted time of what is measured and in flight.
    pub in_flight_ns: u64,
    /// By how much that may be wrong.
    pub doubt_ns: u64,
    /// The share that it is to be kept to, in percent.
    pub percent: Option<u32>,
    /// GPU time that it may still use at once by its own books; below 0, what it owes.
    pub budget_ns: i64,
}

/// How a container uses the time that it has.
#[derive(Clone, Copy, Default, Debug)]
struct Habit {
    /// Since when it is watched.
    since_ns: u64,
    /// Since then: GPU time charged, time in which its share let it launch, turns, and those that it left early.
    charged_ns: u64,
    open_ns: u64,
    turns: u64,
    left: u64,
    /// GPU time charged of all time, in percent, smoothed.
    usage: u64,
    /// Whether it leaves its turns early, and uses less than its weight: it may launch at any time, since it would wait
    /// for turns more than it works.
    is_sparse: bool,
}

impl Habit {
    fn watch(&mut self, now_ns: u64, charged_ns: i64, weight: u64) {
        self.charged_ns = self.charged_ns.saturating_add_signed(charged_ns);
        let passed = now_ns.saturating_sub(self.since_ns);
        if passed < WATCH_NS {
            return;
        }
        let percent = |of: u64| self.charged_ns.saturating_mul(100).checked_div(of);
        self.usage = self.usage.saturating_mul(3).saturating_add(percent(passed).unwrap_or(0)) / 4;
        if self.is_sparse {
            let dense = percent(self.open_ns).is_some_and(|density| density >= DENSE);
            self.is_sparse = !dense && self.usage < weight;
        } else if self.turns >= TURNS {
            self.is_sparse = self.left.saturating_mul(2) > self.turns && self.usage < weight;
            (self.turns, self.left) = (0, 0);
        }
        (self.since_ns, self.charged_ns, self.open_ns) = (now_ns, 0, 0);
    }
}

/// One container at a device.
#[derive(Clone, Copy, Default, Debug)]
pub struct Tenant {
    /// What it is told; `None`: it keeps its share by itself.
    pub turn: Option<Turn>,
    seen: Wants,
    /// Whether it has done anything, or wanted to, since the last look; and when it last had.
    works: bool,
    worked_at_ns: u64,
    /// When it last held the device or waited for it.
    wanted_at_ns: u64,
    /// Whether measured launches were in flight at the last look.
    flew: bool,
    /// Whether the lengths of its launches vary so much that nobody knows when they will be over.
    is_doubtful: bool,
    habit: Habit,
    /// For how long it has held the device, for its weight.
    pub(super) pace: u64,
    /// For how long it has waited since its last turn.
    queued_ns: u64,
    /// GPU time that it may use before it has had its share.
    budget_ns: i64,
    /// GPU time that it was charged and has not had yet.
    backlog_ns: i64,
    /// For how long it has held the device while others waited.
    pub held_ns: u64,
}

impl Tenant {
    /// A container that was charged so much GPU time before it was looked at.
    #[must_use]
    pub fn new(total_ns: u64) -> Self {
        Self { seen: Wants { total_ns, ..Wants::default() }, ..Self::default() }
    }

    fn weight(&self) -> u64 {
        self.seen.weight.max(1).into()
    }

    /// What is seen of it now.
    pub fn see(&mut self, seen: Wants, now_ns: u64) {
        let charged = seen.total_ns.wrapping_sub(self.seen.total_ns) as i64;
        self.flew = self.seen.in_flight_ns != 0;
        self.seen = seen;
        if seen.in_flight_ns != 0 {
            self.is_doubtful = seen.doubt_ns > DOUBT_NS;
        }
        self.works = charged != 0 || seen.in_flight_ns != 0 || self.asks(now_ns);
        self.backlog_ns = self.backlog_ns.saturating_add(charged);
        self.habit.watch(now_ns, charged, self.weight());
        if self.turn.is_none() {
            self.budget_ns = seen.budget_ns;
        }
    }

    /// Time has passed.
    pub(super) fn pass(&mut self, passed_ns: u64, holds: bool) {
        let passed = i64::try_from(passed_ns).unwrap_or(i64::MAX);
        let percent = i64::from(self.seen.percent.unwrap_or(0));
        self.budget_ns = self.budget_ns.saturating_add(passed.saturating_mul(percent) / 100);
        let open = passed_ns.saturating_mul(self.seen.percent.unwrap_or(100).into()) / 100;
        self.habit.open_ns = self.habit.open_ns.saturating_add(open);
        if holds {
            let flies = self.flew || self.seen.in_flight_ns != 0;
            let served = if flies { passed } else { passed.min(self.backlog_ns.max(0)) };
            self.backlog_ns = self.backlog_ns.saturating_sub(served);
            self.budget_ns = self.budget_ns.saturating_sub(served);
            self.pace = self.pace.saturating_add(self.stretch(passed_ns));
        }
    }

    /// What of its share it has not had is not saved up, but for what comes back while it waits for others' turns.
    pub(super) fn forget(&mut self) {
        let percent = self.seen.percent.unwrap_or(0).into();
        let due_ns = self.queued_ns.saturating_mul(percent) / 100;
        self.budget_ns = self.budget_ns.min(BURST.saturating_add_unsigned(due_ns));
    }

    /// It waits for somebody else.
    pub(super) fn wait(&mut self, passed_ns: u64) {
        self.queued_ns = self.queued_ns.saturating_add(passed_ns);
    }

    /// Whether it has neither worked nor waited for a while.
    #[must_use]
    pub fn is_away(&self, now_ns: u64) -> bool {
        now_ns.saturating_sub(self.worked_at_ns) >= AWAY_NS
    }

    /// Lets it launch at any time; its own share binds it, if one does.
    pub(super) fn free(&mut self) {
        self.turn = if self.seen.percent.is_some() { None } else { Some(Turn::ENDLESS) };
    }

    /// Whether it may launch beside others at any time.
    pub(super) fn is_sparse(&self) -> bool {
        self.habit.is_sparse
    }

    /// Whether nobody knows when what it has in flight will be over.
    pub(super) fn is_doubtful(&self) -> bool {
        self.seen.in_flight_ns != 0 && self.is_doubtful
    }

    /// Whether it wants turns, or has lately.
    pub(super) fn wants(&self, now_ns: u64) -> bool {
        self.takes_turns(now_ns) && now_ns.saturating_sub(self.wanted_at_ns) < LAPSE_NS
    }

    /// Notes what it does now.
    pub(super) fn note(&mut self, now_ns: u64, holds: bool) {
        if holds || self.asks(now_ns) {
            self.wanted_at_ns = now_ns;
        }
        if self.works {
            self.worked_at_ns = now_ns;
        }
    }

    /// Whether it takes turns with others.
    pub(super) fn takes_turns(&self, now_ns: u64) -> bool {
        !self.is_away(now_ns) && !self.habit.is_sparse
    }

    /// Its turn is over.
    pub(super) fn leave(&mut self, early: bool) {
        self.turn = Some(Turn::NONE);
        self.queued_ns = 0;
        self.habit.turns = self.habit.turns.saturating_add(1);
        self.habit.left = self.habit.left.saturating_add(early.into());
    }

    /// Whether its share allows a turn: what comes back meanwhile makes it a whole one.
    fn has_budget(&self) -> bool {
        self.seen.percent.is_none_or(|percent| {
            let others = i64::from(100u32.saturating_sub(percent));
            self.budget_ns >= LEAST.max(QUANTUM_NS.cast_signed().saturating_mul(others) / 100)
        })
    }

    /// A time, for its weight.
    pub(super) fn stretch(&self, ns: u64) -> u64 {
        ns.saturating_mul(100).checked_div(self.weight()).unwrap_or(ns)
    }

    /// What [`Self::stretch`] makes such a time of.
    pub(super) fn shrink(&self, pace: u64) -> u64 {
        pace.saturating_mul(self.weight()) / 100
    }

    /// When what it has in flight should be over.
    pub(super) fn drains_at(&self, now_ns: u64) -> u64 {
        drains_at(now_ns, self.seen.until_ns, self.seen.in_flight_ns)
    }

    /// Whether a launch waits for a turn.
    pub(super) fn asks(&self, now_ns: u64) -> bool {
        now_ns.saturating_sub(self.seen.asked_at_ns) < FRESH_NS
    }

    /// Whether it waits for a turn that is worth having.
    pub(super) fn is_ready(&self, now_ns: u64) -> bool {
        !self.is_sparse() && self.asks(now_ns) && self.has_budget()
    }

    /// Whether its share allows more than what is in flight.
    pub(super) fn may_go_on(&self) -> bool {
        self.seen.percent.is_none() || self.budget_ns > self.backlog_ns
    }

    /// How long its turn may be.
    pub(super) fn length(&self) -> u64 {
        let longest = if self.is_doubtful { LONG_QUANTUM_NS } else { QUANTUM_NS };
        let Some(percent) = self.seen.percent else { return longest };
        let others = 100u64.saturating_sub(percent.into()).max(1);
        let lasts = self.budget_ns.max(0).unsigned_abs().saturating_mul(100) / others;
        lasts.clamp(LEAST.unsigned_abs(), longest)
    }

    /// Whether what it has in flight takes longer than predicted, and it may be waited for.
    pub(super) fn is_overdue(&self, now_ns: u64, since_ns: u64) -> bool {
        let Wants { until_ns, in_flight_ns, .. } = self.seen;
        let patience = (until_ns.saturating_sub(since_ns) / 2).clamp(PATIENCE_NS.0, PATIENCE_NS.1);
        in_flight_ns != 0 && until_ns <= now_ns && now_ns.saturating_sub(until_ns) < patience
    }

    /// What was in flight is over.
    pub(super) fn drain(&mut self, now_ns: u64) {
        if self.seen.in_flight_ns == 0 && self.drains_at(now_ns) <= now_ns {
            // What it had too much of it did not use. What is missing it cannot have used: it will be corrected, or others
            // had the device meanwhile.
            self.budget_ns = self.budget_ns.saturating_sub(self.backlog_ns.min(0));
            self.backlog_ns = self.backlog_ns.clamp(0, LEFT_OVER);
        }
    }

    /// Whether it does nothing with its turn.
    pub(super) fn is_idle(&self, now_ns: u64, since_ns: u64) -> bool {
        let over_ns = self.drains_at(now_ns);
        // Who has asked has to wake up first.
        let patience_ns = if over_ns <= since_ns { WAKE_NS } else { IDLE_NS };
        let over_ns = over_ns.max(since_ns);
        over_ns.saturating_add(patience_ns) < now_ns && self.seen.asked_at_ns < over_ns
    }
}
