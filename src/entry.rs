//! The doors beside the exports of `hook`: `dlsym`, `dlvsym`, and `dlopen`, which only observes. They jump on to the real functions
//! with the caller's own return address on the stack, because glibc identifies the caller by it (RTLD_NEXT, RTLD_DEFAULT,
//! RUNPATH).
//!
//! # Safety
//! This file may use `unsafe` because it exports three functions of the loader. They are naked: they save the argument
//! registers, call a Rust function that decides, and then return its answer or jump.
#![allow(unsafe_code)]

use crate::driver::is_driver_code;
use crate::driver::library::Library;
use crate::driver::loader::{self, DLOPEN, DLSYM, DLVSYM, LoaderFunction};
use crate::driver::sys::{LIBCUDA, LIBNVML};
use crate::driver::watch;
use crate::thread;
use crate::trace::{self, Door};
use core::arch::naked_asm;
use core::ffi::{CStr, c_char, c_int, c_void};
use core::ptr::null_mut;
use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use gpuquota_region::sys::KeepErrno;

/// The targets of the naked functions' jumps. They are not exported, so the code reaches them relative to the program
/// counter.
static REAL_DLSYM: AtomicUsize = AtomicUsize::new(0);
static REAL_DLVSYM: AtomicUsize = AtomicUsize::new(0);
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

/// As the loader's `dlvsym`, but for the functions that we intercept.
///
/// # Safety
/// As dlvsym(3).
#[unsafe(naked)]
#[unsafe(no_mangle)]
#[cfg(target_arch = "x86_64")]
pub unsafe extern "C" fn dlvsym(
    handle: *mut c_void,
    name: *const c_char,
    version: *const c_char,
) -> *mut c_void {
    naked_asm!(
        "push rdi",
        "push rsi",
        "push rdx",
        "mov rcx, [rsp + 24]",
        "call {decide}",
        "mov rcx, rdx",
        "pop rdx",
        "pop rsi",
        "pop rdi",
        "test rcx, rcx",
        "jnz 2f",
        "jmp qword ptr [rip + {real}]",
        "2: ret",
        decide = sym decide_dlvsym,
        real = sym REAL_DLVSYM,
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

/// As the loader's `dlvsym`, but for the functions that we intercept.
///
/// # Safety
/// As dlvsym(3).
#[unsafe(naked)]
#[unsafe(no_mangle)]
#[cfg(target_arch = "aarch64")]
pub unsafe extern "C" fn dlvsym(
    handle: *mut c_void,
    name: *const c_char,
    version: *const c_char,
) -> *mut c_void {
    naked_asm!(
        "stp x29, x30, [sp, #-48]!",
        "stp x0, x1, [sp, #16]",
        "str x2, [sp, #32]",
        "mov x3, x30",
        "bl {decide}",
        "mov x9, x0",
        "mov x10, x1",
        "ldp x0, x1, [sp, #16]",
        "ldr x2, [sp, #32]",
        "ldp x29, x30, [sp], #48",
        "cbnz x10, 2f",
        "adrp x9, {real}",
        "ldr x9, [x9, :lo12:{real}]",
        "br x9",
        "2: mov x0, x9",
        "ret",
        decide = sym decide_dlvsym,
        real = sym REAL_DLVSYM,
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

/// Runs before the program does. A program that is linked to the driver may find its functions without calling the
/// loader, and one that is not may ask whether they are there.
#[used]
#[unsafe(link_section = ".init_array")]
static START: extern "C" fn() = start;

extern "C" fn start() {
    let errno = KeepErrno::new();
    watch::start();
    drop(errno);
}

/// The library and the hook of an intercepted name. For almost all names the first two letters decide.
fn intercepted(name: &CStr) -> Option<(&'static Library, Option<*mut c_void>)> {
    let library = match name.to_bytes() {
        [b'c', b'u', ..] => &LIBCUDA,
        [b'n', b'v', b'm', b'l', ..] => &LIBNVML,
        _ => return None,
    };
    Some((library, loader::hook(name)))
}

/// Whether a call of `caller` comes from the driver amid one of our hooks.
fn comes_from_driver(caller: usize) -> bool {
    thread::frame().is_some() && is_driver_code(caller)
}

/// `caller`: the return address.
unsafe extern "C" fn decide_dlsym(handle: *mut c_void, name: *const c_char, caller: usize) -> DlsymDecision {
    resolve(&REAL_DLSYM, &DLSYM);
    // SAFETY: dlsym is called with a C string or null.
    unsafe { decide(handle, name, caller, &|handle, name| loader::look_up(handle, name)) }
}

unsafe extern "C" fn decide_dlvsym(
    handle: *mut c_void,
    name: *const c_char,
    version: *const c_char,
    caller: usize,
) -> DlsymDecision {
    resolve(&REAL_DLVSYM, &DLVSYM);
    // SAFETY: as above.
    unsafe { decide(handle, name, caller, &|handle, name| loader::look_up_version(handle, name, version)) }
}

/// Decides on a look-up of `name`; `look_up` makes it, if its answer does not depend on the caller.
///
/// # Safety
/// The name is a C string or null.
unsafe fn decide(
    handle: *mut c_void,
    name: *const c_char,
    caller: usize,
    look_up: &dyn Fn(*mut c_void, &CStr) -> *mut c_void,
) -> DlsymDecision {
    // Within a hook the driver must get its own function.
    if name.is_null() || comes_from_driver(caller) {
        return CALL_REAL;
    }
    loader::take_over();
    // SAFETY: by the caller.
    let name = unsafe { CStr::from_ptr(name) };
    let Some((library, hook)) = intercepted(name) else {
        watch::look_if_opened();
        return CALL_REAL;
    };
    watch::look();
    if watch::is_driver(caller) {
        return CALL_REAL;
    }
    trace::looked_up(Door::Dlsym, name, hook.is_some());
    let Some(hook) = hook else {
        let is_lone = handle == libc::RTLD_NEXT || !library.has_several_copies();
        let answer = if is_lone { null_mut() } else { look_up(handle, name) };
        return library.stand_in(name, answer).map_or(CALL_REAL, decided);
    };
    let real = if library.adopt() { library.real(name) } else { None };
    // Where no driver is loaded the loader would find our export, and the program must find nothing.
    let nothing = |handle| look_up(handle, c"a function of a CUDA driver that is not loaded");
    if handle == libc::RTLD_NEXT {
        // The real answer depends on the caller. With a redirected driver it is our hook already.
        return match real {
            Some(_) if library.is_redirected() => CALL_REAL,
            Some(_) => decided(hook),
            None => decided(nothing(libc::RTLD_DEFAULT)),
        };
    }
    if handle == libc::RTLD_DEFAULT {
        return decided(if real.is_some() { hook } else { nothing(handle) });
    }
    let answer = look_up(handle, name);
    let is_hooked = answer == hook || real == Some(answer) || library.role_at(answer as usize).is_some();
    decided(match real {
        _ if answer.is_null() || !is_hooked => answer,
        Some(_) => hook,
        None => nothing(handle),
    })
}

/// What a program opens with RTLD_DEEPBIND finds the driver's exports before ours, so only a redirected driver leads it to
/// our hooks. It may name the driver in any way and at any time, so the driver is opened and redirected before.
unsafe extern "C" fn before_dlopen(path: *const c_char, flags: c_int, caller: usize) {
    resolve(&REAL_DLOPEN, &DLOPEN);
    if comes_from_driver(caller) {
        return watch::opens(true);
    }
    let errno = KeepErrno::new();
    loader::take_over();
    watch::look_if_opened();
    let by_driver = watch::is_driver(caller);
    if !path.is_null() && !by_driver && flags & libc::RTLD_NOLOAD == 0 {
        // SAFETY: dlopen is called with null or a C string.
        let path = unsafe { CStr::from_ptr(path) };
        watch::open_first(path, flags, caller);
        if flags & libc::RTLD_DEEPBIND != 0 {
            watch::open_all();
        }
    }
    watch::opens(by_driver);
    drop(errno);
}
