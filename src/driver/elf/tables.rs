//! Bytes of a loaded object that may be read, and the tables that lie in them.
//!
//! # Safety
//! This file may use `unsafe` because it reads what `Object::span` has found to lie in one readable segment.
#![allow(unsafe_code)]
// Fields and functions have the names of the ELF specification.
#![allow(missing_docs)]

use core::ffi::CStr;
use core::mem::size_of;
use core::slice;

/// Bytes of an object that may be read: from where a table begins to the end of the segment that holds it.
#[derive(Clone, Copy)]
pub struct Span {
    pub start: *const u8,
    pub length: usize,
}

impl Span {
    /// The place of a value of this type, if it lies within.
    pub fn place<T>(self, offset: usize) -> Option<*const T> {
        let end = offset.checked_add(size_of::<T>())?;
        (end <= self.length).then(|| self.start.wrapping_add(offset).cast())
    }

    pub fn read<T: Plain>(self, offset: usize) -> Option<T> {
        #[cfg(test)]
        reads::count();
        let place = self.place::<T>(offset)?;
        // SAFETY: mapped and readable (see `Object::span`); any bytes are a value of a plain type.
        Some(unsafe { place.read_unaligned() })
    }

    /// The n-th of many of this type.
    pub fn item<T: Plain>(self, index: usize) -> Option<T> {
        self.read(index.checked_mul(size_of::<T>())?)
    }

    /// The string that begins at an offset; `None` where none ends.
    pub fn string(&self, offset: usize) -> Option<&CStr> {
        let left = self.length.checked_sub(offset)?;
        let length = (offset..).take(left).position(|at| self.read(at) == Some(0u8))?;
        // SAFETY: these bytes were just read, and the last of them is the only NUL.
        Some(unsafe {
            let bytes = slice::from_raw_parts(self.start.wrapping_add(offset), length.wrapping_add(1));
            CStr::from_bytes_with_nul_unchecked(bytes)
        })
    }

    /// The same, if its first byte is accepted.
    pub fn string_if(&self, offset: usize, is_accepted: impl FnOnce(u8) -> bool) -> Option<&CStr> {
        is_accepted(self.read(offset)?).then(|| self.string(offset))?
    }

    /// Whether this string begins at an offset.
    pub fn is_string(self, offset: usize, string: &CStr) -> bool {
        let mut expected = string.to_bytes_with_nul().iter().enumerate();
        expected.all(|(at, byte)| offset.checked_add(at).and_then(|at| self.read(at)) == Some(*byte))
    }
}

/// A type of which any bytes are a value.
///
/// # Safety
/// Any bytes are a value of it.
pub unsafe trait Plain: Copy {}
// SAFETY: a number.
unsafe impl Plain for u8 {}
// SAFETY: a number.
unsafe impl Plain for u32 {}
// SAFETY: numbers.
unsafe impl Plain for Dynamic {}
// SAFETY: numbers.
unsafe impl Plain for libc::Elf64_Ehdr {}
// SAFETY: numbers.
unsafe impl Plain for libc::Elf64_Sym {}
// SAFETY: numbers.
unsafe impl Plain for Relocation {}

/// DT_GNU_HASH of an object that has it: four words, the bloom filter, buckets, chains.
pub struct GnuTable {
    words: Span,
    /// How many buckets there are.
    pub buckets: u32,
    /// The first symbol that is in a chain.
    pub first: u32,
    /// Index of the first bucket's word.
    pub bucket_at: usize,
}

impl GnuTable {
    pub fn new(words: Span) -> Option<Self> {
        let word = |index| words.item::<u32>(index);
        let (buckets, first, bloom) = (word(0)?, word(1)?, word(2)? as usize);
        let bucket_at = bloom.checked_mul(size_of::<usize>() / 4)?.checked_add(4)?;
        Some(Self { words, buckets, first, bucket_at })
    }

    /// The first symbol of a bucket's chain.
    pub fn bucket(&self, bucket: u32) -> Option<u32> {
        self.words.item(self.bucket_at.checked_add(bucket as usize)?)
    }

    /// The chain's word of a symbol.
    pub fn chain(&self, symbol: u32) -> Option<u32> {
        let chains = self.bucket_at.checked_add(self.buckets as usize)?;
        self.words.item(chains.checked_add(symbol.checked_sub(self.first)? as usize)?)
    }
}

/// DT_HASH: two counts, buckets, chains.
pub struct SysvTable {
    words: Span,
    pub buckets: u32,
    /// Chains, one for each symbol.
    pub chains: u32,
}

impl SysvTable {
    pub fn new(words: Span) -> Option<Self> {
        let (buckets, chains) = (words.item(0)?, words.item(1)?);
        let table = Self { words, buckets, chains };
        // The last chain has to be there, so that a count can be believed.
        table.chain(chains.checked_sub(1)?)?;
        Some(table)
    }

    pub fn bucket(&self, bucket: u32) -> Option<u32> {
        self.words.item((bucket as usize).checked_add(2)?)
    }

    pub fn chain(&self, symbol: u32) -> Option<u32> {
        let chains = (self.buckets as usize).checked_add(2)?;
        self.words.item(chains.checked_add(symbol as usize)?)
    }
}

/// `Elf64_Dyn`, which the libc crate does not have for every target.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Dynamic {
    pub tag: i64,
    pub value: u64,
}

/// `Elf64_Rela`, which the libc crate does not have for every target.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Relocation {
    pub offset: u64,
    pub info: u64,
    pub addend: i64,
}

/// How many reads a question takes.
#[cfg(test)]
pub mod reads {
    use std::cell::Cell;

    std::thread_local! {
        static LEFT: Cell<usize> = const { Cell::new(usize::MAX) };
    }

    pub fn count() {
        let left = LEFT.get().checked_sub(1);
        LEFT.set(left.expect("a question that makes more reads than any object needs"));
    }

    /// Asks a question, which may not take more reads than `bytes` of object are good for.
    pub fn within<T>(bytes: usize, question: impl FnOnce() -> T) -> T {
        LEFT.set(bytes.saturating_mul(8));
        let answer = question();
        LEFT.set(usize::MAX);
        answer
    }
}
