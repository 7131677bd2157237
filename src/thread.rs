//! The one word that each thread has: whether it is inside a hook.
//!
//! A driver calls back into what it exports (`dlsym` from inside, one exported function from another): such a call
//! must reach the real function and must not be accounted twice. So a thread that is inside a hook passes straight
//! through all others.
//!
//! # Safety
//! This room may use `unsafe` because stable Rust has no thread-local storage without its standard library: the
//! word is declared and reached in assembly, in the initial-exec model (an offset from the thread pointer). That is
//! also the only model that neither allocates nor can fail in a signal handler, and it needs no destructor, so
//! hooks work in exit handlers.
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

/// A number that no other thread of the process has now.
#[inline]
pub fn number() -> u64 {
    word() as u64
}

/// A number that tells most threads apart in its last bits: their words lie a stack apart.
#[inline(always)]
pub fn spread() -> usize {
    let number = word() as usize;
    number >> 12 ^ number >> 23
}

/// Held while a thread is inside a hook.
pub struct Inside(());

impl Inside {
    /// Enters; `None` if the thread is inside a hook already.
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

impl Drop for Inside {
    #[inline(always)]
    fn drop(&mut self) {
        // SAFETY: as in `enter`.
        unsafe { *word() = 0 };
    }
}
