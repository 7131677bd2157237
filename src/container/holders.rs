//! The living processes of the container and the bytes that each holds of a device, as far as this process sees them.

use super::{Container, DeviceRef};
use core::sync::atomic::{AtomicU8, Ordering::Acquire, Ordering::Relaxed};
use gpuquota_region::layout::JournalRecord;
use gpuquota_region::layout::{self, KINDS, SLOT_TAKEN, Slot};
use gpuquota_region::sys::{self, Descriptor};
use gpuquota_region::{lock, slot};

/// A living process of the container that has a journal for a device.
#[derive(Clone, Copy, Default)]
pub struct Holder {
    /// Its slot.
    pub slot: usize,
    /// Its pid in the caller's PID namespace.
    pub pid: u32,
    /// The bytes that it holds, by kind.
    pub kinds: [u64; KINDS],
    /// The priority of its task, 0 is the highest.
    pub priority: u32,
}

impl Holder {
    /// The bytes that it holds.
    pub fn bytes(&self) -> u64 {
        self.kinds.iter().fold(0, |sum: u64, bytes| sum.wrapping_add(*bytes))
    }

    /// The kind of most of its bytes.
    pub fn main_kind(&self) -> u8 {
        let kinds = self.kinds.iter().zip(0u8..);
        kinds.max_by_key(|(bytes, kind)| (**bytes, core::cmp::Reverse(*kind))).map_or(0, |(_, kind)| kind)
    }
}

/// Calls `visit` with each living process of the container that has a journal for a device, until it returns false.
pub fn each(container: &Container, device: DeviceRef, visit: &mut dyn FnMut(Holder) -> bool) {
    living(
        container,
        |slot, journals| held_bytes(slot, journals, device.index),
        |at, pid, slot, kinds| visit(Holder { slot: at, pid, kinds, priority: slot.priority.load(Relaxed) }),
    );
}

/// Calls `visit` with the pid of each living process of the container, as this process sees it, until it returns false.
pub fn each_pid(container: &Container, visit: &mut dyn FnMut(u32) -> bool) {
    let is_taken = |slot: &Slot, _: &[JournalRecord]| (slot.state.load(Acquire) == SLOT_TAKEN).then_some(());
    living(container, is_taken, |_, pid, _, ()| visit(pid));
}

impl Container {
    /// Calls `visit` with the pid of each living process that has not put back what it holds, as far as this process sees it.
    pub fn each_missing_pid(&self, visit: &mut dyn FnMut(u32)) {
        let _ = self.with_file(|file| {
            slot::each_missing(&self.region(), file, &mut |at| {
                if let Some(pid) = pid_by_lock(file, at) {
                    visit(pid);
                }
                true
            });
        });
    }
}

/// The pid of the process in a slot. The kernel translates it; for a process that is not visible from here it answers 0 or nothing.
fn pid_by_lock(file: &Descriptor, at: usize) -> Option<u32> {
    file.classic_holder(lock::PID_BYTE.wrapping_add(at as u64)).ok().flatten().filter(|pid| *pid != 0)
}

/// Calls `visit` with slot and pid of each living process that `select` selects, until it returns false.
fn living<T>(
    container: &Container,
    select: impl Fn(&Slot, &[JournalRecord]) -> Option<T>,
    mut visit: impl FnMut(usize, u32, &Slot, T) -> bool,
) {
    let ours = container.ours();
    let high = ours.header.slot_high.load(Acquire) as usize;
    let here = sys::inode_of(c"/proc/self/ns/pid");
    // A tool that only looks needs no slot.
    let own_slot = container.claimed_slot();
    let _ = container.with_file(|file| {
        for ((at, slot), journals) in ours.slots.iter().enumerate().zip(&ours.journals).take(high) {
            let Some(selected) = select(slot, journals) else { continue };
            let own = own_slot == Some(at);
            // A slot whose lock is free belongs to a dead process.
            if !own && slot::is_held(file, at) != Ok(true) {
                continue;
            }
            let pid = if slot.pid_namespace.load(Relaxed) == here {
                slot.pid.load(Relaxed)
            } else {
                pid_by_lock(file, at).unwrap_or(0)
            };
            if pid != 0 && !visit(at, pid, slot, selected) {
                return;
            }
        }
    });
}

/// The bytes that the process in a slot holds of a device, by kind; `None` if it has no journal for the device.
fn held_bytes(slot: &Slot, journals: &[JournalRecord], device: u8) -> Option<[u64; KINDS]> {
    if slot.state.load(Acquire) != SLOT_TAKEN {
        return None;
    }
    let serves = |of: &AtomicU8| of.load(Acquire) == device.wrapping_add(1);
    let mut kinds = None;
    for ((of, kind), journal) in slot.journal_device.iter().zip(&slot.journal_kind).zip(journals) {
        if serves(of) {
            let sum = kinds.get_or_insert([0u64; KINDS]).get_mut(usize::from(kind.load(Relaxed)));
            if let Some(sum) = sum {
                *sum = sum.wrapping_add(layout::held_bytes(journal.held.load(Acquire)));
            }
        }
    }
    kinds
}
