//! What the device itself knows, as plain data: the judge of every test.

use crate::layout::{Slot, slot_state};
use crate::liveness::clock_ns;
use crate::seat;
use crate::state::State;

/// One process on one device. Bytes, nanoseconds and counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProcessTruth {
    /// In the PID namespace of the process itself.
    pub pid: u32,
    /// Inode of that namespace.
    pub namespace: u64,
    /// False once it has ended; its memory may still be in teardown.
    pub alive: bool,
    /// Sum of the sizes that it asked for and holds.
    pub requested_bytes: u64,
    /// Highest `requested_bytes` ever.
    pub requested_peak_bytes: u64,
    /// What it takes of the device, context overhead included.
    pub physical_bytes: u64,
    /// The context overhead.
    pub context_bytes: u64,
    /// Time that its kernels had the device.
    pub busy_ns: u64,
    /// Kernels launched.
    pub kernels: u64,
    /// Highest `physical_bytes` ever.
    pub physical_peak_bytes: u64,
    /// When it first worked on a device of the machine, and when it was found dead, by [`crate::clock_ns`]; 0 before.
    pub lifetime_ns: (u64, u64),
}

/// One device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeviceTruth {
    /// Sum of the sizes asked for by all processes and held.
    pub requested_bytes: u64,
    /// Highest `requested_bytes` ever, at any instant.
    pub requested_peak_bytes: u64,
    /// What is taken of the device.
    pub physical_bytes: u64,
    /// Highest `physical_bytes` ever, at any instant.
    pub physical_peak_bytes: u64,
    /// The part of `physical_bytes` that is context overhead.
    pub context_bytes: u64,
    /// The part of `physical_bytes` that dead processes still hold.
    pub teardown_bytes: u64,
    /// Time that the device was busy.
    pub busy_ns: u64,
    /// Kernels launched.
    pub kernels: u64,
    /// Every process that ever had a context on the machine and used this device.
    pub processes: Vec<ProcessTruth>,
}

/// The whole machine at one instant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Truth {
    /// `CLOCK_MONOTONIC` of the snapshot.
    pub clock_ns: u64,
    /// By device index.
    pub devices: Vec<DeviceTruth>,
}

impl State {
    /// The truth now. Gives back what the dead held first.
    pub fn truth(&self) -> Truth {
        self.reap();
        let devices = (0..self.machine().devices.len()).map(|index| self.device_truth(index)).collect();
        Truth { clock_ns: clock_ns(), devices }
    }

    /// The truth of one device. Gives back what the dead held first.
    pub fn truth_of(&self, index: usize) -> DeviceTruth {
        self.reap();
        self.device_truth(index)
    }

    /// Nanoseconds that each process now at device `index` had it within `[from, to)` by [`crate::clock_ns`], of which
    /// the last second is known. Processes are named by pid and PID namespace.
    pub fn busy(&self, index: usize, from: u64, to: u64) -> Vec<((u32, u64), u64)> {
        let device = &self.layout().devices[index];
        let _held = self.schedule(index);
        self.bring_up(index, clock_ns());
        self.seated(index)
            .into_iter()
            .map(|(number, slot)| {
                let busy = seat::recent(device, number, from, to).min(to - from);
                let slot = &self.layout().slots[slot];
                ((slot.pid.get() as u32, slot.namespace.get()), busy)
            })
            .collect()
    }

    /// The PID namespace in which the machine was made: the node's own.
    pub fn namespace(&self) -> u64 {
        self.layout().header.namespace.get()
    }

    /// Since when device `index` keeps account of processes, by [`crate::clock_ns`], and when it last forgot the ended
    /// ones; `None` if it keeps none.
    pub fn accounting(&self, index: usize) -> Option<(u64, u64)> {
        let device = &self.layout().devices[index];
        let since = device.accounting_since.get();
        (since != 0).then(|| (since, device.accounting_cleared.get()))
    }

    /// Starts or ends the keeping of account. Starting what was started changes nothing.
    pub fn account(&self, index: usize, on: bool) {
        let device = &self.layout().devices[index];
        if on != (device.accounting_since.get() != 0) {
            device.accounting_since.set(if on { clock_ns() } else { 0 });
        }
    }

    /// Forgets the ended processes of which account was kept.
    pub fn clear_account(&self, index: usize) {
        self.layout().devices[index].accounting_cleared.set(clock_ns());
    }

    fn device_truth(&self, index: usize) -> DeviceTruth {
        let device = &self.layout().devices[index];
        let _memory = self.memory(index);
        let _schedule = self.schedule(index);
        self.bring_up(index, clock_ns());
        let seated = self.seated(index);
        let mut truth = DeviceTruth {
            requested_bytes: device.requested.get(),
            requested_peak_bytes: device.requested_peak.get(),
            physical_bytes: device.physical.get(),
            physical_peak_bytes: device.physical_peak.get(),
            context_bytes: device.context.get(),
            ..DeviceTruth::default()
        };
        for (number, slot) in self.slots().iter().enumerate() {
            let share = &self.layout().shares[number][index];
            let (busy_ns, kernels) = match seated.iter().find(|(_, owner)| *owner == number) {
                Some((seat, _)) => seat::account(device, *seat),
                None => (share.busy_ns.get(), share.kernels.get()),
            };
            truth.busy_ns += busy_ns;
            truth.kernels += kernels;
            if slot.state.get() == slot_state::TEARDOWN {
                truth.teardown_bytes += share.all_physical();
            }
            let process = ProcessTruth {
                pid: slot.pid.get() as u32,
                namespace: slot.namespace.get(),
                alive: slot.state.get() == slot_state::LIVE,
                requested_bytes: share.all_requested(),
                requested_peak_bytes: share.requested_peak.get(),
                physical_bytes: share.all_physical(),
                context_bytes: share.context.get(),
                busy_ns,
                kernels,
                physical_peak_bytes: share.physical_peak.get(),
                lifetime_ns: (slot.started.get(), slot.ended.get()),
            };
            if is_client(slot, &process) {
                truth.processes.push(process);
            }
        }
        truth
    }
}

/// A process shows on a device that it uses or used.
fn is_client(slot: &Slot, process: &ProcessTruth) -> bool {
    slot.client.get() != 0
        && (process.physical_bytes | process.requested_peak_bytes | process.busy_ns | process.kernels != 0
            || process.context_bytes != 0)
}
