//! NVML's private table, which nvidia-smi asks for by identifier.
//!
//! What its entries do is not published. nvidia-smi does without every one of them, so all answer
//! `NOT_SUPPORTED`; it loses what only they can tell it, its list of processes above all. The identifier and
//! the length (255 words in driver 555) are what one sees by asking a real library.
//!
//! # Safety
//! The entries take no notice of their arguments.
#![allow(unsafe_code)]

use core::ffi::c_void;

use crate::abi::{Code, Error, Out, code};

const ENTRIES: usize = 255;

/// The size in bytes, then the entries.
#[repr(C)]
struct Table {
    size: usize,
    entries: [extern "C" fn() -> Code; ENTRIES - 1],
}

static TABLE: Table = Table { size: size_of::<Table>(), entries: [not_supported; ENTRIES - 1] };

extern "C" fn not_supported() -> Code {
    Error::NotSupported as Code
}

/// The table of an identifier of 16 bytes. Asked for before `nvmlInit`.
#[allow(non_snake_case)]
#[unsafe(no_mangle)]
pub extern "C" fn nvmlInternalGetExportTable(table: Out<*const c_void>, id: Out<[u8; 16]>) -> Code {
    const ID: [u8; 16] = 0xc4fe3e6c_c98f_6c4e_a327_ee696e12f7c4_u128.to_be_bytes();
    code(match id.get() {
        Ok(ID) => table.put((&raw const TABLE).cast()),
        _ => Err(Error::InvalidArgument),
    })
}
