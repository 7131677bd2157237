//! Bytes: the cap of the container, its use, and the part of it that this process holds.
//!
//! Bottom up:
//!
//! - [`holdings`]: this process's allocations, by pointer or handle;
//! - `blocks`: what an allocation takes of the device, by its address;
//! - `shared_blocks`: the blocks that allocations fill in part;
//! - `journals`: the journals of the region through which it charges a device;
//! - [`books`]: reservations, holdings, and the way back;
//! - `physical`: physical memory, and what refers to it;
//! - `overhead`: bytes that the driver takes unasked for contexts, code and heaps, by measurement;
//! - `contexts`: contexts, which are refused before they are made;
//! - `arenas`: bytes that the driver keeps for later in pools and graphs;
//! - `refusal`: events and messages of a request that does not fit;
//! - `reserve`: the request, and the attempts to make room before a refusal;
//! - [`departure`]: what belongs to a context or a pool while a call may destroy it;
//! - [`ops`]: the steps before and after a call of the driver.

mod arenas;
pub mod blocks;
pub mod books;
pub mod contexts;
pub mod departure;
pub mod holdings;
mod journals;
pub mod ops;
mod overhead;
mod physical;
mod refusal;
mod reserve;
mod shared_blocks;

pub use reserve::{Memory, State};

#[cfg(test)]
mod tests;
