//! The shared region: one file per container, mapped by every process under the quota and read by the node.
//!
//! The region is a public ABI. `include/gpuquota_region.h` is its specification, `docs/region.md` explains it, and
//! [`layout`] says the same in Rust. The modules, each of which uses only those above it:
//!
//! - `uncancelled`: system calls that are no points of cancellation;
//! - `clock`: clocks, and sleeps until a time;
//! - [`paths`]: paths that are put together without memory;
//! - [`sys`]: the few system calls, in one place; [`links`]: those on names of files.
//! - [`check`]: macros that hold records and constants to what is published of them.
//! - [`hami`]: the first 2,008,952 bytes, kept as a *view* for monitors that know HAMi's region v1.2.
//! - [`layout`]: the bytes that processes agree on. Only atomics: no lock, no pointer, no `sem_t`.
//! - [`lock`]: locks that tell which processes are alive; the kernel drops them when a process dies, whichever way it dies.
//! - `removed`: a region without a name that living processes hold; [`names`]: the two names of a region's file.
//! - [`kept`]: the descriptor of that file that a process keeps.
//! - [`fault`]: SIGBUS while the region's file is too short.
//! - [`header`]: the head of a region as bytes: which version made it, and where its records lie.
//! - [`examine`]: what is a file that is to become a region, and who holds it?
//! - [`file`](mod@file): how a file becomes a region: opened or created in place, verified first, published last.
//! - [`lost`]: the contents of a region that processes hold are lost, and are made anew.
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
mod clock;
pub mod examine;
pub mod fault;
pub mod file;
pub mod hami;
pub mod header;
pub mod kept;
pub mod layout;
pub mod limits;
pub mod links;
pub mod lock;
pub mod lost;
pub mod names;
pub mod paths;
mod removed;
pub mod slot;
pub mod snapshot;
pub mod sys;
#[cfg(not(miri))]
mod uncancelled;
// Miri knows system calls only by the names of the C library.
#[cfg(miri)]
#[path = "cancelled.rs"]
mod uncancelled;

pub use file::{OpenError, Region};
pub use snapshot::{EventView, Refusal, Snapshot};
