//! What a loaded object's references to functions of others are bound to.
//!
//! # Safety
//! This file may use `unsafe` because it reads and writes the words that the loader fills when it binds an object.
#![allow(unsafe_code)]

use super::tables::Relocation;
use super::{Object, SHN_UNDEF, patch};
use core::ffi::CStr;
use core::mem::size_of;
use core::sync::atomic::{AtomicUsize, Ordering::Relaxed, Ordering::Release};

const DT_PLTRELSZ: i64 = 2;
const DT_RELA: i64 = 7;
const DT_RELASZ: i64 = 8;
const DT_JMPREL: i64 = 23;
const STB_WEAK: u8 = 2;

/// Relocations that store a symbol's address: an address in data, in the table of addresses, and of a call.
#[cfg(target_arch = "x86_64")]
const ADDRESSES: [u64; 3] = [1, 6, 7];
#[cfg(target_arch = "aarch64")]
const ADDRESSES: [u64; 3] = [257, 1025, 1026];

/// A word that the loader has bound to a function of another object.
pub struct Reference<'o> {
    /// The function's name.
    pub name: &'o CStr,
    /// Whether it may stay unbound.
    pub is_weak: bool,
    word: &'o AtomicUsize,
    object: &'o Object<'o>,
}

impl Reference<'_> {
    /// What it is bound to.
    pub fn target(&self) -> usize {
        self.word.load(Relaxed)
    }

    /// Binds it to another function.
    pub fn bind(&self, target: usize) {
        let word = core::ptr::from_ref(self.word) as usize;
        if patch::make_writable(self.object, word) {
            self.word.store(target, Release);
        }
    }
}

impl Object<'_> {
    /// Calls `visit` for each bound reference to a function that `is_wanted` by its name.
    pub fn each_reference(&self, is_wanted: &dyn Fn(&CStr) -> bool, visit: &mut dyn FnMut(&Reference)) {
        let wanted = |symbol: &libc::Elf64_Sym| {
            let name =
                self.strings.string_if(symbol.st_name as usize, |first| matches!(first, b'c' | b'n'))?;
            let is_weak = symbol.st_info >> 4 == STB_WEAK;
            (symbol.st_shndx == SHN_UNDEF && is_wanted(name)).then_some((name, is_weak))
        };
        // Almost no object has any, as a look at its undefined symbols tells.
        let mut undefined = (1..self.undefined_end()).map_while(|index| self.symbols.item(index));
        if !undefined.any(|symbol| wanted(&symbol).is_some()) {
            return;
        }
        for (table, size) in [(DT_RELA, DT_RELASZ), (DT_JMPREL, DT_PLTRELSZ)] {
            let value = |tag| self.entries().find(|entry| entry.tag == tag).map(|entry| entry.value);
            let Some(relocations) = value(table).and_then(|value| self.table(value)) else { continue };
            let count = value(size).unwrap_or(0) as usize / size_of::<Relocation>();
            for index in 0..count {
                let Some(relocation) = relocations.item::<Relocation>(index) else { break };
                if ADDRESSES.contains(&(relocation.info & 0xffff_ffff))
                    && let Some(symbol) = self.symbols.item((relocation.info >> 32) as usize)
                    && let Some((name, is_weak)) = wanted(&symbol)
                    && let Some(word) = self.word(relocation.offset)
                {
                    visit(&Reference { name, is_weak, word, object: self });
                }
            }
        }
    }

    /// A word of the object's data.
    fn word(&self, offset: u64) -> Option<&AtomicUsize> {
        let place = self.span(self.base.wrapping_add(offset as usize))?.place::<AtomicUsize>(0)?;
        // SAFETY: it lies in a readable segment, for the lifetime of the object.
        (place as usize).is_multiple_of(size_of::<usize>()).then(|| unsafe { &*place })
    }
}
