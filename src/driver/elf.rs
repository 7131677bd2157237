//! Loaded objects and their symbol tables, read from memory.
//!
//! The library finds the real functions itself: asking `dlsym` would ask whoever interposes it, and `dlvsym` moved
//! from libdl to libc in glibc 2.34, so that one of the two worlds would not load a library that needs it.
//!
//! # Safety
//! This room may use `unsafe` because it walks structures that the dynamic loader has mapped and keeps mapped:
//! program headers and dynamic sections as described by the ELF specification. Objects are only looked at inside
//! `dl_iterate_phdr` (`objects`), or are pinned, or are never unloaded, as this library (`-z nodelete`).
#![allow(unsafe_code)]

#[path = "elf/patch.rs"]
mod patch;
#[path = "elf/references.rs"]
pub mod references;
#[path = "elf/tables.rs"]
mod tables;

use core::ffi::{CStr, c_char};
use core::marker::PhantomData;
use core::mem::size_of;
use tables::{Dynamic, GnuTable, Span, SysvTable};

/// A loaded object.
///
/// What is read of it lies in its readable PT_LOAD segments, which the loader has mapped by these very headers. So
/// whatever a damaged or hostile object says in its tables, an answer is `None` at worst.
#[derive(Clone, Copy)]
pub struct Object<'o> {
    base: usize,
    name: *const c_char,
    headers: *const libc::Elf64_Phdr,
    header_count: usize,
    dynamic: Span,
    symbols: Span,
    strings: Span,
    gnu_hash: Option<Span>,
    sysv_hash: Option<Span>,
    soname: Option<u64>,
    lives: PhantomData<&'o [u8]>,
}

const DT_NULL: i64 = 0;
const DT_NEEDED: i64 = 1;
const DT_HASH: i64 = 4;
const DT_STRTAB: i64 = 5;
const DT_SYMTAB: i64 = 6;
const DT_SONAME: i64 = 14;
const DT_RPATH: i64 = 15;
const DT_DEBUG: i64 = 21;
const DT_RUNPATH: i64 = 29;
const DT_GNU_HASH: i64 = 0x6fff_fef5;
const STT_FUNC: u8 = 2;
const SHN_UNDEF: u16 = 0;

unsafe extern "C" {
    /// Where this library's own file begins in memory; the linker defines it.
    static __ehdr_start: libc::Elf64_Ehdr;
}

impl Object<'static> {
    /// This library.
    pub fn own() -> Option<Self> {
        // SAFETY: the linker places the symbol at the file header, which is mapped with the first segment.
        unsafe { Self::beginning_at(&raw const __ehdr_start as usize, c"".as_ptr()) }
    }
}

impl<'o> Object<'o> {
    /// An object by the loader's record of it.
    pub fn of(info: &'o libc::dl_phdr_info) -> Option<Self> {
        Self::at(info.dlpi_addr as usize, info.dlpi_name, info.dlpi_phdr, info.dlpi_phnum.into())
    }

    /// The program itself, by its program headers.
    ///
    /// # Safety
    /// There are `count` of them, mapped as long as the program runs.
    pub unsafe fn of_program(headers: *const libc::Elf64_Phdr, count: usize) -> Option<Self> {
        if headers.is_null() {
            return None;
        }
        // SAFETY: by the caller.
        let own = unsafe { self::headers(headers, count) }.find(|header| header.p_type == libc::PT_PHDR)?;
        Self::at((headers as usize).wrapping_sub(own.p_vaddr as usize), c"".as_ptr(), headers, count)
    }

    /// An object that lies in `image` as a loader would have laid it out from address 0 on. Nothing in it is trusted.
    #[allow(dead_code)] // For tests and fuzzing.
    pub fn from_bytes(image: &'o [u8]) -> Option<Self> {
        let all = Span { start: image.as_ptr(), length: image.len() };
        let header: libc::Elf64_Ehdr = all.read(0)?;
        let ours = [0x7f, b'E', b'L', b'F', libc::ELFCLASS64, libc::ELFDATA2LSB];
        let (count, size) = (usize::from(header.e_phnum), size_of::<libc::Elf64_Phdr>());
        if !header.e_ident.starts_with(&ours) || usize::from(header.e_phentsize) != size {
            return None;
        }
        let at = usize::try_from(header.e_phoff).ok()?;
        let headers = image.get(at..at.checked_add(count.checked_mul(size)?)?)?.as_ptr().cast();
        let inside = |header: libc::Elf64_Phdr| {
            header.p_vaddr.checked_add(header.p_memsz).is_some_and(|end| end <= image.len() as u64)
        };
        // SAFETY: these headers lie in the image.
        let mut segments =
            unsafe { self::headers(headers, count) }.filter(|header| header.p_type == libc::PT_LOAD);
        segments.all(inside).then_some(())?;
        Self::at(image.as_ptr() as usize, c"".as_ptr(), headers, count)
    }

    /// The object whose file begins at `base`.
    ///
    /// # Safety
    /// An object is mapped there, as the loader maps it.
    pub unsafe fn beginning_at(base: usize, name: *const c_char) -> Option<Self> {
        // SAFETY: by the caller.
        let header = unsafe { (base as *const libc::Elf64_Ehdr).read_unaligned() };
        let headers = base.wrapping_add(header.e_phoff as usize) as *const libc::Elf64_Phdr;
        if !header.e_ident.starts_with(b"\x7fELF") {
            return None;
        }
        Self::at(base, name, headers, header.e_phnum.into())
    }

    /// The object that lies at `base`, from its program headers.
    fn at(
        base: usize,
        name: *const c_char,
        headers: *const libc::Elf64_Phdr,
        header_count: usize,
    ) -> Option<Self> {
        let nothing = Span { start: core::ptr::null(), length: 0 };
        let mut object = Self {
            base,
            name,
            headers,
            header_count,
            dynamic: nothing,
            symbols: nothing,
            strings: nothing,
            gnu_hash: None,
            sysv_hash: None,
            soname: None,
            lives: PhantomData,
        };
        let dynamic = object.headers().find(|header| header.p_type == libc::PT_DYNAMIC)?;
        object.dynamic = object.span(base.wrapping_add(dynamic.p_vaddr as usize))?;
        object.dynamic.length = object.dynamic.length.min(dynamic.p_memsz as usize);
        let (mut symbols, mut strings) = (None, None);
        for Dynamic { tag, value } in object.entries() {
            match tag {
                DT_HASH => object.sysv_hash = object.table(value),
                DT_STRTAB => strings = object.table(value),
                DT_SYMTAB => symbols = object.table(value),
                DT_GNU_HASH => object.gnu_hash = object.table(value),
                DT_SONAME => object.soname = Some(value),
                _ => {}
            }
        }
        Some(Self { symbols: symbols?, strings: strings?, ..object })
    }

    fn headers(&self) -> impl Iterator<Item = libc::Elf64_Phdr> + use<> {
        // SAFETY: the loader gave pointer and count, or `from_bytes` has looked.
        unsafe { headers(self.headers, self.header_count) }
    }

    fn segments(&self) -> impl Iterator<Item = libc::Elf64_Phdr> + use<> {
        self.headers().filter(|header| header.p_type == libc::PT_LOAD)
    }

    /// The bytes from an address on, as far as they lie in one readable segment.
    fn span(&self, address: usize) -> Option<Span> {
        let offset = address.wrapping_sub(self.base) as u64;
        let readable = |header: &libc::Elf64_Phdr| header.p_flags & libc::PF_R != 0;
        let left = |header: libc::Elf64_Phdr| header.p_memsz.checked_sub(offset.wrapping_sub(header.p_vaddr));
        let length =
            self.segments().filter(readable).find_map(|header| left(header).filter(|left| *left > 0))?;
        Some(Span { start: address as *const u8, length: length as usize })
    }

    /// What an entry of the dynamic section points to. glibc rewrites most of them to absolute addresses, but not those of
    /// the vDSO.
    fn table(&self, value: u64) -> Option<Span> {
        let value = value as usize;
        self.span(if value < self.base { self.base.wrapping_add(value) } else { value })
    }

    /// The dynamic section's entries.
    fn entries(&self) -> impl Iterator<Item = Dynamic> + use<> {
        let dynamic = self.dynamic;
        (0..).map_while(move |index| dynamic.item::<Dynamic>(index)).take_while(|entry| entry.tag != DT_NULL)
    }

    /// Whether it was linked to a library of this name.
    pub fn needs(&self, soname: &CStr) -> bool {
        let is =
            |entry: Dynamic| entry.tag == DT_NEEDED && self.strings.is_string(entry.value as usize, soname);
        self.entries().any(is)
    }

    /// The path it was loaded from; empty for the program itself.
    pub fn path(&self) -> &CStr {
        // SAFETY: the loader's name of a loaded object.
        if self.name.is_null() { c"" } else { unsafe { CStr::from_ptr(self.name) } }
    }

    /// Its file name without the folders.
    pub fn file(&self) -> &[u8] {
        let path = self.path().to_bytes();
        path.rsplit(|byte| *byte == b'/').next().unwrap_or(path)
    }

    /// Its DT_SONAME.
    pub fn soname(&self) -> Option<&CStr> {
        self.strings.string(self.soname? as usize)
    }

    /// What is added to the addresses in its file.
    pub fn base(&self) -> usize {
        self.base
    }

    /// The same object, to be looked at after the walk that found it.
    ///
    /// # Safety
    /// It is not unloaded.
    pub unsafe fn kept(&self) -> Object<'static> {
        Object { lives: PhantomData, ..*self }
    }

    /// From where to where its segments reach.
    pub fn bounds(&self) -> (usize, usize) {
        let ends = |header: libc::Elf64_Phdr| (header.p_vaddr, header.p_vaddr.wrapping_add(header.p_memsz));
        let all =
            self.segments().map(ends).fold((u64::MAX, 0), |all, one| (all.0.min(one.0), all.1.max(one.1)));
        (self.base.wrapping_add(all.0 as usize), self.base.wrapping_add(all.1 as usize))
    }

    /// Whether it has a DT_RPATH, folders to look for libraries in.
    pub fn has_rpath(&self) -> bool {
        self.entries().any(|entry| entry.tag == DT_RPATH)
    }

    /// Whether it has a DT_RUNPATH.
    pub fn has_runpath(&self) -> bool {
        self.entries().any(|entry| entry.tag == DT_RUNPATH)
    }

    /// Where the loader has put its record of the process's objects; only the program itself knows it.
    pub fn debug(&self) -> Option<usize> {
        let entry = self.entries().find(|entry| entry.tag == DT_DEBUG && entry.value != 0)?;
        Some(entry.value as usize)
    }

    /// Whether an address lies in one of its segments.
    pub fn contains(&self, address: usize) -> bool {
        let offset = address.wrapping_sub(self.base) as u64;
        self.segments().any(|header| holds(&header, offset))
    }

    /// The function that it exports under `name`.
    pub fn function(&self, name: &CStr) -> Option<Function> {
        let mut found = None;
        self.each_function(name, &mut |function| {
            found = found.or(Some(function));
        });
        found
    }

    /// Calls `visit` for each function that it exports under `name`: one for each version.
    pub fn each_function(&self, name: &CStr, visit: &mut dyn FnMut(Function)) {
        let mut each = |index: u32| {
            if let Some(function) = self.function_at(index as usize)
                && self.is(index, name)
            {
                visit(function);
            }
        };
        _ = match self.gnu_hash {
            Some(words) => GnuTable::new(words).and_then(|table| Self::each_of_gnu(&table, name, &mut each)),
            None => {
                self.sysv_hash.and_then(|words| Self::each_of_sysv(&SysvTable::new(words)?, name, &mut each))
            }
        };
    }

    /// Calls `visit` for each function that it exports.
    pub fn each_export(&self, visit: &mut dyn FnMut(&CStr, Function)) {
        for index in 0..self.symbol_count().unwrap_or(0) {
            let Some(symbol) = self.symbols.item::<libc::Elf64_Sym>(index) else { break };
            if let Some(function) = self.function_at(index)
                && let Some(name) = self.strings.string(symbol.st_name as usize)
            {
                visit(name, function);
            }
        }
    }

    fn function_at(&self, index: usize) -> Option<Function> {
        let symbol = self.symbols.place(index.checked_mul(size_of::<libc::Elf64_Sym>())?)?;
        Some(Function { symbol, address: self.address_of(&self.symbols.item(index)?)? })
    }

    /// The address of a symbol that is a function of this object.
    fn address_of(&self, symbol: &libc::Elf64_Sym) -> Option<usize> {
        let usable = symbol.st_shndx != SHN_UNDEF && symbol.st_info & 0xf == STT_FUNC && symbol.st_value != 0;
        usable.then(|| self.base.wrapping_add(symbol.st_value as usize))
    }

    /// How many symbols the hash table knows of.
    fn symbol_count(&self) -> Option<usize> {
        let Some(words) = self.gnu_hash else {
            return Some(SysvTable::new(self.sysv_hash?)?.chains as usize);
        };
        let table = GnuTable::new(words)?;
        let mut last = (0..table.buckets).map_while(|bucket| table.bucket(bucket)).max()?;
        // A chain ends with an odd word.
        while last >= table.first && table.chain(last)? & 1 == 0 {
            last = last.checked_add(1)?;
        }
        Some((last as usize).wrapping_add(1))
    }

    /// The index of the first symbol that cannot be undefined: in a table with GNU's hashes those come first.
    fn undefined_end(&self) -> usize {
        let first = self.gnu_hash.and_then(GnuTable::new).map(|table| table.first as usize);
        first.or_else(|| self.symbol_count()).unwrap_or(0)
    }

    fn is(&self, index: u32, name: &CStr) -> bool {
        let symbol = self.symbols.item::<libc::Elf64_Sym>(index as usize);
        symbol.is_some_and(|symbol| self.strings.is_string(symbol.st_name as usize, name))
    }

    /// The symbols that a name's hash leads to.
    fn each_of_gnu(table: &GnuTable, name: &CStr, visit: &mut dyn FnMut(u32)) -> Option<()> {
        let hash = name
            .to_bytes()
            .iter()
            .fold(5381u32, |hash, byte| hash.wrapping_mul(33).wrapping_add(u32::from(*byte)));
        let mut index = table.bucket(hash.checked_rem(table.buckets)?)?;
        loop {
            let chain = table.chain(index)?;
            if chain | 1 == hash | 1 {
                visit(index);
            }
            if chain & 1 != 0 {
                return None;
            }
            index = index.checked_add(1)?;
        }
    }

    /// The symbols that share a bucket with a name.
    fn each_of_sysv(table: &SysvTable, name: &CStr, visit: &mut dyn FnMut(u32)) -> Option<()> {
        let hash = name.to_bytes().iter().fold(0u32, |hash, byte| {
            let hash = (hash << 4).wrapping_add(u32::from(*byte));
            let high = hash & 0xf000_0000;
            (hash ^ high >> 24) & !high
        });
        let mut index = table.bucket(hash.checked_rem(table.buckets)?)?;
        // A chain that passes more symbols than there are goes round in a circle.
        for _ in 0..table.chains {
            if index == 0 {
                break;
            }
            visit(index);
            index = table.chain(index)?;
        }
        None
    }
}

/// Program headers, wherever they lie.
///
/// # Safety
/// There are `count` of them.
unsafe fn headers(
    headers: *const libc::Elf64_Phdr,
    count: usize,
) -> impl Iterator<Item = libc::Elf64_Phdr> + use<> {
    // SAFETY: by the caller; they are plain numbers.
    (0..count).map(move |index| unsafe { headers.wrapping_add(index).read_unaligned() })
}

/// Whether what lies this far from the object's base is of a program header's.
fn holds(header: &libc::Elf64_Phdr, offset: u64) -> bool {
    offset.wrapping_sub(header.p_vaddr) < header.p_memsz
}

/// A function that an object exports.
#[derive(Clone, Copy)]
pub struct Function {
    symbol: *const libc::Elf64_Sym,
    /// Where it is.
    pub address: usize,
}

#[cfg(test)]
#[path = "elf/tests.rs"]
mod tests;
