//! What gpuquota promises, each as a test: this crate holds what those tests share, `tests/` holds them by
//! subject, `programs/` the small CUDA programs that they run.
//!
//! A test puts a program on a simulated machine, with the quota or without, reads the `key=value` lines that
//! the program says, and asks the device itself ([`Machine::truth`]) what really happened. Nothing here
//! links to the library, the region or the simulator: the tests see what a user sees.

#![forbid(unsafe_code)]

mod agent;
mod artifacts;
mod machine;
mod program;
mod scratch;
mod symbols;
mod trial;

pub use agent::Agent;
pub use artifacts::{artifact, client, fetched, program};
pub use machine::{Machine, Setting, Truth};
pub use program::{Outcome, Program};
pub use scratch::Scratch;
pub use symbols::{binutils, exports};
pub use trial::{Trial, Verdict, trials, twice};

/// One mebibyte.
pub const MIB: i64 = 1 << 20;
/// One gibibyte.
pub const GIB: i64 = 1 << 30;
/// What the driver answers when a cap refuses: `CUDA_ERROR_OUT_OF_MEMORY`.
pub const OUT_OF_MEMORY: i64 = 2;
