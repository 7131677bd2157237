//! libgpuquota.so: preloaded into every process of a container.
//!
//! A stranger's way in, from the outside to the core:
//!
//! - [`entry`]: how does the world get in? `dlsym` and `dlopen`, which jump on to the real ones.
//! - [`hook`]: what happens round every intercepted call? The gate, the table, one entry per symbol.
//! - [`driver`]: where are the real functions?
//! - [`process`]: this process: its region, its slot, its limits; lazy start, fork; what its [`environment`] says.
//! - [`device`]: which device of the region is meant?
//! - [`account`]: bytes: reserve, call the driver, commit or roll back; who holds what ([`holdings`]).
//! - [`overhead`]: bytes that the driver takes without being asked: contexts, code, heaps; measured.
//! - [`kept`]: bytes that the driver keeps for later: pools, and the memory of graphs.
//! - [`spill`]: bytes that lie on the host because there is no room on the device.
//! - [`meter`]: GPU time: when may a launch go, and how long did it take?
//! - [`holders`]: who of the container holds what of a device?
//! - [`report`]: the container's slice as its tools shall see it.
//! - [`thread`]: the one word that each thread has.
//! - [`lock`]: the lock of lanes and holdings.
//!
//! What is allowed is decided below, in `gpuquota-quota`; what processes agree on lies in `gpuquota-region`.
//!
//! Nothing runs when the library is loaded: no constructor, no thread, no file. It is `no_std`, needs libc alone,
//! and its release build contains no panic: the handler below calls a function that does not exist, so a reachable
//! panic is a link error (`docs/design.md`, "Why no_std").

#![no_std]

mod account;
mod device;
mod driver;
mod entry;
mod environment;
mod feedback;
mod holders;
mod holdings;
mod hook;
mod kept;
mod lock;
mod meter;
mod overhead;
mod process;
mod report;
mod spill;
mod thread;

#[cfg(not(debug_assertions))]
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

#[cfg(debug_assertions)]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    loop {
        core::hint::spin_loop();
    }
}
