//! The account of memory that graphs allocate.

/// The memory of one allocation node.
pub struct Block {
    pub ordinal: usize,
    pub size: u64,
    pub physical: u64,
    /// Between a launch of its node and a free.
    pub live: bool,
    /// From a launch of its node until it is trimmed.
    pub mapped: bool,
    /// Its node, and the executable graph made of it. Without either the next free is the last.
    pub owners: u32,
}

/// Bytes that the graphs of a device use and hold.
#[derive(Clone, Copy, Default)]
pub struct Usage {
    /// Of memory that was not freed.
    pub live: u64,
    /// Of memory that is mapped, freed or not, of graphs that are gone too: a trim takes it, and nothing else. Graphs whose
    /// memory is freed may share what is behind it.
    pub mapped: u64,
    pub used_high: u64,
    pub reserved: u64,
    pub reserved_high: u64,
}

impl Usage {
    /// What a driver calls used: physical memory that at least one graph has mapped, freed or not.
    pub fn used(&self) -> u64 {
        self.mapped.min(self.reserved)
    }
}
