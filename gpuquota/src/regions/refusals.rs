//! Why requests for memory were refused.

use gpuquota_region::layout::{
    REASONS, REFUSED_BY_DRIVER, REFUSED_CODE, REFUSED_CONTEXT, REFUSED_MEMORY_LIMIT, REFUSED_PHYSICAL_LIMIT,
    REFUSED_UNCOUNTED,
};
use serde::{Serialize, Serializer};

/// The reasons, as people and metrics are told them.
pub const REASON_NAMES: [&str; 6] =
    ["memory_limit", "physical_limit", "context", "code", "uncounted", "driver"];
const _: () = assert!(
    REFUSED_MEMORY_LIMIT == 0
        && REFUSED_PHYSICAL_LIMIT == 1
        && REFUSED_CONTEXT == 2
        && REFUSED_CODE == 3
        && REFUSED_UNCOUNTED == 4
        && REFUSED_BY_DRIVER == 5
);

/// Refusals by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Refusals(pub [u64; REASON_NAMES.len()]);

impl Refusals {
    /// How many reasons there are.
    pub const REASONS: usize = REASON_NAMES.len();

    /// Each reason with its count.
    pub fn named(&self) -> impl Iterator<Item = (&'static str, u64)> + Clone {
        REASON_NAMES.into_iter().zip(self.0)
    }
}

impl From<[u64; REASONS]> for Refusals {
    fn from(counts: [u64; REASONS]) -> Self {
        let mut of = Self::default();
        of.0.iter_mut().zip(counts).for_each(|(of, count)| *of = count);
        of
    }
}

impl Serialize for Refusals {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.named())
    }
}
