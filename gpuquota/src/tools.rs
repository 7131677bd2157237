//! What the tools for people share: where they get their figures, and how containers are named.
//!
//! - [`source`]: from the node's agent where it answers ([`ask`]), else from regions and NVML; [`node`]: the figures;
//! - [`name`]: a container by its pod, its name or a prefix; [`output`]: how they write.

pub mod ask;
pub mod name;
pub mod node;
pub mod output;
pub mod source;
