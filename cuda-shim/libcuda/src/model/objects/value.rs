//! Values in memory that streams write and wait for.

use crate::tools::bytes;

const AT_LEAST: u32 = 0;
const EQUAL: u32 = 1;
const ANY_BIT: u32 = 2;
pub const ANY_ZERO_BIT: u32 = 3;

/// A value at an address, of 32 or 64 bits.
#[derive(Clone, Copy)]
pub struct Value {
    pub address: u64,
    pub value: u64,
    pub wide: bool,
}

impl Value {
    /// How long it is.
    pub fn bytes(&self) -> u64 {
        if self.wide { 8 } else { 4 }
    }

    /// Stores it.
    pub fn write(&self) {
        bytes::copy(self.address, (&raw const self.value).expose_provenance() as u64, self.bytes());
    }

    /// Whether the memory compares to it in this way.
    pub fn holds(&self, how: u32) -> bool {
        let mut found = 0u64;
        bytes::copy((&raw mut found).expose_provenance() as u64, self.address, self.bytes());
        let (found, mask) = if self.wide { (found, u64::MAX) } else { (found, u64::from(u32::MAX)) };
        match how {
            // Cyclic: a counter may run over.
            AT_LEAST if self.wide => (found.wrapping_sub(self.value) as i64) >= 0,
            AT_LEAST => (found.wrapping_sub(self.value) as u32 as i32) >= 0,
            EQUAL => found == self.value & mask,
            ANY_BIT => found & self.value & mask != 0,
            _ => !(found | self.value) & mask != 0,
        }
    }
}
