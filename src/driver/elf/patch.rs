//! Changing what a loaded object's symbol table says.
//!
//! # Safety
//! This file may use `unsafe` because it writes into pages of a loaded object, whole words at once, and changes no more of
//! their protection than that they can be written meanwhile.
#![allow(unsafe_code)]

use super::{Function, Object, holds};
use core::ffi::{c_int, c_void};
use core::mem::{align_of, size_of};
use core::sync::atomic::{AtomicU64, Ordering::Release};

/// The size of a page.
fn page() -> Option<usize> {
    // SAFETY: sysconf has no preconditions.
    usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).ok().filter(|page| *page > 0)
}

/// Changes the protection of pages of a loaded object.
fn protect(start: usize, length: usize, protection: c_int) -> bool {
    // SAFETY: by the file's head; the pages stay readable throughout.
    unsafe { libc::mprotect(start as *mut c_void, length, protection) == 0 }
}

/// Makes the page of a word of an object's data writable, unless it is. The page stays so: the loader may not be done with it.
pub fn make_writable(object: &Object, word: usize) -> bool {
    let at = word.wrapping_sub(object.base) as u64;
    let writable = |header: &libc::Elf64_Phdr| header.p_flags & libc::PF_W != 0 && holds(header, at);
    let mut guarded = object.headers().filter(|header| header.p_type == libc::PT_GNU_RELRO);
    let Some(page) = page() else { return false };
    let begin = word & !(page.wrapping_sub(1));
    object.segments().any(|header| writable(&header))
        && (!guarded.any(|header| holds(&header, at))
            || protect(begin, page, libc::PROT_READ | libc::PROT_WRITE))
}

impl Object<'_> {
    /// Makes the symbol table writable, unless it lies in a segment that is writable or made read-only after relocation.
    pub fn writable_symbols(&self) -> Option<WritableSymbols> {
        let (start, length, protection) = self.symbol_pages()?;
        let table = WritableSymbols { base: self.base, start, length, protection };
        // Code may run in these pages, so they remain executable where they are.
        protect(start, length, protection | libc::PROT_WRITE).then_some(table)
    }

    /// The pages that hold the symbol table: where they begin, their length and their protection.
    pub fn symbol_pages(&self) -> Option<(usize, usize, c_int)> {
        let page = page()?;
        let table = self.symbols.start as usize;
        // Its words are written as such.
        if !table.is_multiple_of(align_of::<libc::Elf64_Sym>()) {
            return None;
        }
        let at = table.wrapping_sub(self.base) as u64;
        if self.headers().any(|header| header.p_type == libc::PT_GNU_RELRO && holds(&header, at)) {
            return None;
        }
        let protection = match self.segments().find(|header| holds(header, at))?.p_flags {
            libc::PF_R => libc::PROT_READ,
            flags if flags == libc::PF_R | libc::PF_X => libc::PROT_READ | libc::PROT_EXEC,
            _ => return None,
        };
        let bytes = self.symbol_count()?.checked_mul(size_of::<libc::Elf64_Sym>())?.min(self.symbols.length);
        let begin = table & !(page.wrapping_sub(1));
        Some((begin, table.wrapping_add(bytes).wrapping_sub(begin), protection))
    }
}

/// An object's symbol table while it can be written; read-only again when dropped.
pub struct WritableSymbols {
    base: usize,
    start: usize,
    length: usize,
    protection: c_int,
}

impl WritableSymbols {
    /// The loader, and whoever walks the symbol table, finds `target` under the function's name from now on.
    pub fn redirect(&self, function: &Function, target: usize) {
        // SAFETY: the symbol lies in these pages, which are writable; an aligned word is written at once, so that a
        // concurrent reader sees the old or the new value.
        unsafe {
            let value = &raw const (*function.symbol).st_value;
            let value = AtomicU64::from_ptr(value.cast_mut());
            value.store(target.wrapping_sub(self.base) as u64, Release);
        }
    }
}

impl Drop for WritableSymbols {
    fn drop(&mut self) {
        protect(self.start, self.length, self.protection);
    }
}
