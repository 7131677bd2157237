//! Bytes: the cap of the container, its use, and the part of it that this process holds.
//!
//! Bottom up:
//!
//! - `extent`: the blocks of an allocation, by its address;
//! - [`holdings`]: this process's allocations, by pointer or handle;
//! - `shared_blocks`, `blocks`: the blocks that allocations fill in part, and the size of blocks;
//! - `journals`: the journals of the region through which it charges a device;
//! - `due`: why a device's overhead has to be measured again;
//! - [`books`]: reservations, holdings, and the way back;
//! - `absent`: what those hold that have not put it back yet;
//! - `restore`: what this process puts back where the contents of the region are lost;
//! - `physical`: physical memory, and what refers to it;
//! - `arenas`: bytes that the driver keeps for later in pools and graphs;
//! - `overhead`: bytes that the driver takes unasked for contexts, code and heaps, by measurement;
//! - `contexts`: contexts, which are refused before they are made;
//! - `refusal`: events and messages of a request that does not fit;
//! - `reserve`: the request, and the attempts to make room before a refusal;
//! - [`departure`]: what belongs to a context or a pool while a call may destroy it;
//! - `code`: code, which is unloaded again where it does not fit;
//! - [`ops`], `allocate`, `taking`: the steps before and after a call of the driver.

mod absent;
mod allocate;
mod arenas;
mod blocks;
pub mod books;
mod code;
pub mod contexts;
pub mod departure;
mod due;
mod extent;
pub mod holdings;
mod journals;
pub mod ops;
mod overhead;
mod physical;
mod refusal;
mod reserve;
mod restore;
mod shared_blocks;
mod taking;

pub use reserve::{Memory, State};

#[cfg(test)]
mod tests;
