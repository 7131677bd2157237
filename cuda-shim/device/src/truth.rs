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

    /// How busy device `index` was over the last `window_ns` (at most one second), in percent.
    pub fn utilisation(&self, index: usize, window_ns: u64) -> u32 {
        let all = self.process_utilisation(index, window_ns);
        all.iter().map(|(_, percent)| percent).sum::<u32>().min(100)
    }

    /// The same by process, named by pid and PID namespace, for every process now at the device.
    pub fn process_utilisation(&self, index: usize, window_ns: u64) -> Vec<((u32, u64), u32)> {
        let window = window_ns.clamp(1, 1_000_000_000);
        let device = &self.layout().devices[index];
        let _held = self.schedule(index);
        let now = clock_ns();
        self.bring_up(index, now);
        self.seated(index)
            .into_iter()
            .map(|(number, slot)| {
                let busy = seat::recent(device, number, now.saturating_sub(window), now).min(window);
                let slot = &self.layout().slots[slot];
                ((slot.pid.get() as u32, slot.namespace.get()), (busy * 100 / window) as u32)
            })
            .collect()
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
