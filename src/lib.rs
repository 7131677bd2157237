//! libgpuquota.so: preloaded into every process of a container.
//!
//! The floors, bottom up. Each imports only from those before it, and a test checks this:
//!
//! - tools: [`lock`], [`thread`] (the library's thread-local word), [`environment`], [`trace`], [`uuid`];
//! - [`driver`]: the real libraries: slots, symbol tables, typed questions to CUDA and NVML;
//! - [`container`]: the state that its processes share: the region, this process's slot, the limits;
//! - [`devices`]: the device of the region that a call acts on, and the limits there;
//! - [`memory`]: bytes: admitted before the call of the driver, committed or rolled back after it;
//! - [`time`]: GPU time: when may a launch go, and how long did it take?
//! - [`view`]: the container's slice of a device, as tools see it;
//! - [`process`]: the composition of these parts, with lazy start and fork;
//! - [`hook`]: the steps round every intercepted call: one entry per symbol;
//! - [`entry`]: `dlsym` and `dlopen`, which jump on to the real ones.
//!
//! `gpuquota-quota`, below these, decides what is allowed; `gpuquota-region` has the bytes on which processes agree.
//!
//! When a process loads the library it looks once at the names of the loaded objects, and does no more where none is
//! NVIDIA's: no thread, no file, no system call. It is `no_std` and needs libc alone.
//! Its release build contains no panic: the handler below calls a function that does not exist, so a reachable panic is a
//! link error (`docs/design.md`, "Why no_std").
//!
//! Unit tests link `std` and leave [`hook`] and [`entry`] out, so that a test process calls the real functions.

#![no_std]
// What is exported is left out of tests, and much of the rest is used by it alone.
#![cfg_attr(test, allow(dead_code, unused_imports))]

#[cfg(test)]
extern crate std;

mod container;
mod devices;
mod driver;
#[cfg(not(test))]
mod entry;
mod environment;
#[cfg(not(test))]
mod hook;
mod lock;
mod memory;
mod process;
mod thread;
mod time;
mod trace;
mod uuid;
mod view;

#[cfg(not(any(test, debug_assertions)))]
mod no_panic {
    //! # Safety
    //! The one `unsafe` call here is never linked: see the crate's documentation.
    #![allow(unsafe_code)]

    unsafe extern "C" {
        fn gpuquota_would_panic() -> !;
    }

    #[panic_handler]
    fn panic(_: &core::panic::PanicInfo) -> ! {
        // SAFETY: a program that contains this call does not link.
        unsafe { gpuquota_would_panic() }
    }
}

#[cfg(all(not(test), debug_assertions))]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    loop {
        core::hint::spin_loop();
    }
}
