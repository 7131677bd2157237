//! NVIDIA's libraries and the slots of their functions, which the first call that finds a library loaded fills.
//!
//! # Safety
//! This file may use `unsafe` because it turns the address of a name into a function of the type that NVIDIA's header
//! gives that name (`sys`). A hook of another type does not compile.
#![allow(unsafe_code)]

use super::elf::{self, Object};
use super::loader::{OUR_SONAME, hook, hooks, open, program_needs};
use super::variant::{FunctionRequest, version};
use core::ffi::{CStr, c_void};
use core::marker::PhantomData;
use core::mem::{size_of, transmute_copy};
use core::ptr::null_mut;
use core::sync::atomic::{
    AtomicPtr, AtomicU32, AtomicUsize, Ordering::AcqRel, Ordering::Acquire, Ordering::Relaxed,
    Ordering::Release,
};

/// The slot of a function of the driver or of NVML: null until the library is loaded, then the function's address or
/// [`ABSENT`].
pub struct FunctionSlot(AtomicPtr<c_void>);

/// In a slot: the library does not have the function. No function can have this address.
const ABSENT: *mut c_void = core::ptr::dangling_mut::<c_void>();

impl FunctionSlot {
    /// An empty slot.
    pub const fn new() -> Self {
        Self(AtomicPtr::new(null_mut()))
    }

    /// The function's address, once the slot is filled.
    #[inline]
    pub fn address(&self) -> Option<*mut c_void> {
        let address = self.0.load(Acquire);
        (address > ABSENT).then_some(address)
    }
}

/// One function that a library may have: its name and its slot.
pub struct FunctionEntry {
    /// Name as exported.
    pub name: &'static CStr,
    /// Where the real one is.
    pub slot: &'static FunctionSlot,
}

/// Declares functions of a library: for each function a module of its name with its type `F` and its slot `REAL`, and a
/// `TABLE` of all of them.
macro_rules! functions {
    ($library:path; $( $name:ident: fn($($argument:ident: $type:ty),*) -> $result:ty; )+) => {
        $(
            pub mod $name {
                use super::*;
                pub type F = unsafe extern "C" fn($($type),*) -> $result;
                pub static SLOT: $crate::driver::library::FunctionSlot = $crate::driver::library::FunctionSlot::new();
                pub static REAL: $crate::driver::library::Real<F> = $crate::driver::library::Real::new(&$library, &SLOT);
            }
        )+

        pub static TABLE: &[$crate::driver::library::FunctionEntry] = &[ $(
            $crate::driver::library::FunctionEntry {
                name: match core::ffi::CStr::from_bytes_with_nul(concat!(stringify!($name), "\0").as_bytes()) {
                    Ok(name) => name,
                    Err(_) => c"",
                },
                slot: &$name::SLOT,
            },
        )+ ];
    };
}
pub(crate) use functions;

/// A slot with the type of its function.
#[repr(C)]
pub struct Real<F> {
    library: &'static Library,
    slot: &'static FunctionSlot,
    function: PhantomData<F>,
}

impl<F: Copy> Real<F> {
    /// `F` is the type of the function pointer that `slot`'s name has in NVIDIA's header.
    pub const fn new(library: &'static Library, slot: &'static FunctionSlot) -> Self {
        assert!(size_of::<F>() == size_of::<*mut c_void>());
        Self { library, slot, function: PhantomData }
    }

    /// The real function; `None` while the library is not loaded, and where it has no function of that name.
    #[inline(always)]
    pub fn get(&self) -> Option<F> {
        let address = self.slot.0.load(Acquire);
        if address > ABSENT {
            // SAFETY: F is a function pointer (same size, asserted) of the type that the name has.
            return Some(unsafe { transmute_copy::<*mut c_void, F>(&address) });
        }
        self.find()
    }

    /// Its address.
    pub fn address(&self) -> Option<*mut c_void> {
        self.get()?;
        self.slot.address()
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

/// `Library::state`: not found loaded yet.
const UNSEEN: u32 = 0;
/// `Library::state`: a thread is filling the slots.
const FILLING: u32 = 1;
/// `Library::state`: the slots are filled.
const ADOPTED: u32 = 2;

/// A library of NVIDIA's some of whose functions are intercepted.
pub struct Library {
    /// Its soname, by which programs link and open it.
    pub soname: &'static CStr,
    /// Beginning of its file name.
    stem: &'static [u8],
    /// An object under another name counts as the library if it exports all of these.
    marks: &'static [&'static CStr],
    tables: &'static [&'static [FunctionEntry]],
    state: AtomicU32,
    redirected: AtomicU32,
    /// The first and the last address of the object that fills the slots.
    first: AtomicUsize,
    last: AtomicUsize,
}

impl Library {
    /// A library that was not found loaded yet.
    pub const fn new(
        soname: &'static CStr,
        stem: &'static str,
        marks: &'static [&'static CStr],
        tables: &'static [&'static [FunctionEntry]],
    ) -> Self {
        Self {
            soname,
            stem: stem.as_bytes(),
            marks,
            tables,
            state: AtomicU32::new(UNSEEN),
            redirected: AtomicU32::new(0),
            first: AtomicUsize::new(0),
            last: AtomicUsize::new(0),
        }
    }

    fn entries(&self) -> impl Iterator<Item = &'static FunctionEntry> + use<> {
        self.tables.iter().flat_map(|table| table.iter())
    }

    /// The entry of a function that this library intercepts or calls.
    fn entry(&self, name: &CStr) -> Option<&'static FunctionEntry> {
        self.entries().find(|entry| entry.name == name)
    }

    /// The address of the real function of this name, once the slots are filled.
    pub fn real(&self, name: &CStr) -> Option<*mut c_void> {
        self.entry(name)?.slot.address()
    }

    /// The hook of the function that lies at `address` in the real library. A driver may export one function under
    /// several names; the newest name determines its arguments.
    pub fn hook_by_address(&self, address: *mut c_void) -> Option<*mut c_void> {
        let lies_there = |entry: &&FunctionEntry| entry.slot.address() == Some(address);
        let hooked =
            self.entries().filter(lies_there).filter_map(|entry| Some((entry.name, hook(entry.name)?)));
        let newest = |(name, _): &(&CStr, _)| (version(name), core::cmp::Reverse(name.count_bytes()));
        hooked.max_by_key(newest).map(|(_, hook)| hook)
    }

    /// The hook for a name and version, where the driver answers with a function that it does not export. An exported
    /// function without an entry is a later variant with arguments of its own, and has no hook.
    #[cold]
    pub fn hook_by_request(&self, request: &FunctionRequest, address: *mut c_void) -> Option<*mut c_void> {
        let ranked = self.entries().filter_map(|entry| Some((request.rank(entry.name)?, entry)));
        let hooked = ranked.filter_map(|(rank, entry)| Some((rank, entry, hook(entry.name)?)));
        let (_, entry, hook) = hooked.max_by_key(|(rank, ..)| *rank)?;
        let mut exported = false;
        elf::each_object(&mut |object| {
            let holds = object.contains(address as usize);
            exported = holds && object.exports(address as usize);
            holds
        });
        if exported {
            return None;
        }
        // The driver may export no function of that name, so this is the only address for the slot.
        let _ = entry.slot.0.compare_exchange(ABSENT, address, AcqRel, Relaxed);
        Some(hook)
    }

    /// Whether the library is loaded. The first call that finds it loaded fills the slots.
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
            // Unloading the driver would leave the slots dangling, so this pins it. The pin comes after the state is
            // published: the loader may run constructors or wait for a thread that runs one, and those may call hooks.
            open(path, libc::RTLD_LAZY | libc::RTLD_NOLOAD | libc::RTLD_NODELETE);
        }
        found
    }

    /// Whether an object has the library's name and at least one of its functions.
    fn is_named(&self, object: &Object) -> bool {
        let named = object.soname() == Some(self.soname) || object.file().starts_with(self.stem);
        named && self.entries().any(|entry| object.function(entry.name).is_some())
    }

    /// Whether an object under another name serves as the library.
    fn is_marked(&self, object: &Object) -> bool {
        object.soname() != Some(OUR_SONAME) && self.marks.iter().all(|mark| object.function(mark).is_some())
    }

    fn fill(&self, path: &mut [u8; 4096]) -> bool {
        self.fill_from(path, &|object| self.is_named(object))
            || self.fill_from(path, &|object| self.is_marked(object))
    }

    /// Fills the slots from the first object that `is_library` accepts.
    fn fill_from(&self, path: &mut [u8; 4096], is_library: &dyn Fn(&Object) -> bool) -> bool {
        let mut found = false;
        elf::each_object(&mut |object| {
            if !is_library(object) {
                return false;
            }
            found = true;
            let redirection = hooks().and_then(|hooks| Some((hooks, object.writable_symbols()?)));
            for entry in self.entries() {
                let function = object.function(entry.name);
                let address = function.map_or(ABSENT, |function| function.address as *mut c_void);
                entry.slot.0.store(address, Release);
                if let (Some((hooks, table)), Some(function)) = (&redirection, function)
                    && let Some(hook) = hooks.function(entry.name)
                {
                    table.redirect(&function, hook.address);
                }
            }
            self.redirected.store(u32::from(redirection.is_some()), Relaxed);
            let (first, last) = object.range();
            self.first.store(first, Relaxed);
            self.last.store(last, Relaxed);
            for (to, from) in path.iter_mut().zip(object.path().to_bytes_with_nul()) {
                *to = *from;
            }
            true
        });
        found
    }

    /// Whether an address lies in the object that fills the slots.
    pub fn holds(&self, address: usize) -> bool {
        (self.first.load(Relaxed)..self.last.load(Relaxed)).contains(&address)
    }

    /// Whether an object is this library, or another copy of it.
    pub fn is(&self, object: &Object) -> bool {
        self.is_named(object) || self.is_marked(object)
    }

    /// Whether the library's own symbol table leads to our hooks: then the loader finds them without our help.
    pub fn is_redirected(&self) -> bool {
        self.redirected.load(Relaxed) != 0
    }
}

fn yield_now() {
    // SAFETY: sched_yield has no preconditions.
    unsafe { libc::sched_yield() };
}
