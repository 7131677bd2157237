//! The library's thread-local words: whether the thread is inside a hook, and who it is.
//!
//! A driver calls its own exports (through `dlsym`, or one exported function from another). Such a call must reach
//! the real function and must not be charged twice. So a thread that is inside a hook passes the driver's calls through;
//! `hook::gate` tells them from the calls of a signal handler that has interrupted the hook.
//!
//! The first word is the address at which the hook's return address lies on the stack. A thread may leave a hook without a
//! return, by `siglongjmp` or by a C++ exception; then the word is stale, and a later call from the same or an outer frame
//! shows it, because the stack grows downward.
//!
//! # Safety
//! This file may use `unsafe` because stable Rust has no thread-local storage without its standard library. Assembly
//! declares and reaches the words, in the initial-exec model (an offset from the thread pointer). No other model
//! neither allocates nor fails in a signal handler. The words need no destructor, so hooks work in exit handlers.
#![allow(unsafe_code)]

use core::arch::{asm, global_asm};
use gpuquota_region::sys;

global_asm!(
    ".pushsection .tbss,\"awT\",@nobits",
    ".balign 16",
    ".hidden gpuquota_thread",
    ".globl gpuquota_thread",
    ".type gpuquota_thread,@object",
    ".size gpuquota_thread,16",
    "gpuquota_thread:",
    ".zero 16",
    ".popsection",
);

/// In [`Words::frame`]: the thread is in no hook.
const OUTSIDE: usize = 1;

/// A thread's words. The assembly of `hook::gate` knows their places.
#[repr(C)]
struct Words {
    /// Where the return address of the outermost hook lies; [`OUTSIDE`]; or 0 before the thread's first hook.
    frame: usize,
    /// See [`tag`].
    tag: u32,
    /// Hooks under way that were called by a signal handler amid another hook.
    nested: u32,
}

/// This thread's words.
#[inline(always)]
fn words() -> *mut Words {
    let words: *mut Words;
    #[cfg(target_arch = "x86_64")]
    // SAFETY: reads the thread pointer and the words' offset from it, which never change.
    unsafe {
        asm!(
            "mov {words}, qword ptr [rip + gpuquota_thread@GOTTPOFF]",
            "add {words}, qword ptr fs:[0]",
            words = out(reg) words,
            options(nostack, pure, nomem),
        );
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: as above.
    unsafe {
        asm!(
            "mrs {words}, tpidr_el0",
            "adrp {offset}, :gottprel:gpuquota_thread",
            "ldr {offset}, [{offset}, :gottprel_lo12:gpuquota_thread]",
            "add {words}, {words}, {offset}",
            words = out(reg) words,
            offset = out(reg) _,
            options(nostack, pure, nomem),
        );
    }
    words
}

/// In [`tag`]: always set.
pub const TAGGED: u32 = 1 << 31;

/// The thread's number in the kernel, with [`TAGGED`]. Zero before the thread's first hook.
#[inline(always)]
pub fn tag() -> u32 {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: as in `words`; reads the word at offset 8 of them.
    unsafe {
        let tag: u32;
        asm!(
            "mov {tag:r}, qword ptr [rip + gpuquota_thread@GOTTPOFF]",
            "mov {tag:e}, dword ptr fs:[{tag:r} + 8]",
            tag = out(reg) tag,
            options(nostack, pure, readonly, preserves_flags),
        );
        tag
    }
    #[cfg(not(target_arch = "x86_64"))]
    // SAFETY: the word is this thread's own and lives as long as the thread.
    unsafe {
        (*words()).tag
    }
}

/// A number that no other living thread of the process has.
#[inline]
pub fn number() -> u64 {
    words() as u64
}

/// A number whose last bits differ between most threads: their words lie a stack apart.
#[inline(always)]
pub fn spread() -> usize {
    let number = words() as usize;
    number >> 12 ^ number >> 23
}

/// Learns this thread's number: at its first hook, and in a child made by fork, whose only thread has another number than
/// in the parent.
#[cold]
pub fn learn_id() {
    // SAFETY: the word is this thread's own and lives as long as the thread.
    unsafe { (*words()).tag = sys::thread_id() | TAGGED };
}

/// Whether the thread is in a hook that a signal handler has called amid another hook: what the thread holds below is held
/// by code that goes on later.
#[inline]
pub fn is_nested() -> bool {
    // SAFETY: as in `words`.
    unsafe { (*words()).nested != 0 }
}

/// The thread enters a hook that lies at `frame` on its stack, and is in no other one.
#[cold]
pub fn enter_at(frame: usize) {
    // SAFETY: as in `words`.
    unsafe {
        (*words()).frame = frame;
        (*words()).nested = 0;
    }
}

/// Where the outermost hook of this thread lies on the stack, if the thread is inside one.
#[inline]
pub fn frame() -> Option<usize> {
    // SAFETY: as in `words`.
    Some(unsafe { (*words()).frame }).filter(|frame| *frame > OUTSIDE)
}

/// Whether this thread has met a hook before.
pub fn is_known() -> bool {
    // SAFETY: as in `words`.
    unsafe { (*words()).frame != 0 }
}

/// A thread holds this guard while it is inside a hook.
pub struct HookGuard(());

impl HookGuard {
    /// The guard of a hook that `hook::gate` has entered.
    #[inline(always)]
    #[cfg_attr(test, allow(dead_code))]
    pub fn entered() -> Self {
        Self(())
    }

    /// Enters a hook that was not called through `hook::gate`; `None` if the thread is inside one already.
    pub fn enter() -> Option<Self> {
        if frame().is_some() {
            return None;
        }
        let here = 0u8;
        enter_at(core::ptr::from_ref(&here) as usize);
        learn_id();
        Some(Self(()))
    }
}

impl Drop for HookGuard {
    #[inline(always)]
    fn drop(&mut self) {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as in `words`; the first word, at an offset from the thread pointer.
        unsafe {
            asm!(
                "mov {offset}, qword ptr [rip + gpuquota_thread@GOTTPOFF]",
                "mov qword ptr fs:[{offset}], {outside}",
                offset = out(reg) _,
                outside = const OUTSIDE,
                options(nostack, preserves_flags),
            );
        }
        #[cfg(not(target_arch = "x86_64"))]
        // SAFETY: as in `words`.
        unsafe {
            (*words()).frame = OUTSIDE;
        }
    }
}

#[cfg(test)]
pub mod tests {
    use super::words;

    /// As in a hook that a signal handler has called amid another one.
    pub fn nested(action: impl FnOnce()) {
        // SAFETY: as in `words`.
        unsafe { (*words()).nested = 1 };
        action();
        // SAFETY: as in `words`.
        unsafe { (*words()).nested = 0 };
    }
}
