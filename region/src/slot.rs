//! A process's own record: claimed, held while it lives, cleared by another process once it is dead.

use crate::file::Region;
use crate::kept::RegionFile;
use crate::layout::{self, Ours, SLOT_FREE, SLOT_LEFT, SLOT_TAKEN, Slot};
use crate::lock::{self, slot_byte};
use crate::sys::{self, Descriptor, Errno, LockKind};
use core::ffi::CStr;
use core::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};

/// Why no slot could be had.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ClaimError {
    /// All slots are held by living processes.
    Full,
    /// The region's file can no longer be opened, or its file system has no locks.
    File(Errno),
}

/// What to do with the journals and pending times of a dead process before its slot is used again. Runs with the
/// slot's lock held; if the caller dies in it, the next one starts over.
pub trait SettleSlot {
    /// Gives back what stands in slot `index`; with `keep` not the bytes that another process may keep. True if nothing is left.
    fn settle_slot(&mut self, region: &Region, index: usize, keep: bool) -> bool;
}

/// Claims a slot for this process. The slot stays taken until the process dies.
pub fn claim(
    region: &Region,
    path: &CStr,
    region_file: &RegionFile,
    settle: &mut impl SettleSlot,
) -> Result<usize, ClaimError> {
    let file = region_file.open(path).map_err(ClaimError::File)?;
    let free = |_: usize, slot: &Slot| slot.state.load(Acquire) == SLOT_FREE;
    let index = match first_lockable(region, &file, SLOT_FREE, free)? {
        Some(index) => index,
        None => {
            let gone = |at: usize, slot: &Slot| is_gone(at, slot, &file);
            let left = |_: usize, slot: &Slot| slot.state.load(Acquire) == SLOT_LEFT;
            match first_lockable(region, &file, SLOT_TAKEN, gone)? {
                Some(index) => index,
                None => first_lockable(region, &file, SLOT_LEFT, left)?.ok_or(ClaimError::Full)?,
            }
        }
    };
    let Some(slot) = region.ours().slots.get(index) else { return Err(ClaimError::Full) };
    // Also for a free slot: the process that freed it may have died before its last word was written.
    settle.settle_slot(region, index, false);
    write_process(region, index, slot);
    slot.state.store(SLOT_TAKEN, Release);
    lock::keep_for_life(file).map_err(ClaimError::File)?;
    // Behind the last close. A process without it lives on; the node then knows its pid only from the region.
    let _ = region_file.with(path, |file| lock::announce_pid(file, index));
    Ok(index)
}

/// Writes this process into its slot, whose lock it has held all the time, after the contents of the region were lost. Others see
/// it there after [`come_back`].
pub fn put_back(region: &Region, index: usize) {
    if let Some(slot) = region.ours().slots.get(index) {
        write_process(region, index, slot);
    }
}

/// This process has put back all that it knows.
pub fn come_back(region: &Region, index: usize) {
    if let Some(slot) = region.ours().slots.get(index) {
        slot.state.store(SLOT_TAKEN, Release);
    }
}

/// Whether a living process has not put itself back into its slot after the contents of the region were lost.
#[must_use]
pub fn any_is_missing(region: &Region, file: &Descriptor) -> bool {
    let mut any = false;
    each_missing(region, file, &mut |_| {
        any = true;
        false
    });
    any
}

/// Calls `visit` with the slot of each such process, until it returns false.
pub fn each_missing(region: &Region, file: &Descriptor, visit: &mut dyn FnMut(usize) -> bool) {
    let slots = &region.ours().slots;
    let mut high = (region.ours().header.slot_high.load(Acquire) as usize).min(layout::SLOTS);
    let is_missing =
        |at: usize, slot: &Slot| slot.state.load(Acquire) == SLOT_FREE && is_held(file, at) == Ok(true);
    let mut looked = 0;
    loop {
        for (at, slot) in slots.iter().enumerate().take(high).skip(looked) {
            if is_missing(at, slot) && !visit(at) {
                return;
            }
        }
        looked = high;
        // The kernel answers any lock in the range, so all slots before that one are looked at, too.
        let left = layout::SLOTS.saturating_sub(high) as u64;
        match file.any_locked(slot_byte(high), left) {
            Ok(Some(byte)) if left != 0 => {
                let slot = usize::try_from(byte.saturating_sub(slot_byte(0))).unwrap_or(layout::SLOTS);
                high = slot.saturating_add(1).min(layout::SLOTS);
            }
            _ => return,
        }
    }
}

/// Writes this process into an empty slot, but for the slot's state.
fn write_process(region: &Region, index: usize, slot: &Slot) {
    clear(region, index, slot);
    let start_time = lock::process_stat(sys::pid()).map_or(0, |stat| stat.start_time);
    slot.pid.store(sys::pid(), Relaxed);
    slot.start_time.store(start_time, Relaxed);
    slot.pid_namespace.store(sys::inode_of(c"/proc/self/ns/pid"), Relaxed);
    slot.last_launch_ns.store(sys::monotonic_ns(), Relaxed);
    let high = u32::try_from(index).map_or(u32::MAX, |index| index.wrapping_add(1));
    let view = region.hami();
    region.ours().header.slot_high.fetch_max(high, AcqRel);
    view.proc_num.fetch_max(high.cast_signed(), AcqRel);
    if let Some(process) = view.procs.get(index) {
        process.show(sys::pid());
    }
}

/// The first slot in this state that is wanted and whose lock can be taken; it is then held by `file`. The lock is asked
/// first: of a living process it is held, and then nobody need read /proc.
fn first_lockable(
    region: &Region,
    file: &Descriptor,
    state: u32,
    wanted: impl Fn(usize, &Slot) -> bool,
) -> Result<Option<usize>, ClaimError> {
    for (index, slot) in region.ours().slots.iter().enumerate() {
        if slot.state.load(Acquire) != state {
            continue;
        }
        match file.try_lock(LockKind::Ofd, slot_byte(index)) {
            Ok(()) if wanted(index, slot) => return Ok(Some(index)),
            Ok(()) => file.unlock(slot_byte(index)),
            Err(Errno(libc::EAGAIN | libc::EACCES)) => {}
            Err(error) => return Err(ClaimError::File(error)),
        }
    }
    Ok(None)
}

/// Gives back what dead processes hold, passing over the caller's `own` slot. Returns how many of them gave anything back. Of
/// the threads that share `file` only one may call it at a time: its locks do not keep them from each other.
pub fn reap(region: &Region, file: &Descriptor, own: Option<usize>, settle: &mut impl SettleSlot) -> usize {
    let dead = each_unheld(region, file, SLOT_TAKEN, own, |index, slot| {
        let gone = is_gone(index, slot, file);
        if gone {
            let keep = slot.exported.load(Acquire) != 0 && tell_importers(region, index);
            match settle.settle_slot(region, index, keep) {
                true => clear(region, index, slot),
                false => leave(region, index, slot),
            }
        }
        gone
    });
    if dead != 0 {
        region.settle_brought_limits();
    }
    // Behind the dead, some of which may have imported.
    let left = each_unheld(region, file, SLOT_LEFT, None, |index, slot| {
        let settled = settle.settle_slot(region, index, any_owes_measurement(region));
        match settled {
            true => clear(region, index, slot),
            false => leave(region, index, slot),
        }
        settled
    });
    dead.wrapping_add(left)
}

/// Calls `visit` with the slots of a state that no living process holds, with the slot's lock held; but not with the caller's
/// `own`. Returns how often it answered true.
fn each_unheld(
    region: &Region,
    file: &Descriptor,
    state: u32,
    own: Option<usize>,
    mut visit: impl FnMut(usize, &Slot) -> bool,
) -> usize {
    let high = region.ours().header.slot_high.load(Acquire) as usize;
    let mut count = 0usize;
    for (index, slot) in region.ours().slots.iter().enumerate().take(high) {
        let wanted = || slot.state.load(Acquire) == state;
        // The lock is asked first: of a living process it is held, and then nobody need read /proc.
        if own == Some(index) || !wanted() || file.try_lock(LockKind::Ofd, slot_byte(index)).is_err() {
            continue;
        }
        count = count.wrapping_add(usize::from(wanted() && visit(index, slot)));
        file.unlock(slot_byte(index));
    }
    count
}

/// The slots of processes that have opened memory of others.
fn importers(region: &Region) -> impl Iterator<Item = (usize, &'static Slot)> {
    let high = region.ours().header.slot_high.load(Acquire) as usize;
    let imports = |slot: &Slot| slot.state.load(Acquire) == SLOT_TAKEN && slot.imports.load(Acquire) != 0;
    region.ours().slots.iter().enumerate().take(high).filter(move |(_, slot)| imports(slot))
}

/// Asks the others that have opened memory of other processes to measure what they keep of the dead one in slot `index`. True
/// if there are any.
fn tell_importers(region: &Region, index: usize) -> bool {
    importers(region).filter(|(at, _)| *at != index).fold(false, |_, (_, slot)| {
        slot.exporters_lost.fetch_add(1, AcqRel);
        true
    })
}

/// Whether a process has not yet measured what it keeps of the dead.
fn any_owes_measurement(region: &Region) -> bool {
    importers(region).any(|(_, slot)| slot.losses_measured.load(Acquire) != slot.exporters_lost.load(Acquire))
}

/// Whether a process of this container is dying: its lock is gone, but the kernel has not yet closed its files.
/// What it holds will be free in a moment.
#[must_use]
pub fn any_dying(region: &Region, file: &Descriptor) -> bool {
    let high = region.ours().header.slot_high.load(Acquire) as usize;
    let taken = |slot: &Slot| slot.state.load(Acquire) == SLOT_TAKEN;
    let mut slots = region.ours().slots.iter().enumerate().take(high).filter(|(_, slot)| taken(slot));
    slots.any(|(index, slot)| is_held(file, index) == Ok(false) && taken(slot))
}

/// A process as its slot describes it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Described {
    /// Index of its slot.
    pub slot: usize,
    /// Process id in its own PID namespace.
    pub pid: u32,
    /// Start time, clock ticks since boot.
    pub start_time: u64,
    /// Inode of its PID namespace.
    pub pid_namespace: u64,
}

impl Described {
    /// Whether a process whose slot's lock is free is gone, as far as this PID namespace can tell. The lock decides
    /// finally; this half covers file systems on which a lock can be lost, and waits until the kernel has closed the files of a
    /// dying process, the driver's among them. A process that exec has replaced by another program is gone too.
    #[must_use]
    pub fn is_gone(&self, file: &Descriptor) -> bool {
        let here = self.pid_namespace == sys::inode_of(c"/proc/self/ns/pid");
        // Of this very process, but not its own slot (callers pass that over): an image that exec has replaced.
        if here && self.pid == sys::pid() {
            return true;
        }
        // The kernel closes files in the order of their numbers: the driver's before ours, which has a high one.
        if file.classic_holder(lock::pid_byte(self.slot)).is_ok_and(|holder| holder.is_some()) {
            return false;
        }
        let is_it = |stat: &lock::ProcessStat| stat.runs && stat.start_time == self.start_time;
        let stat = if here { lock::process_stat(self.pid).filter(is_it) } else { None };
        // On overlayfs a program that closes all descriptors loses the lock, and lives on.
        stat.is_none_or(|stat| !stat.exits && !file.on_overlay() && lock::has_executed(self.pid))
    }
}

/// The same of a slot that is taken.
fn is_gone(at: usize, slot: &Slot, file: &Descriptor) -> bool {
    let described = Described {
        slot: at,
        pid: slot.pid.load(Relaxed),
        start_time: slot.start_time.load(Relaxed),
        pid_namespace: slot.pid_namespace.load(Relaxed),
    };
    slot.state.load(Acquire) == SLOT_TAKEN && described.is_gone(file)
}

/// Kills the process that holds a slot, if it is of the caller's PID namespace and still the one that took it.
#[must_use]
pub fn kill(region: &Region, index: usize) -> bool {
    let Some(slot) = region.ours().slots.get(index) else { return false };
    if slot.state.load(Acquire) != SLOT_TAKEN
        || slot.pid_namespace.load(Relaxed) != sys::inode_of(c"/proc/self/ns/pid")
    {
        return false;
    }
    let (pid, start_time) = (slot.pid.load(Relaxed), slot.start_time.load(Relaxed));
    // Its pid may be another's by now; a handle taken before the look is not.
    sys::kill(pid, || lock::process_stat(pid).is_some_and(|stat| stat.runs && stat.start_time == start_time))
}

/// Empties a settled slot. The state goes first, so that nobody takes the rest for a process.
fn clear(region: &Region, index: usize, slot: &Slot) {
    slot.state.store(SLOT_FREE, Release);
    slot.pid.store(0, Relaxed);
    slot.start_time.store(0, Relaxed);
    slot.pid_namespace.store(0, Relaxed);
    slot.priority.store(0, Relaxed);
    slot.imports.store(0, Relaxed);
    for word in [&slot.exported, &slot.exporters_lost, &slot.losses_measured] {
        word.store(0, Relaxed);
    }
    for word in slot.journal_device.iter().chain(&slot.journal_kind) {
        word.store(0, Relaxed);
    }
    region.forget_limits(index);
    if let Some(process) = region.hami().procs.get(index) {
        process.clear();
    }
}

/// Shows a settled slot as one whose process is dead and whose journals hold what another process may keep.
fn leave(region: &Region, index: usize, slot: &Slot) {
    slot.state.store(SLOT_LEFT, Release);
    region.forget_limits(index);
    let (Some(process), Some(journals)) = (region.hami().procs.get(index), region.ours().journals.get(index))
    else {
        return;
    };
    for (used, device) in process.used.iter().zip(1u8..) {
        let of_device = slot.journal_device.iter().zip(journals).filter(|(of, _)| of.load(Acquire) == device);
        let held = of_device.map(|(_, journal)| layout::held_bytes(journal.held.load(Acquire)));
        used.show_left(held.fold(0, u64::wrapping_add));
    }
}

/// A living process is charged `bytes` of what dead ones have left, or as many as there are. The next call of [`reap`] gives
/// them back. Returns how many these are.
pub fn take_over_left(ours: &Ours, bytes: u64) -> u64 {
    let mut rest = bytes;
    for slot in ours.slots.iter().filter(|slot| slot.state.load(Acquire) == SLOT_LEFT) {
        let less = |left: u64| Some(left.saturating_sub(rest));
        if let Ok(left) = slot.exported.fetch_update(AcqRel, Acquire, less) {
            rest = rest.saturating_sub(left);
        }
    }
    bytes.wrapping_sub(rest)
}

/// The bytes of one kind that dead processes have left on a device.
pub fn left_of_kind(ours: &Ours, device: u8, kind: u8) -> u64 {
    let left =
        ours.slots.iter().zip(&ours.journals).filter(|(slot, _)| slot.state.load(Acquire) == SLOT_LEFT);
    let held = left.flat_map(|(slot, journals)| {
        let of_kind = slot.journal_device.iter().zip(&slot.journal_kind).zip(journals);
        of_kind.filter(move |((serves, is), _)| {
            serves.load(Acquire) == device.wrapping_add(1) && is.load(Acquire) == kind
        })
    });
    held.fold(0, |sum, (_, journal)| sum.saturating_add(layout::held_bytes(journal.held.load(Acquire))))
}

/// Whether another process than the caller's holds slot `index`'s lock.
pub fn is_held(file: &Descriptor, index: usize) -> Result<bool, Errno> {
    file.is_locked(slot_byte(index))
}

const _: () = assert!(layout::SLOTS <= 0x1_0000, "the lock bytes of slots and pids must not overlap");

#[cfg(test)]
mod tests {
    use super::*;
    use crate::file::tests::scratch;
    use std::ffi::CString;
    use std::format;

    struct Nothing;
    impl SettleSlot for Nothing {
        fn settle_slot(&mut self, _: &Region, _: usize, keep: bool) -> bool {
            !keep
        }
    }

    fn region(name: &str) -> (CString, Region) {
        let (_, path) = scratch(&format!("slot-{name}"));
        let region = Region::open(&path, 1).expect("a region");
        (path, region)
    }

    #[test]
    #[cfg_attr(miri, ignore = "Miri maps no files and has no locks")]
    fn a_slot_is_held_after_every_descriptor_of_its_holder_was_closed() {
        let (path, region) = region("held");
        let kept = RegionFile::new();
        let index = claim(&region, &path, &kept, &mut Nothing).expect("a slot");
        let other = Descriptor::open(&path, libc::O_RDWR, 0).expect("the file");
        assert!(is_held(&other, index).expect("locks"), "the lock lives in a mapping, not in a descriptor");
        assert_eq!(kept.with(&path, |file| reap(&region, file, Some(index), &mut Nothing)), Ok(0));
    }

    #[test]
    #[cfg_attr(miri, ignore = "Miri maps no files and has no locks")]
    fn two_claims_get_two_slots_and_the_view_counts_both() {
        let (path, region) = region("two");
        let first = claim(&region, &path, &RegionFile::new(), &mut Nothing).expect("a slot");
        let second = claim(&region, &path, &RegionFile::new(), &mut Nothing).expect("another");
        assert_ne!(first, second);
        assert_eq!(region.hami().proc_num.load(Acquire), 2);
    }

    /// Slot 5, of a process that never was.
    fn dead(region: &Region) -> &'static Slot {
        let slot = &region.ours().slots[5];
        slot.pid.store(u32::MAX - 1, Relaxed);
        slot.pid_namespace.store(sys::inode_of(c"/proc/self/ns/pid"), Relaxed);
        slot.state.store(SLOT_TAKEN, Release);
        region.ours().header.slot_high.store(6, Release);
        slot
    }

    #[test]
    #[cfg_attr(miri, ignore = "Miri maps no files and has no locks")]
    fn what_a_dead_process_has_shared_is_left_until_those_that_import_have_measured() {
        for (imports, shares) in [(false, false), (false, true), (true, false), (true, true)] {
            let (path, region) = region(&format!("shared-{imports}-{shares}"));
            let kept = RegionFile::new();
            let own = claim(&region, &path, &kept, &mut Nothing).expect("a slot");
            let (ours, slot) = (&region.ours().slots[own], dead(&region));
            ours.imports.store(u32::from(imports), Relaxed);
            slot.exported.store(if shares { 7 } else { 0 }, Relaxed);
            let reap =
                || kept.with(&path, |file| reap(&region, file, Some(own), &mut Nothing)).expect("locks");
            assert_eq!(reap(), 1);
            let left = imports && shares;
            assert_eq!(slot.state.load(Acquire), if left { SLOT_LEFT } else { SLOT_FREE });
            assert_eq!(ours.exporters_lost.load(Relaxed), u64::from(left), "{imports} {shares}");
            assert_eq!(reap(), 0, "told once");
            assert_eq!(ours.exporters_lost.load(Relaxed), u64::from(left));
            if left {
                take_over_left(region.ours(), 3);
                assert_eq!(slot.exported.load(Relaxed), 4);
                ours.losses_measured.store(1, Relaxed);
                assert_eq!(reap(), 1);
            }
            assert_eq!((slot.state.load(Acquire), slot.exported.load(Relaxed)), (SLOT_FREE, 0));
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "Miri maps no files and has no locks")]
    fn a_slot_whose_process_never_was_is_reaped() {
        let (path, region) = region("dead");
        let slot = dead(&region);
        assert_eq!(RegionFile::new().with(&path, |file| reap(&region, file, None, &mut Nothing)), Ok(1));
        assert_eq!(slot.state.load(Acquire), SLOT_FREE);
    }

    /// One of them makes the region and takes a slot while another one has read a part of the file.
    #[test]
    #[cfg_attr(miri, ignore = "Miri maps no files and has no locks")]
    fn all_that_start_at_once_where_no_region_is_get_the_same_one() {
        for round in 0..300 {
            let (_, path) = scratch(&format!("slot-at-once-{round}"));
            let start = std::sync::Barrier::new(4);
            std::thread::scope(|scope| {
                for _ in 0..4 {
                    scope.spawn(|| {
                        start.wait();
                        let region = Region::open(&path, 1).expect("a region");
                        claim(&region, &path, &RegionFile::new(), &mut Nothing).expect("a slot");
                    });
                }
            });
            let region = Region::open(&path, 1).expect("a region");
            assert_eq!(region.ours().header.slot_high.load(Acquire), 4, "round {round}");
            crate::names::remove(&path);
        }
    }
}
