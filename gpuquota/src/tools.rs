//! What the tools for people share: where they get their figures, and how containers are named.
//!
//! - [`source`]: from the node's agent where it answers ([`ask`]), else from regions and NVML; [`node`]: the figures;
//! - [`messages`]: all that they say, by code; [`why`], [`top`], [`mod@doctor`], [`events`], [`mod@snapshot`]: subcommands;
//! - [`name`]: a container by its pod, its name or a prefix; [`output`]: how they write.

pub mod ask;
pub mod doctor;
pub mod events;
pub mod messages;
pub mod name;
pub mod node;
pub mod output;
pub mod snapshot;
pub mod source;
pub mod top;
pub mod why;
