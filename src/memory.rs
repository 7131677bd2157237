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

use crate::container::Container;
use crate::devices::Devices;
pub use reserve::Memory;

/// What this process knows of its bytes. All-zero bytes: it has none.
pub struct State {
    journals: journals::Journals,
    holdings: holdings::Holdings,
    arenas: arenas::Arenas,
    overhead: overhead::Overhead,
    refusals: refusal::Refusals,
}

impl State {
    /// The state with all that it has to do with.
    #[inline]
    pub fn memory<'p>(&'p self, container: &'p Container, devices: &'p Devices) -> Memory<'p> {
        let books = books::Books { container, devices, journals: &self.journals, holdings: &self.holdings };
        Memory { books, arenas: &self.arenas, overhead: &self.overhead, refusals: &self.refusals }
    }
}

#[cfg(test)]
mod tests;
