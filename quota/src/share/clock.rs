//! The virtual time: the time up to which the container has used its share.
//!
//! Admitting a launch of predicted length c moves the word by c/r, in one compare-and-swap; a launch waits until the
//! word is no further ahead of the clock than the burst allows. There is no refill thread and no control loop: debt
//! and credit are in the word, and every process of the container uses the same one. When a launch's true length is
//! known, [`correct`] moves the word by the difference, so the long-run mean is exact for any predictor.

use crate::sync::{AtomicU64, Ordering};
use core::num::NonZeroU64;

/// GPU time that may be used at once after a pause: 10 ms, so that a 1 s window is off by at most one point.
pub const BURST_NS: u64 = 10_000_000;

/// Virtual time that is less behind is brought up to the clock without a question.
const WORTH_NS: u64 = 2_000_000;

/// Wall time by which a launch that has waited for a second may go before one that has just arrived: of many launches
/// that wait for one share none starves.
const AGING_NS: u64 = 1_000_000;

/// A virtual time further ahead than this many times the largest charge is damage, not debt.
const CLAMP_CHARGES: u64 = 64;

/// A share of GPU time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rate(NonZeroU64);

impl Rate {
    /// `percent` of the time, 1 to 99; `None` for 0 and from 100 on, which limit nothing.
    #[must_use]
    #[inline]
    pub fn new(percent: u32) -> Option<Self> {
        if percent >= 100 { None } else { NonZeroU64::new(u64::from(percent)).map(Self) }
    }

    /// The wall time in which `gpu_ns` of GPU time may be used.
    #[must_use]
    #[inline]
    pub fn stretch(self, gpu_ns: u64) -> u64 {
        gpu_ns.saturating_mul(100) / self.0
    }
}

/// The words of one device that hold the share's state.
#[derive(Clone, Copy)]
pub struct Clock<'a> {
    /// The virtual time.
    pub virtual_time: &'a AtomicU64,
    /// When virtual time was last found behind: charges of before are no longer given back.
    pub idle_at: &'a AtomicU64,
    /// By how much it was behind, in total, less what late charges have paid with it.
    pub idle_ns: &'a AtomicU64,
    /// The percentage in which the virtual time's lead is counted; 0 at first.
    pub rate: &'a AtomicU64,
    /// Largest single charge, nanoseconds.
    pub largest_charge_ns: &'a AtomicU64,
    /// Virtual times that were clamped.
    pub clamped: &'a AtomicU64,
}

/// The answer to a launch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Admission {
    /// Go; the prediction is charged.
    Go,
    /// Wait until this time; nothing is charged.
    Wait {
        /// When to ask again.
        until_ns: u64,
    },
    /// Virtual time is so far behind that it is worth knowing why ([`super::starved`]); nothing is charged.
    Behind,
}

/// Admits a launch predicted to take `cost_ns` that has waited for `waited_ns`, or says when to ask again.
#[inline]
pub fn admit(clock: Clock, now_ns: u64, cost_ns: u64, rate: Rate, waited_ns: u64) -> Admission {
    note_charge(clock, cost_ns);
    if clock.rate.load(Ordering::Relaxed) != rate.0.get() {
        rescale(clock, now_ns, rate);
    }
    // By the root, so that both waits of milliseconds and of hundreds of milliseconds are told apart.
    let penalty = AGING_NS.saturating_sub((waited_ns / 1_000).isqrt().saturating_mul(1_000));
    let allowance = rate.stretch(BURST_NS).saturating_sub(penalty);
    let charge_ns = rate.stretch(cost_ns);
    let mut seen = clock.virtual_time.load(Ordering::Acquire);
    loop {
        let (next, admission) = if let Some(behind) = now_ns.checked_sub(seen) {
            if behind >= WORTH_NS {
                return Admission::Behind;
            }
            (now_ns.saturating_add(charge_ns), Admission::Go)
        } else {
            let ahead = seen.saturating_sub(now_ns);
            if ahead <= allowance {
                (seen.saturating_add(charge_ns), Admission::Go)
            } else {
                let largest = clock.largest_charge_ns.load(Ordering::Relaxed);
                let most = allowance.saturating_add(rate.stretch(largest.saturating_mul(CLAMP_CHARGES)));
                if ahead <= most {
                    return Admission::Wait { until_ns: seen.saturating_sub(allowance) };
                }
                let until_ns = now_ns.saturating_add(most.saturating_sub(allowance));
                (now_ns.saturating_add(most), Admission::Wait { until_ns })
            }
        };
        match clock.virtual_time.compare_exchange(seen, next, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => {
                if admission != Admission::Go {
                    clock.clamped.fetch_add(1, Ordering::Relaxed);
                }
                note_idle(clock, seen, now_ns);
                return admission;
            }
            Err(current) => seen = current,
        }
    }
}

/// GPU time that may be used at once before a launch waits; below 0, what is owed.
#[must_use]
pub fn budget_ns(virtual_time_ns: u64, now_ns: u64, rate: Rate) -> i64 {
    let ahead = virtual_time_ns.saturating_sub(now_ns).saturating_mul(rate.0.get()) / 100;
    BURST_NS.cast_signed().saturating_sub_unsigned(ahead)
}

/// Charges a launch while the agent enforces the share: advances the virtual time, whose lead before the launch counts as
/// one and a half bursts at most.
#[inline]
pub fn charge_bounded(clock: Clock, now_ns: u64, cost_ns: u64, rate: Rate) {
    note_charge(clock, cost_ns);
    let most = now_ns.saturating_add(rate.stretch(BURST_NS + BURST_NS / 2));
    let seen = change(clock, |seen| seen.max(now_ns).min(most).saturating_add(rate.stretch(cost_ns)));
    note_idle(clock, seen, now_ns);
}

/// Charges a launch that goes now without waiting; later ones wait for it.
pub fn charge(clock: Clock, now_ns: u64, cost_ns: u64, rate: Rate) {
    note_charge(clock, cost_ns);
    let seen = change(clock, |seen| seen.max(now_ns).saturating_add(rate.stretch(cost_ns)));
    note_idle(clock, seen, now_ns);
}

/// Notes that virtual time was found behind and has been brought up to the clock.
#[inline]
fn note_idle(clock: Clock, seen: u64, now_ns: u64) {
    if let Some(behind) = now_ns.checked_sub(seen).filter(|behind| *behind != 0) {
        clock.idle_ns.fetch_add(behind, Ordering::Relaxed);
        clock.idle_at.store(now_ns, Ordering::Relaxed);
    }
}

/// The correction of a charge.
#[derive(Clone, Copy)]
pub struct Correction {
    /// When that was charged.
    pub charged_at_ns: u64,
    /// GPU time that was charged.
    pub charged_ns: u64,
    /// GPU time that was used.
    pub actual_ns: u64,
    /// Idle time that may pay for it.
    pub credit: Credit,
}

/// Time by which virtual time was found behind although the container was at work. It pays for one late charge only,
/// whichever process takes it first.
#[derive(Clone, Copy, Default)]
pub struct Credit {
    /// What [`Clock::idle_ns`] held when the work was submitted.
    pub since_ns: u64,
    /// The most that may be taken.
    pub most_ns: u64,
}

/// Corrects the virtual time once it is known how long something took.
///
/// A charge that was too high is not given back if virtual time has been behind the clock since: it has delayed no launch. A
/// charge that was too low has let virtual time fall behind, and launches meanwhile have brought it up to the clock: that
/// much is paid.
pub fn correct(clock: Clock, correction: Correction, rate: Rate) {
    let Correction { charged_at_ns, charged_ns, actual_ns, credit } = correction;
    if let Some(more) = actual_ns.checked_sub(charged_ns) {
        note_charge(clock, more);
        let owed = rate.stretch(more);
        let paid = take_credit(clock, credit, owed);
        change(clock, |seen| seen.saturating_add(owed.saturating_sub(paid)));
    } else if charged_at_ns >= clock.idle_at.load(Ordering::Relaxed) {
        let less = charged_ns.saturating_sub(actual_ns);
        change(clock, |seen| seen.saturating_sub(rate.stretch(less)));
    }
}

/// Takes as much of the idle time as pays for `owed_ns`, in one step with reading it.
fn take_credit(clock: Clock, credit: Credit, owed_ns: u64) -> u64 {
    let most = credit.most_ns.min(owed_ns);
    if most == 0 {
        return 0;
    }
    let taken = |idle_ns: u64| idle_ns.saturating_sub(credit.since_ns).min(most);
    let take = |idle_ns: u64| Some(idle_ns.saturating_sub(taken(idle_ns)));
    clock.idle_ns.fetch_update(Ordering::AcqRel, Ordering::Acquire, take).map_or(0, taken)
}

/// The limit has changed: the lead is so much GPU time, and stands for another wall time now.
#[cold]
fn rescale(clock: Clock, now_ns: u64, rate: Rate) {
    let before = clock.rate.swap(rate.0.get(), Ordering::AcqRel);
    if before == 0 || before == rate.0.get() {
        return;
    }
    change(clock, |seen| match seen.checked_sub(now_ns) {
        Some(lead) => now_ns.saturating_add(lead.saturating_mul(before) / rate.0),
        None => seen,
    });
}

/// Changes the virtual time; returns what it was.
fn change(clock: Clock, next: impl Fn(u64) -> u64) -> u64 {
    let mut seen = clock.virtual_time.load(Ordering::Acquire);
    loop {
        let word = clock.virtual_time;
        match word.compare_exchange(seen, next(seen), Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => return seen,
            Err(current) => seen = current,
        }
    }
}

#[inline]
fn note_charge(clock: Clock, cost_ns: u64) {
    if clock.largest_charge_ns.load(Ordering::Relaxed) < cost_ns {
        clock.largest_charge_ns.fetch_max(cost_ns, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests;
