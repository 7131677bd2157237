//! Where are the real functions?
//!
//! Each intercepted function, and each that the library calls itself, has a slot. The slots of a library are filled
//! once, when it is first seen loaded, straight from its symbol table; only then may that table be redirected to
//! our hooks (the second layer, which also catches `RTLD_DEEPBIND` plugins and symbol-table walkers).
//!
//! # Safety
//! This room may use `unsafe` because it turns addresses found under a name into functions of the type that
//! NVIDIA's header gives that name (`sys`); the hook table makes a mismatch a compile error.
#![allow(unsafe_code)]

pub mod elf;
mod variant;
#[allow(
    non_camel_case_types,
    non_snake_case,
    non_upper_case_globals,
    missing_docs,
    dead_code,
    unused_imports,
    clippy::all
)]
pub mod sys {
    //! NVIDIA's types and declarations: bindgen's output, checked in (`driver/sys.sh` regenerates it).
    pub mod cuda;
    pub mod nvml;

    /// What no header declares; seen in what nvidia-smi calls.
    pub mod undeclared {
        unsafe extern "C" {
            pub fn nvmlInternalGetExportTable(
                table: *mut *const core::ffi::c_void,
                identifier: *const core::ffi::c_void,
            ) -> super::nvml::nvmlReturn_t;
        }
    }
}

use core::ffi::{CStr, c_char, c_int, c_void};
use core::marker::PhantomData;
use core::mem::{size_of, transmute_copy};
use core::ptr::{null, null_mut};
use core::sync::atomic::{
    AtomicPtr, AtomicU32, AtomicUsize, Ordering::AcqRel, Ordering::Acquire, Ordering::Relaxed,
    Ordering::Release,
};
use elf::Object;
pub use variant::Request;
use variant::version;

/// A function of the driver or of NVML: null until its library was seen, then its address or [`ABSENT`].
pub struct Slot(AtomicPtr<c_void>);

/// In a slot: the library does not have the function. An address that no function can have.
const ABSENT: *mut c_void = core::ptr::dangling_mut::<c_void>();

impl Slot {
    /// An empty slot.
    pub const fn new() -> Self {
        Self(AtomicPtr::new(null_mut()))
    }

    /// The function's address, once known.
    #[inline]
    pub fn address(&self) -> Option<*mut c_void> {
        let address = self.0.load(Acquire);
        (address > ABSENT).then_some(address)
    }
}

/// One function that a library may have: its name, its slot, and our hook, if we intercept it.
pub struct Entry {
    /// Name as exported.
    pub name: &'static CStr,
    /// Where the real one is.
    pub slot: &'static Slot,
    /// Ours; `None` for functions that the library only calls.
    pub hook: Option<Hook>,
}

/// Address of a hook.
#[derive(Clone, Copy)]
pub struct Hook(pub *const c_void);

// SAFETY: the address of a function, never written through.
unsafe impl Sync for Hook {}

/// A slot with its type.
pub struct Real<F> {
    library: &'static Library,
    slot: &'static Slot,
    function: PhantomData<F>,
}

impl<F: Copy> Real<F> {
    /// `F` is the type of the function pointer that `slot`'s name has in NVIDIA's header.
    pub const fn new(library: &'static Library, slot: &'static Slot) -> Self {
        assert!(size_of::<F>() == size_of::<*mut c_void>());
        Self { library, slot, function: PhantomData }
    }

    /// The real function; `None` while its library is not loaded or when it has none of that name.
    #[inline(always)]
    pub fn get(&self) -> Option<F> {
        let address = self.slot.0.load(Acquire);
        if address > ABSENT {
            // SAFETY: F is a function pointer (same size, asserted) of the type that the name has.
            return Some(unsafe { transmute_copy::<*mut c_void, F>(&address) });
        }
        self.find()
    }

    #[cold]
    fn find(&self) -> Option<F> {
        if !self.slot.0.load(Relaxed).is_null() || !self.library.adopt() {
            return None;
        }
        let address = self.slot.address()?;
        // SAFETY: as above.
        Some(unsafe { transmute_copy::<*mut c_void, F>(&address) })
    }
}

/// `Library::state`: not seen yet.
const UNSEEN: u32 = 0;
/// `Library::state`: a thread is filling the slots.
const FILLING: u32 = 1;
/// `Library::state`: slots filled.
const ADOPTED: u32 = 2;

/// A library of NVIDIA's that we stand in front of.
pub struct Library {
    /// Its soname, with which it is also asked for.
    pub soname: &'static CStr,
    /// Beginning of its file name.
    stem: &'static [u8],
    /// What whoever goes by another name must export to be taken for the library.
    marks: &'static [&'static CStr],
    tables: &'static [&'static [Entry]],
    state: AtomicU32,
    redirected: AtomicU32,
}

impl Library {
    /// A library that was not seen yet.
    pub const fn new(
        soname: &'static CStr,
        stem: &'static str,
        marks: &'static [&'static CStr],
        tables: &'static [&'static [Entry]],
    ) -> Self {
        Self {
            soname,
            stem: stem.as_bytes(),
            marks,
            tables,
            state: AtomicU32::new(UNSEEN),
            redirected: AtomicU32::new(0),
        }
    }

    fn entries(&self) -> impl Iterator<Item = &'static Entry> + use<> {
        self.tables.iter().flat_map(|table| table.iter())
    }

    /// What we intercept: nothing where another copy of us comes first.
    fn intercepted(&self) -> impl Iterator<Item = &'static Entry> + use<> {
        self.entries().filter(|entry| entry.hook.is_some() && is_first_copy())
    }

    /// The intercepted function called `name`.
    pub fn by_name(&self, name: &CStr) -> Option<&'static Entry> {
        self.intercepted().find(|entry| entry.name == name)
    }

    /// The hook of the function that lies at `address` in the real library. A driver may export one function under
    /// several names; the newest of them says what its arguments are.
    pub fn by_real_address(&self, address: *const c_void) -> Option<Hook> {
        let is = |entry: &&Entry| entry.slot.address().is_some_and(|real| real.cast_const() == address);
        self.intercepted()
            .filter(is)
            .max_by_key(|entry| (version(entry.name), core::cmp::Reverse(entry.name.count_bytes())))?
            .hook
    }

    /// The hook of what was asked for by name and version, where the library answers with a function that it does not
    /// export. What it does export and we do not know is a later variant, with arguments of its own.
    #[cold]
    pub fn by_request(&self, asked: &Request, address: *mut c_void) -> Option<Hook> {
        let ranked = self.intercepted().filter_map(|entry| Some((asked.rank(entry.name)?, entry)));
        let (_, entry) = ranked.max_by_key(|(rank, _)| *rank)?;
        let mut exported = false;
        elf::each_object(&mut |object| {
            let holds = object.contains(address as usize);
            exported = holds && object.exports(address as usize);
            holds
        });
        if exported {
            return None;
        }
        // It may export nothing of that name at all.
        let _ = entry.slot.0.compare_exchange(ABSENT, address, AcqRel, Relaxed);
        entry.hook
    }

    /// Whether the library is loaded; fills the slots when it is seen for the first time.
    pub fn adopt(&self) -> bool {
        loop {
            match self.state.load(Acquire) {
                ADOPTED => return true,
                FILLING => yield_now(),
                _ if self.state.compare_exchange(UNSEEN, FILLING, Acquire, Relaxed).is_err() => {}
                _ => break,
            }
        }
        let mut path = [0u8; 4096];
        let found = self.fill(&mut path);
        self.state.store(if found { ADOPTED } else { UNSEEN }, Release);
        if found
            && !program_needs(self.soname)
            && let Ok(path) = CStr::from_bytes_until_nul(&path)
        {
            // A driver that is unloaded would leave the slots dangling. After the state was published: the loader
            // may run constructors or wait for a thread that runs one, and those may call hooks.
            open(path, libc::RTLD_LAZY | libc::RTLD_NOLOAD | libc::RTLD_NODELETE);
        }
        found
    }

    /// Whether an object is called as the library is.
    fn is_named(&self, object: &Object) -> bool {
        let path = object.path().to_bytes();
        let file = path.rsplit(|byte| *byte == b'/').next().unwrap_or(path);
        let named = object.soname() == Some(self.soname) || file.starts_with(self.stem);
        named && self.entries().any(|entry| object.function(entry.name).is_some())
    }

    /// Whether an object under another name does the library's work.
    fn is_marked(&self, object: &Object) -> bool {
        object.soname() != Some(OUR_SONAME) && self.marks.iter().all(|mark| object.function(mark).is_some())
    }

    fn fill(&self, path: &mut [u8; 4096]) -> bool {
        self.fill_from(path, &|object| self.is_named(object))
            || self.fill_from(path, &|object| self.is_marked(object))
    }

    /// Fills the slots from the first object that `is` it.
    fn fill_from(&self, path: &mut [u8; 4096], is: &dyn Fn(&Object) -> bool) -> bool {
        let redirects = is_first_copy();
        let mut found = false;
        elf::each_object(&mut |object| {
            if !is(object) {
                return false;
            }
            found = true;
            let table = if redirects { object.writable_symbols() } else { None };
            for entry in self.entries() {
                let function = object.function(entry.name);
                let address = function.map_or(ABSENT, |function| function.address as *mut c_void);
                entry.slot.0.store(address, Release);
                if let (Some(table), Some(hook), Some(function)) = (&table, entry.hook, function) {
                    table.redirect(&function, hook.0 as usize);
                }
            }
            self.redirected.store(u32::from(table.is_some()), Relaxed);
            for (to, from) in path.iter_mut().zip(object.path().to_bytes_with_nul()) {
                *to = *from;
            }
            true
        });
        found
    }

    /// Whether the library's own symbol table leads to our hooks, so that the loader answers right by itself.
    pub fn is_redirected(&self) -> bool {
        self.redirected.load(Relaxed) != 0
    }
}

/// The name that each copy of this library carries, whatever its file is called (build.rs).
const OUR_SONAME: &CStr = c"libgpuquota.so";

/// Whether no other copy of this library comes before this one. A container may be given two, one by its image and
/// one by its node: the second stands aside, or everything would be counted twice.
pub fn is_first_copy() -> bool {
    /// 0: not looked yet; 1: the first; 2: another.
    static PLACE: AtomicU32 = AtomicU32::new(0);
    match PLACE.load(Relaxed) {
        0 => {
            let mut first = true;
            elf::each_object(&mut |object| {
                let ours = object.soname() == Some(OUR_SONAME);
                first = !ours || object.contains(core::ptr::from_ref(&PLACE) as usize);
                ours
            });
            PLACE.store(if first { 1 } else { 2 }, Relaxed);
            first
        }
        place => place == 1,
    }
}

/// Whether the program itself was linked to a library, so that it stays loaded as long as the program.
fn program_needs(soname: &CStr) -> bool {
    let mut needs = false;
    elf::each_object(&mut |object| {
        needs = object.needs(soname);
        true
    });
    needs
}

fn yield_now() {
    // SAFETY: sched_yield has no preconditions.
    unsafe { libc::sched_yield() };
}

/// A function of the loader, as the next object after ours in load order has it: libc's (libdl's before glibc
/// 2.34), or that of another library which interposes it, as if we had asked for RTLD_NEXT.
pub struct LoaderFunction {
    name: &'static CStr,
    address: AtomicUsize,
}

impl LoaderFunction {
    /// Not looked up yet.
    pub const fn new(name: &'static CStr) -> Self {
        Self { name, address: AtomicUsize::new(0) }
    }

    /// Its address; 0 if no object has it.
    pub fn address(&self) -> usize {
        match self.address.load(Relaxed) {
            0 => self.find(),
            address => address,
        }
    }

    #[cold]
    fn find(&self) -> usize {
        let ours = core::ptr::from_ref(self) as usize;
        let (mut behind_us, mut found) = (false, 0);
        elf::each_object(&mut |object| {
            if object.contains(ours) {
                behind_us = true;
            } else if behind_us {
                found = object.function(self.name).map_or(0, |function| function.address);
            }
            found != 0
        });
        self.address.store(found, Relaxed);
        found
    }
}

/// The real `dlsym`.
pub static DLSYM: LoaderFunction = LoaderFunction::new(c"dlsym");
/// The real `dlopen`.
pub static DLOPEN: LoaderFunction = LoaderFunction::new(c"dlopen");

/// Asks the real `dlsym`; for handles that do not depend on who asks.
pub fn look_up(handle: *mut c_void, name: &CStr) -> *mut c_void {
    type Dlsym = unsafe extern "C" fn(*mut c_void, *const c_char) -> *mut c_void;
    match DLSYM.address() {
        0 => null_mut(),
        // SAFETY: the address is dlsym's; name is a C string; the handle is the caller's.
        address => unsafe { transmute_copy::<usize, Dlsym>(&address)(handle, name.as_ptr()) },
    }
}

/// Asks the real `dlopen` from here; null when the file cannot be loaded.
pub fn open(path: &CStr, flags: c_int) -> *mut c_void {
    type Dlopen = unsafe extern "C" fn(*const c_char, c_int) -> *mut c_void;
    let name = if path.is_empty() { null() } else { path.as_ptr() };
    match DLOPEN.address() {
        0 => null_mut(),
        // SAFETY: the address is dlopen's; name is null or a C string.
        address => unsafe { transmute_copy::<usize, Dlopen>(&address)(name, flags) },
    }
}
