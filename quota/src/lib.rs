//! The rules of gpuquota: limits, the memory ledger and the share of GPU time.
//!
//! Time, process ids, liveness and the environment are arguments; there is no
//! unsafe code, no allocation, no clock and no path that panics, because the preloaded library carries this crate
//! into every process of a container.
//!
//! - [`limits`]: what did the operator ask? One knob table, one grammar, every problem named.
//! - [`ledger`]: may these bytes be had, and which journal holds them?
//! - [`arena`]: what is charged for memory that the driver keeps for later?
//! - [`share`]: may this launch go now?
//! - [`text`]: lines for people, built without an allocator.

#![no_std]
#![forbid(unsafe_code)]
#![warn(
    clippy::cast_lossless,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss
)]

#[cfg(test)]
extern crate std;

#[cfg(all(test, not(loom)))]
#[path = "../../tests/src/promise.rs"]
mod promise;

pub mod arena;
pub mod ledger;
pub mod limits;
pub mod share;
mod sync;
pub mod text;
