//! The shared region: one file per container, mapped by every process under the quota and read by the node.
//!
//! The region is a public ABI. `include/gpuquota_region.h` is its specification, `docs/region.md` explains it, and
//! [`layout`] says the same in Rust. The modules, each of which uses only those above it:
//!
//! - [`sys`]: the few system calls, in one place.
//! - [`check`]: macros that hold records and constants to what is published of them.
//! - [`hami`]: the first 2,008,952 bytes, kept as a *view* for monitors that know HAMi's region v1.2.
//! - [`layout`]: the bytes that processes agree on. Only atomics: no lock, no pointer, no `sem_t`.
//! - [`lock`]: locks that tell which processes are alive; the kernel drops them when a process dies, whichever way it dies.
//! - [`header`]: the head of a region as bytes: which version made it, and where its records lie.
//! - [`file`](mod@file): how a file becomes a region: opened or created in place, verified first, published last.
//! - [`limits`]: the limits that processes brought and the operator set, and those in force.
//! - [`slot`]: a process's own record: claimed, held while it lives, cleared by another process once it is dead.
//! - [`snapshot`]: a bounded, distrustful reader for programs outside the container.
//! - [`abi`]: the whole ABI as data, for tests.
//!
//! The crate is `no_std` because the preloaded library is (see `docs/design.md`, "Why no_std"), and it has no
//! path that panics: a damaged file yields an error or a clamped number.

#![no_std]
#![warn(
    clippy::cast_lossless,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss
)]

#[cfg(test)]
extern crate std;

pub mod abi;
pub mod check;
pub mod file;
pub mod hami;
pub mod header;
pub mod layout;
pub mod limits;
pub mod lock;
pub mod slot;
pub mod snapshot;
pub mod sys;

pub use file::{OpenError, Region};
pub use snapshot::{EventView, Refusal, Snapshot};
