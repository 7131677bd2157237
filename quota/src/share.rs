//! May this launch go now?
//!
//! A share of r percent means: the container's kernels occupy the device for at most r percent of the time, counted
//! in the time that they take when they have it alone. What is promised, for any kernels and in any window W:
//!
//! `use(W) <= r*W + B + one kernel + (actual minus predicted) of what was in flight`
//!
//! and a long-run error of zero for any prediction. The rooms:
//!
//! - [`clock`]: one word per device, the *virtual time*, admits by one compare-and-swap (GCRA);
//! - [`predict`]: how long will it take? A mean by key, and how many launches a measured one speaks for;
//! - [`traffic`]: what a process has under way on a device; which launch is measured; how much may be in flight;
//! - [`flights`]: the measured launches in flight, charged while they run and settled when they are over;
//! - [`submission`]: what of the interval between a launch's events is the launch's own;
//! - [`landing`]: what a launch that is over has cost;
//! - [`busy`]: what runs at the same time occupies the device once;
//! - [`turn`]: when a container may launch beside others, as the node's agent tells it;
//! - [`turns`]: whose turn it is, the agent's side;
//! - [`wait`]: one launch's wait, step by step;
//! - [`launch`]: one launch from the question to the flight.
//!
//! Nothing here reads a clock, sleeps or asks a driver: times are arguments, in nanoseconds of CLOCK_MONOTONIC. The
//! preloaded library drives it on the real clock (`src/meter.rs`), the tests in virtual time (`tests/share/`).

pub mod busy;
pub mod clock;
pub mod flights;
pub mod landing;
pub mod launch;
pub mod predict;
pub mod submission;
pub mod traffic;
pub mod turn;
pub mod turns;
pub mod wait;

pub use busy::Busy;
pub use clock::{Admission, BURST_NS, Clock, Rate};
pub use flights::{Flight, Flights, Place, Seen};
pub use landing::Books;
pub use launch::{Launch, What};
pub use predict::{Predictor, key};
pub use submission::Submission;
pub use traffic::{SEGMENT_NS, Traffic};
pub use wait::Step;
