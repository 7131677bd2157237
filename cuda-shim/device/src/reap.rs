//! Gives back what dead processes held: their seats at once, their memory after the driver's teardown time.

use std::sync::atomic::Ordering::Relaxed;

use crate::layout::slot_state::{ENDED, LIVE, TEARDOWN};
use crate::liveness::clock_ns;
use crate::lock;
use crate::state::State;

/// Among more processes than these the dead are looked for once in a while, not at every occasion: who is alive is
/// asked for each of them.
const MANY: usize = 64;

/// A reader that sees others at work looks for the dead at most this often, and among many so much later for each of them.
const PERIOD_NS: u64 = 5_000_000;
const EACH_NS: u64 = 100_000;

impl State {
    /// Looks for dead processes and gives back what is due. Every step may be done twice, so the death of
    /// a reaper costs nothing.
    pub fn reap(&self) {
        self.reap_after(0);
    }

    /// The same, but only if nobody did for so long.
    fn reap_after(&self, period_ns: u64) {
        let layout = self.layout();
        let _held = lock::hold(&layout.header.reap_lock, self.slot(), |slot| self.is_alive(slot), || ());
        let now = clock_ns();
        if now.saturating_sub(layout.header.reaped_at.get()) < period_ns {
            return;
        }
        layout.header.reaped_at.set(now);
        let mut living = 0;
        for (index, slot) in self.slots().iter().enumerate() {
            if slot.state.get() == LIVE && !self.is_alive(index) {
                self.vacate(index);
                slot.ended.set(now);
                slot.release_at.set(now + self.machine().teardown_ns);
                slot.state.set(TEARDOWN);
                // What it asked for is nobody's wish any more; what it took is on its way back.
                for device in 0..self.machine().devices.len() {
                    let _guard = self.memory(device);
                    self.add_up(device);
                }
            }
            if slot.state.get() == TEARDOWN && slot.release_at.get() <= now {
                self.give_back(index);
                slot.state.set(ENDED);
            }
            // Who only looks takes nothing, and nobody waits for it.
            living += u64::from(matches!(slot.state.get(), LIVE | TEARDOWN) && slot.client.get() != 0);
        }
        layout.header.living.set(living);
        layout.header.reaped_at.set(clock_ns());
    }

    /// Whether it takes long to ask who is alive.
    pub(crate) fn are_many(&self) -> bool {
        self.slots().iter().filter(|slot| matches!(slot.state.get(), LIVE | TEARDOWN)).nth(MANY).is_some()
    }

    /// A process comes to the machine: gives back what the dead held.
    pub(crate) fn reap_on_arrival(&self) {
        if self.are_many() {
            self.reap_sometimes();
        } else {
            self.reap();
        }
    }

    /// This process begins to work on a device that others may share with it.
    pub fn join_in(&self) {
        if self.are_many() {
            // Among so many it does not matter that whoever reaps now may not count this one.
            self.layout().header.living.0.fetch_add(1, Relaxed);
        } else {
            self.reap();
        }
    }

    /// [`State::reap`], but only if nobody did for a while.
    pub fn reap_sometimes(&self) {
        let passed = clock_ns().saturating_sub(self.layout().header.reaped_at.get());
        if passed > PERIOD_NS {
            let later = if self.are_many() { self.slots().len() as u64 * EACH_NS } else { 0 };
            if passed > PERIOD_NS + later {
                self.reap_after(PERIOD_NS + later);
            }
        }
    }

    /// The same for a process that asks often: nothing as long as no other is on the machine.
    #[inline]
    pub fn reap_among_peers(&self) {
        if self.layout().header.living.get() > 1 {
            self.reap_sometimes();
        }
    }

    fn vacate(&self, slot: usize) {
        for index in 0..self.machine().devices.len() {
            let _held = self.schedule(index);
            self.bring_up(index, clock_ns());
            self.end_events_of(&self.layout().devices[index], slot);
            for (number, owner) in self.seated(index) {
                if owner == slot {
                    self.retire(index, number);
                }
            }
        }
    }

    fn give_back(&self, slot: usize) {
        for index in 0..self.machine().devices.len() {
            let _guard = self.memory(index);
            let share = &self.layout().shares[slot][index];
            share.requested.set(0);
            share.physical.set(0);
            share.context.set(0);
            self.disinherit(index, slot);
            self.add_up(index);
        }
    }
}
