//! Where are the real functions?
//!
//! Each intercepted function, and each that the library calls itself, has a slot. The slots of a library are filled
//! once, when it is first seen loaded, straight from its symbol table; only then may that table be redirected to
//! our hooks (the second layer, which also catches `RTLD_DEEPBIND` plugins and symbol-table walkers). Our hook for a
//! function is our own export of the same name, so nothing here knows the hooks.
//!
//! Bottom up:
//!
//! - [`elf`]: loaded objects and their symbol tables;
//! - [`loader`]: the loader's real functions, and whether we are the first copy of ourselves;
//! - `variant`: what the names of a driver's exports say;
//! - [`library`]: slots, and how they are filled;
//! - [`sys`]: NVIDIA's types and a typed slot for each function;
//! - [`cuda`], [`nvml`]: typed questions to both libraries.

pub mod cuda;
pub mod elf;
pub mod library;
pub mod loader;
pub mod nvml;
pub mod sys;
mod variant;

pub use variant::Request;
