//! Placement by the stock scheduler: `gpuquota dra` and `gpuquota device-plugin` tell Kubernetes how much of each card is left,
//! and give containers their part as NRI would ([`crate::given`]).
//!
//! - [`cards`]: what this node has, and how it is; [`common`]: what both commands are told; [`beside`]: who else books the cards;
//! - [`device_plugin`]: for every Kubernetes; [`dra`]: for those with dynamic resource allocation.

pub mod beside;
mod cards;
mod common;
pub mod device_plugin;
pub mod dra;
