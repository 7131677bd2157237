//! How does the world get in? Linked calls reach the exports of `hook`; this file adds `dlsym`, and `dlopen` as a
//! mere observer. Both jump on to the real functions with the caller's own return address on the stack, because
//! glibc tells by it who asks (RTLD_NEXT, RTLD_DEFAULT, RUNPATH).
//!
//! # Safety
//! This file may use `unsafe` because it exports two functions of the loader: naked ones, which save what a function
//! may not lose, ask a decision of Rust's, and then return its answer or jump.
#![allow(unsafe_code)]

use crate::driver::library::Library;
use crate::driver::loader::{self, DLOPEN, DLSYM, LoaderFunction};
use crate::driver::sys::{LIBCUDA, LIBNVML};
use crate::thread::HookGuard;
use core::arch::naked_asm;
use core::ffi::{CStr, c_char, c_int, c_void};
use core::ptr::null_mut;
use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Where the naked functions jump to. Not exported: they are reached relative to the program counter.
static REAL_DLSYM: AtomicUsize = AtomicUsize::new(0);
static REAL_DLOPEN: AtomicUsize = AtomicUsize::new(0);

/// What `dlsym` shall do.
#[repr(C)]
struct DlsymDecision {
    answer: *mut c_void,
    /// 1: return `answer`; 0: jump to the real one.
    decided: usize,
}

const GO_ON: DlsymDecision = DlsymDecision { answer: null_mut(), decided: 0 };

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

/// Without a loader function to jump to (no libc has ever lacked them): finds nothing.
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

/// The library and the hook of an intercepted name. Almost all names fail at their first two letters.
fn intercepted(name: &CStr) -> Option<(&'static Library, *mut c_void)> {
    let library = match name.to_bytes() {
        [b'c', b'u', ..] => &LIBCUDA,
        [b'n', b'v', b'm', b'l', ..] => &LIBNVML,
        _ => return None,
    };
    Some((library, loader::hook(name)?))
}

unsafe extern "C" fn decide_dlsym(handle: *mut c_void, name: *const c_char) -> DlsymDecision {
    resolve(&REAL_DLSYM, &DLSYM);
    if name.is_null() {
        return GO_ON;
    }
    // SAFETY: dlsym is called with a C string.
    let name = unsafe { CStr::from_ptr(name) };
    let Some((library, hook)) = intercepted(name) else { return GO_ON };
    // The driver itself asks: it must have its own.
    if HookGuard::is_entered() {
        return GO_ON;
    }
    let real = if library.adopt() { library.real(name) } else { None };
    let hook = real.map(|_| hook);
    if handle == libc::RTLD_NEXT {
        // Its answer depends on who asks. A redirected driver answers with our hook by itself.
        return match hook {
            Some(hook) if !library.is_redirected() => decided(hook),
            _ => GO_ON,
        };
    }
    if handle == libc::RTLD_DEFAULT {
        // The loader would find our export even where no driver is loaded.
        return decided(hook.unwrap_or_else(|| {
            loader::look_up(libc::RTLD_DEFAULT, c"a function of a CUDA driver that is not loaded")
        }));
    }
    let answer = loader::look_up(handle, name);
    let Some(hook) = hook.filter(|_| !answer.is_null()) else { return decided(answer) };
    let is_ours = answer == hook || real == Some(answer);
    decided(if is_ours { hook } else { answer })
}

/// A plugin opened with RTLD_DEEPBIND sees the driver before it sees us, and libc's `dlsym` before ours: only a
/// redirected driver leads it here. So the driver must be loaded, and redirected, before such a plugin is bound,
/// if the plugin asks for a driver at all.
unsafe extern "C" fn before_dlopen(path: *const c_char, flags: c_int) {
    resolve(&REAL_DLOPEN, &DLOPEN);
    if flags & libc::RTLD_DEEPBIND == 0 || path.is_null() || HookGuard::is_entered() {
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

/// Whether a file contains the name of a library, be it to link it or to open it.
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
