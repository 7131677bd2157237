//! The simulated GPU itself: what a machine is made of, and the one state that all of its processes share.
//!
//! The state is a file (`CUDA_SIM_STATE`) mapped by every process of the simulated machine: the stand-in
//! libcuda and libnvidia-ml, and `cuda-sim`, which creates it. Nothing else connects them.
//!
//! Rooms, imports point downward only:
//! - [`truth`]: what the device knows about itself, as plain data;
//! - `shared_event`: events that several processes know;
//! - [`seat`]: a process at a device: its timeline of work, waiting, completion times;
//! - [`memory`], `shared`: bytes held, by device and by process, and by several processes;
//! - `faults`: what goes wrong by script;
//! - `reap`: gives back what the dead held;
//! - [`state`]: the file: creating, opening, taking a process slot;
//! - `sched`: time slicing between processes, pure;
//! - `lock`, `liveness`, `clock`: locks that outlive their holder's death, who is alive, what time it is;
//! - `layout`: the fixed layout of the file;
//! - [`mig`]: what a device can be split into, pure;
//! - [`machine`]: the description of a machine, pure.
//!
//! # What a reader of the truth may rely on
//! *requested* bytes are the sizes that programs asked for; *physical* bytes are what the device spends on
//! them (2 MiB blocks, shared by small allocations) together with the overhead of contexts. Peaks are
//! raised in the same critical section that raises the sum, so they miss no instant.

mod clock;
mod faults;
mod layout;
mod liveness;
mod lock;
pub mod machine;
pub mod memory;
pub mod mig;
mod reap;
mod sched;
pub mod seat;
mod shared;
mod shared_event;
pub mod state;
pub mod truth;

pub use clock::Clock;
pub use faults::Faults;
pub use liveness::raise as out_of_the_way;
pub use machine::{DeviceSpec, Fault, KernelRule, Latency, MAX_PATTERN, Machine, PRESETS, Part};
pub use memory::{MemoryGuard, OutOfMemory};
pub use seat::Seat;
pub use shared::SharedKey;
pub use shared_event::SharedEvent;
pub use state::{OpenError, State, open_from_env};
pub use truth::{DeviceTruth, ProcessTruth, Truth};

/// The environment variable that names the state file of the simulated machine.
pub const STATE_ENV: &str = "CUDA_SIM_STATE";

/// Nanoseconds of `CLOCK_MONOTONIC`, the clock of every time in this crate.
pub fn clock_ns() -> u64 {
    liveness::clock_ns()
}
