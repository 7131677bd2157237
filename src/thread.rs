//! The library's one thread-local word: it says whether the thread is inside a hook.
//!
//! A driver calls its own exports (through `dlsym`, or one exported function from another). Such a call must reach
//! the real function and must not be charged twice. So a thread that is inside a hook passes through all other hooks.
//!
//! # Safety
//! This file may use `unsafe` because stable Rust has no thread-local storage without its standard library. Assembly
//! declares and reaches the word, in the initial-exec model (an offset from the thread pointer). No other model
//! neither allocates nor fails in a signal handler. The word needs no destructor, so hooks work in exit handlers.
#![allow(unsafe_code)]

use core::arch::{asm, global_asm};

global_asm!(
    ".pushsection .tbss,\"awT\",@nobits",
    ".balign 8",
    ".hidden gpuquota_thread",
    ".globl gpuquota_thread",
    ".type gpuquota_thread,@object",
    ".size gpuquota_thread,8",
    "gpuquota_thread:",
    ".zero 8",
    ".popsection",
);

/// This thread's word.
#[inline(always)]
fn word() -> *mut u64 {
    let word: *mut u64;
    #[cfg(target_arch = "x86_64")]
    // SAFETY: reads the thread pointer and the word's offset from it; touches no other state.
    unsafe {
        asm!(
            "mov {word}, qword ptr [rip + gpuquota_thread@GOTTPOFF]",
            "add {word}, qword ptr fs:[0]",
            word = out(reg) word,
            options(nostack, pure, readonly),
        );
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: as above.
    unsafe {
        asm!(
            "mrs {word}, tpidr_el0",
            "adrp {offset}, :gottprel:gpuquota_thread",
            "ldr {offset}, [{offset}, :gottprel_lo12:gpuquota_thread]",
            "add {word}, {word}, {offset}",
            word = out(reg) word,
            offset = out(reg) _,
            options(nostack, pure, readonly),
        );
    }
    word
}

/// A number that no other living thread of the process has.
#[inline]
pub fn number() -> u64 {
    word() as u64
}

/// A number whose last bits differ between most threads: their words lie a stack apart.
#[inline(always)]
pub fn spread() -> usize {
    let number = word() as usize;
    number >> 12 ^ number >> 23
}

/// A thread holds this guard while it is inside a hook.
pub struct HookGuard(());

impl HookGuard {
    /// Enters a hook; `None` if the thread is inside one already.
    #[inline(always)]
    pub fn enter() -> Option<Self> {
        let word = word();
        // SAFETY: the word is this thread's own and lives as long as the thread.
        unsafe {
            if *word != 0 {
                return None;
            }
            *word = 1;
        }
        Some(Self(()))
    }

    /// Whether this thread is inside a hook.
    #[inline]
    pub fn is_entered() -> bool {
        // SAFETY: as in `enter`.
        unsafe { *word() != 0 }
    }
}

impl Drop for HookGuard {
    #[inline(always)]
    fn drop(&mut self) {
        // SAFETY: as in `enter`.
        unsafe { *word() = 0 };
    }
}
