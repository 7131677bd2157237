//! The addresses behind `cuGetProcAddress`: every export of the driver, whichever room implements it.
//!
//! Which export a question means is decided in `cuda-shim-symbols`; this room adds where it lies. The
//! library is linked with `-Bsymbolic`, so the addresses are this library's own even where a preloaded one
//! exports the same names.
//!
//! # Safety
//! The exports are declared here without their signatures, only to take their addresses: nothing in this
//! room calls one, and the linker refuses a library in which one is missing.
#![allow(unsafe_code)]

use core::ffi::{CStr, c_void};
use std::sync::OnceLock;

use cuda_shim_device::open_from_env;
use cuda_shim_symbols::{Found, ROWS, Row, find, symbols};

macro_rules! addresses {
    ($($name:ident $version:literal $stream:ident $export:ident;)*) => {
        unsafe extern "C" {
            $(fn $export();)*
        }
        /// Where the export of the same place in [`ROWS`] lies.
        static ADDRESSES: [unsafe extern "C" fn(); ROWS.len()] = [$($export),*];
    };
}

symbols!(addresses);

type Addresses = [unsafe extern "C" fn()];

/// The exports that the machine's driver hands out. What it lacks still has its symbol, which nothing can hide.
fn handed_out() -> (&'static [Row], &'static Addresses) {
    static FEWER: OnceLock<Option<(Vec<Row>, Vec<unsafe extern "C" fn()>)>> = OnceLock::new();
    let fewer = FEWER.get_or_init(|| {
        let lacks = &open_from_env().ok()?.machine().lacks;
        let all = ROWS.iter().zip(ADDRESSES).enumerate();
        let kept = all.filter(|(place, _)| !lacks.contains(place)).map(|(_, (row, address))| (*row, address));
        (!lacks.is_empty()).then(|| kept.unzip())
    });
    fewer.as_ref().map_or((ROWS, &ADDRESSES[..]), |(rows, addresses)| (rows, addresses))
}

/// The export that a driver hands out for `name` as of CUDA `version` under `cuGetProcAddress` flags.
///
/// How the two entry points tell it: `cuGetProcAddress_v2` answers `INVALID_VALUE` to
/// [`Found::InvalidFlags`] and leaves everything else untouched; otherwise it succeeds, stores the address or
/// null, and says `SUCCESS`, `SYMBOL_NOT_FOUND` or `VERSION_NOT_SUFFICIENT` where a status was asked for. The
/// older one has no status: it answers `NOT_FOUND` to both misses and leaves the pointer untouched.
pub fn get_proc_address(name: &CStr, version: i32, flags: u64) -> Found<*const c_void> {
    // No name of ours is other than ASCII, so one that is not UTF-8 is simply not found.
    let (rows, addresses) = handed_out();
    match find(rows, name.to_str().unwrap_or(""), version, flags) {
        Found::Export(place) => Found::Export(addresses[place] as *const c_void),
        Found::NotFound => Found::NotFound,
        Found::VersionNotSufficient => Found::VersionNotSufficient,
        Found::InvalidFlags => Found::InvalidFlags,
    }
}
