//! libgpuquota.so: preloaded into every process of a container.
//!
//! The floors, bottom up; each imports only from those before it (a test holds this):
//!
//! - tools: [`lock`], [`thread`] (the one word that each thread has), [`environment`], [`uuid`];
//! - [`driver`]: the real libraries: slots, symbol tables, typed questions to CUDA and NVML;
//! - [`container`]: what its processes share: the region, this process's slot, the limits;
//! - [`devices`]: which device of the region is meant, and what is allowed on it;
//! - [`memory`]: bytes: admitted before the driver is called, committed or rolled back after it;
//! - [`time`]: GPU time: when may a launch go, and how long did it take?
//! - [`view`]: the container's slice as its tools shall see it;
//! - [`process`]: these parts, composed, with lazy start and fork;
//! - [`hook`]: what happens round every intercepted call: one entry per symbol;
//! - [`entry`]: `dlsym` and `dlopen`, which jump on to the real ones.
//!
//! What is allowed is decided below, in `gpuquota-quota`; what processes agree on lies in `gpuquota-region`.
//!
//! Nothing runs when the library is loaded: no constructor, no thread, no file. It is `no_std`, needs libc alone,
//! and its release build contains no panic: the handler below calls a function that does not exist, so a reachable
//! panic is a link error (`docs/design.md`, "Why no_std").
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
