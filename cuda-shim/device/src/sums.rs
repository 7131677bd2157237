//! Sums of the bytes that processes hold, by process and by device. Under the device's memory lock.

use crate::layout::{Device, NOBODY, SHARED, SharedCells, slot_state};
use crate::state::State;

/// The rows of the memory of a device that several processes hold.
pub fn rows(device: &Device) -> impl Iterator<Item = &SharedCells> {
    device.shared[..(device.shared_used.get() as usize).min(SHARED)].iter()
}

/// Bytes of a device that no process pays for. Under its memory lock.
pub fn unpaid(device: &Device) -> u64 {
    rows(device).filter(|row| row.payer.get() == NOBODY).map(|row| row.physical.get()).sum()
}

impl State {
    /// Makes the device's sums those of its processes. Under the memory lock.
    pub(crate) fn add_up(&self, index: usize) {
        let device = &self.layout().devices[index];
        let (mut requested, mut physical, mut context) = (0, unpaid(device), 0);
        for (slot, shares) in self.slots().iter().zip(&self.layout().shares) {
            let (state, share) = (slot.state.get(), &shares[index]);
            if state == slot_state::LIVE {
                requested += share.all_requested();
            }
            if matches!(state, slot_state::LIVE | slot_state::TEARDOWN) {
                physical += share.all_physical();
                context += share.context.get();
            }
        }
        device.requested.set(requested);
        device.physical.set(physical);
        device.context.set(context);
        // Else the sum contains what the dead no longer have.
        if self.machine().teardown_ns != 0 {
            device.physical_peak.raise(physical);
        }
    }

    /// Adds up anew what each process pays of the shared memory of a device. Under its memory lock.
    pub(crate) fn recount(&self, index: usize) {
        let device = &self.layout().devices[index];
        for (number, shares) in self.layout().shares[..self.slots().len()].iter().enumerate() {
            let share = &shares[index];
            if share.paid_requested.get() == 0
                && share.paid_physical.get() == 0
                && rows(device).next().is_none()
            {
                continue;
            }
            let own =
                || rows(device).filter(|row| row.payer.get() == number as u64 + 1 && row.pooled.get() == 0);
            share.paid_requested.set(own().map(|row| row.requested.get()).sum());
            share.paid_physical.set(own().map(|row| row.physical.get()).sum());
        }
    }
}
