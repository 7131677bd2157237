//! The reader of loaded objects, on sound ones and on damaged ones.
//!
//! # Safety
//! These tests may use `unsafe` because they load an object of their own and lay its segments out in mappings of their own.

use super::tables::reads::within;
use super::{Object, Span};
use core::ffi::{CStr, c_int, c_void};
use proptest::prelude::*;
use std::borrow::ToOwned;
use std::ffi::CString;
use std::ops::Range;
use std::path::Path;
use std::string::String;
use std::sync::OnceLock;
use std::vec::Vec;
use std::{format, vec};

const PAGE: usize = 4096;
/// Functions that the small object exports.
const FUNCTIONS: usize = 40;

/// A small shared object, and where its parts lie in memory.
struct Small {
    path: CString,
    /// The loader's handle of it.
    handle: usize,
    /// As it would be loaded from address 0 on.
    image: Vec<u8>,
    headers: usize,
    header_count: usize,
    dynamic_bytes: usize,
    segments: Vec<Range<usize>>,
    /// What may be damaged: dynamic section, hash tables, symbols, strings.
    parts: Vec<Range<usize>>,
}

const STYLES: [&str; 3] = ["gnu", "sysv", "both"];

fn small(style: usize) -> &'static Small {
    static SMALL: [OnceLock<Small>; 3] = [OnceLock::new(), OnceLock::new(), OnceLock::new()];
    SMALL[style].get_or_init(|| Small::compile(STYLES[style]))
}

fn number<const N: usize>(bytes: &[u8], at: usize) -> usize {
    let mut word = [0; 8];
    word[..N].copy_from_slice(&bytes[at..at + N]);
    u64::from_le_bytes(word) as usize
}

impl Small {
    fn compile(style: &str) -> Self {
        let directory = std::env::temp_dir().join(format!("gpuquota-elf-{}-{style}", std::process::id()));
        std::fs::create_dir_all(&directory).expect("a directory for the object");
        let source = directory.join("small.c");
        let mut text = String::from(
            "#include <stdlib.h>\nextern int clearenv(void);\nint (*reference)(void) = clearenv;\nint data = 7;\nstatic int hidden(int x) { return x; }\n",
        );
        for index in 0..FUNCTIONS {
            text += &format!("int small_{index}(int x) {{ return hidden(x) + abs(data) + {index}; }}\n");
        }
        std::fs::write(&source, text).expect("the object's source");
        let path = directory.join("libsmall.so");
        let compiler = std::env::var("CC").unwrap_or_else(|_| String::from("cc"));
        let done = std::process::Command::new(compiler)
            .args(["-shared", "-fPIC", "-fno-builtin", "-Wl,-soname,libsmall.so"])
            .arg(format!("-Wl,--hash-style={style}"))
            .arg(&source)
            .arg("-o")
            .arg(&path)
            .status();
        assert!(done.is_ok_and(|status| status.success()), "cc makes a shared object");
        let small = Self::read(&path);
        std::fs::remove_dir_all(&directory).expect("the directory is there");
        small
    }

    /// Loads the file, also lays it out as the loader does, and finds what its sections say.
    fn read(path: &Path) -> Self {
        let file = std::fs::read(path).expect("the object");
        let (headers, header_count) = (number::<8>(&file, 32), number::<2>(&file, 56));
        let (mut image, mut segments, mut dynamic_bytes) = (Vec::new(), Vec::new(), 0);
        for header in (0..header_count).map(|index| headers + index * 56) {
            match number::<4>(&file, header) as u32 {
                libc::PT_LOAD => {}
                libc::PT_DYNAMIC => {
                    dynamic_bytes = number::<8>(&file, header + 40);
                    continue;
                }
                _ => continue,
            }
            let [offset, address, in_file, in_memory] =
                [8, 16, 32, 40].map(|at| number::<8>(&file, header + at));
            image.resize(image.len().max(address + in_memory), 0);
            image[address..address + in_file].copy_from_slice(&file[offset..offset + in_file]);
            segments.push(address..address + in_memory);
        }
        let (sections, section_count) = (number::<8>(&file, 40), number::<2>(&file, 60));
        let sections = (0..section_count).map(|index| sections + index * 64);
        let loaded = sections.filter(|section| number::<8>(&file, section + 8) & 2 != 0);
        // Hash tables, dynamic section, symbols, strings.
        let wanted =
            loaded.filter(|section| matches!(number::<4>(&file, section + 4), 0x6fff_fff6 | 3 | 5 | 6 | 11));
        let part = |section: usize| {
            let [address, size] = [16, 32].map(|at| number::<8>(&file, section + at));
            address..address + size
        };
        let parts = wanted.map(part).collect();
        let path = CString::new(path.to_str().expect("a path in UTF-8")).expect("no NUL");
        // SAFETY: an object without constructors, which is never unloaded.
        let handle = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) } as usize;
        assert_ne!(handle, 0, "the object can be loaded");
        Self { path, handle, image, headers, header_count, dynamic_bytes, segments, parts }
    }

    /// Whatever may be asked of an object. No more is expected than that it ends.
    fn ask_everything(&self, object: &Object) {
        let bytes = self.image.len();
        for index in (0..FUNCTIONS).step_by(7) {
            let name = name(index);
            within(bytes, || object.function(&name));
        }
        within(bytes, || object.function(c"not_there"));
        within(bytes, || object.each_export(&mut |_, _| ()));
        within(bytes, || {
            object.each_reference(&|name| !name.is_empty(), &mut |reference| _ = reference.target())
        });
        within(bytes, || (object.bounds(), object.has_rpath(), object.has_runpath(), object.debug()));
        within(bytes, || object.soname().map(CStr::to_owned));
        within(bytes, || object.needs(c"libc.so.6"));
        within(bytes, || object.symbol_pages());
    }
}

/// Whether a function that an object exports lies at an address.
fn exports(object: &Object, address: usize) -> bool {
    let mut found = false;
    object.each_export(&mut |_, function| found |= function.address == address);
    found
}

fn name(index: usize) -> CString {
    CString::new(format!("small_{index}")).expect("no NUL")
}

/// An image in a mapping of its own; what is not of a segment cannot be read.
struct Loaded {
    mapping: *mut u8,
    length: usize,
    small: &'static Small,
}

impl Loaded {
    fn new(small: &'static Small, bytes: &[u8]) -> Self {
        let length = bytes.len().next_multiple_of(PAGE) + 2 * PAGE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: a new mapping, of which pages are made readable that segments lie in; there the image is copied.
        unsafe {
            let mapping = libc::mmap(core::ptr::null_mut(), length, libc::PROT_NONE, flags, -1, 0);
            assert_ne!(mapping, libc::MAP_FAILED);
            let loaded = Self { mapping: mapping.cast(), length, small };
            for segment in &small.segments {
                let begin = segment.start & !(PAGE - 1);
                let pages = loaded.base().add(begin).cast::<c_void>();
                let readable = libc::PROT_READ | libc::PROT_WRITE;
                assert_eq!(libc::mprotect(pages, segment.end - begin, readable), 0);
                let from = bytes[segment.clone()].as_ptr();
                loaded.base().add(segment.start).copy_from_nonoverlapping(from, segment.len());
            }
            loaded
        }
    }

    fn base(&self) -> *mut u8 {
        self.mapping.wrapping_add(PAGE)
    }

    fn object(&self) -> Option<Object<'_>> {
        let headers = self.base().wrapping_add(self.small.headers).cast();
        Object::at(self.base() as usize, c"".as_ptr(), headers, self.small.header_count)
    }
}

impl Drop for Loaded {
    fn drop(&mut self) {
        // SAFETY: nothing refers to it any more.
        unsafe { libc::munmap(self.mapping.cast(), self.length) };
    }
}

/// A change of some bytes at a place of an object.
#[derive(Clone, Debug)]
struct Damage {
    part: usize,
    at: usize,
    width: usize,
    value: Value,
}

#[derive(Clone, Debug)]
enum Value {
    Any(u64),
    /// What limits are passed by.
    Near(u64, i8),
    /// The size of the image, or close to it.
    End(i8),
}

fn damage() -> impl Strategy<Value = Damage> {
    let edges = prop::sample::select(vec![0u64, 1 << 12, 1 << 31, 1 << 32, 1 << 47, 1 << 63]);
    let value = prop_oneof![
        any::<u64>().prop_map(Value::Any),
        (0u64..256).prop_map(Value::Any),
        (edges, any::<i8>()).prop_map(|(edge, by)| Value::Near(edge, by)),
        any::<i8>().prop_map(Value::End),
    ];
    let width = prop::sample::select(vec![1usize, 4, 8]);
    (any::<usize>(), any::<usize>(), width, value).prop_map(|(part, at, width, value)| Damage {
        part,
        at,
        width,
        value,
    })
}

impl Damage {
    /// Does it to one of these parts of an image.
    fn apply(&self, image: &mut [u8], parts: &[Range<usize>]) {
        let part = &parts[self.part % parts.len()];
        let at = part.start + self.at % part.len() / self.width * self.width;
        let value = match self.value {
            Value::Any(value) => value,
            Value::Near(edge, by) => edge.wrapping_add_signed(by.into()),
            Value::End(by) => (image.len() as u64).wrapping_add_signed(by.into()),
        };
        let value = value.to_le_bytes();
        image.iter_mut().skip(at).zip(&value[..self.width]).for_each(|(to, from)| *to = *from);
    }
}

/// Writes a word of 4 bytes.
fn set(image: &mut [u8], at: usize, value: u32) {
    image[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

/// Where a table lies in an image.
fn place(object: &Object, table: Option<Span>) -> usize {
    table.expect("the table is there").start as usize - object.base
}

#[test]
fn a_test_process_finds_the_loaders_own_functions() {
    let own = Object::own().expect("the test itself");
    for name in [c"dlsym", c"dlopen", c"cuInit", c"nvmlInit_v2"] {
        assert!(own.function(name).is_none(), "the test exports {name:?}");
    }
}

#[test]
fn a_sound_object_answers_as_dlsym_does() {
    for (style, called) in STYLES.into_iter().enumerate() {
        let small = small(style);
        // SAFETY: a handle and a C string.
        let real = |name: &CStr| unsafe { libc::dlsym(small.handle as *mut c_void, name.as_ptr()) } as usize;
        let loaded = Loaded::new(small, &small.image);
        let laid_out = loaded.object().expect("an object");
        let from_bytes = Object::from_bytes(&small.image).expect("an object");
        let mut met = false;
        crate::driver::objects::each_object(&mut |object| {
            if object.path() != small.path.as_c_str() {
                return false;
            }
            met = true;
            for image in [object, &laid_out, &from_bytes] {
                assert_eq!(image.gnu_hash.is_some(), called != "sysv");
                assert_eq!(image.sysv_hash.is_some(), called != "gnu");
                assert_eq!(image.soname(), Some(c"libsmall.so"));
                let here = |address: usize| address - object.base + image.base;
                for name in (0..FUNCTIONS).map(name) {
                    let address = here(real(&name));
                    assert_eq!(
                        image.function(&name).map(|function| function.address),
                        Some(address),
                        "{name:?}"
                    );
                    assert!(image.contains(address) && exports(image, address), "{name:?}");
                }
                assert!(!exports(image, here(real(c"data"))) && !exports(image, here(real(c"small_0")) + 1));
                for other in [c"data", c"hidden", c"abs", c"small_", c"small_0x", c"not_there", c""] {
                    assert!(image.function(other).is_none(), "{other:?}");
                }
            }
            true
        });
        assert!(met, "the object is loaded");
    }
}

#[test]
fn references_to_functions_of_others_are_found() {
    for style in 0..STYLES.len() {
        let small = small(style);
        let mut bound = None;
        crate::driver::objects::each_object(&mut |object| {
            if object.path() != small.path.as_c_str() {
                return false;
            }
            object.each_reference(&|name| name.to_bytes().starts_with(b"c"), &mut |reference| {
                bound = Some((reference.name.to_owned(), reference.is_weak, reference.target()));
            });
            true
        });
        // SAFETY: libc's function has this name.
        let clearenv = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"clearenv".as_ptr()) } as usize;
        let (name, is_weak, target) = bound.expect("a reference");
        assert_eq!((name.as_c_str(), is_weak, target), (c"clearenv", false, clearenv));
    }
}

#[test]
fn an_object_needs_what_it_was_linked_to() {
    let small = small(0);
    let object = Object::from_bytes(&small.image).expect("an object");
    let mut libc = None;
    crate::driver::objects::each_object(&mut |object| {
        libc = object.function(c"malloc").and(object.soname()).map(CStr::to_owned);
        libc.is_some()
    });
    assert!(object.needs(&libc.expect("a C library")));
    assert!(!object.needs(c"libcuda.so.1") && !object.needs(c""));
}

/// What the reader answers for names that are there and one that is not, of an image that was changed.
fn answers(style: usize, change: impl FnOnce(&mut Vec<u8>, &Object)) -> Option<(usize, bool)> {
    let small = small(style);
    let mut image = small.image.clone();
    change(&mut image, &Object::from_bytes(&small.image).expect("an object"));
    let loaded = Loaded::new(small, &image);
    let object = loaded.object()?;
    small.ask_everything(&object);
    let found =
        (0..FUNCTIONS).filter(|index| within(small.image.len(), || object.function(&name(*index)).is_some()));
    Some((found.count(), within(small.image.len(), || object.function(c"not_there").is_some())))
}

#[test]
fn a_dynamic_section_without_an_end_ends_where_its_header_says() {
    for style in 0..STYLES.len() {
        let unending = |image: &mut Vec<u8>, object: &Object| {
            let at = object.dynamic.start as usize - object.base;
            for entry in (at..at + object.dynamic.length).step_by(16) {
                if number::<8>(image, entry) == 0 {
                    // DT_DEBUG, which says nothing.
                    set(image, entry, 21);
                }
            }
        };
        assert_eq!(answers(style, unending), Some((FUNCTIONS, false)));
        let mut image = small(style).image.clone();
        unending(&mut image, &Object::from_bytes(&small(style).image).expect("an object"));
        let object = Object::from_bytes(&image).expect("an object");
        assert_eq!(object.entries().count() * 16, small(style).dynamic_bytes);
    }
}

#[test]
fn a_table_without_buckets_finds_nothing() {
    let gnu = |image: &mut Vec<u8>, object: &Object| set(image, place(object, object.gnu_hash), 0);
    let sysv = |image: &mut Vec<u8>, object: &Object| set(image, place(object, object.sysv_hash), 0);
    assert_eq!(answers(0, gnu), Some((0, false)));
    assert_eq!(answers(1, sysv), Some((0, false)));
}

#[test]
fn a_first_symbol_behind_all_others_finds_nothing() {
    for first in [1 << 20, u32::MAX] {
        let change =
            |image: &mut Vec<u8>, object: &Object| set(image, place(object, object.gnu_hash) + 4, first);
        assert_eq!(answers(0, change), Some((0, false)));
    }
}

#[test]
fn buckets_and_filters_beyond_the_segment_find_nothing() {
    for (word, count) in [(0, u32::MAX), (2, u32::MAX), (2, 1 << 29)] {
        let change = |image: &mut Vec<u8>, object: &Object| {
            set(image, place(object, object.gnu_hash) + 4 * word, count)
        };
        assert_eq!(answers(0, change), Some((0, false)), "word {word}");
    }
    for word in [0, 1] {
        let change = |image: &mut Vec<u8>, object: &Object| {
            set(image, place(object, object.sysv_hash) + 4 * word, u32::MAX)
        };
        assert_eq!(answers(1, change), Some((0, false)), "word {word}");
    }
}

#[test]
fn a_chain_without_an_end_ends_with_its_segment() {
    let unending = |image: &mut Vec<u8>, object: &Object| {
        let table = super::GnuTable::new(object.gnu_hash.expect("a table")).expect("a table");
        let chains = place(object, object.gnu_hash) + 4 * (table.bucket_at + table.buckets as usize);
        let end = small(0).segments.iter().find(|segment| segment.contains(&chains)).expect("a segment").end;
        (chains..end - 3).step_by(4).for_each(|at| image[at] &= !1);
    };
    let (_, missing) = answers(0, unending).expect("an object");
    assert!(!missing);
}

#[test]
fn a_chain_in_a_circle_ends() {
    let circle = |image: &mut Vec<u8>, object: &Object| {
        let at = place(object, object.sysv_hash);
        let (buckets, chains) = (number::<4>(image, at), number::<4>(image, at + 4));
        (0..buckets).for_each(|bucket| set(image, at + 8 + 4 * bucket, 1));
        (0..chains).for_each(|chain| set(image, at + 8 + 4 * (buckets + chain), 1));
    };
    let (_, missing) = answers(1, circle).expect("an object");
    assert!(!missing);
}

#[test]
fn symbols_and_strings_beyond_their_segments_find_nothing() {
    for style in 0..STYLES.len() {
        let names = |image: &mut Vec<u8>, object: &Object| {
            let at = object.symbols.start as usize - object.base;
            let count = object.symbol_count().expect("a count");
            (0..count).for_each(|symbol| set(image, at + 24 * symbol, u32::MAX - 5));
        };
        assert_eq!(answers(style, names), Some((0, false)));
        for tag in [super::DT_SYMTAB, super::DT_STRTAB] {
            let tables = |image: &mut Vec<u8>, object: &Object| {
                let at = object.dynamic.start as usize - object.base;
                let entries = (at..).step_by(16);
                let entry = entries.into_iter().find(|entry| number::<8>(image, *entry) == tag as usize);
                set(image, entry.expect("an entry") + 8, 0x7fff_0000);
            };
            assert_eq!(answers(style, tables), None);
        }
    }
}

#[test]
fn a_string_without_an_end_is_none() {
    let small = small(0);
    let mut image = small.image.clone();
    let sound = Object::from_bytes(&small.image).expect("an object");
    let strings = place(&sound, Some(sound.strings));
    let segment = small.segments.iter().find(|segment| segment.contains(&strings)).expect("a segment");
    image[strings..segment.end].fill(b'x');
    let loaded = Loaded::new(small, &image);
    let object = loaded.object().expect("an object");
    assert_eq!(within(image.len(), || object.soname()), None);
    assert!(!within(image.len(), || object.needs(c"libc.so.6")));
}

#[test]
fn an_image_that_is_cut_short_is_no_object() {
    let small = small(2);
    for length in (0..small.image.len()).step_by(61) {
        assert!(Object::from_bytes(&small.image[..length]).is_none(), "{length}");
    }
}

/// Cases that one run looks at.
fn cases(count: u32) -> ProptestConfig {
    ProptestConfig { cases: count, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(cases(2048))]

    #[test]
    fn damaged_tables_neither_fault_nor_loop(style in 0..STYLES.len(), damages in prop::collection::vec(damage(), 1..12)) {
        let small = small(style);
        let mut image = small.image.clone();
        for damage in &damages {
            damage.apply(&mut image, &small.parts);
        }
        let loaded = Loaded::new(small, &image);
        if let Some(object) = within(image.len(), || loaded.object()) {
            small.ask_everything(&object);
        }
    }

    #[test]
    fn damaged_images_neither_fault_nor_loop(style in 0..STYLES.len(), damages in prop::collection::vec(damage(), 1..12)) {
        let small = small(style);
        // At the end of a mapping, behind which nothing can be read.
        let guarded = Guarded::new(&small.image);
        let headers = 0..small.headers + small.header_count * 56;
        let parts: Vec<_> = [headers.clone(), headers].into_iter().chain(small.parts.iter().cloned()).collect();
        for damage in &damages {
            damage.apply(guarded.bytes(), &parts);
        }
        if let Some(object) = within(small.image.len(), || Object::from_bytes(guarded.bytes())) {
            small.ask_everything(&object);
        }
    }
}

/// Bytes that end where their mapping ends.
struct Guarded {
    mapping: *mut c_void,
    readable: usize,
    length: usize,
}

impl Guarded {
    fn new(bytes: &[u8]) -> Self {
        let readable = bytes.len().next_multiple_of(PAGE);
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        let protections: c_int = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping, whose last page cannot be read.
        let mapping = unsafe {
            let mapping = libc::mmap(core::ptr::null_mut(), readable + PAGE, protections, flags, -1, 0);
            assert_ne!(mapping, libc::MAP_FAILED);
            assert_eq!(libc::mprotect(mapping.wrapping_add(readable), PAGE, libc::PROT_NONE), 0);
            mapping
        };
        let guarded = Self { mapping, readable, length: bytes.len() };
        guarded.bytes().copy_from_slice(bytes);
        guarded
    }

    #[allow(clippy::mut_from_ref)]
    fn bytes(&self) -> &mut [u8] {
        let start = self.mapping.cast::<u8>().wrapping_add(self.readable - self.length);
        // SAFETY: the test uses one of these at a time.
        unsafe { core::slice::from_raw_parts_mut(start, self.length) }
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        // SAFETY: nothing refers to it any more.
        unsafe { libc::munmap(self.mapping, self.readable + PAGE) };
    }
}
