//! The simulated GPU itself: what a machine is made of, and the one state that all of its processes share.
//!
//! The state is a file (`CUDA_SIM_STATE`) mapped by every process of the simulated machine: the stand-in
//! libcuda and libnvidia-ml, and `cuda-sim`, which creates it. Nothing else connects them.
//!
//! Rooms, imports point downward only:
//! - `opening`, `reap`: how a process comes to its machine; giving back what the dead held;
//! - [`truth`]: what the device knows about itself, as plain data;
//! - `shared_event`: events that several processes know;
//! - [`seat`]: a process at a device: its timeline of work, waiting, completion times;
//! - `shared`, [`memory`], `sums`: bytes held by several processes, by device and by process, and their sums;
//! - `faults`: what goes wrong by script;
//! - `spending`: taking the time that calls take;
//! - [`cgroup`]: the driver's limits of memory by cgroup;
//! - [`state`]: the file: creating, opening, taking a process slot;
//! - `sched`: time slicing between processes, pure;
//! - `lock`, `liveness`, `clock`: locks that outlive their holder's death, who is alive, what time it is;
//! - `telling`: what people are told;
//! - `layout`: the fixed layout of the file;
//! - [`machine`]: the description of a machine, pure;
//! - [`latency`]: what calls and front ends take, pure;
//! - [`mig`]: what a device can be split into, pure;
//! - [`spec`]: of a device, pure.
//!
//! # What a reader of the truth may rely on
//! *requested* bytes are the sizes that programs asked for; *physical* bytes are what the device spends on
//! them (2 MiB blocks, shared by small allocations) together with the overhead of contexts. Peaks are
//! raised in the same critical section that raises the sum, so they miss no instant.

pub mod cgroup;
mod clock;
mod faults;
pub mod latency;
mod layout;
mod liveness;
mod lock;
pub mod machine;
pub mod memory;
pub mod mig;
mod opening;
mod reap;
mod sched;
pub mod seat;
mod shared;
mod shared_event;
pub mod spec;
mod spending;
pub mod state;
mod sums;
mod telling;
pub mod truth;

pub use clock::Clock;
pub use faults::Faults;
pub use latency::{Delays, Jitter, Latency, Startup};
pub use layout::SEATS;
pub use liveness::{clock_ns, raise as out_of_the_way};
pub use machine::{Fault, KernelRule, MAX_PATTERN, Machine};
pub use memory::{MemoryGuard, OutOfMemory};
pub use opening::open_from_env;
pub use seat::{Seat, Waits};
pub use shared::SharedKey;
pub use shared_event::SharedEvent;
pub use spec::{DeviceSpec, PRESETS, Part};
pub use state::{OpenError, STATE_ENV, State};
pub use telling::tell;
pub use truth::{DeviceTruth, ProcessTruth, Truth};
