//! What the bytes are that a process holds.

use gpuquota_region::layout::KINDS;
use serde::Serialize;

/// The names of the kinds of bytes, as people and metrics are told them.
pub const KIND_NAMES: [&str; KINDS] = ["allocations", "contexts", "code", "pools", "graphs"];

/// Bytes by what they are.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Kinds {
    /// Asked for by allocations.
    pub data_bytes: u64,
    /// Contexts.
    pub context_bytes: u64,
    /// Code, heaps and whatever else the driver takes.
    pub module_bytes: u64,
    /// Held by stream-ordered pools.
    pub pool_bytes: u64,
    /// Held by graphs.
    pub graph_bytes: u64,
}

impl Kinds {
    /// Each with its name, as in [`KIND_NAMES`].
    pub fn named(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let Self { data_bytes, context_bytes, module_bytes, pool_bytes, graph_bytes } = *self;
        KIND_NAMES.into_iter().zip([data_bytes, context_bytes, module_bytes, pool_bytes, graph_bytes])
    }
}

impl From<[u64; KINDS]> for Kinds {
    fn from([data_bytes, context_bytes, module_bytes, pool_bytes, graph_bytes]: [u64; KINDS]) -> Self {
        Self { data_bytes, context_bytes, module_bytes, pool_bytes, graph_bytes }
    }
}
