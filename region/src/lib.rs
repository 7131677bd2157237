//! The shared region: one file per container, mapped by every process under the quota and read by the node.
//!
//! The region is a public ABI. `include/gpuquota_region.h` is its specification; [`layout`] says the same in Rust,
//! with every size and offset asserted at compile time. The rooms:
//!
//! - [`layout`]: what bytes do processes agree on? Only atomics: no lock, no pointer, no `sem_t`.
//! - [`hami`]: the first 2,008,952 bytes, kept as a *view* for monitors that know HAMi's region v1.2.
//! - [`file`](mod@file): how a file becomes a region: opened or created in place, verified first, published last.
//! - [`lock`]: who is alive? Locks that the kernel drops when a process dies, whichever way it dies.
//! - [`slot`]: a process's own record: claimed, held while it lives, given back or found dead.
//! - [`snapshot`]: a bounded, distrustful reader for everybody outside the container.
//! - [`sys`]: the few system calls beneath, in one place.
//!
//! The crate is `no_std` because the preloaded library is (see `docs/design.md`, "Why no_std"), and it has no
//! path that panics: a damaged file yields an error or a clamped number.

#![no_std]

#[cfg(test)]
extern crate std;

pub mod file;
pub mod hami;
pub mod layout;
pub mod lock;
pub mod slot;
pub mod snapshot;
pub mod sys;

pub use file::{OpenError, Region};
pub use snapshot::{EventView, Refusal, Snapshot};
