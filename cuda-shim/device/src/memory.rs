//! Bytes held, by device and by process. One lock per device; every sum and every peak changes under it.
//!
//! A process slot's figures are the truth, the device's are their sums: whoever takes the lock over from a
//! dead holder adds the sums up anew, so a half-done charge of the dead leaves no trace but its own share,
//! which the reaper gives back.

use crate::cgroup::NO_LIMIT;
use crate::layout::{Device, Share, slot_state};
use crate::lock::{self, Held};
use crate::state::State;
use crate::sums::unpaid;

/// The device, or a cgroup, has no room for the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutOfMemory;

/// The memory lock of one device, held.
pub struct MemoryGuard<'a> {
    pub(crate) state: &'a State,
    pub(crate) index: usize,
    pub(crate) slot: usize,
    pub(crate) device: &'static Device,
    pub(crate) share: &'static Share,
    total: u64,
    /// Whether the driver has limits by cgroup.
    limited: bool,
    _held: Held<'a>,
}

impl State {
    /// Takes the memory lock of device `index`.
    ///
    /// # Panics
    /// If the machine has no device `index`.
    #[inline(always)]
    pub fn memory(&self, index: usize) -> MemoryGuard<'_> {
        let device = &self.layout().devices[index];
        let mend = || {
            self.recount(index);
            self.add_up(index);
        };
        let held = lock::hold(&device.memory_lock, self.slot(), |slot| self.is_alive(slot), mend);
        MemoryGuard {
            state: self,
            index,
            slot: self.slot(),
            device,
            share: &self.layout().shares[self.slot()][index],
            total: self.machine().devices[index].total_bytes,
            limited: self.cgroups().ids().next().is_some(),
            _held: held,
        }
    }

    /// Free bytes of device `index`, all processes counted. Takes no lock.
    #[inline]
    pub fn free_bytes(&self, index: usize) -> u64 {
        let physical = self.layout().devices[index].physical.get();
        self.machine().devices[index].total_bytes.saturating_sub(physical)
    }
}

impl State {
    /// Whether the cgroups of this process leave room for so many bytes more.
    pub(crate) fn fits_cgroups(&self, index: usize, bytes: u64) -> bool {
        let limits = self.cgroups().limits(&self.machine().devices[index]);
        limits.into_iter().all(|(id, limit)| {
            limit == NO_LIMIT || self.bytes_of_cgroup(index, id).saturating_add(bytes) <= limit
        })
    }

    /// What the processes in a cgroup, by [`crate::cgroup::id`], and below it take of a device.
    pub fn bytes_of_cgroup(&self, index: usize, id: u64) -> u64 {
        let slots = self.slots().iter().zip(&self.layout().shares);
        let living = slots.filter(|(slot, _)| {
            let holds = matches!(slot.state.get(), slot_state::LIVE | slot_state::TEARDOWN);
            holds && slot.cgroups.iter().any(|cgroup| cgroup.get() == id)
        });
        living.map(|(_, shares)| shares[index].all_physical()).sum()
    }
}

impl MemoryGuard<'_> {
    /// Charges `requested` bytes that take `physical` bytes of the device.
    ///
    /// # Errors
    /// [`OutOfMemory`] if the device has fewer free, or a cgroup may have no more; nothing is charged then.
    #[inline(always)]
    pub fn charge(&mut self, requested: u64, physical: u64) -> Result<(), OutOfMemory> {
        let device = self.device;
        let held = device.physical.get().saturating_add(physical);
        if held > self.total || self.limited && !self.state.fits_cgroups(self.index, physical) {
            return Err(OutOfMemory);
        }
        self.share.requested.add(requested);
        self.share.physical.add(physical);
        self.share.requested_peak.raise(self.share.all_requested());
        self.share.physical_peak.raise(self.share.all_physical());
        device.requested.add(requested);
        device.physical.set(held);
        if device.requested.get() > device.requested_peak.get() {
            device.requested_peak.raise(self.of_living(device.requested.get(), Share::all_requested));
        }
        if held > device.physical_peak.get() {
            // Where the memory of the dead stays taken for a while, it counts meanwhile.
            let at_once = self.state.machine().teardown_ns == 0;
            let living = || self.of_living(held - unpaid(device), Share::all_physical) + unpaid(device);
            let peak = if at_once { living() } else { held };
            device.physical_peak.raise(peak);
        }
        Ok(())
    }

    /// Bytes of those who live at this instant: the dead may not have been found yet. `all`: bytes of them and of the dead.
    #[cold]
    fn of_living(&self, all: u64, bytes: fn(&Share) -> u64) -> u64 {
        if self.state.layout().header.living.get() <= 1 || self.state.are_many() {
            return all;
        }
        let slots = self.state.slots().iter().enumerate();
        let living = slots.filter(|(index, slot)| {
            *index == self.slot || slot.state.get() == slot_state::LIVE && self.state.is_alive(*index)
        });
        let shares = &self.state.layout().shares;
        living.map(|(slot, _)| bytes(&shares[slot][self.index])).sum()
    }

    /// Gives back what [`MemoryGuard::charge`] took.
    #[inline(always)]
    pub fn release(&mut self, requested: u64, physical: u64) {
        self.share.requested.sub(requested);
        self.share.physical.sub(physical);
        self.device.requested.sub(requested);
        self.device.physical.sub(physical);
    }

    /// Charges the overhead of a context, which no program asked for.
    ///
    /// # Errors
    /// [`OutOfMemory`] as for [`MemoryGuard::charge`].
    pub fn charge_context(&mut self, bytes: u64) -> Result<(), OutOfMemory> {
        self.charge(0, bytes)?;
        self.share.context.add(bytes);
        self.device.context.add(bytes);
        Ok(())
    }

    /// Gives back a context's overhead.
    pub fn release_context(&mut self, bytes: u64) {
        self.release(0, bytes);
        self.share.context.sub(bytes);
        self.device.context.sub(bytes);
    }

    /// Bytes of the device that nobody holds.
    pub fn free_bytes(&self) -> u64 {
        self.total.saturating_sub(self.device.physical.get())
    }
}
