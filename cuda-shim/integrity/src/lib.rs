//! What NVIDIA's runtime libraries ask of a driver beyond its public functions: the private tables that `cuGetExportTable`
//! hands out, and the answer to libcudart's integrity question.
//!
//! # Provenance
//! No header names these tables. That the simulated driver can answer them rests on facts published by the
//! ZLUDA project (<https://github.com/vosen/ZLUDA>, `dark_api/src/lib.rs`, MIT OR Apache-2.0): names,
//! identifiers, places and parameters of the entries, and for the integrity answer its message, its key and
//! two constants. The rest was learned by calling real software against answers of our own. The code here is
//! ours; nothing of NVIDIA's was disassembled or copied. This crate is part of a test instrument and of
//! nothing that is installed on a node. It is optional: `cuda-shim-libcuda` joins it by the feature `integrity`, which is
//! off unless it is asked for, and then libcudart does not start on the simulated driver.

mod answer;
mod driver;
mod local_storage;
mod md2;
mod tables;

pub use driver::{Context, DRIVER, Driver, Identity};
pub use local_storage::context_gone;
pub use tables::export_table;
