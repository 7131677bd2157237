//! Which container gets the lease? The node's agent asks for each device that several containers share.
//!
//! Containers that want the device hold it one after the other, in proportion to weights: the lease goes to the client with
//! the least virtual runtime, which is the time that it has held the device divided by its weight (stride scheduling).
//! The time counts by the clock, from one handover to the next, so it needs no measurement of kernels. A lease ends
//! when its quantum is over and the work in flight has drained; a kernel longer than a quantum is paid for by a longer
//! wait. The agent announces the next lease before that moment, so that neither the agent's nor the client's lateness
//! leaves the device idle. A client that does nothing loses its lease and saves up nothing. A container that wants the
//! device alone is not scheduled.
//!
//! Pure: what containers want and have in flight are arguments; when to look again is the answer.

use super::beside::{Catching, Comparison, Way};
pub use super::client::LONG_QUANTUM_NS;
use super::client::{Client, QUANTUM_NS};
use super::lease::Lease;
use super::trust::Trials;

/// The next lease may begin so long before the work of the one before should be over: a launch takes so long to wake up.
const LEAD_NS: u64 = 40_000;
/// The agent announces the next lease so long before.
const AHEAD_NS: u64 = 2_000_000;
/// After a change of the way to share the scheduler waits at most so long for what is in flight.
const LONGEST_DRAIN_NS: u64 = 100_000_000;
/// How often to look in general; and how often where something is about to end at an unknown time.
const LOOK_NS: u64 = 1_000_000;
const CLOSE_LOOK_NS: u64 = 150_000;

/// The schedule of one device.
#[derive(Default, Debug)]
pub struct Scheduler {
    /// The client that holds the lease, and since when.
    holder: Option<usize>,
    since_ns: u64,
    /// The client whose lease was announced, and whether that is because the holder had nothing to do.
    next: Option<usize>,
    is_early: bool,
    /// Until when the clients' time is accounted for.
    accounted_ns: u64,
    /// Whether containers never launch beside each other; which way of sharing loses less; and when it was looked at last while
    /// several wanted the device, and what all had been charged by then.
    never_beside: bool,
    comparison: Comparison,
    catching: Catching,
    contended_ns: u64,
    charged_ns: u64,
    /// Whether it is shared by turns, and before when none begins.
    turns: bool,
    drains_ns: u64,
    trials: Trials,
}

impl Scheduler {
    /// A schedule of turns, also where containers would do more if they launched beside each other.
    #[must_use]
    pub fn of_turns() -> Self {
        Self { never_beside: true, ..Self::default() }
    }

    /// Looks at all clients of a device, in an order that stays the same, and returns when to look again. [`Client::lease`]
    /// then holds what to tell each of them.
    pub fn look(&mut self, all: &mut [Client], now_ns: u64) -> u64 {
        self.account(all, now_ns);
        let count = |all: &[Client], is: fn(&Client, u64) -> bool| {
            all.iter().filter(|client| is(client, now_ns)).count()
        };
        if self.never_beside || count(all, Client::is_there) < 2 {
            self.contended_ns = 0;
            return self.look_for_turns(all, now_ns);
        }
        if count(all, Client::needs_turns) != 0 {
            self.comparison.keep_turns();
        }
        let passed_ns = self.compare(all, now_ns);
        let turns = self.comparison.way() == Way::Turns && count(all, Client::is_scheduled) > 1;
        if turns != self.turns {
            self.change(all, turns, now_ns);
        }
        catch_up(all, self.holder, now_ns, !turns);
        all.iter_mut().for_each(|client| client.drain(now_ns));
        if turns {
            return self.schedule(all, now_ns);
        }
        let waits = self.catching.grant(all, passed_ns, now_ns);
        now_ns.saturating_add(if waits { CLOSE_LOOK_NS } else { LOOK_NS / 2 })
    }

    /// Gives turns to those that are scheduled; all others launch at any time.
    fn look_for_turns(&mut self, all: &mut [Client], now_ns: u64) -> u64 {
        catch_up(all, self.holder, now_ns, false);
        all.iter_mut().for_each(|client| client.drain(now_ns));
        if all.iter().filter(|client| client.is_scheduled(now_ns)).count() > 1 {
            return self.schedule(all, now_ns);
        }
        self.release(all, now_ns);
        now_ns.saturating_add(LOOK_NS)
    }

    /// Several clients want the device: notes how much it does. Returns how long ago that was noted last.
    fn compare(&mut self, all: &[Client], now_ns: u64) -> u64 {
        let charged_ns = all.iter().fold(0, |sum: u64, client| sum.wrapping_add(client.total_ns()));
        let before_ns = core::mem::replace(&mut self.charged_ns, charged_ns);
        let since_ns = core::mem::replace(&mut self.contended_ns, now_ns);
        if since_ns == 0 {
            return 0;
        }
        let passed_ns = now_ns.saturating_sub(since_ns);
        let longest_ns = all.iter().map(Client::in_flight_ns).max().unwrap_or(0);
        self.comparison.pass(passed_ns, charged_ns.wrapping_sub(before_ns).cast_signed(), longest_ns);
        passed_ns
    }

    /// Begins or ends to share by turns. The first turn begins when the work in flight should be over.
    fn change(&mut self, all: &mut [Client], turns: bool, now_ns: u64) {
        self.end_lease(all, now_ns);
        (self.turns, self.next) = (turns, None);
        // What those say who were charged nothing is not waited for.
        let believed = all.iter().filter(|client| !client.is_on_trial());
        self.drains_ns = believed.map(|client| client.drains_at(now_ns)).max().unwrap_or(now_ns);
        self.drains_ns = self.drains_ns.min(now_ns.saturating_add(LONGEST_DRAIN_NS));
        for client in all.iter_mut().filter(|client| !client.is_interactive()) {
            client.lease = Some(Lease::NONE);
        }
    }

    /// The clients lie elsewhere now: `new` tells where each does; `None`: it is gone.
    pub fn keep(&mut self, new: impl Fn(usize) -> Option<usize>) {
        self.holder = self.holder.and_then(&new);
        self.next = self.next.and_then(&new);
    }

    /// Accounts for the time until now, and hands over if the announced lease has begun.
    fn account(&mut self, all: &mut [Client], now_ns: u64) {
        let begun = self.next.and_then(|next| Some((next, all.get(next)?.lease?.from_ns)));
        if let Some((next, from_ns)) = begun.filter(|(_, from_ns)| *from_ns <= now_ns) {
            self.charge_time(all, from_ns);
            if let Some(client) = self.holder.and_then(|holder| all.get_mut(holder)) {
                client.hand_over(self.is_early);
            }
            self.end_lease(all, from_ns);
            (self.holder, self.since_ns, self.next) = (Some(next), from_ns, None);
        }
        self.charge_time(all, now_ns);
    }

    /// Ends the holder's lease.
    fn end_lease(&mut self, all: &mut [Client], now_ns: u64) {
        if let Some(client) = self.holder.take().and_then(|holder| all.get_mut(holder))
            && client.end_lease(now_ns, self.since_ns)
        {
            self.trials.failed(now_ns);
        }
    }

    fn charge_time(&mut self, all: &mut [Client], until_ns: u64) {
        let passed = until_ns.saturating_sub(self.accounted_ns);
        self.accounted_ns = self.accounted_ns.max(until_ns);
        let mut waited = false;
        for (at, client) in all.iter_mut().enumerate() {
            let holds = Some(at) == self.holder;
            client.pass(passed, holds);
            if !holds && client.asks(until_ns) {
                client.queue(passed);
                waited = true;
            }
            client.cap_budget();
        }
        if let Some(client) = self.holder.and_then(|at| all.get_mut(at)) {
            client.held_ns = client.held_ns.saturating_add(if waited { passed } else { 0 });
        }
    }

    /// Leaves the device to the only client that is scheduled, if there is one, and to those that are not.
    fn release(&mut self, all: &mut [Client], now_ns: u64) {
        let mut scheduled = all.iter().enumerate().filter(|(_, client)| client.is_scheduled(now_ns));
        let only = scheduled.next().map(|(at, _)| at);
        for (at, client) in all.iter_mut().enumerate() {
            // Use of an otherwise idle device is not counted.
            client.vruntime = 0;
            if only.is_none_or(|only| only == at) || client.is_interactive() {
                client.unschedule();
            } else {
                client.lease = Some(Lease::NONE);
            }
        }
        self.next = None;
        if self.holder != only {
            begin_lease(all, only);
            (self.holder, self.since_ns) = (only, now_ns);
        }
    }

    /// Grants, extends or announces a lease: several clients want the device.
    fn schedule(&mut self, all: &mut [Client], now_ns: u64) -> u64 {
        self.set_waiting(all);
        let soon = now_ns.saturating_add(CLOSE_LOOK_NS);
        let Some((holder, client)) = self.holder.and_then(|at| Some((at, all.get_mut(at)?))) else {
            if let Some(first) = self.least_served(all, now_ns, None) {
                let from_ns = self.drains_ns.max(now_ns);
                grant(all, first, from_ns);
                begin_lease(all, Some(first));
                (self.holder, self.since_ns) = (Some(first), from_ns);
            }
            return now_ns.saturating_add(LOOK_NS / 2);
        };
        // If the device was not contended until now, the holder's quantum is over.
        let over = Lease { from_ns: self.since_ns, until_ns: now_ns };
        let granted = client.lease.filter(|lease| *lease != Lease::ENDLESS).unwrap_or(over);
        let lease = *client.lease.insert(granted);
        client.fix_wait(lease, now_ns, self.since_ns);
        let client = *client;
        let drains_ns = client.drains_at(now_ns);
        let idle = client.is_idle(now_ns, self.since_ns);
        let ends_ns = if idle { now_ns } else { lease.until_ns.max(drains_ns).max(now_ns) };
        let goes_on = !idle && client.may_go_on();
        let rival =
            self.least_served(all, now_ns, Some(holder)).and_then(|at| Some((at, all.get(at)?.vruntime)));
        let late = now_ns.saturating_add(AHEAD_NS);
        let overdue = client.is_overdue(now_ns, self.since_ns);
        if overdue || ends_ns > late {
            self.cancel_next(all);
            let look_ns = match lease.until_ns > now_ns {
                true => LOOK_NS,
                false if overdue => CLOSE_LOOK_NS,
                false if client.ends_unpredictably(now_ns) => 2 * CLOSE_LOOK_NS,
                false => LOOK_NS,
            };
            return now_ns.saturating_add(look_ns).min(ends_ns.saturating_sub(AHEAD_NS).max(soon));
        }
        let Some((rival, rivals_vruntime)) = rival else {
            self.cancel_next(all);
            if goes_on {
                extend(all, holder, now_ns, late);
                return now_ns.saturating_add(LOOK_NS);
            }
            if ends_ns <= now_ns {
                self.end_lease(all, now_ns);
            }
            return soon;
        };
        let vruntime = client.vruntime.saturating_add(client.vruntime_of(ends_ns.saturating_sub(now_ns)));
        let behind = client.time_of(rivals_vruntime.saturating_sub(vruntime));
        if goes_on && behind > 0 {
            self.cancel_next(all);
            extend(all, holder, now_ns, ends_ns.saturating_add(behind.clamp(LOOK_NS, QUANTUM_NS)));
            return now_ns.saturating_add(LOOK_NS);
        }
        if !idle && client.ends_unpredictably(now_ns) {
            self.cancel_next(all);
            return drains_ns.saturating_sub(AHEAD_NS / 2).clamp(soon, soon.saturating_add(CLOSE_LOOK_NS));
        }
        if self.next != Some(rival) {
            self.cancel_next(all);
            // It may launch, and be charged, before the next look.
            begin_lease(all, Some(rival));
        }
        (self.next, self.is_early) = (Some(rival), idle && now_ns < lease.until_ns);
        grant(all, rival, ends_ns.saturating_sub(LEAD_NS).max(now_ns));
        self.account(all, now_ns);
        now_ns.saturating_add(LOOK_NS / 2)
    }

    /// Lets interactive clients launch at any time, and all others wait but for the holder and the next one.
    fn set_waiting(&mut self, all: &mut [Client]) {
        for (at, client) in all.iter_mut().enumerate() {
            if client.is_interactive() {
                if !self.never_beside {
                    client.pass_beside(0);
                    client.launch_beside();
                } else {
                    client.unschedule();
                }
                self.holder = self.holder.filter(|holder| *holder != at);
                self.next = self.next.filter(|next| *next != at);
            } else if Some(at) != self.holder && Some(at) != self.next {
                client.lease = Some(Lease::NONE);
            }
        }
    }

    /// Cancels the announced next lease.
    fn cancel_next(&mut self, all: &mut [Client]) {
        revoke(all, self.next.take());
    }

    /// The client with the least virtual runtime of those that can make use of a lease.
    fn least_served(&self, all: &[Client], now_ns: u64, but: Option<usize>) -> Option<usize> {
        let may_be_tried = self.trials.may_begin(now_ns);
        let ready = |client: &Client| client.is_ready(now_ns) && (may_be_tried || !client.is_on_trial());
        let ready = all.iter().enumerate().filter(|(at, client)| Some(*at) != but && ready(client));
        ready.min_by_key(|(_, client)| client.vruntime).map(|(at, _)| at)
    }
}

/// A client that returns after wanting no leases starts at the least virtual runtime: it has saved up nothing.
fn catch_up(all: &mut [Client], holder: Option<usize>, now_ns: u64, beside: bool) {
    let least = |is: fn(&Client, u64) -> bool| {
        let counted = all.iter().filter(|client| beside || !client.is_interactive());
        counted.filter(|client| is(client, now_ns)).map(|client| client.vruntime).min()
    };
    let least = least(Client::wants).or_else(|| least(Client::is_scheduled)).unwrap_or(0);
    for (at, client) in all.iter_mut().enumerate() {
        if !client.wants(now_ns) || (client.is_interactive() && !beside) {
            client.vruntime = client.vruntime.max(least);
        }
        client.note(now_ns, Some(at) == holder);
    }
}

fn begin_lease(all: &mut [Client], at: Option<usize>) {
    if let Some(client) = at.and_then(|at| all.get_mut(at)) {
        client.begin_lease();
    }
}

fn grant(all: &mut [Client], at: usize, from_ns: u64) {
    if let Some(client) = all.get_mut(at) {
        let until_ns = from_ns.saturating_add(client.quantum_ns());
        client.lease = Some(Lease { from_ns, until_ns });
    }
}

/// Extends a lease; it begins anew, so that it is never longer than a word can hold.
fn extend(all: &mut [Client], at: usize, now_ns: u64, until_ns: u64) {
    if let Some(lease) = all.get_mut(at).and_then(|client| client.lease.as_mut()) {
        *lease = Lease { from_ns: lease.from_ns.max(now_ns), until_ns: lease.until_ns.max(until_ns) };
    }
}

fn revoke(all: &mut [Client], at: Option<usize>) {
    if let Some(client) = at.and_then(|at| all.get_mut(at)) {
        client.lease = Some(Lease::NONE);
    }
}
