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
//! drops it, so losing it never means death; and so this library keeps one descriptor ([`RegionFile`]) and asks through it
//! about others' locks, too, where it would otherwise open and close the file.

use crate::check::numbers;
use crate::sys::{self, Descriptor, Errno, Identity, InChild, LockKind};
use core::ffi::CStr;
use core::mem::ManuallyDrop;
use core::sync::atomic::{AtomicI32, AtomicU64, Ordering::Acquire, Ordering::Relaxed, Ordering::Release};

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

/// Descriptors that stay open are moved up here, out of the way of programs that count on low numbers.
const HIGH: i32 = 700;

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

/// Keeps the OFD locks of `file` for the life of this process and closes the descriptor where that is possible.
pub fn keep_for_life(file: Descriptor) -> Result<(), Errno> {
    const PAGE: usize = 4096;
    if file.on_overlay() {
        // If the limit on descriptors forbids the high number, any number will do.
        let _ = file.above(HIGH).map(Descriptor::into_raw);
        return Ok(());
    }
    let page = file.map_shared(PAGE, false)?;
    sys::advise_fork(page, PAGE, InChild::Absent)
}

/// Takes the classic lock that tells the node our pid, for as long as no descriptor of the file is closed.
pub fn announce_pid(file: &Descriptor, slot: usize) -> Result<(), Errno> {
    file.try_lock(LockKind::Classic, pid_byte(slot))
}

/// One descriptor of the region's file that this process keeps. All-zero bytes: none yet.
pub struct RegionFile {
    /// Number + 1.
    number: AtomicI32,
    device: AtomicU64,
    inode: AtomicU64,
}

impl RegionFile {
    /// None yet.
    #[must_use]
    pub const fn new() -> Self {
        Self { number: AtomicI32::new(0), device: AtomicU64::new(0), inode: AtomicU64::new(0) }
    }

    /// Uses the descriptor, opened if need be: for the first time, or because the program has closed it (its number may
    /// be another file's by now). Of two threads that find it missing at once each opens one, and both stay open.
    pub fn with<R>(&self, path: &CStr, then: impl FnOnce(&Descriptor) -> R) -> Result<R, Errno> {
        if let Some(number) = self.number.load(Acquire).checked_sub(1).filter(|number| *number >= 0) {
            let file = ManuallyDrop::new(Descriptor::from_raw(number));
            let known = Identity { device: self.device.load(Relaxed), inode: self.inode.load(Relaxed) };
            if file.identity() == Ok(known) {
                return Ok(then(&file));
            }
        }
        let file = {
            let low = Descriptor::open(path, libc::O_RDWR | libc::O_NOCTTY, 0)?;
            // If the limit on descriptors forbids the high number, the low one has to do. It is closed here, before
            // any lock is taken through the other.
            low.duplicate_above(HIGH).unwrap_or(low)
        };
        let identity = file.identity()?;
        self.device.store(identity.device, Relaxed);
        self.inode.store(identity.inode, Relaxed);
        let answer = then(&file);
        self.number.store(file.into_raw().wrapping_add(1), Release);
        Ok(answer)
    }
}

impl Default for RegionFile {
    fn default() -> Self {
        Self::new()
    }
}

/// What `/proc/PID/stat` tells.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ProcessStat {
    /// Neither a zombie nor dead.
    pub runs: bool,
    /// Clock ticks since boot.
    pub start_time: u64,
}

/// Reads `/proc/PID/stat`; `None` when there is no such process (or no /proc).
#[must_use]
pub fn process_stat(pid: u32) -> Option<ProcessStat> {
    let mut path = [0u8; 32];
    let path = proc_stat_path(pid, &mut path)?;
    let mut buffer = [0u8; 1024];
    parse_stat(sys::read_file(path, &mut buffer).ok()?)
}

fn proc_stat_path(pid: u32, buffer: &mut [u8; 32]) -> Option<&CStr> {
    let mut digits = [0u8; 10];
    let mut rest = pid;
    let mut used = 0usize;
    for digit in digits.iter_mut().rev() {
        *digit = u8::try_from(rest % 10).map_or(b'0', |digit| b'0'.wrapping_add(digit));
        rest /= 10;
        used = used.wrapping_add(1);
        if rest == 0 {
            break;
        }
    }
    let digits = digits.iter().skip(10usize.wrapping_sub(used));
    let text = b"/proc/".iter().chain(digits).chain(b"/stat");
    for (to, from) in buffer.iter_mut().zip(text) {
        *to = *from;
    }
    CStr::from_bytes_until_nul(buffer).ok()
}

/// The command name is in parentheses and may itself hold parentheses and spaces: fields count from the last ')'.
fn parse_stat(text: &[u8]) -> Option<ProcessStat> {
    let close = text.iter().rposition(|byte| *byte == b')')?;
    let mut fields = text.get(close.checked_add(2)?..)?.split(|byte| *byte == b' ');
    let state = *fields.next()?.first()?;
    // State is field 3 of proc(5), start time field 22.
    let start_time = fields.nth(18)?;
    let start_time = start_time.iter().try_fold(0u64, |value, byte| {
        let digit = byte.checked_sub(b'0').filter(|digit| *digit <= 9)?;
        value.checked_mul(10)?.checked_add(u64::from(digit))
    })?;
    Some(ProcessStat { runs: !matches!(state, b'Z' | b'X' | b'x'), start_time })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_name_with_parentheses_and_spaces_does_not_confuse_the_fields() {
        let text = b"7 (a) Z b) S 1 7 7 0 -1 4194560 90 0 0 0 0 0 0 0 20 0 1 0 4711 8 9";
        assert_eq!(parse_stat(text), Some(ProcessStat { runs: true, start_time: 4711 }));
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
