//! What a module is loaded from: ELF, PTX, or a fat binary of them. Read only as far as it is needed: of what
//! kind it is, which kernels it has, and how large its variables are.
//!
//! # Safety
//! An image comes without its length. As with the real driver its headers are believed; every address that
//! they lead to lies in the image if they are right.
#![allow(unsafe_code)]

use std::ffi::CStr;

use crate::model::objects::contents::Contents;
use crate::model::objects::ptx;
use crate::tools::status::{INVALID_IMAGE, INVALID_VALUE, Outcome};

const WRAPPER: u32 = 0x466243b1;
const FATBIN: u32 = 0xba55_ed50;
const ELF: u32 = u32::from_le_bytes(*b"\x7fELF");

/// Kinds of entries of a fat binary.
const PTX_ENTRY: u16 = 1;
const ELF_ENTRY: u16 = 2;

fn read<T: Copy>(address: usize) -> T {
    // SAFETY: see the room's head.
    unsafe { std::ptr::with_exposed_provenance::<T>(address).read_unaligned() }
}

/// Text that ends with a zero.
fn text(address: usize) -> String {
    // SAFETY: see the room's head.
    let text = unsafe { CStr::from_ptr(std::ptr::with_exposed_provenance(address)) };
    text.to_string_lossy().into_owned()
}

/// Reads an image.
///
/// # Errors
/// `INVALID_IMAGE` for what is no image.
pub fn contents(image: usize) -> Outcome<Contents> {
    let mut found = Contents::default();
    if image == 0 {
        return Err(INVALID_VALUE);
    }
    match read::<u32>(image) {
        ELF => read_elf(image, &mut found),
        FATBIN => read_fatbin(image, &mut found),
        WRAPPER => {
            let inner: usize = read(image + 8);
            if inner == 0 || read::<u32>(inner) != FATBIN {
                return Err(INVALID_IMAGE);
            }
            read_fatbin(inner, &mut found);
        }
        // PTX is text: a comment, a directive, or white space before one.
        _ if matches!(read::<u8>(image), b'/' | b'.' | b'\n' | b' ' | b'\t' | b'\r') => {
            ptx::read(&text(image), &mut found);
        }
        _ => return Err(INVALID_IMAGE),
    }
    Ok(found)
}

fn read_fatbin(image: usize, found: &mut Contents) {
    let mut entry = image + usize::from(read::<u16>(image + 6));
    let end = entry + read::<usize>(image + 8);
    while entry + 64 <= end {
        let payload = entry + read::<u32>(entry + 4) as usize;
        let size: usize = read(entry + 8);
        if size == 0 || payload <= entry {
            found.partial = true;
            return;
        }
        match read::<u16>(entry) {
            ELF_ENTRY if read::<u32>(payload) == ELF => read_elf(payload, found),
            PTX_ENTRY if read::<u8>(payload) == b'.' || read::<u8>(payload) == b'/' => {
                ptx::read(&text(payload), found);
            }
            _ => found.partial = true,
        }
        entry = payload + size;
    }
}

/// Collects the functions and data objects of the symbol table of a 64-bit ELF.
fn read_elf(image: usize, found: &mut Contents) {
    const SYMTAB: u32 = 2;
    const OBJECT: u8 = 1;
    const FUNCTION: u8 = 2;
    let sections = image + read::<usize>(image + 0x28);
    let size = usize::from(read::<u16>(image + 0x3a));
    let section = |index: usize| sections + index * size;
    for index in 0..usize::from(read::<u16>(image + 0x3c)) {
        let header = section(index);
        if read::<u32>(header + 4) != SYMTAB {
            continue;
        }
        let strings = image + read::<usize>(section(read::<u32>(header + 0x28) as usize) + 0x18);
        let table = image + read::<usize>(header + 0x18);
        for symbol in (table..table + read::<usize>(header + 0x20)).step_by(24) {
            let name = || text(strings + read::<u32>(symbol) as usize);
            match read::<u8>(symbol + 4) & 15 {
                OBJECT => drop(found.variables.insert(name(), read(symbol + 16))),
                FUNCTION => drop(found.kernels.insert(name())),
                _ => {}
            }
        }
    }
}
