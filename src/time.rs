//! GPU time: when may a launch go, and how long did it take?
//!
//! - [`counted`]: the time of a container without a share, by NVML's samples;
//! - `anchors`: events before and behind a launch, and where they lie on the clock;
//! - [`meter`]: the launch itself, on the real clock, by `quota::share`'s rules;
//! - `starved`: what the kernel says of threads that it does not let run;
//! - [`recent`]: how busy the container has kept a device of late, by what was charged.

mod anchors;
pub mod counted;
pub mod meter;
pub mod recent;
mod starved;

pub use counted::Counted;
pub use meter::{LaunchCall, Meter};
