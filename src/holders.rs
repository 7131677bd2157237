//! Who of the container holds what of a device? As far as this process can see the others.

use crate::process::Process;
use core::sync::atomic::{AtomicU8, Ordering::Acquire, Ordering::Relaxed};
use gpuquota_region::layout::{self, KINDS, SLOT_TAKEN, Slot};
use gpuquota_region::{lock, slot, sys};

/// A living process of the container that has to do with a device.
#[derive(Clone, Copy, Default)]
pub struct Holder {
    /// Its slot.
    pub slot: usize,
    /// Its pid as the caller sees it.
    pub pid: u32,
    /// What it holds, by kind.
    pub kinds: [u64; KINDS],
    /// The priority of its task, 0 is the highest.
    pub priority: u32,
}

impl Holder {
    /// All that it holds.
    pub fn bytes(&self) -> u64 {
        self.kinds.iter().fold(0, |sum: u64, bytes| sum.wrapping_add(*bytes))
    }

    /// The kind that most of it is of.
    pub fn main_kind(&self) -> u8 {
        let kinds = self.kinds.iter().zip(0u8..);
        kinds.max_by_key(|(bytes, kind)| (**bytes, core::cmp::Reverse(*kind))).map_or(0, |(_, kind)| kind)
    }
}

impl Process {
    /// Calls `visit` with each living process of the container that has to do with a device, until it returns false.
    pub fn each_holder(&self, device: u8, visit: &mut dyn FnMut(Holder) -> bool) {
        let Some(region) = self.region() else { return };
        let ours = region.ours();
        let high = ours.header.slot_high.load(Acquire) as usize;
        let here = sys::inode_of(c"/proc/self/ns/pid");
        let _ = self.file.with(self.path(), |file| {
            for (at, slot) in ours.slots.iter().enumerate().take(high) {
                let Some(kinds) = self.held(at, slot, device) else { continue };
                let own = self.slot_index() == Some(at);
                // A slot whose lock is free belongs to somebody dead.
                if !own && slot::is_held(file, at) != Ok(true) {
                    continue;
                }
                let pid = if slot.pid_namespace.load(Relaxed) == here {
                    slot.pid.load(Relaxed)
                } else {
                    // The kernel translates; 0 and nothing are processes that are not visible from here.
                    file.classic_holder(lock::PID_BYTE.wrapping_add(at as u64)).ok().flatten().unwrap_or(0)
                };
                let holder = Holder { slot: at, pid, kinds, priority: slot.priority.load(Relaxed) };
                if pid != 0 && !visit(holder) {
                    return;
                }
            }
        });
    }

    /// What the process in a slot holds of a device; `None` where it has nothing to do with it.
    fn held(&self, at: usize, slot: &Slot, device: u8) -> Option<[u64; KINDS]> {
        if slot.state.load(Acquire) != SLOT_TAKEN {
            return None;
        }
        let lanes = self.region()?.ours().lanes.get(at)?;
        let serves = |of: &AtomicU8| of.load(Acquire) == device.wrapping_add(1);
        let mut kinds = None;
        for ((of, kind), lane) in slot.lane_device.iter().zip(&slot.lane_kind).zip(lanes) {
            if serves(of) {
                let sum = kinds.get_or_insert([0u64; KINDS]).get_mut(usize::from(kind.load(Relaxed)));
                if let Some(sum) = sum {
                    *sum = sum.wrapping_add(layout::held_bytes(lane.held.load(Acquire)));
                }
            }
        }
        kinds
    }
}
