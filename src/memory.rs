//! Bytes: which the container may have, which it has, and through which of its processes.
//!
//! Bottom up:
//!
//! - [`holdings`]: what this process holds, by pointer or handle;
//! - `journals`: through which journals of the region it charges a device;
//! - [`books`]: charges, one by one;
//! - `overhead`: bytes that the driver takes without being asked: contexts, code, heaps; measured;
//! - `arenas`: bytes that the driver keeps for later: pools, and the memory of graphs;
//! - `refusal`: what is said of a request that does not fit;
//! - `reserve`: the request itself, and what is tried before it is refused;
//! - [`ops`]: what happens to bytes round a call of the driver.

mod arenas;
pub mod books;
pub mod holdings;
mod journals;
pub mod ops;
mod overhead;
mod refusal;
mod reserve;

pub use reserve::{Memory, State};

#[cfg(test)]
mod tests;
