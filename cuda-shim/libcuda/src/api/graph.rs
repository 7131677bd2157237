//! Graphs: [`nodes`] adds nodes and reads and changes their parameters, [`exec`] instantiates, launches and updates,
//! [`objects`] keeps what callers want alive, [`topology`] tells and changes what hangs together.

mod exec;
mod nodes;
mod objects;
mod topology;
