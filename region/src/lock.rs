//! Locks that tell which processes are alive: the kernel drops them when a process dies, whichever way it dies.
//!
//! A process holds an OFD write lock on the byte of its slot. The lock belongs to a private open file description
//! that is kept alive by a one-page mapping and nothing else: the descriptor is closed at once, so the program can
//! neither lose it (`close_range`, its own open and close of the file) nor inherit it (the mapping is not copied by
//! fork, and exec and SIGKILL drop it). On overlayfs a mapping holds the lower file, not the description: there the
//! descriptor stays, high up.
//!
//! A second, classic record lock on a byte of its own costs one open descriptor and gives the node the process's
//! pid for nothing: `F_GETLK` translates it into the asker's PID namespace. Any close of the file by the process
//! drops it, so losing it never means death; and so this library keeps one descriptor (`kept`) and asks through it
//! about others' locks, too, where it would otherwise open and close the file.

use crate::check::numbers;
use crate::header::half_at;
use crate::layout::{OURS, Ours, SLOTS, Slot};
use crate::paths::{number, proc_path};
use crate::sys::{self, Descriptor, Errno, InChild, LockKind};
use core::mem::offset_of;

numbers! { "GPUQUOTA_";
    /// First lock byte of the slots (OFD). Far behind any data, so that `lockf` on the file cannot meet it.
    SLOT_BYTE: u64 = 1 << 44;
    /// First lock byte of the host pids (classic).
    PID_BYTE: u64 = SLOT_BYTE + 0x1_0000;
    /// The byte that serialises initialisation (OFD).
    INIT_BYTE: u64 = SLOT_BYTE + 0x2_0000;
    /// The byte of the agent that gives leases (OFD).
    AGENT_BYTE: u64 = SLOT_BYTE + 0x2_0001;
}

/// The lock byte of a slot.
#[must_use]
pub fn slot_byte(slot: usize) -> u64 {
    SLOT_BYTE.wrapping_add(slot as u64)
}

/// The lock byte that tells the pid of a slot's process.
#[must_use]
pub fn pid_byte(slot: usize) -> u64 {
    PID_BYTE.wrapping_add(slot as u64)
}

/// A living process that holds a slot of the region in this file: its pid as seen from here, else as the slot has it, else 0.
/// `None` where nobody lives.
pub fn living(file: &Descriptor) -> Result<Option<u32>, Errno> {
    let Some(byte) = file.any_locked(SLOT_BYTE, SLOTS as u64)? else { return Ok(None) };
    let slot = byte.saturating_sub(SLOT_BYTE);
    let seen = file.classic_holder(PID_BYTE.saturating_add(slot)).ok().flatten().filter(|pid| *pid != 0);
    let recorded = || {
        let slots = (OURS as u64).saturating_add(offset_of!(Ours, slots) as u64);
        let at = slots.saturating_add(slot.saturating_mul(size_of::<Slot>() as u64));
        half_at(file, at.saturating_add(offset_of!(Slot, pid) as u64)).ok().flatten()
    };
    Ok(Some(seen.or_else(recorded).unwrap_or(0)))
}

/// Keeps the OFD locks of `file`, and a shared BSD lock that tells cleaners of old files to leave it, for the life of this
/// process; closes the descriptor where that is possible.
pub fn keep_for_life(file: Descriptor) -> Result<(), Errno> {
    const PAGE: usize = 4096;
    file.lock_shared();
    if file.on_overlay() {
        // If the limit on descriptors forbids the high number, any number will do.
        let _ = file.above(sys::HIGH).map(Descriptor::into_raw);
        return Ok(());
    }
    let page = file.map_shared(PAGE, false)?;
    sys::advise_fork(page, PAGE, InChild::Absent)
}

/// Takes the classic lock that tells the node our pid, for as long as no descriptor of the file is closed.
pub fn announce_pid(file: &Descriptor, slot: usize) -> Result<(), Errno> {
    file.try_lock(LockKind::Classic, pid_byte(slot))
}

/// What `/proc/PID/stat` tells.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ProcessStat {
    /// Neither a zombie nor dead.
    pub runs: bool,
    /// On its way out: its memory is gone or going, and the kernel has yet to close its files.
    pub exits: bool,
    /// Clock ticks since boot.
    pub start_time: u64,
}

/// Reads `/proc/PID/stat`; `None` when there is no such process (or no /proc).
#[must_use]
pub fn process_stat(pid: u32) -> Option<ProcessStat> {
    let path = proc_path(pid, b"/stat")?;
    let mut buffer = [0u8; 1024];
    parse_stat(sys::read_file(path.as_c_str(), &mut buffer).ok()?)
}

/// The command name is in parentheses and may itself hold parentheses and spaces: fields count from the last ')'.
fn parse_stat(text: &[u8]) -> Option<ProcessStat> {
    let close = text.iter().rposition(|byte| *byte == b')')?;
    let mut fields = text.get(close.checked_add(2)?..)?.split(|byte| *byte == b' ');
    let state = *fields.next()?.first()?;
    // State is field 3 of proc(5), the kernel's flags field 9, start time field 22.
    let flags = number(fields.nth(5)?)?;
    let start_time = number(fields.nth(12)?)?;
    Some(ProcessStat {
        runs: !matches!(state, b'Z' | b'X' | b'x'),
        exits: flags & PF_EXITING != 0,
        start_time,
    })
}

/// The kernel's flag of a process that is in exit.
const PF_EXITING: u64 = 4;

/// Whether a process whose slot's lock is free has been replaced by exec: the new program has its arguments, and before
/// it had them the kernel closed the files of the old one, the driver's among them.
#[must_use]
pub fn has_executed(pid: u32) -> bool {
    let Some(path) = proc_path(pid, b"/cmdline") else { return false };
    sys::read_file(path.as_c_str(), &mut [0u8; 1]).is_ok_and(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_name_with_parentheses_and_spaces_does_not_confuse_the_fields() {
        let text = b"7 (a) Z b) S 1 7 7 0 -1 4194560 90 0 0 0 0 0 0 0 20 0 1 0 4711 8 9";
        assert_eq!(parse_stat(text), Some(ProcessStat { runs: true, exits: false, start_time: 4711 }));
    }

    #[test]
    #[cfg_attr(miri, ignore = "Miri reads no /proc")]
    fn this_process_runs_and_a_pid_beyond_the_maximum_does_not_exist() {
        assert!(process_stat(sys::pid()).expect("own stat").runs);
        assert_eq!(process_stat(u32::MAX), None);
    }

    #[test]
    fn a_zombie_does_not_run() {
        let text = b"7 (x) Z 1 7 7 0 -1 4194560 90 0 0 0 0 0 0 0 20 0 1 0 4711 8 9";
        assert_eq!(parse_stat(text).map(|stat| stat.runs), Some(false));
    }
}
