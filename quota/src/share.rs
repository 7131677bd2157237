//! May this launch go now?
//!
//! A share of r percent means: the container's kernels occupy the device for at most r percent of the time, counted
//! in the time that they take when they have it alone. The promise, for any kernels and in any window W:
//!
//! `use(W) <= r*W + B + one kernel + (actual minus predicted) of the launches in flight`
//!
//! and, in the tenth of a second after the host has stopped the process, r times as long as it was stopped before,
//! and a long-run error of zero for any prediction. Nothing here reads a clock, sleeps or asks a driver: times are
//! arguments, in nanoseconds of CLOCK_MONOTONIC. [`gate`] is the way in: the preloaded library drives it on the real clock
//! (`src/time/meter.rs`), the tests in virtual time (`tests/share/`).
//!
//! # The files, bottom to top
//! A file uses only files of lower floors.
//!
//! | floor | file | |
//! |---|---|---|
//! | 0 | [`types`], `words` | data that the others exchange; arithmetic on words |
//! | 1 | [`clock`] | one word per device, the *virtual time*, admits by one compare-and-swap (GCRA) |
//! | 1 | [`busy`] | overlapping work occupies the device once |
//! | 1 | [`lease`] | when a container may launch beside others, as the node's agent decides |
//! | 1 | `lanes` | when the work of each stream should be over |
//! | 1 | `overlap` | how the streams of a process overlap |
//! | 1 | `union` | which part of what launches take they add to the time that a process has the device |
//! | 1 | `pace` | how fast containers get on beside each other |
//! | 1 | [`predict`] | how long a launch will take: a mean by key |
//! | 1 | [`trust`] | what the agent believes of a container, by its own clock and by what that was charged |
//! | 1 | [`submission`] | which part of the interval between a launch's events is the launch's own |
//! | 2 | [`starved`] | time in which the host does not let a process run is no idle time |
//! | 2 | [`books`] | where the use of a device is written down |
//! | 2 | [`in_flight`] | what a process has in flight on a device; which launch is measured |
//! | 2 | [`client`] | a container as the agent's scheduler sees it |
//! | 3 | `beside` | containers that launch beside each other, and whether that loses less than turns |
//! | 3 | [`measurement`] | one measured launch |
//! | 3 | [`wait`](mod@wait) | one launch's wait, step by step |
//! | 3 | [`scheduler`] | which container gets the lease; the agent's side |
//! | 4 | `completion` | what a launch that is over has cost |
//! | 4 | [`gate`] | the launch loop: one launch from the question whether it may go to its measurement |
//! | 5 | [`measurements`] | the measured launches in flight of a process |

mod beside;
pub mod books;
pub mod busy;
pub mod client;
pub mod clock;
mod completion;
pub mod gate;
pub mod in_flight;
mod lanes;
pub mod lease;
pub mod measurement;
pub mod measurements;
mod overlap;
mod pace;
pub mod predict;
pub mod scheduler;
pub mod starved;
pub mod submission;
pub mod trust;
pub mod types;
mod union;
pub mod wait;
mod words;

pub use books::Books;
pub use busy::Busy;
pub use clock::{Admission, BURST_NS, Clock, Rate};
pub use gate::{Gate, Recorder};
pub use in_flight::InFlight;
pub use measurement::{Measurement, Observation};
pub use measurements::Measurements;
pub use predict::{Predictor, key};
pub use submission::{EventGap, Queue, Submission};
pub use types::{SAMPLE_NS, Work};
pub use wait::Step;
