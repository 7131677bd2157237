//! Files of programs and libraries, read and never run.

use object::elf::FileHeader64;
use object::read::elf::{ElfFile64, FileHeader, ProgramHeader};
use object::{Architecture, Endianness, Object, ObjectSymbol};
use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Bytes of a file that are read: NVIDIA's driver has a tenth of it.
const LONGEST: u64 = 1 << 30;

/// The bytes of a file.
pub fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    let file = File::open(path)?;
    if !file.metadata()?.is_file() {
        return Err(std::io::Error::other("it is no file"));
    }
    let mut bytes = Vec::new();
    file.take(LONGEST).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// An ELF file of this processor, with 64 bits.
pub struct Elf<'b> {
    file: ElfFile64<'b, Endianness>,
    bytes: &'b [u8],
}

impl<'b> Elf<'b> {
    /// `None`: it is of another kind.
    pub fn parse(bytes: &'b [u8]) -> Option<Self> {
        let file = ElfFile64::<Endianness>::parse(bytes).ok()?;
        let own = if cfg!(target_arch = "aarch64") { Architecture::Aarch64 } else { Architecture::X86_64 };
        (file.architecture() == own).then_some(Self { file, bytes })
    }

    /// Whether it is a shared library or a program of any place in memory.
    pub fn is_shared(&self) -> bool {
        self.file.elf_header().e_type(self.file.endian()) == object::elf::ET_DYN
    }

    /// The loader that it asks for.
    pub fn interpreter(&self) -> Option<PathBuf> {
        let (endian, bytes) = (self.file.endian(), self.bytes);
        let header: &FileHeader64<Endianness> = self.file.elf_header();
        let headers = header.program_headers(endian, bytes).ok()?;
        let path = headers.iter().find_map(|header| header.interpreter(endian, bytes).ok().flatten())?;
        Some(PathBuf::from(String::from_utf8_lossy(path).into_owned()))
    }

    /// What identifies the build.
    pub fn build_id(&self) -> Option<&[u8]> {
        self.file.build_id().ok().flatten()
    }

    /// The functions that it exports.
    pub fn exports(&self) -> BTreeSet<String> {
        self.names(|symbol| symbol.is_definition() || !symbol.is_undefined())
    }

    /// Whether it calls a function of another library.
    pub fn imports(&self, name: &str) -> bool {
        self.all_imports().contains(name)
    }

    /// The functions that it takes from other libraries.
    pub fn all_imports(&self) -> BTreeSet<String> {
        self.names(|symbol| symbol.is_undefined())
    }

    fn names(
        &self,
        wanted: impl Fn(&object::read::elf::ElfSymbol64<'b, '_, Endianness>) -> bool,
    ) -> BTreeSet<String> {
        let symbols = self.file.dynamic_symbols().filter(wanted);
        let names = symbols.filter_map(|symbol| symbol.name().ok().map(str::to_owned));
        names
            .map(|name| name.split('@').next().unwrap_or_default().to_owned())
            .filter(|name| !name.is_empty())
            .collect()
    }
}

/// Whether two files are builds of the same source, as their build ids say; `None` where one of them says nothing.
pub fn same_build(one: &Path, other: &Path) -> Option<bool> {
    let (one, other) = (read(one).ok()?, read(other).ok()?);
    let (one, other) = (Elf::parse(&one)?, Elf::parse(&other)?);
    Some(one.build_id()? == other.build_id()?)
}
