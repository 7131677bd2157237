//! Whose turn is it? The node's agent asks for each device that several containers share.
//!
//! Whoever wants the device has it by turns, in proportion to weights: the turn goes to the one that has held it least
//! for its weight (stride scheduling). What counts is time by the clock, from one handing over to the next, so it needs
//! no measurement of kernels. A turn ends when its time is up and what is in flight is over; a kernel longer than a turn
//! is paid for by a longer wait. The next one is told when to begin before that moment comes, so that neither the
//! agent's nor its own lateness leaves the device idle. Who has nothing to do loses its turn, and what it did not use is
//! not saved up. Nobody waits for somebody who does nothing: a device that one container wants alone is free.
//!
//! Pure: what containers want and have in flight are arguments, when to look again is an answer.

mod tenant;

use super::turn::Turn;
pub use tenant::{Tenant, Wants};

/// The longest turn while others wait, unless a single launch takes longer: long enough that handing over costs little,
/// short enough that of four containers none waits longer than a blink.
pub const QUANTUM_NS: u64 = 10_000_000;
/// The same where it is not known how long what is in flight takes: handing over costs more then.
pub const LONG_QUANTUM_NS: u64 = 20_000_000;
/// The next one may begin so long before the work of the one before should be over: so long does it take to wake up.
const LEAD_NS: u64 = 40_000;
/// The next one is told so long before.
const AHEAD_NS: u64 = 2_000_000;
/// Nobody is waited for any longer, whatever it says to be in flight.
const LONGEST_WAIT_NS: u64 = 10_000_000_000;
/// How often to look in general; and where something is about to end, nobody knows when.
const LOOK_NS: u64 = 1_000_000;
const CLOSE_LOOK_NS: u64 = 150_000;

/// Whose turn it is at a device.
#[derive(Default, Debug)]
pub struct Turns {
    /// Whose turn it is, since when.
    holder: Option<usize>,
    since_ns: u64,
    /// Whose turn is next, and whether because the holder had nothing to do.
    next: Option<usize>,
    left: bool,
    settled_ns: u64,
}

impl Turns {
    /// Looks at all containers of a device, in an order that stays the same, and says when to look again. What each is to
    /// be told stands in [`Tenant::turn`].
    pub fn look(&mut self, all: &mut [Tenant], now_ns: u64) -> u64 {
        self.settle(all, now_ns);
        wake(all, self.holder, now_ns);
        all.iter_mut().for_each(|tenant| tenant.drain(now_ns));
        let mut takers = all.iter().enumerate().filter(|(_, tenant)| tenant.takes_turns(now_ns));
        let one = takers.next().map(|(at, _)| at);
        if takers.next().is_some() {
            return self.contest(all, now_ns);
        }
        self.leave_to(all, one, now_ns);
        now_ns.saturating_add(LOOK_NS)
    }

    /// Writes down who has had the device until now.
    fn settle(&mut self, all: &mut [Tenant], now_ns: u64) {
        let begun = self.next.and_then(|next| Some((next, all.get(next)?.turn?.from_ns)));
        if let Some((next, from_ns)) = begun.filter(|(_, from_ns)| *from_ns <= now_ns) {
            self.charge(all, from_ns);
            if let Some(tenant) = self.holder.and_then(|holder| all.get_mut(holder)) {
                tenant.leave(self.left);
            }
            (self.holder, self.since_ns, self.next) = (Some(next), from_ns, None);
        }
        self.charge(all, now_ns);
    }

    fn charge(&mut self, all: &mut [Tenant], until_ns: u64) {
        let passed = until_ns.saturating_sub(self.settled_ns);
        self.settled_ns = self.settled_ns.max(until_ns);
        let mut waited = false;
        for (at, tenant) in all.iter_mut().enumerate() {
            let holds = Some(at) == self.holder;
            tenant.pass(passed, holds);
            if !holds && tenant.asks(until_ns) {
                tenant.wait(passed);
                waited = true;
            }
            tenant.forget();
        }
        if let Some(tenant) = self.holder.and_then(|at| all.get_mut(at)) {
            tenant.held_ns = tenant.held_ns.saturating_add(if waited { passed } else { 0 });
        }
    }

    /// Leaves the device to the one that takes turns, if any does, and to those that do not.
    fn leave_to(&mut self, all: &mut [Tenant], one: Option<usize>, now_ns: u64) {
        for (at, tenant) in all.iter_mut().enumerate() {
            // What one had of it while nobody else wanted it is not held against it.
            tenant.pace = 0;
            if one.is_none_or(|one| one == at) || tenant.is_sparse() {
                tenant.free();
            } else {
                tenant.turn = Some(Turn::NONE);
            }
        }
        if self.holder != one {
            self.since_ns = now_ns;
        }
        (self.holder, self.next) = (one, None);
    }

    /// Several want it.
    fn contest(&mut self, all: &mut [Tenant], now_ns: u64) -> u64 {
        self.seat(all);
        let soon = now_ns.saturating_add(CLOSE_LOOK_NS);
        let Some((holder, tenant)) = self.holder.and_then(|at| Some((at, all.get_mut(at)?))) else {
            if let Some(first) = best(all, now_ns, None) {
                give(all, first, now_ns);
                (self.holder, self.since_ns) = (Some(first), now_ns);
            }
            return now_ns.saturating_add(LOOK_NS / 2);
        };
        // Where it was free until now, its time is up.
        let over = Turn { from_ns: self.since_ns, until_ns: now_ns };
        let turn = *tenant.turn.insert(tenant.turn.filter(|turn| *turn != Turn::ENDLESS).unwrap_or(over));
        let tenant = *tenant;
        let longest_ns = turn.until_ns.saturating_add(LONGEST_WAIT_NS);
        let (drains_ns, idle) =
            (tenant.drains_at(now_ns).min(longest_ns), tenant.is_idle(now_ns, self.since_ns));
        let ends_ns = if idle { now_ns } else { turn.until_ns.max(drains_ns).max(now_ns) };
        let goes_on = !idle && tenant.may_go_on();
        let rival = best(all, now_ns, Some(holder)).and_then(|at| Some((at, all.get(at)?.pace)));
        let late = now_ns.saturating_add(AHEAD_NS);
        let overdue = tenant.is_overdue(now_ns, self.since_ns);
        if overdue || ends_ns > late {
            self.withdraw(all);
            let look_ns = match turn.until_ns > now_ns {
                true => LOOK_NS,
                false if overdue => CLOSE_LOOK_NS,
                false if tenant.is_doubtful() => 2 * CLOSE_LOOK_NS,
                false => LOOK_NS,
            };
            return now_ns.saturating_add(look_ns).min(ends_ns.saturating_sub(AHEAD_NS).max(soon));
        }
        let Some((rival, rivals_pace)) = rival else {
            self.withdraw(all);
            if goes_on {
                extend(all, holder, now_ns, late);
                return now_ns.saturating_add(LOOK_NS);
            }
            if ends_ns <= now_ns {
                close(all, self.holder.take());
            }
            return soon;
        };
        let pace = tenant.pace.saturating_add(tenant.stretch(ends_ns.saturating_sub(now_ns)));
        let behind = tenant.shrink(rivals_pace.saturating_sub(pace));
        if goes_on && behind > 0 {
            self.withdraw(all);
            extend(all, holder, now_ns, ends_ns.saturating_add(behind.clamp(LOOK_NS, QUANTUM_NS)));
            return now_ns.saturating_add(LOOK_NS);
        }
        if !idle && tenant.is_doubtful() {
            self.withdraw(all);
            return drains_ns.saturating_sub(AHEAD_NS / 2).clamp(soon, soon.saturating_add(CLOSE_LOOK_NS));
        }
        if self.next != Some(rival) {
            self.withdraw(all);
        }
        (self.next, self.left) = (Some(rival), idle && now_ns < turn.until_ns);
        give(all, rival, ends_ns.saturating_sub(LEAD_NS).max(now_ns));
        self.settle(all, now_ns);
        now_ns.saturating_add(LOOK_NS / 2)
    }

    /// Who takes no turns may launch at any time, and whose turn it is not has none.
    fn seat(&mut self, all: &mut [Tenant]) {
        for (at, tenant) in all.iter_mut().enumerate() {
            if tenant.is_sparse() {
                tenant.free();
                self.holder = self.holder.filter(|holder| *holder != at);
                self.next = self.next.filter(|next| *next != at);
            } else if Some(at) != self.holder && Some(at) != self.next {
                tenant.turn = Some(Turn::NONE);
            }
        }
    }

    /// What was planned is not.
    fn withdraw(&mut self, all: &mut [Tenant]) {
        close(all, self.next.take());
    }
}

/// Who comes back after wanting no turns has saved up nothing.
fn wake(all: &mut [Tenant], holder: Option<usize>, now_ns: u64) {
    let least = |is: fn(&Tenant, u64) -> bool| {
        all.iter().filter(|tenant| is(tenant, now_ns)).map(|tenant| tenant.pace).min()
    };
    let least = least(Tenant::wants).or_else(|| least(Tenant::takes_turns)).unwrap_or(0);
    for (at, tenant) in all.iter_mut().enumerate() {
        if !tenant.wants(now_ns) {
            tenant.pace = tenant.pace.max(least);
        }
        tenant.note(now_ns, Some(at) == holder);
    }
}

/// Who is ready and has held the device least for its weight.
fn best(all: &[Tenant], now_ns: u64, but: Option<usize>) -> Option<usize> {
    let all = all.iter().enumerate();
    let ready = all.filter(|(at, tenant)| Some(*at) != but && tenant.is_ready(now_ns));
    ready.min_by_key(|(_, tenant)| tenant.pace).map(|(at, _)| at)
}

fn give(all: &mut [Tenant], who: usize, from_ns: u64) {
    if let Some(tenant) = all.get_mut(who) {
        let until_ns = from_ns.saturating_add(tenant.length());
        tenant.turn = Some(Turn { from_ns, until_ns });
    }
}

/// It goes on: its turn, told anew, is never longer than a word can say.
fn extend(all: &mut [Tenant], who: usize, now_ns: u64, until_ns: u64) {
    if let Some(turn) = all.get_mut(who).and_then(|tenant| tenant.turn.as_mut()) {
        *turn = Turn { from_ns: turn.from_ns.max(now_ns), until_ns: turn.until_ns.max(until_ns) };
    }
}

fn close(all: &mut [Tenant], who: Option<usize>) {
    if let Some(tenant) = who.and_then(|at| all.get_mut(at)) {
        tenant.turn = Some(Turn::NONE);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    /// What stands in a region is the tenant's: it may say that its work never ends.
    #[test]
    fn whoever_says_that_its_work_never_ends_does_not_keep_the_device() {
        let mut all = [Tenant::new(0), Tenant::new(0)];
        let mut turns = Turns::default();
        let (start, mut now) = (1_000_000_000_000, 1_000_000_000_000);
        let mut had = 0;
        while now < start + 3 * LONGEST_WAIT_NS {
            let liar = Wants { until_ns: u64::MAX, in_flight_ns: u64::MAX, ..Wants::default() };
            let other = Wants { asked_at_ns: now, ..Wants::default() };
            for (tenant, wants) in all.iter_mut().zip([liar, other]) {
                tenant.see(Wants { weight: 50, asked_at_ns: now, ..wants }, now);
            }
            now = turns.look(&mut all, now);
            had += u32::from(all[1].turn.is_some_and(|turn| turn.admits(now, now)));
        }
        assert!(had > 0);
    }
}
