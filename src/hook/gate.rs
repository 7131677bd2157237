//! The gate in front of every hook: is this call the program's, or does the driver call its own export?
//!
//! Each export is a few instructions of assembly that write down where the hook lies on the stack and jump to its body. If
//! the thread is inside a hook already, [`decide`] looks at the caller:
//!
//! - it is the driver: the call goes straight to the real function, for it is part of a call that is accounted;
//! - it is anybody else: the call is the program's, and is accounted. Either the program has left the outer hook without a
//!   return (`siglongjmp`, an exception), or a signal handler has interrupted it, or the driver has called the program
//!   back. In the last two cases the outer hook goes on later, and its locks are its own: see `lock`.
//!
//! # Safety
//! This file may use `unsafe` because assembly hands it one of our static slots, and because it is that assembly.
#![allow(unsafe_code)]

use crate::driver;
use crate::driver::library::Real;
use crate::thread;
use core::arch::naked_asm;
use core::ffi::c_void;
use gpuquota_region::sys::{self, KeepErrno};

/// The way of a call that comes while the thread is not known to be outside all hooks.
#[repr(C)]
struct Way {
    /// Where the call goes on.
    target: usize,
    /// 1: to the body of a hook amid another one.
    nested: usize,
}

/// Decides on the way of a call of `caller`. `frame`: where the export has found the stack.
unsafe extern "C" fn decide(
    frame: usize,
    caller: usize,
    real: *const Real<Erased>,
    body: usize,
    missing: usize,
) -> Way {
    let _errno = KeepErrno::new();
    let anew = || {
        thread::enter_at(frame);
        Way { target: body, nested: 0 }
    };
    if !thread::is_known() {
        thread::learn_id();
        return anew();
    }
    let Some(outer) = thread::frame() else { return anew() };
    if driver::is_driver_code(caller) {
        // SAFETY: a static slot of ours.
        let real = unsafe { &*real };
        return Way { target: real.address().map_or(missing, |real| real as usize), nested: 0 };
    }
    if frame >= outer && !sys::on_signal_stack() {
        return anew();
    }
    Way { target: body, nested: 1 }
}

/// Some function. A [`Real`] of any type looks like one of this type.
pub type Erased = unsafe extern "C" fn() -> *mut c_void;

/// The cold part of every export: calls [`decide`] and goes where it says. The export leaves its body, its slot and its answer
/// without a driver in r10, r11 and rax. A nested body gets copies of as many words of arguments on the stack as any hook
/// has, and the word of the outer hook is written again after it.
#[unsafe(naked)]
#[cfg(target_arch = "x86_64")]
pub unsafe extern "C" fn reenter() {
    naked_asm!(
        ".cfi_startproc",
        "push rbp",
        ".cfi_def_cfa_offset 16",
        ".cfi_offset rbp, -16",
        "mov rbp, rsp",
        ".cfi_def_cfa_register rbp",
        "push rdi",
        "push rsi",
        "push rdx",
        "push rcx",
        "push r8",
        "push r9",
        "lea rdi, [rbp + 8]",
        "mov rsi, qword ptr [rbp + 8]",
        "mov rdx, r11",
        "mov rcx, r10",
        "mov r8, rax",
        "call {decide}",
        "mov r11, rax",
        "mov rax, rdx",
        "pop r9",
        "pop r8",
        "pop rcx",
        "pop rdx",
        "pop rsi",
        "pop rdi",
        "test rax, rax",
        "jnz 2f",
        ".cfi_remember_state",
        "pop rbp",
        ".cfi_def_cfa rsp, 8",
        "jmp r11",
        ".cfi_restore_state",
        "2: sub rsp, 16",
        "mov rax, qword ptr [rip + gpuquota_thread@GOTTPOFF]",
        "mov r10, qword ptr fs:[rax]",
        "mov qword ptr [rbp - 8], r10",
        "inc dword ptr fs:[rax + 12]",
        "push qword ptr [rbp + 56]",
        "push qword ptr [rbp + 48]",
        "push qword ptr [rbp + 40]",
        "push qword ptr [rbp + 32]",
        "push qword ptr [rbp + 24]",
        "push qword ptr [rbp + 16]",
        "call r11",
        "mov rcx, qword ptr [rip + gpuquota_thread@GOTTPOFF]",
        "mov rdx, qword ptr [rbp - 8]",
        "mov qword ptr fs:[rcx], rdx",
        "dec dword ptr fs:[rcx + 12]",
        "leave",
        ".cfi_def_cfa rsp, 8",
        "ret",
        ".cfi_endproc",
        decide = sym decide,
    )
}

/// As above; the export leaves its body, its slot and its answer without a driver in x10, x11 and x12.
#[unsafe(naked)]
#[cfg(target_arch = "aarch64")]
pub unsafe extern "C" fn reenter() {
    naked_asm!(
        ".cfi_startproc",
        "stp x29, x30, [sp, #-96]!",
        ".cfi_def_cfa_offset 96",
        ".cfi_offset x29, -96",
        ".cfi_offset x30, -88",
        "mov x29, sp",
        ".cfi_def_cfa_register x29",
        "stp x0, x1, [sp, #16]",
        "stp x2, x3, [sp, #32]",
        "stp x4, x5, [sp, #48]",
        "stp x6, x7, [sp, #64]",
        "add x0, x29, #96",
        "mov x1, x30",
        "mov x2, x11",
        "mov x3, x10",
        "mov x4, x12",
        "bl {decide}",
        "mov x16, x0",
        "mov x17, x1",
        "ldp x0, x1, [sp, #16]",
        "ldp x2, x3, [sp, #32]",
        "ldp x4, x5, [sp, #48]",
        "ldp x6, x7, [sp, #64]",
        "cbnz x17, 2f",
        ".cfi_remember_state",
        "ldp x29, x30, [sp], #96",
        ".cfi_def_cfa sp, 0",
        "br x16",
        ".cfi_restore_state",
        "2: mrs x9, tpidr_el0",
        "adrp x10, :gottprel:gpuquota_thread",
        "ldr x10, [x10, :gottprel_lo12:gpuquota_thread]",
        "add x9, x9, x10",
        "ldr x10, [x9]",
        "str x10, [x29, #80]",
        "str x9, [x29, #88]",
        "ldr w10, [x9, #12]",
        "add w10, w10, #1",
        "str w10, [x9, #12]",
        "sub sp, sp, #32",
        "ldp x9, x10, [x29, #96]",
        "stp x9, x10, [sp]",
        "ldp x9, x10, [x29, #112]",
        "stp x9, x10, [sp, #16]",
        "blr x16",
        "ldp x10, x9, [x29, #80]",
        "str x10, [x9]",
        "ldr w10, [x9, #12]",
        "sub w10, w10, #1",
        "str w10, [x9, #12]",
        "mov sp, x29",
        "ldp x29, x30, [sp], #96",
        ".cfi_def_cfa sp, 0",
        "ret",
        ".cfi_endproc",
        decide = sym decide,
    )
}

/// The instructions of an export: notes where the hook lies on the stack and goes to its body, unless the thread is inside
/// a hook, or this is its first one.
macro_rules! export {
    ($body:path, $real:path, $missing:path) => {{
        #[cfg(target_arch = "x86_64")]
        core::arch::naked_asm!(
            "mov r11, qword ptr [rip + gpuquota_thread@GOTTPOFF]",
            "cmp qword ptr fs:[r11], 1",
            "jne 2f",
            "mov qword ptr fs:[r11], rsp",
            "jmp {body}",
            "2: lea r10, [rip + {body}]",
            "lea r11, [rip + {real}]",
            "lea rax, [rip + {missing}]",
            "jmp {reenter}",
            body = sym $body,
            real = sym $real,
            missing = sym $missing,
            reenter = sym $crate::hook::gate::reenter,
        );
        #[cfg(target_arch = "aarch64")]
        core::arch::naked_asm!(
            "mrs x9, tpidr_el0",
            "adrp x10, :gottprel:gpuquota_thread",
            "ldr x10, [x10, :gottprel_lo12:gpuquota_thread]",
            "add x9, x9, x10",
            "ldr x10, [x9]",
            "cmp x10, #1",
            "b.ne 2f",
            "mov x10, sp",
            "str x10, [x9]",
            "b {body}",
            "2: adrp x10, {body}",
            "add x10, x10, :lo12:{body}",
            "adrp x11, {real}",
            "add x11, x11, :lo12:{real}",
            "adrp x12, {missing}",
            "add x12, x12, :lo12:{missing}",
            "b {reenter}",
            body = sym $body,
            real = sym $real,
            missing = sym $missing,
            reenter = sym $crate::hook::gate::reenter,
        );
    }};
}
pub(crate) use export;
