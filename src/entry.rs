//! The doors beside the exports of `hook`: `dlsym`, and `dlopen`, which only observes. Both jump on to the real functions
//! with the caller's own return address on the stack, because glibc identifies the caller by it (RTLD_NEXT, RTLD_DEFAULT,
//! RUNPATH).
//!
//! # Safety
//! This file may use `unsafe` because it exports two functions of the loader. They are naked: they save the argument
//! registers, call a Rust function that decides, and then return its answer or jump.
#![allow(unsafe_code)]

use crate::driver::is_driver_code;
use crate::driver::library::Library;
use crate::driver::loader::{self, DLOPEN, DLSYM, LoaderFunction};
use crate::driver::sys::{LIBCUDA, LIBNVML};
use crate::thread;
use core::arch::naked_asm;
use core::ffi::{CStr, c_char, c_int, c_void};
use core::ptr::null_mut;
use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// The targets of the naked functions' jumps. They are not exported, so the code reaches them relative to the program
/// counter.
static REAL_DLSYM: AtomicUsize = AtomicUsize::new(0);
static REAL_DLOPEN: AtomicUsize = AtomicUsize::new(0);

/// The decision on a call of `dlsym`.
#[repr(C)]
struct DlsymDecision {
    answer: *mut c_void,
    /// 1: return `answer`; 0: jump to the real one.
    decided: usize,
}

const CALL_REAL: DlsymDecision = DlsymDecision { answer: null_mut(), decided: 0 };

fn decided(answer: *mut c_void) -> DlsymDecision {
    DlsymDecision { answer, decided: 1 }
}

/// As the loader's `dlsym`, but for the functions that we intercept.
///
/// # Safety
/// As dlsym(3).
#[unsafe(naked)]
#[unsafe(no_mangle)]
#[cfg(target_arch = "x86_64")]
pub unsafe extern "C" fn dlsym(handle: *mut c_void, name: *const c_char) -> *mut c_void {
    naked_asm!(
        "push rdi",
        "push rsi",
        "mov rdx, qword ptr [rsp + 16]",
        "sub rsp, 8",
        "call {decide}",
        "add rsp, 8",
        "pop rsi",
        "pop rdi",
        "test rdx, rdx",
        "jnz 2f",
        "jmp qword ptr [rip + {real}]",
        "2: ret",
        decide = sym decide_dlsym,
        real = sym REAL_DLSYM,
    )
}

/// As the loader's `dlopen`.
///
/// # Safety
/// As dlopen(3).
#[unsafe(naked)]
#[unsafe(no_mangle)]
#[cfg(target_arch = "x86_64")]
pub unsafe extern "C" fn dlopen(path: *const c_char, flags: c_int) -> *mut c_void {
    naked_asm!(
        "push rdi",
        "push rsi",
        "mov rdx, qword ptr [rsp + 16]",
        "sub rsp, 8",
        "call {before}",
        "add rsp, 8",
        "pop rsi",
        "pop rdi",
        "jmp qword ptr [rip + {real}]",
        before = sym before_dlopen,
        real = sym REAL_DLOPEN,
    )
}

/// As the loader's `dlsym`, but for the functions that we intercept.
///
/// # Safety
/// As dlsym(3).
#[unsafe(naked)]
#[unsafe(no_mangle)]
#[cfg(target_arch = "aarch64")]
pub unsafe extern "C" fn dlsym(handle: *mut c_void, name: *const c_char) -> *mut c_void {
    naked_asm!(
        "stp x29, x30, [sp, #-32]!",
        "stp x0, x1, [sp, #16]",
        "mov x2, x30",
        "bl {decide}",
        "mov x9, x0",
        "mov x10, x1",
        "ldp x0, x1, [sp, #16]",
        "ldp x29, x30, [sp], #32",
        "cbnz x10, 2f",
        "adrp x9, {real}",
        "ldr x9, [x9, :lo12:{real}]",
        "br x9",
        "2: mov x0, x9",
        "ret",
        decide = sym decide_dlsym,
        real = sym REAL_DLSYM,
    )
}

/// As the loader's `dlopen`.
///
/// # Safety
/// As dlopen(3).
#[unsafe(naked)]
#[unsafe(no_mangle)]
#[cfg(target_arch = "aarch64")]
pub unsafe extern "C" fn dlopen(path: *const c_char, flags: c_int) -> *mut c_void {
    naked_asm!(
        "stp x29, x30, [sp, #-32]!",
        "stp x0, x1, [sp, #16]",
        "mov x2, x30",
        "bl {before}",
        "ldp x0, x1, [sp, #16]",
        "ldp x29, x30, [sp], #32",
        "adrp x9, {real}",
        "ldr x9, [x9, :lo12:{real}]",
        "br x9",
        before = sym before_dlopen,
        real = sym REAL_DLOPEN,
    )
}

/// The target where no object has the loader's function: it finds nothing. No libc has ever lacked these functions.
unsafe extern "C" fn nothing(_: *mut c_void, _: *const c_char) -> *mut c_void {
    null_mut()
}

fn resolve(word: &AtomicUsize, function: &LoaderFunction) {
    if word.load(Relaxed) == 0 {
        let address = match function.address() {
            0 => nothing as *const () as usize,
            address => address,
        };
        word.store(address, Relaxed);
    }
}

/// The library and the hook of an intercepted name. For almost all names the first two letters decide.
fn intercepted(name: &CStr) -> Option<(&'static Library, *mut c_void)> {
    let library = match name.to_bytes() {
        [b'c', b'u', ..] => &LIBCUDA,
        [b'n', b'v', b'm', b'l', ..] => &LIBNVML,
        _ => return None,
    };
    Some((library, loader::hook(name)?))
}

/// Whether a call of `caller` comes from the driver amid one of our hooks.
fn comes_from_driver(caller: usize) -> bool {
    thread::frame().is_some() && is_driver_code(caller)
}

/// `caller`: the return address.
unsafe extern "C" fn decide_dlsym(handle: *mut c_void, name: *const c_char, caller: usize) -> DlsymDecision {
    resolve(&REAL_DLSYM, &DLSYM);
    if name.is_null() {
        return CALL_REAL;
    }
    // SAFETY: dlsym is called with a C string.
    let name = unsafe { CStr::from_ptr(name) };
    let Some((library, hook)) = intercepted(name) else { return CALL_REAL };
    // The driver must get its own function.
    if comes_from_driver(caller) {
        return CALL_REAL;
    }
    let real = if library.adopt() { library.real(name) } else { None };
    let hook = real.map(|_| hook);
    if handle == libc::RTLD_NEXT {
        // The real answer depends on the caller. With a redirected driver it is our hook already.
        return match hook {
            Some(hook) if !library.is_redirected() => decided(hook),
            _ => CALL_REAL,
        };
    }
    if handle == libc::RTLD_DEFAULT {
        // Where no driver is loaded the loader would find our export, and the program must find nothing.
        return decided(hook.unwrap_or_else(|| {
            loader::look_up(libc::RTLD_DEFAULT, c"a function of a CUDA driver that is not loaded")
        }));
    }
    let answer = loader::look_up(handle, name);
    let Some(hook) = hook.filter(|_| !answer.is_null()) else { return decided(answer) };
    let is_ours = answer == hook || real == Some(answer);
    decided(if is_ours { hook } else { answer })
}

/// A plugin opened with RTLD_DEEPBIND finds the driver's exports and libc's `dlsym` before ours, so only a redirected driver
/// leads it to our hooks. If such a plugin uses a driver, the driver must be loaded and redirected before the loader binds
/// the plugin.
unsafe extern "C" fn before_dlopen(path: *const c_char, flags: c_int, caller: usize) {
    resolve(&REAL_DLOPEN, &DLOPEN);
    if flags & libc::RTLD_DEEPBIND == 0 || path.is_null() || comes_from_driver(caller) {
        return;
    }
    let errno = gpuquota_region::sys::KeepErrno::new();
    // SAFETY: dlopen is called with null or a C string.
    let path = unsafe { CStr::from_ptr(path) };
    for library in [&LIBCUDA, &LIBNVML] {
        if !library.adopt() && mentions(path, library.soname) {
            loader::open(library.soname, libc::RTLD_LAZY | libc::RTLD_LOCAL);
            library.adopt();
        }
    }
    drop(errno);
}

/// Whether a file contains the name of a library, which it may link or open.
fn mentions(path: &CStr, soname: &CStr) -> bool {
    let Ok(file) = gpuquota_region::sys::Descriptor::open(path, libc::O_RDONLY | libc::O_NOCTTY, 0) else {
        return false;
    };
    let needle = soname.to_bytes();
    let mut buffer = [0u8; 16384];
    let mut offset = 0u64;
    while let Ok(read) = file.read_at(&mut buffer, offset) {
        if read.windows(needle.len().max(1)).any(|window| window == needle) {
            return true;
        }
        // A name may lie across two reads.
        match read.len().checked_sub(needle.len()) {
            Some(step @ 1..) if read.len() == 16384 => offset = offset.saturating_add(step as u64),
            _ => return false,
        }
    }
    false
}
