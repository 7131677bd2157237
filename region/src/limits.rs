//! The limits in force: what follows from the limits that the living processes brought and from the operator's.
//!
//! A process writes the limits that it brought into the row of its slot, and they count until the slot is emptied. The
//! operator's stand in [`OPERATOR_ROW`]. For each device and kind of limit the rule is:
//!
//! 1. The operator's value holds, if there is one; else the strictest that a process brought.
//! 2. A value of the limits file is a ceiling: neither the operator's value nor another process's lifts it.
//!
//! `docs/limits.md` explains it to users. [`Region::settle_limits`] writes the result into the device's record.

use crate::file::Region;
use crate::layout::{
    self, LIMIT_BURST, LIMIT_BYTES, LIMIT_BYTES_FROM_FILE, LIMIT_CORES_FROM_FILE, LIMIT_CORES_SHIFT,
    LIMIT_IDLE_ONLY, LIMIT_REQUEST_FROM_FILE, LIMIT_REQUEST_SHIFT, LIMIT_WRITTEN, LimitRecord, OPERATOR_ROW,
    POLICY_BURST, POLICY_IDLE_ONLY, POLICY_REQUEST,
};
use core::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};

/// One limit, and whether the limits file sets it.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Asked {
    /// Bytes or percent.
    pub value: u64,
    /// Whether the limits file sets it.
    pub from_file: bool,
}

/// The limits on a device that one process brought, or that the operator set.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct AskedLimits {
    /// Cap on bytes in use.
    pub memory: Option<Asked>,
    /// Physical cap, bytes.
    pub physical: Option<Asked>,
    /// Share of time, percent from 1 to 100.
    pub cores: Option<Asked>,
    /// Guaranteed part of it, percent.
    pub request: Option<Asked>,
    /// [`POLICY_BURST`], [`POLICY_IDLE_ONLY`] or neither.
    pub policy: u32,
}

/// The limits in force on a device; `None`: no limit.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct InForce {
    /// Cap on bytes in use.
    pub memory: Option<u64>,
    /// Physical cap, bytes.
    pub physical: Option<u64>,
    /// Share of time, percent.
    pub cores: Option<u64>,
    /// Guaranteed part of it, percent.
    pub request: Option<u64>,
    /// [`POLICY_BURST`], [`POLICY_IDLE_ONLY`] or neither.
    pub policy: u32,
}

const PERCENT: u64 = 0x7F;

fn asked(value: u64, from_file: bool) -> Option<Asked> {
    (value != 0).then_some(Asked { value, from_file })
}

fn bytes_word(limit: Option<Asked>) -> u64 {
    let word =
        |limit: Asked| limit.value.min(LIMIT_BYTES) | if limit.from_file { LIMIT_BYTES_FROM_FILE } else { 0 };
    limit.map_or(0, word)
}

fn percent_word(limit: Option<Asked>, shift: u32, file: u64) -> u64 {
    let word = |limit: Asked| limit.value.min(100) << shift | if limit.from_file { file } else { 0 };
    limit.map_or(0, word)
}

impl AskedLimits {
    /// Whether there is any limit.
    #[must_use]
    pub fn any(&self) -> bool {
        self.memory.is_some() || self.physical.is_some() || self.cores.is_some() || self.request.is_some()
    }

    /// The two words of a [`LimitRecord`].
    #[must_use]
    pub fn words(&self) -> [u64; 2] {
        let cores = percent_word(self.cores, LIMIT_CORES_SHIFT, LIMIT_CORES_FROM_FILE);
        let request = percent_word(self.request, LIMIT_REQUEST_SHIFT, LIMIT_REQUEST_FROM_FILE);
        let burst = if self.policy & POLICY_BURST != 0 { LIMIT_BURST } else { 0 };
        let idle = if self.policy & POLICY_IDLE_ONLY != 0 { LIMIT_IDLE_ONLY } else { 0 };
        [bytes_word(self.memory) | cores | request, bytes_word(self.physical) | burst | idle | LIMIT_WRITTEN]
    }

    /// The limits in the two words of a [`LimitRecord`]; `None` where nothing was written.
    #[must_use]
    pub fn of_words([memory, physical]: [u64; 2]) -> Option<Self> {
        let percent = |shift, file| asked(memory >> shift & PERCENT, memory & file != 0);
        let bit = |bit, policy| if physical & bit != 0 { policy } else { 0 };
        (physical & LIMIT_WRITTEN != 0).then(|| Self {
            memory: asked(memory & LIMIT_BYTES, memory & LIMIT_BYTES_FROM_FILE != 0),
            physical: asked(physical & LIMIT_BYTES, physical & LIMIT_BYTES_FROM_FILE != 0),
            cores: percent(LIMIT_CORES_SHIFT, LIMIT_CORES_FROM_FILE),
            request: percent(LIMIT_REQUEST_SHIFT, LIMIT_REQUEST_FROM_FILE),
            policy: bit(LIMIT_BURST, POLICY_BURST) | bit(LIMIT_IDLE_ONLY, POLICY_IDLE_ONLY),
        })
    }
}

/// The limits of one kind, combined.
#[derive(Default)]
struct Combined {
    ceiling: Option<u64>,
    brought: Option<u64>,
}

impl Combined {
    fn add(&mut self, limit: Option<Asked>) {
        let Some(Asked { value, from_file }) = limit else { return };
        let lowest = if from_file { &mut self.ceiling } else { &mut self.brought };
        *lowest = Some(lowest.map_or(value, |lowest| lowest.min(value)));
    }

    fn in_force(&self, operator: Option<Asked>) -> Option<u64> {
        let chosen = operator.map(|limit| limit.value).or(self.brought);
        match (chosen, self.ceiling) {
            (Some(chosen), Some(ceiling)) => Some(chosen.min(ceiling)),
            (chosen, ceiling) => chosen.or(ceiling),
        }
    }
}

impl InForce {
    /// The limits that follow from the operator's and from those that processes brought.
    #[must_use]
    pub fn of(operator: Option<AskedLimits>, brought: impl Iterator<Item = AskedLimits>) -> Self {
        let [mut memory, mut physical, mut cores, mut request]: [Combined; 4] = Default::default();
        // A process that lends nothing, or takes only what is idle, is the stricter one.
        let (mut burst, mut idle) = (None, 0);
        for limits in brought {
            memory.add(limits.memory);
            physical.add(limits.physical);
            cores.add(limits.cores);
            request.add(limits.request);
            if limits.any() {
                burst = Some(burst.unwrap_or(POLICY_BURST) & limits.policy);
            }
            idle |= limits.policy & POLICY_IDLE_ONLY;
        }
        let operator = operator.unwrap_or_default();
        // An operator's request replaces the policy that lends: the container then borrows up to its share only.
        let burst = if operator.request.is_some() { 0 } else { burst.unwrap_or(POLICY_BURST) };
        Self {
            memory: memory.in_force(operator.memory),
            physical: physical.in_force(operator.physical),
            cores: cores.in_force(operator.cores),
            request: request.in_force(operator.request),
            policy: burst & POLICY_BURST | idle,
        }
    }

    /// The word [`layout::LeaseRecord::policy`].
    #[must_use]
    pub fn policy_word(&self) -> u32 {
        let request = self.request.map_or(0, |percent| u32::try_from(percent).unwrap_or(0) & POLICY_REQUEST);
        self.policy | request
    }

    /// Each kind's code and value. The policy is always there.
    #[must_use]
    pub fn kinds(&self) -> [(u64, Option<u64>); 5] {
        [
            (layout::LIMIT_KIND_MEMORY, self.memory),
            (layout::LIMIT_KIND_PHYSICAL, self.physical),
            (layout::LIMIT_KIND_CORES, self.cores),
            (layout::LIMIT_KIND_REQUEST, self.request),
            (layout::LIMIT_KIND_POLICY, Some(self.policy.into())),
        ]
    }
}

impl LimitRecord {
    fn write(&self, limits: Option<AskedLimits>) {
        let [memory, physical] = limits.map_or([0; 2], |limits| limits.words());
        // The word that says whether there is a record goes last on the way in and first on the way out.
        if limits.is_none() {
            self.physical.store(physical, Release);
        }
        self.memory.store(memory, Release);
        self.physical.store(physical, Release);
    }
}

impl Region {
    fn limit_record(&self, row: usize, device: usize) -> Option<&'static LimitRecord> {
        self.ours().limits.get(row)?.get(device)
    }

    /// The limits in a row; `None` where nothing was written.
    #[must_use]
    pub fn asked_limits(&self, row: usize, device: usize) -> Option<AskedLimits> {
        let record = self.limit_record(row, device)?;
        AskedLimits::of_words([record.memory.load(Acquire), record.physical.load(Acquire)])
    }

    /// Writes the limits of a row, and settles those in force. `None` empties the row.
    pub fn ask_limits(&self, row: usize, device: usize, limits: Option<AskedLimits>) {
        let Some(record) = self.limit_record(row, device) else { return };
        record.write(limits);
        self.ours().header.limits_seq.fetch_add(1, AcqRel);
        self.settle_limits(device);
    }

    /// As [`Self::ask_limits`], and writes an event for each limit that was in force and that it changes. Answers those that
    /// hold from now on.
    pub fn change_limits(&self, row: usize, device: usize, limits: Option<AskedLimits>) -> InForce {
        let before = self.in_force(device);
        // A policy always stands there; one that nobody brought was in force for nobody.
        let chosen = self.brought_limits(device).next().is_some();
        self.ask_limits(row, device, limits);
        let after = self.in_force(device);
        let number = u32::try_from(device).unwrap_or(layout::NO_DEVICE);
        for ((kind, before), (_, after)) in before.kinds().into_iter().zip(after.kinds()) {
            let was_in_force = before.is_some() && (chosen || kind != layout::LIMIT_KIND_POLICY);
            if was_in_force && before != after {
                let [before, after] = [before, after].map(|limit| limit.unwrap_or(0));
                self.event(layout::EVENT_LIMIT_CHANGED, number, before, kind, after);
            }
        }
        after
    }

    /// The limits in force on a device, as its record has them.
    #[must_use]
    pub fn in_force(&self, device: usize) -> InForce {
        let Some(record) = self.ours().devices.get(device) else { return InForce::default() };
        let policy = self.ours().header.leases.get(device).map_or(0, |lease| lease.policy.load(Relaxed));
        let limit = |value: u64| Some(value).filter(|value| *value != 0);
        InForce {
            memory: limit(record.memory_limit.load(Relaxed)),
            physical: limit(record.physical_limit.load(Relaxed)),
            cores: limit(record.core_limit.load(Relaxed).into()),
            request: limit(u64::from(policy & POLICY_REQUEST)),
            policy: policy & !POLICY_REQUEST,
        }
    }

    /// Empties a slot's row, whose process is gone. True if it had brought any limit. The caller settles what is in force,
    /// when it has emptied all rows that it wants to.
    pub fn forget_limits(&self, slot: usize) -> bool {
        let mut any = false;
        for device in 0..layout::DEVICES {
            let Some(record) = self.limit_record(slot, device) else { continue };
            if self.asked_limits(slot, device).is_some() {
                record.write(None);
                self.ours().header.limits_seq.fetch_add(1, AcqRel);
                any = true;
            }
        }
        any
    }

    /// Settles the limits in force on the devices for which a process has brought some. With nobody left who did, the record
    /// goes on saying what was in force last: readers want to know, and the next process settles it.
    pub fn settle_brought_limits(&self) {
        for device in 0..layout::DEVICES {
            if self.brought_limits(device).next().is_some() {
                self.settle_limits(device);
            }
        }
    }

    /// Settles the limits in force on every device.
    pub fn settle_all_limits(&self) {
        for (at, device) in self.ours().devices.iter().enumerate() {
            if device.state.load(Acquire) == layout::DEVICE_READY {
                self.settle_limits(at);
            }
        }
    }

    /// Computes the limits in force on a device, and writes them into its record.
    pub fn settle_limits(&self, device: usize) -> InForce {
        let header = &self.ours().header;
        loop {
            let seq = header.limits_seq.load(Acquire);
            let in_force = self.combine_limits(device);
            self.put_in_force(device, &in_force);
            // A process that was overtaken between its look and its store looks again, so the last store is right.
            if header.limits_seq.load(Acquire) == seq {
                return in_force;
            }
        }
    }

    fn combine_limits(&self, device: usize) -> InForce {
        InForce::of(self.asked_limits(OPERATOR_ROW, device), self.brought_limits(device))
    }

    /// The limits that processes brought.
    fn brought_limits(&self, device: usize) -> impl Iterator<Item = AskedLimits> + use<'_> {
        let high = self.ours().header.slot_high.load(Acquire) as usize;
        (0..high.min(layout::SLOTS)).filter_map(move |slot| self.asked_limits(slot, device))
    }

    fn put_in_force(&self, device: usize, limits: &InForce) {
        let Some(record) = self.ours().devices.get(device) else { return };
        self.limit_memory(device, limits.memory.unwrap_or(0));
        record.physical_limit.store(limits.physical.unwrap_or(0), Relaxed);
        self.limit_cores(device, limits.cores.map_or(0, |percent| u32::try_from(percent).unwrap_or(0)));
        self.set_policy(device, limits.policy_word());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own(value: u64) -> Option<Asked> {
        Some(Asked { value, from_file: false })
    }

    fn file(value: u64) -> Option<Asked> {
        Some(Asked { value, from_file: true })
    }

    fn memory(limit: Option<Asked>) -> AskedLimits {
        AskedLimits { memory: limit, ..AskedLimits::default() }
    }

    #[test]
    fn the_words_of_a_record_hold_every_limit_and_where_it_comes_from() {
        for (limit, other) in [(own(1), file(100)), (file(LIMIT_BYTES), own(1)), (None, None)] {
            for policy in [0, POLICY_BURST, POLICY_IDLE_ONLY] {
                let percent = other.map(|limit| Asked { value: limit.value.min(100), ..limit });
                let limits = AskedLimits {
                    memory: limit,
                    physical: other,
                    cores: percent,
                    request: percent.map(|limit| Asked { from_file: !limit.from_file, ..limit }),
                    policy,
                };
                assert_eq!(AskedLimits::of_words(limits.words()), Some(limits));
            }
        }
        assert_eq!(AskedLimits::of_words([0; 2]), None);
    }

    #[test]
    fn the_strictest_of_the_processes_holds_and_one_without_limits_lifts_none() {
        let of =
            |limits: &[Option<Asked>]| InForce::of(None, limits.iter().map(|limit| memory(*limit))).memory;
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[None, None]), None);
        assert_eq!(of(&[None, own(4), own(2), None]), Some(2));
    }

    #[test]
    fn the_operator_outranks_environments_and_not_the_file() {
        let of = |operator, limits: &[Option<Asked>]| {
            InForce::of(Some(memory(operator)), limits.iter().map(|limit| memory(*limit))).memory
        };
        assert_eq!(of(own(8), &[own(2)]), Some(8));
        assert_eq!(of(own(8), &[own(2), file(6)]), Some(6));
        assert_eq!(of(own(1), &[own(2), file(6)]), Some(1));
        assert_eq!(of(None, &[own(9), file(6)]), Some(6));
        assert_eq!(of(None, &[own(3), file(6)]), Some(3));
    }

    #[test]
    fn lending_needs_the_consent_of_all_and_idle_only_of_one() {
        let brought = |policy| AskedLimits { cores: own(30), policy, ..AskedLimits::default() };
        let of = |policies: &[u32]| InForce::of(None, policies.iter().map(|policy| brought(*policy))).policy;
        assert_eq!(of(&[POLICY_BURST, POLICY_BURST]), POLICY_BURST);
        assert_eq!(of(&[POLICY_BURST, 0]), 0);
        assert_eq!(of(&[POLICY_BURST | POLICY_IDLE_ONLY, POLICY_BURST]), POLICY_BURST | POLICY_IDLE_ONLY);
        let operator = AskedLimits { request: own(10), ..AskedLimits::default() };
        let in_force = InForce::of(Some(operator), [brought(POLICY_BURST)].into_iter());
        assert_eq!(in_force.policy_word(), 10);
    }

    #[test]
    fn a_row_counts_until_it_is_emptied() {
        let region = Region::in_memory();
        region.ours().header.slot_high.store(3, Relaxed);
        let limit = || region.ours().devices[1].memory_limit.load(Relaxed);
        region.ask_limits(0, 1, Some(memory(own(400))));
        region.ask_limits(2, 1, Some(memory(own(200))));
        assert_eq!(limit(), 200);
        region.ask_limits(OPERATOR_ROW, 1, Some(memory(own(300))));
        assert_eq!(limit(), 300);
        region.ask_limits(OPERATOR_ROW, 1, None);
        assert!(region.forget_limits(2) && !region.forget_limits(2));
        region.settle_brought_limits();
        assert_eq!(limit(), 400);
        assert_eq!(region.ours().devices[0].memory_limit.load(Relaxed), 0, "another device");
        assert!(region.forget_limits(0));
        region.settle_brought_limits();
        assert_eq!(limit(), 400, "the last one's still stand there for readers");
        region.ours().devices[1].state.store(layout::DEVICE_READY, Relaxed);
        region.settle_all_limits();
        assert_eq!(limit(), 0, "a newcomer is not held to them");
    }
}
