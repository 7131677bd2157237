//! One container as a client of the agent's scheduler: what the agent sees of it, and what follows for its leases.

use super::clock::BURST_NS;
pub use super::lease::QUANTUM_NS;
use super::lease::{Lease, drains_at};
use super::pace::{Pace, WHOLE};
use super::trust::Trust;

/// The quantum of a client whose work in flight ends at an uncertain time: handing over costs more then.
pub const LONG_QUANTUM_NS: u64 = 20_000_000;

/// The rest of a share must suffice for a lease of at least so long.
const LEAST: i64 = 1_500_000;
/// The most that a client can save up of its share.
const BURST: i64 = BURST_NS.cast_signed();
/// The most that counts of what it has had beside others more or less than its part.
const SAVED_NS: i64 = 20_000_000;
/// The most of a charge without use that is kept because it may still be corrected.
const LEFT_OVER: i64 = 3_000_000;
/// How long a waiting launch counts as waiting: it says so again and again.
const FRESH_NS: u64 = 5_000_000;
/// A client that has had nothing in flight for so long loses its lease.
const IDLE_NS: u64 = 300_000;
/// A client that has not launched anything within its lease for so long loses it.
const WAKE_NS: u64 = 2_000_000;
/// A client that has done nothing for so long is away.
const AWAY_NS: u64 = 50_000_000;
/// A client that has wanted no lease for so long has saved up nothing.
const LAPSE_NS: u64 = 20_000_000;
/// If the uncertainty is at most this, the scheduler waits for the predicted end of the work.
const UNCERTAINTY_NS: u64 = 500_000;
/// Where it was more than this, containers do not launch beside each other for so long.
const UNCERTAINTY_BESIDE_NS: u64 = 1_600_000;
const UNPREDICTABLE_NS: u64 = 1_000_000_000;
/// How long the use of a client is observed before it is judged.
const OBSERVED_NS: u64 = 100_000_000;
/// Number of leases from which on it is judged whether they are returned early.
const LEASES: u64 = 4;
/// An interactive client that uses this percentage of the time that its share leaves it becomes a batch client.
const BATCH_PERCENT: u64 = 85;
/// Slices of others may keep an interactive client from using so much, however much it wants. So it gets leases again after
/// the first of these, and is judged anew; each time that it returns them early, after twice as long, at most the second.
const RETRY_NS: u64 = 1_000_000_000;
const LONGEST_RETRY_NS: u64 = 16_000_000_000;

/// What the agent sees of a container at a device.
#[derive(Clone, Copy, Default, Debug)]
pub struct Demand {
    /// The percentage of the device's time that it is to have beside others; 0 counts as 1.
    pub weight: u32,
    /// GPU time charged so far.
    pub total_ns: u64,
    /// When a launch last waited for a lease, CLOCK_MONOTONIC nanoseconds.
    pub asked_at_ns: u64,
    /// When all of its work in flight should be over, likewise.
    pub until_ns: u64,
    /// Predicted time of its measured launches in flight.
    pub in_flight_ns: u64,
    /// The uncertainty of that prediction.
    pub uncertainty_ns: u64,
    /// The share that the agent enforces, in percent.
    pub percent: Option<u32>,
    /// GPU time that it may still use at once by its own books; below 0, what it owes.
    pub budget_ns: i64,
}

/// How a client uses the time that it has.
#[derive(Clone, Copy, Default, Debug)]
struct Usage {
    /// Since when it is observed.
    since_ns: u64,
    /// Since then: GPU time charged, time in which its share let it launch, leases, and those that it returned early.
    charged_ns: u64,
    open_ns: u64,
    leases: u64,
    returned_early: u64,
    /// GPU time charged of all time, in percent, smoothed.
    percent: u64,
    /// Whether it returns its leases early and uses less than its weight. It may launch at any time: it would wait for
    /// leases longer than it works.
    is_interactive: bool,
    /// When that was judged last, how much it used then, and after how long it gets leases again.
    judged_at_ns: u64,
    judged_percent: u64,
    retry_ns: u64,
}

impl Usage {
    fn observe(&mut self, now_ns: u64, charged_ns: i64, weight: u64) {
        self.charged_ns = self.charged_ns.saturating_add_signed(charged_ns);
        let passed = now_ns.saturating_sub(self.since_ns);
        if passed < OBSERVED_NS {
            return;
        }
        let percent = |of: u64| self.charged_ns.saturating_mul(100).checked_div(of);
        self.percent = self.percent.saturating_mul(3).saturating_add(percent(passed).unwrap_or(0)) / 4;
        if self.is_interactive {
            let is_batch = percent(self.open_ns).is_some_and(|density| density >= BATCH_PERCENT);
            self.is_interactive = !is_batch && self.percent < weight && !self.is_due(now_ns);
        } else if self.leases >= LEASES {
            self.is_interactive =
                self.returned_early.saturating_mul(2) > self.leases && self.percent < weight;
            if self.is_interactive {
                self.retry_ns = self.retry_ns.saturating_mul(2).clamp(RETRY_NS, LONGEST_RETRY_NS);
            } else {
                self.retry_ns = 0;
            }
            (self.judged_at_ns, self.judged_percent) = (now_ns, self.percent);
            (self.leases, self.returned_early) = (0, 0);
        }
        (self.since_ns, self.charged_ns, self.open_ns) = (now_ns, 0, 0);
    }

    /// Whether an interactive client is to be judged anew: sooner if it uses much more than it did.
    fn is_due(&self, now_ns: u64) -> bool {
        let has_grown = self.percent > self.judged_percent.saturating_mul(2).saturating_add(5);
        let after_ns = if has_grown { RETRY_NS } else { self.retry_ns };
        now_ns.saturating_sub(self.judged_at_ns) >= after_ns
    }
}

/// One container at a device.
#[derive(Clone, Copy, Default, Debug)]
pub struct Client {
    /// The lease that the agent grants it; `None`: it keeps its share by itself.
    pub lease: Option<Lease>,
    seen: Demand,
    /// Whether it has worked, or wanted to, since the last look; and when it last had.
    works: bool,
    worked_at_ns: u64,
    /// When it last held the device or waited for it.
    wanted_at_ns: u64,
    /// Whether measured launches were in flight at the last look.
    had_work: bool,
    /// Whether the lengths of its launches vary so much that the end of its work cannot be predicted; and when that was so last.
    is_unpredictable: bool,
    unpredictable_at_ns: u64,
    usage: Usage,
    trust: Trust,
    /// GPU time that it was charged since the last look.
    charged_ns: i64,
    /// Virtual runtime: for how long it has held the device, divided by its weight.
    pub(super) vruntime: u64,
    /// Beside others: by how much it has had more than its part of the time.
    surplus_ns: i64,
    /// For how long it has waited since its last lease.
    queued_ns: u64,
    /// GPU time that it may use before it has had its share.
    budget_ns: i64,
    /// GPU time that it was charged and has not had yet.
    backlog_ns: i64,
    /// For how long it has held the device while others waited; beside others, what it was charged meanwhile.
    pub held_ns: u64,
    /// What it does beside others, and while they wait.
    pub(super) pace: Pace,
}

impl Client {
    /// A container that had been charged so much GPU time when the agent first looked at it.
    #[must_use]
    pub fn new(total_ns: u64) -> Self {
        Self { seen: Demand { total_ns, ..Demand::default() }, ..Self::default() }
    }

    pub(super) fn weight(&self) -> u64 {
        self.seen.weight.max(1).into()
    }

    /// Takes in what the agent sees of it now.
    pub fn see(&mut self, seen: Demand, now_ns: u64) {
        let charged = Trust::plausible(seen.total_ns.wrapping_sub(self.seen.total_ns).cast_signed());
        self.had_work = self.seen.in_flight_ns != 0;
        // Written since `now_ns` was read, or a lie.
        let may_ask = seen.asked_at_ns <= now_ns.saturating_add(FRESH_NS);
        let asked_at_ns = if may_ask { seen.asked_at_ns.min(now_ns) } else { 0 };
        self.seen = Demand { asked_at_ns, ..seen };
        self.trust.charge(charged);
        if seen.in_flight_ns != 0 {
            self.is_unpredictable = seen.uncertainty_ns > UNCERTAINTY_NS;
        }
        if seen.uncertainty_ns > UNCERTAINTY_BESIDE_NS {
            self.unpredictable_at_ns = now_ns;
        }
        self.works = charged != 0 || seen.in_flight_ns != 0 || self.asks(now_ns);
        self.charged_ns = self.charged_ns.saturating_add(charged);
        self.backlog_ns = self.backlog_ns.saturating_add(charged);
        self.usage.observe(now_ns, charged, self.weight());
        if self.lease.is_none() {
            // Its own books charge what is in flight already.
            (self.budget_ns, self.backlog_ns) = (seen.budget_ns, 0);
        }
    }

    /// Accounts for time that has passed.
    pub(super) fn pass(&mut self, passed_ns: u64, holds: bool) {
        let passed = i64::try_from(passed_ns).unwrap_or(i64::MAX);
        let percent = i64::from(self.seen.percent.unwrap_or(0));
        self.budget_ns = self.budget_ns.saturating_add(passed.saturating_mul(percent) / 100);
        let open = passed_ns.saturating_mul(self.seen.percent.unwrap_or(100).into()) / 100;
        self.usage.open_ns = self.usage.open_ns.saturating_add(open);
        let charged = core::mem::take(&mut self.charged_ns);
        if holds {
            self.pace.hold(passed_ns, charged);
            let has_work = self.had_work || self.seen.in_flight_ns != 0;
            let served = if has_work { passed } else { passed.min(self.backlog_ns.max(0)) };
            self.backlog_ns = self.backlog_ns.saturating_sub(served);
            self.budget_ns = self.budget_ns.saturating_sub(served);
            self.vruntime = self.vruntime.saturating_add(self.vruntime_of(passed_ns));
        }
    }

    /// Accounts for what it was charged since, beside others; returns that time.
    pub(super) fn pass_beside(&mut self, passed_ns: u64) -> i64 {
        let charged = core::mem::take(&mut self.backlog_ns);
        self.budget_ns = self.budget_ns.saturating_sub(charged);
        // While it works its kernels wait for those of others. Once it does not, what it has not made up for is lost.
        if self.lease == Some(Lease::BESIDE) {
            let waited = if self.works { self.queued_ns.saturating_add(passed_ns) } else { 0 };
            self.queued_ns = waited.min(LONG_QUANTUM_NS);
        }
        let vruntime = self.vruntime_of(charged.unsigned_abs());
        self.vruntime = match charged {
            0.. => self.vruntime.saturating_add(vruntime),
            _ => self.vruntime.saturating_sub(vruntime),
        };
        charged
    }

    /// Beside others `passed_ns` have passed in which it was charged so much. Of those that want the device its part is its
    /// weight's; what it does not use it saves up for a moment only, and what it had while nobody wanted it is soon forgotten.
    pub(super) fn pass_part(&mut self, passed_ns: u64, charged_ns: i64, weights: u64) {
        let part_ns = passed_ns.saturating_mul(self.weight()).checked_div(weights).unwrap_or(0);
        let surplus_ns = self.surplus_ns.saturating_add(charged_ns).saturating_sub_unsigned(part_ns);
        self.surplus_ns = surplus_ns.clamp(-SAVED_NS, SAVED_NS);
    }

    /// By how much it has had more than one that has had `least_vruntime`; and if it keeps its part anyway, more than that too.
    pub(super) fn ahead_ns(&self, least_vruntime: u64, keeps_part: bool) -> u64 {
        let lag_ns = self.time_of(self.vruntime.saturating_sub(least_vruntime));
        if keeps_part { lag_ns.min(self.surplus_ns.max(0).unsigned_abs()) } else { lag_ns }
    }

    /// Whether it cannot use its part, not even alone.
    pub(super) fn wants_little(&self, weights: u64) -> bool {
        let part = self.weight().saturating_mul(WHOLE).checked_div(weights).unwrap_or(WHOLE);
        self.pace.uses_alone().is_some_and(|rate| rate.saturating_mul(3) < part.saturating_mul(2))
    }

    /// Forgets what it has had so far.
    pub(super) fn even(&mut self, vruntime: u64) {
        (self.vruntime, self.surplus_ns) = (vruntime, 0);
    }

    /// Whether it has work in flight.
    pub(super) fn is_at_work(&self, now_ns: u64) -> bool {
        self.seen.in_flight_ns != 0 || self.seen.until_ns > now_ns
    }

    /// Predicted time of its measured launches in flight.
    pub(super) fn in_flight_ns(&self) -> u64 {
        self.seen.in_flight_ns
    }

    /// GPU time charged of all time.
    pub(super) fn total_ns(&self) -> u64 {
        self.seen.total_ns
    }

    /// Drops the part of its share that it has not used, except the part that accrues while it waits for others' leases.
    pub(super) fn cap_budget(&mut self) {
        let percent = self.seen.percent.unwrap_or(0).into();
        let due_ns = self.queued_ns.saturating_mul(percent) / 100;
        let most_ns = BURST.saturating_add_unsigned(due_ns).saturating_add(self.backlog_ns.min(0));
        self.budget_ns = self.budget_ns.min(most_ns);
    }

    /// What it may still use: its budget, and the part of the time for which it has held the device that it was not charged.
    fn left_ns(&self) -> i64 {
        self.budget_ns.saturating_sub(self.backlog_ns.min(0))
    }

    /// Accounts for time in which it waited: for another client, or for its own share.
    pub(super) fn queue(&mut self, passed_ns: u64) {
        if self.has_budget() {
            self.queued_ns = self.queued_ns.saturating_add(passed_ns);
        }
    }

    /// Whether it wants the device, as far as is believed.
    pub(super) fn is_there(&self, now_ns: u64) -> bool {
        !self.is_away(now_ns) && !self.trust.is_excluded(now_ns)
    }

    /// Whether it has neither worked nor waited for a while.
    #[must_use]
    pub fn is_away(&self, now_ns: u64) -> bool {
        now_ns.saturating_sub(self.worked_at_ns) >= AWAY_NS
    }

    /// Whether it gets no lease for some time, because it was charged nothing in those that it had.
    #[must_use]
    pub fn is_excluded(&self, now_ns: u64) -> bool {
        self.trust.is_excluded(now_ns)
    }

    /// Lets it launch at any time, within its own share if it has one.
    pub(super) fn unschedule(&mut self) {
        self.lease = if self.seen.percent.is_some() { None } else { Some(Lease::ENDLESS) };
    }

    /// Lets it launch beside others, as long as its share allows more.
    pub(super) fn launch_beside(&mut self) {
        let may_launch = self.seen.percent.is_none() || self.budget_ns > 0;
        self.lease = Some(if may_launch { Lease::BESIDE } else { Lease::NONE });
    }

    /// Whether it has long launches of lengths that vary, or had them lately: only turns tell what they take.
    pub(super) fn needs_turns(&self, now_ns: u64) -> bool {
        !self.is_away(now_ns) && now_ns.saturating_sub(self.unpredictable_at_ns) < UNPREDICTABLE_NS
    }

    /// Whether it may launch beside others at any time.
    pub(super) fn is_interactive(&self) -> bool {
        self.usage.is_interactive
    }

    /// Whether the end of its work in flight cannot be predicted, and is still waited for.
    pub(super) fn ends_unpredictably(&self, now_ns: u64) -> bool {
        let waited_for = self.waits_until().is_none_or(|(_, overdue_ns)| now_ns < overdue_ns);
        self.seen.in_flight_ns != 0 && self.is_unpredictable && waited_for
    }

    /// Until when its work is waited for after its lease has ended: as predicted, and if it takes longer.
    fn waits_until(&self) -> Option<(u64, u64)> {
        self.trust.waits_until(self.lease?.until_ns)
    }

    /// Looks at its lease, which it has had since `since_ns`: once that has ended, what is in flight then is waited for.
    pub(super) fn fix_wait(&mut self, lease: Lease, now_ns: u64, since_ns: u64) {
        if lease.until_ns <= now_ns {
            let drains_ns = self.drains_at(now_ns);
            self.trust.fix_wait(now_ns, (since_ns, lease.until_ns), drains_ns, self.backlog_ns);
        }
    }

    /// Whether it wants the device, or has lately.
    pub(super) fn wants(&self, now_ns: u64) -> bool {
        // Who is on trial may wait for long, and must not save up anything meanwhile.
        let wanted = now_ns.saturating_sub(self.wanted_at_ns) < LAPSE_NS && !self.trust.is_on_trial();
        !self.is_away(now_ns) && wanted
    }

    /// Notes what it does now.
    pub(super) fn note(&mut self, now_ns: u64, holds: bool) {
        let works_beside = self.works && self.lease == Some(Lease::BESIDE);
        if holds || works_beside || self.asks(now_ns) {
            self.wanted_at_ns = now_ns;
        }
        if self.works {
            self.worked_at_ns = now_ns;
        }
    }

    /// Whether it takes part in the schedule.
    pub(super) fn is_scheduled(&self, now_ns: u64) -> bool {
        !self.is_away(now_ns) && !self.is_interactive() && !self.trust.is_excluded(now_ns)
    }

    /// Whether it has to show that it uses leases.
    pub(super) fn is_on_trial(&self) -> bool {
        self.trust.is_on_trial()
    }

    /// It will hold the device next: what it is charged from now on is of that lease.
    pub(super) fn begin_lease(&mut self) {
        self.trust.begin_lease();
    }

    /// Ends its lease, which it has had since `since_ns`. True if that was a trial in vain.
    pub(super) fn end_lease(&mut self, now_ns: u64, since_ns: u64) -> bool {
        self.lease = Some(Lease::NONE);
        self.trust.end_lease(now_ns.saturating_sub(since_ns), now_ns)
    }

    /// Another one has the device after it.
    pub(super) fn hand_over(&mut self, early: bool) {
        self.queued_ns = 0;
        self.usage.leases = self.usage.leases.saturating_add(1);
        self.usage.returned_early = self.usage.returned_early.saturating_add(early.into());
    }

    /// Whether its share suffices for a lease: for a whole quantum, with what accrues during it.
    fn has_budget(&self) -> bool {
        self.seen.percent.is_none_or(|percent| {
            let others = i64::from(100u32.saturating_sub(percent));
            self.left_ns() >= LEAST.max(QUANTUM_NS.cast_signed().saturating_mul(others) / 100)
        })
    }

    /// A time on the device as virtual runtime.
    pub(super) fn vruntime_of(&self, ns: u64) -> u64 {
        ns.saturating_mul(100).checked_div(self.weight()).unwrap_or(ns)
    }

    /// The inverse of [`Self::vruntime_of`].
    pub(super) fn time_of(&self, vruntime: u64) -> u64 {
        vruntime.saturating_mul(self.weight()) / 100
    }

    /// When its work in flight should be over, as far as it is waited for.
    pub(super) fn drains_at(&self, now_ns: u64) -> u64 {
        let claimed_ns = drains_at(now_ns, self.seen.until_ns, self.seen.in_flight_ns);
        self.waits_until().map_or(claimed_ns, |(until_ns, _)| claimed_ns.min(until_ns))
    }

    /// Whether a launch waits for a lease.
    pub(super) fn asks(&self, now_ns: u64) -> bool {
        now_ns.saturating_sub(self.seen.asked_at_ns) < FRESH_NS
    }

    /// Whether it can make use of a lease now.
    pub(super) fn is_ready(&self, now_ns: u64) -> bool {
        !self.is_interactive() && !self.trust.is_excluded(now_ns) && self.asks(now_ns) && self.has_budget()
    }

    /// Whether its share allows more than the work in flight.
    pub(super) fn may_go_on(&self) -> bool {
        self.seen.percent.is_none() || self.budget_ns > self.backlog_ns
    }

    /// How long its lease may be.
    pub(super) fn quantum_ns(&self) -> u64 {
        let longest = if self.is_unpredictable { LONG_QUANTUM_NS } else { QUANTUM_NS };
        let Some(percent) = self.seen.percent else { return longest };
        let others = 100u64.saturating_sub(percent.into()).max(1);
        let lasts = self.left_ns().max(0).unsigned_abs().saturating_mul(100) / others;
        lasts.clamp(LEAST.unsigned_abs(), longest)
    }

    /// Whether its work in flight takes longer than predicted, and the scheduler still waits for it.
    pub(super) fn is_overdue(&self, now_ns: u64, since_ns: u64) -> bool {
        let overdue_ns = match self.waits_until() {
            Some((_, overdue_ns)) => overdue_ns,
            None => self.seen.until_ns.saturating_add(Trust::patience_ns(since_ns, self.seen.until_ns)),
        };
        let is_late = self.seen.in_flight_ns != 0 && self.drains_at(now_ns) <= now_ns;
        is_late && now_ns < overdue_ns && !self.trust.fails(now_ns, since_ns)
    }

    /// Clears the backlog once its queue has drained. If the charge exceeds the time for which it held the device, at most
    /// 3 ms are kept as a coming correction; if the charge is below, the difference was not used and is dropped.
    pub(super) fn drain(&mut self, now_ns: u64) {
        if self.seen.in_flight_ns == 0 && self.drains_at(now_ns) <= now_ns {
            self.budget_ns = self.budget_ns.saturating_sub(self.backlog_ns.min(0));
            self.backlog_ns = self.backlog_ns.clamp(0, LEFT_OVER);
        }
    }

    /// Whether it does not use its lease.
    pub(super) fn is_idle(&self, now_ns: u64, since_ns: u64) -> bool {
        let over_ns = self.drains_at(now_ns);
        // At the beginning of a lease its launch has to wake up first.
        let patience_ns = if over_ns <= since_ns { WAKE_NS } else { IDLE_NS };
        let over_ns = over_ns.max(since_ns);
        let is_idle = over_ns.saturating_add(patience_ns) < now_ns && self.seen.asked_at_ns < over_ns;
        is_idle || self.trust.fails(now_ns, since_ns)
    }
}
