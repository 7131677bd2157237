//! Who is alive, as the kernel knows it: a process holds the lock of one byte of the state file.
//!
//! The lock is an open-file-description lock taken through an open of its own. A mapping that a forked
//! child does not inherit keeps that open alive when its descriptor is closed, so the lock ends with the
//! process image (exit, SIGKILL, exec) and with nothing else, in whatever PID namespace it lives.
//!
//! # Safety
//! This room calls the kernel: file locks, mappings, clocks. Nothing here hands out memory.
#![allow(unsafe_code)]

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crate::layout::LIVES;

/// Descriptors that this crate keeps are moved up here, out of the way of programs that count theirs.
const HIGH_FD: i32 = 480;

/// Nanoseconds of `CLOCK_MONOTONIC`.
#[inline]
pub fn clock_ns() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` is valid for writing; the clock exists on every Linux.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut now) };
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// Sleeps until the monotonic clock shows `wall`, or a signal arrives.
pub fn sleep_until(wall: u64) {
    let until =
        libc::timespec { tv_sec: (wall / 1_000_000_000) as i64, tv_nsec: (wall % 1_000_000_000) as i64 };
    // SAFETY: `until` is a valid timespec, no remainder is asked for.
    unsafe {
        libc::clock_nanosleep(libc::CLOCK_MONOTONIC, libc::TIMER_ABSTIME, &until, std::ptr::null_mut())
    };
}

/// Ends this process at once, as SIGKILL from outside does.
pub fn kill_own_process() {
    // SAFETY: sends a signal to the process itself; no memory is involved.
    unsafe { libc::kill(libc::getpid(), libc::SIGKILL) };
}

fn lock_request(slot: usize, kind: i32) -> libc::flock {
    // SAFETY: flock is plain data; zero is a valid value of every field, and l_pid must be 0 here.
    let mut request: libc::flock = unsafe { std::mem::zeroed() };
    request.l_type = kind as i16;
    request.l_whence = libc::SEEK_SET as i16;
    request.l_start = LIVES + slot as i64;
    request.l_len = 1;
    request
}

/// Opens the state file for reading and writing, close-on-exec.
pub fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).custom_flags(libc::O_CLOEXEC).open(path)
}

/// Moves a descriptor out of the low numbers, which programs count; keeps it where it is if there is no room.
pub fn raise(file: File) -> File {
    // SAFETY: duplicates a descriptor that we own.
    let high = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_DUPFD_CLOEXEC, HIGH_FD) };
    if high < 0 {
        return file;
    }
    // SAFETY: `high` was just created and belongs to nobody else.
    unsafe { File::from_raw_fd(high) }
}

/// Whether some process holds the byte of `slot`; `probe` must not be the open that holds our own.
pub fn is_alive(probe: &File, slot: usize) -> bool {
    let mut request = lock_request(slot, libc::F_WRLCK);
    // SAFETY: a query on a descriptor that we own, with a valid flock.
    let answer = unsafe { libc::fcntl(probe.as_raw_fd(), libc::F_OFD_GETLK, &mut request) };
    // A failed query must never declare a process dead.
    answer != 0 || request.l_type != libc::F_UNLCK as i16
}

/// The held byte of one slot.
pub struct Life {
    mapping: *mut libc::c_void,
    file: Option<File>,
}

// SAFETY: the mapping is never dereferenced, only unmapped once, by whoever drops the value.
unsafe impl Send for Life {}
// SAFETY: as above; shared references allow nothing.
unsafe impl Sync for Life {}

const PAGE: usize = 4096;

impl Life {
    /// Tries to hold the byte of `slot`; `None` if another process does.
    pub fn hold(path: &Path, slot: usize, probe: &File) -> io::Result<Option<Life>> {
        let file = open(path)?;
        if !set_lock(&file, slot)? {
            return Ok(None);
        }
        // SAFETY: a fresh mapping at an address of the kernel's choice.
        let mapping = unsafe {
            libc::mmap(std::ptr::null_mut(), PAGE, libc::PROT_READ, libc::MAP_SHARED, file.as_raw_fd(), 0)
        };
        if mapping == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the page was just mapped; a child must not keep our lock alive.
        unsafe { libc::madvise(mapping, PAGE, libc::MADV_DONTFORK) };
        drop(file);
        if is_alive(probe, slot) {
            return Ok(Some(Life { mapping, file: None }));
        }
        // Stacked file systems map another file than the one that was opened: there the descriptor stays.
        let file = raise(open(path)?);
        Ok(set_lock(&file, slot)?.then_some(Life { mapping, file: Some(file) }))
    }
}

fn set_lock(file: &File, slot: usize) -> io::Result<bool> {
    let request = lock_request(slot, libc::F_WRLCK);
    // SAFETY: a non-blocking lock on a descriptor that we own, with a valid flock.
    if unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &request) } == 0 {
        return Ok(true);
    }
    match io::Error::last_os_error() {
        error if matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EACCES)) => Ok(false),
        error => Err(error),
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        // SAFETY: maps exactly the page of `hold`, and is unmapped once.
        unsafe { libc::munmap(self.mapping, PAGE) };
        self.file = None;
    }
}
