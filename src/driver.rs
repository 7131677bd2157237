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

/// Beginnings of the file names of the libraries that the driver loads for its own use.
const HELPERS: [&[u8]; 2] = [b"libnvidia-", b"libcudadebugger"];

/// Whether code at an address belongs to NVIDIA's driver: a call that it makes is part of a call of the program's. A return
/// address in this library is the driver's too, because such a caller has left its own by a jump.
pub fn is_driver_code(address: usize) -> bool {
    let libraries = [&sys::LIBCUDA, &sys::LIBNVML];
    if libraries.iter().any(|library| library.role_at(address).is_some())
        || elf::Object::own().is_some_and(|own| own.contains(address))
    {
        return true;
    }
    let mut found = false;
    objects::each_object(&mut |object| {
        let here = object.contains(address);
        found = here
            && (libraries.iter().any(|library| library.is(object))
                || HELPERS.iter().any(|helper| object.file().starts_with(helper)));
        here
    });
    found
}
