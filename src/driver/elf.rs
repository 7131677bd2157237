//! Loaded objects and their symbol tables, read from memory.
//!
//! The library finds the real functions itself: asking `dlsym` would ask whoever interposes it, and `dlvsym` moved
//! from libdl to libc in glibc 2.34, so that one of the two worlds would not load a library that needs it.
//!
//! # Safety
//! This room may use `unsafe` because it walks structures that the dynamic loader has mapped and keeps mapped:
//! program headers and dynamic sections as described by the ELF specification. Objects are only looked at inside
//! `dl_iterate_phdr`, or are pinned, or are never unloaded, as this library (`-z nodelete`).
#![allow(unsafe_code)]

use core::ffi::{CStr, c_char, c_int, c_void};
use core::mem::size_of;
use core::sync::atomic::{AtomicU64, Ordering::Release};

/// A loaded object.
#[derive(Clone, Copy)]
pub struct Object {
    base: usize,
    name: *const c_char,
    headers: *const libc::Elf64_Phdr,
    header_count: usize,
    dynamic: *const Dynamic,
    symbols: *const libc::Elf64_Sym,
    strings: *const c_char,
    gnu_hash: *const u32,
    sysv_hash: *const u32,
    soname: Option<u64>,
}

/// DT_GNU_HASH of an object that has it.
struct GnuTable {
    words: *const u32,
    buckets: u32,
    first: u32,
    bucket_at: u32,
}

impl GnuTable {
    fn word(&self, index: u32) -> u32 {
        // SAFETY: offsets follow the layout of DT_GNU_HASH: header, bloom filter, buckets, chains.
        unsafe { self.words.wrapping_add(index as usize).read() }
    }

    /// The chain's word of a symbol.
    fn chain(&self, symbol: u32) -> u32 {
        self.word(self.bucket_at.wrapping_add(self.buckets).wrapping_add(symbol.wrapping_sub(self.first)))
    }
}

/// `Elf64_Dyn`, which the libc crate does not have for every target.
#[repr(C)]
struct Dynamic {
    tag: i64,
    value: u64,
}

const DT_NULL: i64 = 0;
const DT_NEEDED: i64 = 1;
const DT_HASH: i64 = 4;
const DT_STRTAB: i64 = 5;
const DT_SYMTAB: i64 = 6;
const DT_SONAME: i64 = 14;
const DT_GNU_HASH: i64 = 0x6fff_fef5;
const STT_FUNC: u8 = 2;
const SHN_UNDEF: u16 = 0;

/// Calls `visit` for each loaded object of this namespace in load order, until it returns true.
pub fn each_object(visit: &mut dyn FnMut(&Object) -> bool) {
    unsafe extern "C" fn callback(info: *mut libc::dl_phdr_info, _: usize, data: *mut c_void) -> c_int {
        // SAFETY: data is the &mut &mut dyn FnMut below, info is the loader's record, valid during the call.
        let (visit, info) = unsafe { (&mut *data.cast::<&mut dyn FnMut(&Object) -> bool>(), &*info) };
        match Object::read(info) {
            Some(object) => c_int::from(visit(&object)),
            None => 0,
        }
    }
    let mut visit = visit;
    // SAFETY: the callback gets the pointer to `visit`, which outlives the call.
    unsafe { libc::dl_iterate_phdr(Some(callback), (&raw mut visit).cast()) };
}

unsafe extern "C" {
    /// Where this library's own file begins in memory; the linker defines it.
    static __ehdr_start: libc::Elf64_Ehdr;
}

impl Object {
    fn read(info: &libc::dl_phdr_info) -> Option<Self> {
        Self::at(info.dlpi_addr as usize, info.dlpi_name, info.dlpi_phdr, info.dlpi_phnum.into())
    }

    /// This library.
    pub fn own() -> Option<Self> {
        // SAFETY: the linker places the symbol at the file header, which is mapped with the first segment.
        let header = unsafe { &__ehdr_start };
        let base = core::ptr::from_ref(header) as usize;
        let headers = base.wrapping_add(header.e_phoff as usize) as *const libc::Elf64_Phdr;
        Self::at(base, c"".as_ptr(), headers, header.e_phnum.into())
    }

    /// The object that lies at `base`, from its program headers.
    fn at(
        base: usize,
        name: *const c_char,
        headers: *const libc::Elf64_Phdr,
        header_count: usize,
    ) -> Option<Self> {
        let mut object = Self {
            base,
            name,
            headers,
            header_count,
            dynamic: core::ptr::null(),
            symbols: core::ptr::null(),
            strings: core::ptr::null(),
            gnu_hash: core::ptr::null(),
            sysv_hash: core::ptr::null(),
            soname: None,
        };
        let dynamic = object.headers().find(|header| header.p_type == libc::PT_DYNAMIC)?;
        object.dynamic = object.base.wrapping_add(dynamic.p_vaddr as usize) as *const Dynamic;
        let as_read = object;
        for (tag, value) in as_read.entries() {
            let address = as_read.relocated(value);
            match tag {
                DT_HASH => object.sysv_hash = address as *const u32,
                DT_STRTAB => object.strings = address as *const c_char,
                DT_SYMTAB => object.symbols = address as *const libc::Elf64_Sym,
                DT_GNU_HASH => object.gnu_hash = address as *const u32,
                DT_SONAME => object.soname = Some(value),
                _ => {}
            }
        }
        (!object.symbols.is_null() && !object.strings.is_null()).then_some(object)
    }

    /// The dynamic section's entries, tag and value.
    fn entries(&self) -> impl Iterator<Item = (i64, u64)> {
        let mut next = self.dynamic;
        core::iter::from_fn(move || {
            // SAFETY: the dynamic section is mapped and ends with DT_NULL, behind which nothing is read.
            let Dynamic { tag, value } = unsafe { next.read() };
            next = next.wrapping_add(1);
            (tag != DT_NULL).then_some((tag, value))
        })
    }

    /// Whether it was linked to a library of this name.
    pub fn needs(&self, soname: &CStr) -> bool {
        self.entries().any(|(tag, value)| tag == DT_NEEDED && self.string(value) == soname)
    }

    /// glibc rewrites the dynamic section of most objects to absolute addresses, but not that of the vDSO.
    fn relocated(&self, value: u64) -> usize {
        let value = value as usize;
        if value < self.base { self.base.wrapping_add(value) } else { value }
    }

    fn headers(&self) -> impl Iterator<Item = &libc::Elf64_Phdr> {
        // SAFETY: the loader gave pointer and count.
        unsafe { core::slice::from_raw_parts(self.headers, self.header_count) }.iter()
    }

    fn string(&self, offset: u64) -> &CStr {
        // SAFETY: string offsets in a loaded object's tables lie in its string table, which is NUL-terminated.
        unsafe { CStr::from_ptr(self.strings.wrapping_add(offset as usize)) }
    }

    /// The path it was loaded from; empty for the program itself.
    pub fn path(&self) -> &CStr {
        // SAFETY: the loader's name of a loaded object.
        if self.name.is_null() { c"" } else { unsafe { CStr::from_ptr(self.name) } }
    }

    /// Its DT_SONAME.
    pub fn soname(&self) -> Option<&CStr> {
        self.soname.map(|offset| self.string(offset))
    }

    /// Whether an address lies in one of its segments.
    pub fn contains(&self, address: usize) -> bool {
        let offset = address.wrapping_sub(self.base) as u64;
        let inside = |header: &&libc::Elf64_Phdr| offset.wrapping_sub(header.p_vaddr) < header.p_memsz;
        self.headers().filter(|header| header.p_type == libc::PT_LOAD).any(|header| inside(&header))
    }

    /// The function that it exports under `name`.
    pub fn function(&self, name: &CStr) -> Option<Function> {
        let symbol = if self.gnu_hash.is_null() { self.by_sysv_hash(name) } else { self.by_gnu_hash(name) }?;
        // SAFETY: by_*_hash return pointers into the symbol table.
        let Symbol { value, usable } = unsafe { Symbol::read(symbol) };
        usable.then(|| Function { symbol, address: self.base.wrapping_add(value as usize) })
    }

    /// Whether it exports a function that lies at `address`.
    pub fn exports(&self, address: usize) -> bool {
        (0..self.symbol_count()).any(|index| {
            // SAFETY: there are as many symbols in the table.
            let Symbol { value, usable } = unsafe { Symbol::read(self.symbols.wrapping_add(index)) };
            usable && self.base.wrapping_add(value as usize) == address
        })
    }

    /// How many symbols the hash table knows of.
    fn symbol_count(&self) -> usize {
        if self.gnu_hash.is_null() && self.sysv_hash.is_null() {
            return 0;
        }
        if self.gnu_hash.is_null() {
            // SAFETY: the second word of DT_HASH counts its chains, one for each symbol.
            return unsafe { self.sysv_hash.wrapping_add(1).read() } as usize;
        }
        let table = self.gnu_table();
        let last = (0..table.buckets).map(|bucket| table.word(table.bucket_at.wrapping_add(bucket))).max();
        let mut index = last.unwrap_or(0);
        // A chain ends with an odd word.
        while index >= table.first && table.chain(index) & 1 == 0 {
            index = index.wrapping_add(1);
        }
        index.wrapping_add(1) as usize
    }

    fn is(&self, symbol: *const libc::Elf64_Sym, name: &CStr) -> bool {
        // SAFETY: the hash tables name symbols of the symbol table only.
        let offset = unsafe { (*symbol).st_name };
        self.string(u64::from(offset)) == name
    }

    fn by_gnu_hash(&self, name: &CStr) -> Option<*const libc::Elf64_Sym> {
        let hash = name
            .to_bytes()
            .iter()
            .fold(5381u32, |hash, byte| hash.wrapping_mul(33).wrapping_add(u32::from(*byte)));
        let table = self.gnu_table();
        let bucket = hash.checked_rem(table.buckets)?;
        let mut index = table.word(table.bucket_at.wrapping_add(bucket));
        if index < table.first {
            return None;
        }
        loop {
            let chain = table.chain(index);
            let symbol = self.symbols.wrapping_add(index as usize);
            if chain | 1 == hash | 1 && self.is(symbol, name) {
                return Some(symbol);
            }
            if chain & 1 != 0 {
                return None;
            }
            index = index.wrapping_add(1);
        }
    }

    fn gnu_table(&self) -> GnuTable {
        // SAFETY: DT_GNU_HASH begins with four words: buckets, first symbol, words of the bloom filter, its shift.
        let [buckets, first, bloom, _] = unsafe { self.gnu_hash.cast::<[u32; 4]>().read() };
        let bucket_at = 4u32.wrapping_add(bloom.wrapping_mul(size_of::<usize>() as u32 / 4));
        GnuTable { words: self.gnu_hash, buckets, first, bucket_at }
    }

    fn by_sysv_hash(&self, name: &CStr) -> Option<*const libc::Elf64_Sym> {
        if self.sysv_hash.is_null() {
            return None;
        }
        let hash = name.to_bytes().iter().fold(0u32, |hash, byte| {
            let hash = (hash << 4).wrapping_add(u32::from(*byte));
            let high = hash & 0xf000_0000;
            (hash ^ high >> 24) & !high
        });
        let word = |index: usize| {
            // SAFETY: offsets follow the layout of DT_HASH: two counts, buckets, chains.
            unsafe { self.sysv_hash.wrapping_add(index).read() }
        };
        let buckets = word(0);
        let mut index = word(2usize.wrapping_add(hash.checked_rem(buckets)? as usize));
        while index != 0 {
            let symbol = self.symbols.wrapping_add(index as usize);
            if self.is(symbol, name) {
                return Some(symbol);
            }
            index = word(2usize.wrapping_add(buckets as usize).wrapping_add(index as usize));
        }
        None
    }

    /// Makes the symbol table writable, unless it lies elsewhere than in a segment that is read-only from the start:
    /// one that is executable, writable or made read-only after relocation is left alone.
    pub fn writable_symbols(&self) -> Option<WritableSymbols> {
        let (start, length) = self.symbol_pages()?;
        let table = WritableSymbols { base: self.base, start, length };
        table.protect(libc::PROT_READ | libc::PROT_WRITE).then_some(table)
    }

    /// The pages of the read-only segment that holds the symbol table.
    fn symbol_pages(&self) -> Option<(usize, usize)> {
        // SAFETY: sysconf has no preconditions.
        let page =
            usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).ok().filter(|page| *page > 0)?;
        let at = (self.symbols as usize).wrapping_sub(self.base) as u64;
        let holds = |header: &&libc::Elf64_Phdr| at.wrapping_sub(header.p_vaddr) < header.p_memsz;
        if self.headers().any(|header| header.p_type == libc::PT_GNU_RELRO && holds(&header)) {
            return None;
        }
        let segment = self.headers().filter(|header| header.p_type == libc::PT_LOAD).find(holds)?;
        if segment.p_flags != libc::PF_R {
            return None;
        }
        let begin = self.base.wrapping_add(segment.p_vaddr as usize) & !(page.wrapping_sub(1));
        let end = self.base.wrapping_add(segment.p_vaddr as usize).wrapping_add(segment.p_memsz as usize);
        Some((begin, end.wrapping_sub(begin)))
    }
}

/// An object's symbol table while it can be written; read-only again when dropped.
pub struct WritableSymbols {
    base: usize,
    start: usize,
    length: usize,
}

impl WritableSymbols {
    fn protect(&self, protection: c_int) -> bool {
        // SAFETY: the pages are the object's own read-only data; only their protection changes, and they stay
        // readable throughout.
        unsafe { libc::mprotect(self.start as *mut c_void, self.length, protection) == 0 }
    }

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
        self.protect(libc::PROT_READ);
    }
}

/// A function that an object exports.
#[derive(Clone, Copy)]
pub struct Function {
    symbol: *const libc::Elf64_Sym,
    /// Where it is.
    pub address: usize,
}

struct Symbol {
    value: u64,
    usable: bool,
}

impl Symbol {
    /// # Safety
    /// `symbol` points into the symbol table of a loaded object.
    unsafe fn read(symbol: *const libc::Elf64_Sym) -> Self {
        // SAFETY: by the caller.
        let symbol = unsafe { &*symbol };
        let usable = symbol.st_shndx != SHN_UNDEF && symbol.st_info & 0xf == STT_FUNC && symbol.st_value != 0;
        Self { value: symbol.st_value, usable }
    }
}
