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
use core::marker::PhantomData;
use core::mem::{align_of, size_of};
use core::slice;
use core::sync::atomic::{AtomicU64, Ordering::Release};

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

/// Bytes of an object that may be read: from where a table begins to the end of the segment that holds it.
#[derive(Clone, Copy)]
struct Span {
    start: *const u8,
    length: usize,
}

impl Span {
    /// The place of a value of this type, if it lies within.
    fn place<T>(self, offset: usize) -> Option<*const T> {
        let end = offset.checked_add(size_of::<T>())?;
        (end <= self.length).then(|| self.start.wrapping_add(offset).cast())
    }

    fn read<T: Plain>(self, offset: usize) -> Option<T> {
        #[cfg(test)]
        tests::count_read();
        let place = self.place::<T>(offset)?;
        // SAFETY: mapped and readable (see `Object::span`); any bytes are a value of a plain type.
        Some(unsafe { place.read_unaligned() })
    }

    /// The n-th of many of this type.
    fn item<T: Plain>(self, index: usize) -> Option<T> {
        self.read(index.checked_mul(size_of::<T>())?)
    }

    /// The string that begins at an offset; `None` where none ends.
    fn string(&self, offset: usize) -> Option<&CStr> {
        let left = self.length.checked_sub(offset)?;
        let length = (offset..).take(left).position(|at| self.read(at) == Some(0u8))?;
        // SAFETY: these bytes were just read, and the last of them is the only NUL.
        Some(unsafe {
            let bytes = slice::from_raw_parts(self.start.wrapping_add(offset), length.wrapping_add(1));
            CStr::from_bytes_with_nul_unchecked(bytes)
        })
    }

    /// Whether this string begins at an offset.
    fn is_string(self, offset: usize, string: &CStr) -> bool {
        let mut expected = string.to_bytes_with_nul().iter().enumerate();
        expected.all(|(at, byte)| offset.checked_add(at).and_then(|at| self.read(at)) == Some(*byte))
    }
}

/// A type of which any bytes are a value.
///
/// # Safety
/// Any bytes are a value of it.
unsafe trait Plain: Copy {}
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

/// DT_GNU_HASH of an object that has it: four words, the bloom filter, buckets, chains.
struct GnuTable {
    words: Span,
    /// How many buckets there are.
    buckets: u32,
    /// The first symbol that is in a chain.
    first: u32,
    /// Index of the first bucket's word.
    bucket_at: usize,
}

impl GnuTable {
    fn new(words: Span) -> Option<Self> {
        let word = |index| words.item::<u32>(index);
        let (buckets, first, bloom) = (word(0)?, word(1)?, word(2)? as usize);
        let bucket_at = bloom.checked_mul(size_of::<usize>() / 4)?.checked_add(4)?;
        Some(Self { words, buckets, first, bucket_at })
    }

    /// The first symbol of a bucket's chain.
    fn bucket(&self, bucket: u32) -> Option<u32> {
        self.words.item(self.bucket_at.checked_add(bucket as usize)?)
    }

    /// The chain's word of a symbol.
    fn chain(&self, symbol: u32) -> Option<u32> {
        let chains = self.bucket_at.checked_add(self.buckets as usize)?;
        self.words.item(chains.checked_add(symbol.checked_sub(self.first)? as usize)?)
    }
}

/// DT_HASH: two counts, buckets, chains.
struct SysvTable {
    words: Span,
    buckets: u32,
    /// Chains, one for each symbol.
    chains: u32,
}

impl SysvTable {
    fn new(words: Span) -> Option<Self> {
        let (buckets, chains) = (words.item(0)?, words.item(1)?);
        let table = Self { words, buckets, chains };
        // The last chain has to be there, so that a count can be believed.
        table.chain(chains.checked_sub(1)?)?;
        Some(table)
    }

    fn bucket(&self, bucket: u32) -> Option<u32> {
        self.words.item((bucket as usize).checked_add(2)?)
    }

    fn chain(&self, symbol: u32) -> Option<u32> {
        let chains = (self.buckets as usize).checked_add(2)?;
        self.words.item(chains.checked_add(symbol as usize)?)
    }
}

/// `Elf64_Dyn`, which the libc crate does not have for every target.
#[derive(Clone, Copy)]
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

impl Object<'static> {
    /// This library.
    pub fn own() -> Option<Self> {
        // SAFETY: the linker places the symbol at the file header, which is mapped with the first segment.
        let header = unsafe { &__ehdr_start };
        let base = core::ptr::from_ref(header) as usize;
        let headers = base.wrapping_add(header.e_phoff as usize) as *const libc::Elf64_Phdr;
        Self::at(base, c"".as_ptr(), headers, header.e_phnum.into())
    }
}

impl<'o> Object<'o> {
    fn read(info: &'o libc::dl_phdr_info) -> Option<Self> {
        Self::at(info.dlpi_addr as usize, info.dlpi_name, info.dlpi_phdr, info.dlpi_phnum.into())
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

    /// Whether an address lies in one of its segments.
    pub fn contains(&self, address: usize) -> bool {
        let offset = address.wrapping_sub(self.base) as u64;
        self.segments().any(|header| holds(&header, offset))
    }

    /// Where it begins in memory, and where it ends.
    pub fn range(&self) -> (usize, usize) {
        let ends = self.segments().map(|header| header.p_vaddr.wrapping_add(header.p_memsz));
        (self.base, self.base.wrapping_add(ends.max().unwrap_or(0) as usize))
    }

    /// The function that it exports under `name`.
    pub fn function(&self, name: &CStr) -> Option<Function> {
        let index = match self.gnu_hash {
            Some(words) => self.by_gnu_hash(&GnuTable::new(words)?, name),
            None => self.by_sysv_hash(&SysvTable::new(self.sysv_hash?)?, name),
        }? as usize;
        let symbol = self.symbols.place(index.checked_mul(size_of::<libc::Elf64_Sym>())?)?;
        Some(Function { symbol, address: self.address_of(&self.symbols.item(index)?)? })
    }

    /// Whether it exports a function that lies at `address`.
    pub fn exports(&self, address: usize) -> bool {
        let symbols = (0..self.symbol_count().unwrap_or(0)).map_while(|index| self.symbols.item(index));
        symbols.into_iter().any(|symbol| self.address_of(&symbol) == Some(address))
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

    fn is(&self, index: u32, name: &CStr) -> bool {
        let symbol = self.symbols.item::<libc::Elf64_Sym>(index as usize);
        symbol.is_some_and(|symbol| self.strings.is_string(symbol.st_name as usize, name))
    }

    fn by_gnu_hash(&self, table: &GnuTable, name: &CStr) -> Option<u32> {
        let hash = name
            .to_bytes()
            .iter()
            .fold(5381u32, |hash, byte| hash.wrapping_mul(33).wrapping_add(u32::from(*byte)));
        let mut index = table.bucket(hash.checked_rem(table.buckets)?)?;
        loop {
            let chain = table.chain(index)?;
            if chain | 1 == hash | 1 && self.is(index, name) {
                return Some(index);
            }
            if chain & 1 != 0 {
                return None;
            }
            index = index.checked_add(1)?;
        }
    }

    fn by_sysv_hash(&self, table: &SysvTable, name: &CStr) -> Option<u32> {
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
            if self.is(index, name) {
                return Some(index);
            }
            index = table.chain(index)?;
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
        // Its words are written as such.
        if !(self.symbols.start as usize).is_multiple_of(align_of::<libc::Elf64_Sym>()) {
            return None;
        }
        let at = (self.symbols.start as usize).wrapping_sub(self.base) as u64;
        if self.headers().any(|header| header.p_type == libc::PT_GNU_RELRO && holds(&header, at)) {
            return None;
        }
        let segment = self.segments().find(|header| holds(header, at))?;
        if segment.p_flags != libc::PF_R {
            return None;
        }
        let begin = self.base.wrapping_add(segment.p_vaddr as usize) & !(page.wrapping_sub(1));
        let end = self.base.wrapping_add(segment.p_vaddr as usize).wrapping_add(segment.p_memsz as usize);
        Some((begin, end.wrapping_sub(begin)))
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

#[cfg(test)]
#[path = "elf/tests.rs"]
mod tests;
