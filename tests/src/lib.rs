//! The promises of gpuquota, each as a test. This crate has the code that the tests share, `tests/` has the tests by subject,
//! and `programs/` the small CUDA programs that they run.
//!
//! A test runs a program on a simulated machine, with the quota or without, and reads the `key=value` lines that the program
//! prints. It judges by the device's own figures ([`Machine::truth`]). This crate does not link to the library, the region
//! or the simulator, so the tests see what a user sees.

#![forbid(unsafe_code)]

mod agent;
mod artifacts;
mod browser;
mod container;
mod cpu_limit;
mod judge;
mod machine;
mod monitors;
mod program;
mod promise;
mod readings;
mod scratch;
mod symbols;
mod trial;

pub use agent::Agent;
pub use artifacts::{artifact, client, fetched, program};
pub use browser::Browser;
pub use container::{NO_NAMESPACE, Podman, after, mount_namespace, own_etc, start_after, words_after};
pub use cpu_limit::CpuLimit;
pub use judge::{Host, Judge, on_each};
pub use machine::{Machine, Setting, Truth};
pub use monitors::{Seen, hamis_monitor, kais_monitor, volcanos_monitor};
pub use program::{Lost, Outcome, Program};
pub use promise::Promise;
pub use readings::{Readings, Used, used_by, watch};
pub use scratch::Scratch;
pub use symbols::{binutils, exports, try_exports};
pub use trial::{Trial, Verdict, trials, twice};

/// One mebibyte.
pub const MIB: i64 = 1 << 20;
/// One gibibyte.
pub const GIB: i64 = 1 << 30;
/// The answer to a request that a cap refuses: `CUDA_ERROR_OUT_OF_MEMORY`.
pub const OUT_OF_MEMORY: i64 = 2;
