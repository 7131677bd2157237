//! What the agent believes of a client, by its own clock and by what the client was charged.
//!
//! A container writes its own words, and may write what it likes. So the agent waits for work in flight only as long as that
//! work has been charged, and fixes until when it waits as soon as a lease has ended. A client that was charged nothing in its
//! leases is on trial: its leases end after a moment, ever more rarely, and all that are on trial at a device have together
//! next to nothing of it. Who forges charges as well gets the part of its weight, and no more: only the card could tell.

use super::lease::QUANTUM_NS;

/// A client on trial that was charged nothing for so long within its lease loses it.
pub const TRIAL_NS: u64 = 4_000_000;
/// After a trial in vain nobody is tried for this many times as long: 1% of a device at most.
const TRIALS_APART: u64 = 128;
/// Leases in a row without a charge after which a client is on trial.
const LAPSES: u32 = 2;
/// For how long a client is not tried again, at first and at most; it doubles each time.
const EXCLUSION_NS: (u64, u64) = (40_000_000, 20_000_000_000);
/// The longest wait for work in flight, however much was charged; and the largest charge that is believed at once.
const LONGEST_WAIT_NS: u64 = 10_000_000_000;
/// How long work in flight may take longer than predicted before nobody waits for it: half of the lease, within this.
const PATIENCE_NS: (u64, u64) = (1_000_000, 100_000_000);

/// The wait for the work of one lease.
#[derive(Clone, Copy, Default, Debug)]
struct Wait {
    /// The end of that lease.
    lease_until_ns: u64,
    /// Until when its work is waited for as predicted, and if it takes longer.
    until_ns: u64,
    overdue_until_ns: u64,
}

/// What is known of one client.
#[derive(Clone, Copy, Default, Debug)]
pub struct Trust {
    /// What it was charged in all its leases but this one, as far as it held the device meanwhile.
    paid_ns: u64,
    /// What it was charged since its lease began.
    charged_ns: u64,
    /// Leases in a row in which it was charged nothing; a client that is new has had enough of them.
    lapses: Option<u32>,
    /// When it may be tried again.
    excluded_until_ns: u64,
    wait: Wait,
}

/// When a client on trial may next be given a lease, for all of a device.
#[derive(Clone, Copy, Default, Debug)]
pub struct Trials {
    from_ns: u64,
}

impl Trials {
    /// Whether one may be tried now.
    pub fn may_begin(&self, now_ns: u64) -> bool {
        self.from_ns <= now_ns
    }

    /// One was in vain.
    pub fn failed(&mut self, now_ns: u64) {
        self.from_ns = now_ns.saturating_add(TRIAL_NS.saturating_mul(TRIALS_APART));
    }
}

impl Trust {
    /// A charge, as far as one is plausible.
    pub fn plausible(charged_ns: i64) -> i64 {
        let most = LONGEST_WAIT_NS.cast_signed();
        charged_ns.clamp(-most, most)
    }

    /// Notes a charge. Whoever is charged works.
    pub fn charge(&mut self, charged_ns: i64) {
        if charged_ns > 0 {
            self.charged_ns = self.charged_ns.saturating_add(charged_ns.unsigned_abs());
            (self.lapses, self.excluded_until_ns) = (Some(0), 0);
        }
    }

    /// A lease begins.
    pub fn begin_lease(&mut self) {
        self.charged_ns = 0;
    }

    /// A lease has ended that was `held_ns` long. True if it was a trial in vain.
    pub fn end_lease(&mut self, held_ns: u64, now_ns: u64) -> bool {
        self.paid_ns = self.paid_ns.saturating_add(self.charged_ns.min(held_ns));
        if self.charged_ns != 0 {
            return false;
        }
        let was_on_trial = self.is_on_trial();
        let lapses = self.lapses.unwrap_or(LAPSES).saturating_add(1);
        self.lapses = Some(lapses);
        if self.is_on_trial() {
            let (least, most) = EXCLUSION_NS;
            let doubled = least << lapses.saturating_sub(LAPSES).min(16);
            self.excluded_until_ns = now_ns.saturating_add(doubled.clamp(least, most));
        }
        was_on_trial
    }

    /// Whether it has to show that it uses leases.
    pub fn is_on_trial(&self) -> bool {
        self.lapses.is_none_or(|lapses| lapses >= LAPSES)
    }

    /// Whether it gets no lease now.
    pub fn is_excluded(&self, now_ns: u64) -> bool {
        now_ns < self.excluded_until_ns
    }

    /// Whether it is on trial, and has shown nothing since its lease began.
    pub fn fails(&self, now_ns: u64, since_ns: u64) -> bool {
        self.is_on_trial() && now_ns.saturating_sub(since_ns) >= TRIAL_NS
    }

    /// Looks at a lease that has ended. What is in flight then is waited for as far as it was charged within the lease and has
    /// not been had, `backlog_ns`, and at most as long as the client has paid for before.
    pub fn fix_wait(&mut self, now_ns: u64, lease: (u64, u64), drains_ns: u64, backlog_ns: i64) {
        let (since_ns, lease_until_ns) = lease;
        if self.wait.lease_until_ns == lease_until_ns {
            return;
        }
        let charged_ns = self.charged_ns.min(backlog_ns.max(0).unsigned_abs());
        let paid_ns = self.paid_ns.saturating_add(QUANTUM_NS).min(LONGEST_WAIT_NS);
        let until_ns = drains_ns.min(now_ns.saturating_add(charged_ns.min(paid_ns)));
        let overdue_until_ns = until_ns.saturating_add(Self::patience_ns(since_ns, until_ns));
        self.wait = Wait { lease_until_ns, until_ns, overdue_until_ns };
    }

    /// For how long work is waited for that should have been over at `until_ns`.
    pub fn patience_ns(since_ns: u64, until_ns: u64) -> u64 {
        (until_ns.saturating_sub(since_ns) / 2).clamp(PATIENCE_NS.0, PATIENCE_NS.1)
    }

    /// Until when the work of the lease that ends at `lease_until_ns` is waited for; `None` while it has not ended.
    pub fn waits_until(&self, lease_until_ns: u64) -> Option<(u64, u64)> {
        let Wait { lease_until_ns: of, until_ns, overdue_until_ns } = self.wait;
        (of == lease_until_ns).then_some((until_ns, overdue_until_ns))
    }
}
