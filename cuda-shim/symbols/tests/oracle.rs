//! Our rule against a real driver: whatever `cuGetProcAddress` of a real libcuda answers, ours must.
//!
//! A real libcuda answers all questions about symbols without a GPU. `make surface` fetches those of Debian's
//! packages (`scripts/debian-driver`) and asks each of them.
//!
//! # Safety
//! Calls two functions of the real library by their published signatures; the rest is dlopen and dlsym.
#![allow(unsafe_code)]

use std::collections::BTreeSet;
use std::ffi::{CString, c_char, c_int, c_void};

use cuda_shim_symbols::{Found, ROWS, Row, find};

type GetProcAddress = unsafe extern "C" fn(*const c_char, *mut *mut c_void, c_int, u64) -> c_int;
type GetProcAddressV2 =
    unsafe extern "C" fn(*const c_char, *mut *mut c_void, c_int, u64, *mut c_int) -> c_int;

const SUCCESS: c_int = 0;
const INVALID_VALUE: c_int = 1;
const NOT_FOUND: c_int = 500;
/// A pointer that no driver hands out, to see what a call left untouched.
const UNTOUCHED: *mut c_void = 0x5a5a as *mut c_void;

/// Exports of real drivers that no public header names.
fn is_undocumented(export: &str) -> bool {
    export.starts_with("cudbg")
        || ["cuEGLApiInit", "cuMemGetAttribute", "cuMemGetAttribute_v2"].contains(&export)
}

struct Driver {
    handle: *mut c_void,
    get: GetProcAddress,
    get_v2: GetProcAddressV2,
    exports: BTreeSet<String>,
}

impl Driver {
    /// The driver named by the environment, or the reason why there is none.
    fn open() -> Result<Self, String> {
        let path = std::env::var("CUDA_SHIM_REAL_LIBCUDA")
            .map_err(|_| "CUDA_SHIM_REAL_LIBCUDA does not name a real libcuda (see tests/oracle.rs)")?;
        let image = std::fs::read(&path).map_err(|error| format!("{path}: {error}"))?;
        let c_path = CString::new(path.as_str()).map_err(|_| "a path with a NUL")?;
        // SAFETY: a plain dlopen; the initialisers of a driver library do nothing without a GPU.
        let handle = unsafe { libc::dlopen(c_path.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
        if handle.is_null() {
            return Err(format!("{path} cannot be loaded here"));
        }
        let address = |export| address(handle, export).ok_or(format!("{path} does not export {export}"));
        // SAFETY: the signature is that of cuda.h for CUDA 11.3.
        let get = unsafe { std::mem::transmute::<*mut c_void, GetProcAddress>(address("cuGetProcAddress")?) };
        // SAFETY: the signature is that of cuda.h for CUDA 12.0.
        let get_v2 =
            unsafe { std::mem::transmute::<*mut c_void, GetProcAddressV2>(address("cuGetProcAddress_v2")?) };
        Ok(Self { handle, get, get_v2, exports: exports(&image) })
    }

    fn ask(&self, name: &str, version: i32, flags: u64) -> (c_int, *mut c_void) {
        let (name, mut found) = (CString::new(name).unwrap(), UNTOUCHED);
        // SAFETY: name is a C string, found a place for the answer.
        let result = unsafe { (self.get)(name.as_ptr(), &mut found, version, flags) };
        (result, found)
    }

    fn ask_v2(&self, name: &str, version: i32, flags: u64) -> (c_int, *mut c_void, c_int) {
        let (name, mut found, mut status) = (CString::new(name).unwrap(), UNTOUCHED, -1);
        // SAFETY: name is a C string, found and status places for the answer.
        let result = unsafe { (self.get_v2)(name.as_ptr(), &mut found, version, flags, &mut status) };
        (result, found, status)
    }

    /// What our rule, told which exports this driver has, says that it answers.
    fn expected(&self, rows: &[Row], name: &str, version: i32, flags: u64) -> Answers {
        match find(rows, name, version, flags) {
            Found::Export(place) => {
                let address = address(self.handle, rows[place].export).unwrap();
                ((SUCCESS, address), (SUCCESS, address, 0))
            }
            Found::NotFound => ((NOT_FOUND, UNTOUCHED), (SUCCESS, std::ptr::null_mut(), 1)),
            Found::VersionNotSufficient => ((NOT_FOUND, UNTOUCHED), (SUCCESS, std::ptr::null_mut(), 2)),
            Found::InvalidFlags => ((INVALID_VALUE, UNTOUCHED), (INVALID_VALUE, UNTOUCHED, -1)),
        }
    }
}

/// What the two entry points answer: result, pointer, and for the second one status.
type Answers = ((c_int, *mut c_void), (c_int, *mut c_void, c_int));

fn address(handle: *mut c_void, export: &str) -> Option<*mut c_void> {
    let export = CString::new(export).unwrap();
    // SAFETY: handle came from dlopen and is never closed.
    let address = unsafe { libc::dlsym(handle, export.as_ptr()) };
    (!address.is_null()).then_some(address)
}

/// The names beginning with `cu` that an ELF image for x86-64 or aarch64 defines in its `.dynsym`.
fn exports(image: &[u8]) -> BTreeSet<String> {
    let word = |at: usize| u64::from_le_bytes(image[at..at + 8].try_into().unwrap()) as usize;
    let half = |at: usize| u32::from_le_bytes(image[at..at + 4].try_into().unwrap());
    let short = |at: usize| u16::from_le_bytes(image[at..at + 2].try_into().unwrap());
    const SHT_DYNSYM: u32 = 11;
    let sections = word(0x28);
    let section = |index: usize| sections + index * usize::from(short(0x3a));
    let dynsym = (0..usize::from(short(0x3c)))
        .map(section)
        .find(|&header| half(header + 4) == SHT_DYNSYM)
        .expect("a shared library has a .dynsym");
    let strings = word(section(half(dynsym + 0x28) as usize) + 0x18);
    let symbols = &image[word(dynsym + 0x18)..][..word(dynsym + 0x20)];
    symbols
        .chunks_exact(24)
        .filter(|symbol| symbol[6..8] != [0, 0])
        .map(|symbol| {
            let name = &image[strings + u32::from_le_bytes(symbol[..4].try_into().unwrap()) as usize..];
            let end = name.iter().position(|&byte| byte == 0).unwrap();
            String::from_utf8_lossy(&name[..end]).into_owned()
        })
        .filter(|name| name.starts_with("cu"))
        .collect()
}

/// Every version at which an answer can change, its neighbours, and the strange ones.
fn versions() -> BTreeSet<i32> {
    let known = ROWS.iter().flat_map(|row| (row.version - 1..=row.version + 1).map(u32::cast_signed));
    known.chain([i32::MIN, -5, -1, 0, 1, 99999, i32::MAX]).collect()
}

#[test]
#[ignore = "needs a real libcuda, named by CUDA_SHIM_REAL_LIBCUDA"]
fn a_real_driver_gives_the_same_answers() {
    let driver = Driver::open().unwrap_or_else(|reason| panic!("{reason}"));
    let rows: Vec<Row> = ROWS.iter().filter(|row| driver.exports.contains(row.export)).copied().collect();
    let names: BTreeSet<&str> = rows
        .iter()
        .flat_map(|row| [row.name, row.export])
        .chain(["", "cu", "cuNoSuchFunction", "nvmlInit"])
        .collect();
    let versions = versions();
    let (mut queries, mut differences) = (0_u64, Vec::new());
    for name in &names {
        for &version in &versions {
            for flags in [0, 1, 2, 3, 4, 1 << 40] {
                let expected = driver.expected(&rows, name, version, flags);
                let answered = (driver.ask(name, version, flags), driver.ask_v2(name, version, flags));
                queries += 2;
                if answered != expected {
                    differences.push(format!("{name} {version} {flags}: {answered:x?}, ours {expected:x?}"));
                }
            }
        }
    }
    eprintln!("{queries} queries, {} differences", differences.len());
    assert!(rows.len() > 500, "only {} exports of ours are in this driver", rows.len());
    assert!(differences.is_empty(), "{:#?}", &differences[..differences.len().min(40)]);
}

#[test]
#[ignore = "needs a real libcuda, named by CUDA_SHIM_REAL_LIBCUDA"]
fn every_export_of_a_real_driver_is_in_the_table() {
    let driver = Driver::open().unwrap_or_else(|reason| panic!("{reason}"));
    let ours: BTreeSet<&str> = ROWS.iter().map(|row| row.export).collect();
    let missing: Vec<_> = driver
        .exports
        .iter()
        .filter(|name| !ours.contains(name.as_str()) && !is_undocumented(name))
        .collect();
    assert!(missing.is_empty(), "{missing:?}");
}
