//! SIGBUS while the region's file is too short. Anybody who can write the file can truncate it (`: > FILE`), and whoever then
//! touches a page of the mapping beyond its end gets SIGBUS, which would end the program.
//!
//! The handler gives the file its length again, or where that fails maps zeroes over the mapping, and returns: the access is
//! repeated and reads zeroes. The next call finds that the contents are lost ([`lost`](crate::lost)) and restores them. Every
//! other SIGBUS goes to the handler that the program had before.
//!
//! A handler that the program sets later replaces this one. A thread that blocks SIGBUS is ended by it, as by any fault.
//!
//! # Safety
//! This file may use `unsafe` because it is the border to the kernel's signals. The handler uses system calls and atomics
//! alone. It replaces only a mapping of the region, all of whose bytes are parts of atomics, and all accesses to it go on to
//! be valid. The disposition before is written once, before the handler is set, and only read afterwards.
#![allow(unsafe_code)]

use crate::kept::RegionFile;
use crate::layout::FILE_BYTES;
use crate::sys::{self, Descriptor, Errno, KeepErrno};
use core::cell::UnsafeCell;
use core::ffi::{CStr, c_char, c_int, c_void};
use core::mem::MaybeUninit;
use core::sync::atomic::{
    AtomicBool, AtomicPtr, AtomicU32, AtomicUsize, Ordering::AcqRel, Ordering::Acquire, Ordering::Relaxed,
    Ordering::Release,
};

/// Faults in a file of full length before zeroes are mapped over it: other threads may have given it its length just now.
const MOST_FAULTS: u32 = 1_000;

/// The mapping of the region; 0: none.
static ADDRESS: AtomicUsize = AtomicUsize::new(0);
/// The descriptor that this process keeps, and the path.
static FILE: AtomicPtr<RegionFile> = AtomicPtr::new(core::ptr::null_mut());
static PATH: AtomicPtr<c_char> = AtomicPtr::new(core::ptr::null_mut());
/// Whether zeroes of this process alone lie over the mapping.
static DETACHED: AtomicBool = AtomicBool::new(false);
/// Faults since the file last had to be given its length.
static FAULTS: AtomicU32 = AtomicU32::new(0);
/// Whether the handler was set; a child made by fork has it too.
static IS_SET: AtomicBool = AtomicBool::new(false);

struct Former(UnsafeCell<MaybeUninit<libc::sigaction>>);

// SAFETY: written once, by the thread that wins `IS_SET`, before the handler that reads it is set.
unsafe impl Sync for Former {}

static FORMER: Former = Former(UnsafeCell::new(MaybeUninit::zeroed()));

type Handler = extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void);
type PlainHandler = extern "C" fn(c_int);

/// Sets the handler, once in the life of a program.
pub fn set_handler() {
    if IS_SET.swap(true, AcqRel) {
        return;
    }
    let handler: Handler = on_bus_error;
    // SAFETY: sigaction is plain data, which the first call fills; the second one's handler lives as long as this library.
    unsafe {
        let former = (*FORMER.0.get()).as_mut_ptr();
        if libc::sigaction(libc::SIGBUS, core::ptr::null(), former) != 0 {
            return;
        }
        let mut ours = *former;
        ours.sa_sigaction = handler as usize;
        ours.sa_flags =
            (*former).sa_flags & (libc::SA_RESTART | libc::SA_NODEFER) | libc::SA_SIGINFO | libc::SA_ONSTACK;
        libc::sigaction(libc::SIGBUS, &raw const ours, core::ptr::null_mut());
    }
}

/// From now on the region lies at this address. Its file is not known yet.
pub fn watch(address: usize) {
    if IS_SET.load(Relaxed) {
        FILE.store(core::ptr::null_mut(), Relaxed);
        DETACHED.store(false, Relaxed);
        ADDRESS.store(address, Release);
    }
}

/// The region's file, by which it gets its length again.
pub fn watch_file(file: &'static RegionFile, path: &'static CStr) {
    PATH.store(path.as_ptr().cast_mut(), Relaxed);
    FILE.store(core::ptr::from_ref(file).cast_mut(), Release);
}

/// Whether zeroes of this process alone lie in the place of the file.
#[must_use]
pub fn is_detached() -> bool {
    DETACHED.load(Acquire)
}

/// Maps the file again over such zeroes.
pub fn attach(file: &Descriptor) -> Result<(), Errno> {
    let address = ADDRESS.load(Acquire);
    if address == 0 || !is_detached() {
        return Ok(());
    }
    // SAFETY: only the region lies there; see the file's Safety.
    unsafe { file.map_over(address, FILE_BYTES) }?;
    FAULTS.store(0, Relaxed);
    DETACHED.store(false, Release);
    Ok(())
}

extern "C" fn on_bus_error(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    let _errno = KeepErrno::new();
    // SAFETY: the kernel passes a valid record.
    let (address, by_fault) = unsafe { ((*info).si_addr() as usize, (*info).si_code > 0) };
    let start = ADDRESS.load(Acquire);
    if by_fault && start != 0 && address.wrapping_sub(start) < FILE_BYTES {
        mend(start);
    } else {
        pass_on(signal, info, context, by_fault);
    }
}

/// Makes the mapping accessible again.
fn mend(start: usize) {
    let file = FILE.load(Acquire);
    // SAFETY: a file is watched as long as the process lives. In a child made by fork it is all zeroes: no file.
    let file = unsafe { file.as_ref() };
    let extended = file.is_some_and(|file| {
        let path = PATH.load(Relaxed);
        // SAFETY: stored before the file, and lives as long.
        let path = if path.is_null() { c"" } else { unsafe { CStr::from_ptr(path) } };
        file.with_at_hand(path, extend).unwrap_or(false)
    });
    if !extended {
        DETACHED.store(true, Release);
        // SAFETY: only the region lies there; see the file's Safety.
        let _ = unsafe { sys::map_zeroes_over(start, FILE_BYTES) };
    }
}

/// Gives the file its length again.
fn extend(file: &Descriptor) -> bool {
    let full = FILE_BYTES as u64;
    let is_full = file.stat().is_ok_and(|stat| stat.size >= full);
    let faults = if is_full { FAULTS.fetch_add(1, Relaxed) } else { FAULTS.swap(0, Relaxed) };
    (!is_full || faults < MOST_FAULTS) && file.allocate(full).is_ok()
}

/// What the program does with a SIGBUS of its own.
fn pass_on(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void, by_fault: bool) {
    // SAFETY: written before this handler was set.
    let former = unsafe { (*FORMER.0.get()).assume_init_ref() };
    match former.sa_sigaction {
        libc::SIG_IGN if !by_fault => {}
        // Nobody can ignore a fault.
        libc::SIG_DFL | libc::SIG_IGN => end(signal, by_fault),
        handler if former.sa_flags & libc::SA_SIGINFO != 0 => {
            // SAFETY: the program set this function for this signal, with these arguments.
            let handler = unsafe { core::mem::transmute::<usize, Handler>(handler) };
            handler(signal, info, context);
        }
        handler => {
            // SAFETY: as above.
            let handler = unsafe { core::mem::transmute::<usize, PlainHandler>(handler) };
            handler(signal);
        }
    }
}

/// Ends the program by the signal, as without this handler: the faulting access is repeated, or the signal sent again.
fn end(signal: c_int, by_fault: bool) {
    // SAFETY: sigaction is plain data; its zeroes are the kernel's own way with a signal. Integers else.
    unsafe {
        let usual: libc::sigaction = core::mem::zeroed();
        libc::sigaction(signal, &raw const usual, core::ptr::null_mut());
        if !by_fault {
            libc::syscall(libc::SYS_tgkill, sys::pid(), sys::thread_id(), signal);
        }
    }
}
