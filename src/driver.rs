//! Where are the real functions?
//!
//! Each function that the library intercepts or calls has a slot. The first call that finds one of NVIDIA's libraries
//! loaded fills that library's slots from its symbol table. Only then may this library redirect the table to its hooks:
//! the second layer, which also catches `RTLD_DEEPBIND` plugins and readers of symbol tables. The hook of a function is
//! our export of the same name, so no file of this floor imports the hooks.
//!
//! Bottom up:
//!
//! - [`elf`]: a loaded object, its symbol table and its references;
//! - [`objects`]: the loaded objects;
//! - [`loader`]: the loader's real functions, and whether we are the first copy of ourselves;
//! - `variant`: versions and stream semantics in the names of a driver's exports;
//! - [`slot`], [`copies`], [`library`]: slots and how they are filled, and further copies of a library;
//! - [`sys`]: NVIDIA's types and a typed slot for each function;
//! - [`watch`]: what was loaded since the last look;
//! - [`cuda`], [`nvml`]: typed questions to both libraries.

pub mod copies;
pub mod cuda;
pub mod elf;
pub mod library;
pub mod loader;
pub mod nvml;
pub mod objects;
pub mod slot;
pub mod sys;
mod variant;
pub mod watch;

pub use variant::FunctionRequest;
