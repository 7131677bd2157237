//! NVIDIA's libraries: how they are recognised among the loaded objects, and how their slots are filled.
//!
//! The first copy that is found is the *source*: its functions fill the slots, and its symbol table leads to our hooks from
//! then on. The hooks have one slot for each function, so a program that opens a further copy gets the source under that
//! copy's names too.
//!
//! # Safety
//! This file may use `unsafe` because it turns the address of a name into a function of the type that NVIDIA's header
//! gives that name (`sys`). A hook of another type does not compile. It pins an object before it looks at it again.
#![allow(unsafe_code)]

use super::copies::{Copies, Role};
use super::elf::{Function, Object};
use super::loader::{OUR_SONAME, hook, hooks, open, program_needs};
use super::objects::each_object;
use super::slot::{FunctionEntry, FunctionSlot};
use super::variant::{FunctionRequest, version};
use crate::lock::StaticLock;
use core::cmp::Reverse;
use core::ffi::{CStr, c_void};
use core::marker::PhantomData;
use core::mem::{size_of, transmute_copy};
use core::sync::atomic::{AtomicU32, Ordering::Acquire, Ordering::Relaxed, Ordering::Release};

/// Declares functions of a library: for each function a module of its name with its type `F` and its slot `REAL`, and a
/// `TABLE` of all of them.
macro_rules! functions {
    ($library:path; $( $name:ident: fn($($argument:ident: $type:ty),*) -> $result:ty; )+) => {
        $(
            pub mod $name {
                use super::*;
                pub type F = unsafe extern "C" fn($($type),*) -> $result;
                pub static SLOT: $crate::driver::slot::FunctionSlot = $crate::driver::slot::FunctionSlot::new();
                pub static REAL: $crate::driver::library::Real<F> = $crate::driver::library::Real::new(&$library, &SLOT);
            }
        )+

        pub static TABLE: &[$crate::driver::slot::FunctionEntry] = &[ $(
            $crate::driver::slot::FunctionEntry {
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
        match self.slot.address() {
            // SAFETY: F is a function pointer (same size, asserted) of the type that the name has.
            Some(address) => Some(unsafe { transmute_copy::<*mut c_void, F>(&address) }),
            None => self.find(),
        }
    }

    /// Its address.
    pub fn address(&self) -> Option<*mut c_void> {
        self.get()?;
        self.slot.address()
    }

    #[cold]
    fn find(&self) -> Option<F> {
        if !self.slot.is_empty() || !self.library.adopt() {
            return None;
        }
        let address = self.slot.address()?;
        // SAFETY: as above.
        Some(unsafe { transmute_copy::<*mut c_void, F>(&address) })
    }
}

/// Of several names of one function the newest version ranks highest, then the shortest.
fn rank(name: &CStr) -> (u8, Reverse<usize>) {
    (version(name), Reverse(name.count_bytes()))
}

/// A library of NVIDIA's some of whose functions are intercepted.
pub struct Library {
    /// Its soname, by which programs link and open it.
    pub soname: &'static CStr,
    /// Beginning of its file name.
    stem: &'static [u8],
    /// Beginning of its functions' names.
    pub prefix: &'static [u8],
    /// An object under another name counts as the library if it exports all of these.
    marks: &'static [&'static CStr],
    tables: &'static [&'static [FunctionEntry]],
    /// Whether the source is only a stand-in to link to, which answers every call so.
    is_stub: fn() -> bool,
    /// Held while a copy is met.
    meeting: StaticLock,
    adopted: AtomicU32,
    redirected: AtomicU32,
    copies: Copies,
}

impl Library {
    /// A library that was not found loaded yet.
    pub const fn new(
        soname: &'static CStr,
        stem: &'static str,
        prefix: &'static str,
        marks: &'static [&'static CStr],
        tables: &'static [&'static [FunctionEntry]],
        is_stub: fn() -> bool,
    ) -> Self {
        Self {
            soname,
            stem: stem.as_bytes(),
            prefix: prefix.as_bytes(),
            marks,
            tables,
            is_stub,
            meeting: StaticLock::new(),
            adopted: AtomicU32::new(0),
            redirected: AtomicU32::new(0),
            copies: Copies::new(),
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

    /// Whether the source's own symbol table leads to our hooks: then the loader finds them without our help.
    pub fn is_redirected(&self) -> bool {
        self.redirected.load(Relaxed) != 0
    }

    /// What the copy is for that holds an address; `None` for an address elsewhere.
    pub fn role_at(&self, address: usize) -> Option<Role> {
        self.copies.role_at(address)
    }

    /// Whether there is more than the source.
    pub fn has_several_copies(&self) -> bool {
        self.copies.are_several()
    }

    /// What a program shall get that was answered with `address`, a function of this name of one of the copies.
    #[cold]
    pub fn stand_in(&self, name: &CStr, address: *mut c_void) -> Option<*mut c_void> {
        if self.role_at(address as usize) != Some(Role::Alias) {
            return None;
        }
        Some(self.source()?.function(name)?.address as *mut c_void)
    }

    /// The hook of the function that lies at `address` in the real library. A driver may export one function under
    /// several names; the newest name determines its arguments.
    pub fn hook_by_address(&self, address: *mut c_void) -> Option<*mut c_void> {
        let lies_there = |entry: &&FunctionEntry| entry.slot.address() == Some(address);
        let hooked =
            self.entries().filter(lies_there).filter_map(|entry| Some((rank(entry.name), hook(entry.name)?)));
        hooked.max_by_key(|(rank, _)| *rank).map(|(_, hook)| hook)
    }

    /// The hook for a name and version, where the driver answers with a function that the source does not export: a driver
    /// that only forwards answers with another library's. A function that is exported without an entry is a later
    /// variant with arguments of its own, and has no hook.
    #[cold]
    pub fn hook_by_request(&self, request: &FunctionRequest, address: *mut c_void) -> Option<*mut c_void> {
        let mut is_exported = false;
        let mut best: Option<(_, &FunctionEntry, _)> = None;
        each_object(&mut |object| {
            let holds = object.contains(address as usize);
            let mut each = |name: &CStr, function: Function| {
                is_exported |= function.address == address as usize;
                if function.address == address as usize
                    && let Some(entry) = self.entry(name)
                    && let Some(hook) = hook(name)
                    && best.as_ref().is_none_or(|(other, ..)| *other < rank(name))
                {
                    best = Some((rank(name), entry, hook));
                }
            };
            if holds {
                object.each_export(&mut each);
            }
            holds
        });
        let by_request = || {
            let ranked = self.entries().filter_map(|entry| Some((request.rank(entry.name)?, entry)));
            let hooked = ranked.filter_map(|(rank, entry)| Some((rank, entry, hook(entry.name)?)));
            hooked.max_by_key(|(rank, ..)| *rank).map(|(_, entry, hook)| (entry, hook))
        };
        let by_export = best.map(|(_, entry, hook)| (entry, hook));
        let (entry, hook) = if is_exported { by_export } else { by_request() }?;
        // The source may export no function of that name, so this is the only address for the slot.
        entry.slot.fill_absent(address);
        Some(hook)
    }

    /// Whether the slots are filled.
    pub fn is_adopted(&self) -> bool {
        self.adopted.load(Acquire) != 0
    }

    /// Whether the library is loaded. The first call that finds it loaded fills the slots.
    pub fn adopt(&self) -> bool {
        self.is_adopted() || self.meet(false)
    }

    /// Looks for copies that were loaded since; `by_source`: the source itself opened what is new. Whether there was one.
    pub fn meet(&self, by_source: bool) -> bool {
        let (mut met, mut by_source) = (false, by_source);
        while let Some(copy) = self.next_copy() {
            let Some(_guard) = self.meeting.lock() else { break };
            let first = !self.is_adopted();
            // Another thread may have met it meanwhile.
            if self.is_new(&copy) {
                self.take(&copy, by_source);
            }
            met = true;
            // What came together with the source is what the source is linked to.
            by_source |= first;
        }
        met
    }

    /// Whether a path names the library's file.
    pub fn is_file(&self, path: &[u8]) -> bool {
        path.rsplit(|byte| *byte == b'/').next().unwrap_or(path).starts_with(self.stem)
    }

    /// Whether an object may be a copy of the library.
    pub fn may_be(&self, object: &Object) -> bool {
        self.is_named(object) || self.is_marked(object)
    }

    /// Whether an object has the library's name and at least one of its functions.
    fn is_named(&self, object: &Object) -> bool {
        let named = object.soname() == Some(self.soname) || self.is_file(object.path().to_bytes());
        named && self.entries().any(|entry| object.function(entry.name).is_some())
    }

    /// Whether an object under another name serves as the library.
    fn is_marked(&self, object: &Object) -> bool {
        object.soname() != Some(OUR_SONAME) && self.marks.iter().all(|mark| object.function(mark).is_some())
    }

    /// Whether an object under another name has all that the source has: another tool's library has only what it needs.
    fn is_complete(&self, object: &Object) -> bool {
        let has =
            |entry: &FunctionEntry| entry.slot.address().is_none() || object.function(entry.name).is_some();
        self.is_marked(object) && self.entries().all(has)
    }

    fn is_new(&self, object: &Object) -> bool {
        self.role_at(object.bounds().0).is_none()
    }

    /// A copy that was not met yet. It stays loaded from now on: what leads to it must not dangle.
    fn next_copy(&self) -> Option<Object<'static>> {
        if !self.copies.have_room() {
            return None;
        }
        let mut path = [0u8; 4096];
        if self.is_adopted() {
            let is_copy =
                |object: &Object| self.is_new(object) && (self.is_named(object) || self.is_complete(object));
            return self
                .find(&is_copy, &mut path)
                .filter(|_| pin(&path) || self.find(&is_copy, &mut path).is_some());
        }
        let find = |path: &mut [u8; 4096]| {
            let named = self.find(&|object| self.is_named(object), path);
            named.or_else(|| self.find(&|object| self.is_marked(object), path))
        };
        // What cannot be pinned may have gone meanwhile.
        find(&mut path).filter(|_| program_needs(self.soname) || pin(&path) || find(&mut path).is_some())
    }

    /// The first object that `is_copy` accepts, and its path.
    fn find(&self, is_copy: &dyn Fn(&Object) -> bool, path: &mut [u8; 4096]) -> Option<Object<'static>> {
        let mut found = None;
        each_object(&mut |object| {
            if is_copy(object) {
                for (to, from) in path.iter_mut().zip(object.path().to_bytes_with_nul()) {
                    *to = *from;
                }
                // SAFETY: `next_copy` pins it before it is looked at.
                found = Some(unsafe { object.kept() });
            }
            found.is_some()
        });
        found
    }

    /// The object whose functions fill the slots.
    fn source(&self) -> Option<Object<'static>> {
        let is_source = |object: &Object| self.role_at(object.bounds().0) == Some(Role::Source);
        self.find(&is_source, &mut [0; 4096])
    }

    /// Gives a new copy its role, and makes it lead to the hooks.
    fn take(&self, copy: &Object, by_source: bool) {
        let source = self.source();
        let role = match &source {
            None => Role::Source,
            Some(_) if by_source || self.is_needed(copy) => Role::Inside,
            Some(_) if (self.is_stub)() => Role::Source,
            Some(_) => Role::Alias,
        };
        match (role, &source) {
            (Role::Source, None) => self.fill(copy),
            (Role::Source, Some(stub)) => {
                self.fill(copy);
                self.alias(stub, copy);
                self.copies.demote_source();
            }
            (Role::Alias, Some(source)) => self.alias(copy, source),
            _ => {}
        }
        self.copies.add(copy.bounds(), role);
        self.adopted.store(1, Release);
    }

    /// Whether an object is this library, or a copy of it, met or not.
    pub fn is(&self, object: &Object) -> bool {
        !self.is_new(object) || self.is_named(object) || self.is_complete(object)
    }

    /// Whether another copy is linked to this one.
    fn is_needed(&self, copy: &Object) -> bool {
        let Some(soname) = copy.soname() else { return false };
        let mut is_needed = false;
        each_object(&mut |object| {
            is_needed = !self.is_new(object) && object.needs(soname);
            is_needed
        });
        is_needed
    }

    /// Fills the slots from an object and makes its symbol table lead to the hooks.
    fn fill(&self, object: &Object) {
        let redirection = hooks().and_then(|hooks| Some((hooks, object.writable_symbols()?)));
        for entry in self.entries() {
            let function = object.function(entry.name);
            let hook = hooks().and_then(|hooks| hooks.function(entry.name));
            // In a child that was forked while this was done, the table may lead to the hook already: then the slot was
            // filled before.
            let is_redirected = |address: usize| hook.is_some_and(|hook| hook.address == address);
            if !function.is_some_and(|function| is_redirected(function.address)) {
                entry.slot.fill(function.map(|function| function.address));
            }
            if let (Some((_, table)), Some(hook)) = (&redirection, hook) {
                object.each_function(entry.name, &mut |version| table.redirect(&version, hook.address));
            }
        }
        self.redirected.store(u32::from(redirection.is_some()), Relaxed);
    }

    /// Makes the symbol table of a further copy lead to what the source's leads to, or should lead to.
    fn alias(&self, copy: &Object, source: &Object) {
        let Some(table) = copy.writable_symbols() else { return };
        copy.each_export(&mut |name, function| {
            let hooked = || hooks()?.function(name);
            if name.to_bytes().starts_with(self.prefix)
                && let Some(target) = source.function(name).map(|real| hooked().unwrap_or(real))
            {
                table.redirect(&function, target.address);
            }
        });
    }
}

/// Keeps an object loaded that is loaded from this path; whether it is. This comes without a lock: the loader may run
/// constructors or wait for a thread that runs one, and those may call hooks.
fn pin(path: &[u8]) -> bool {
    let flags = libc::RTLD_LAZY | libc::RTLD_NOLOAD | libc::RTLD_NODELETE;
    CStr::from_bytes_until_nul(path).is_ok_and(|path| !open(path, flags).is_null())
}
