//! What is allowed: limits, the memory ledger and the share of GPU time.
//!
//! The thinking rooms of gpuquota. Time, process ids, liveness and the environment are arguments; there is no
//! unsafe code, no allocation, no clock and no path that panics, because the preloaded library carries this crate
//! into every process of a container.
//!
//! - [`limits`]: what did the operator ask? One knob table, one grammar, every problem named.
//! - [`ledger`]: may these bytes be had, and who holds them?
//! - [`share`]: may this launch go now?
//! - [`text`]: lines for people, built without an allocator.

#![no_std]
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate std;

pub mod ledger;
pub mod limits;
pub mod share;
mod sync;
pub mod text;
