//! The dynamic loader: its real functions, and this library's place among the loaded objects.
//!
//! # Safety
//! This file may use `unsafe` because it calls the loader's functions at the addresses that objects export under their names.
#![allow(unsafe_code)]

use super::elf::Object;
use super::objects::each_object;
use crate::lock::StaticLock;
use core::ffi::{CStr, c_char, c_int, c_void};
use core::mem::transmute_copy;
use core::ptr::{null, null_mut};
use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering::Acquire, Ordering::Relaxed, Ordering::Release};

/// The soname of each copy of this library, whatever its file is called (build.rs).
pub const OUR_SONAME: &CStr = c"libgpuquota.so";

/// This library, whose exports of NVIDIA's names are the hooks. `None` where another copy of it comes first.
pub fn hooks() -> Option<Object<'static>> {
    if is_first_copy() { Object::own() } else { None }
}

/// Our hook for a function of NVIDIA's. `None` for functions that this library does not intercept, and where another
/// copy of it comes first.
pub fn hook(name: &CStr) -> Option<*mut c_void> {
    Some(hooks()?.function(name)?.address as *mut c_void)
}

/// Whether no other copy of this library comes before this one. A container may have two, one from its image and one
/// from its node. The second one does nothing, because two would count everything twice.
pub fn is_first_copy() -> bool {
    /// 0: not found out yet; 1: this copy is the first; 2: another one is.
    static POSITION: AtomicU32 = AtomicU32::new(0);
    match POSITION.load(Relaxed) {
        0 => {
            let mut first = true;
            each_object(&mut |object| {
                let ours = object.soname() == Some(OUR_SONAME);
                first = !ours || object.contains(core::ptr::from_ref(&POSITION) as usize);
                ours
            });
            POSITION.store(if first { 1 } else { 2 }, Relaxed);
            first
        }
        position => position == 1,
    }
}

/// Whether the program itself is linked to a library: then the library stays loaded as long as the program runs.
pub fn program_needs(soname: &CStr) -> bool {
    let mut needs = false;
    each_object(&mut |object| {
        needs = object.needs(soname);
        true
    });
    needs
}

/// A function of the loader, as RTLD_NEXT would find it from here: that of the next object after ours in load order. This
/// is libc's (libdl's before glibc 2.34), or that of another library which interposes it.
pub struct LoaderFunction {
    name: &'static CStr,
    address: AtomicUsize,
}

impl LoaderFunction {
    /// The function of this name; the first use looks it up.
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
        let (mut found, mut is_redirected) = (0, false);
        each_object_behind_us(&mut |object| {
            found = object.function(self.name).map_or(0, |function| function.address);
            is_redirected = is_ours(found);
            found != 0
        });
        // Another thread has found it and then redirected it.
        if !is_redirected {
            _ = self.address.compare_exchange(0, found, Relaxed, Relaxed);
        }
        self.address.load(Relaxed)
    }
}

/// Whether an address lies in this library.
fn is_ours(address: usize) -> bool {
    Object::own().is_some_and(|object| object.contains(address))
}

/// Calls `visit` for each object that comes after this one and is no copy of it, until it returns true.
fn each_object_behind_us(visit: &mut dyn FnMut(&Object) -> bool) {
    let mut behind_us = false;
    each_object(&mut |object| {
        if object.soname() == Some(OUR_SONAME) {
            behind_us |= is_ours(object.bounds().0);
            return false;
        }
        behind_us && visit(object)
    });
}

/// The real `dlsym`.
pub static DLSYM: LoaderFunction = LoaderFunction::new(c"dlsym");
/// The real `dlvsym`.
pub static DLVSYM: LoaderFunction = LoaderFunction::new(c"dlvsym");
/// The real `dlopen`.
pub static DLOPEN: LoaderFunction = LoaderFunction::new(c"dlopen");

/// Makes the loader's own `dlsym`, `dlvsym` and `dlopen` lead to ours. So do plugins opened with RTLD_DEEPBIND, which bind
/// to libc first, and whoever takes these functions out of libc. Where another library interposes them behind us,
/// they remain: that library calls them and would call itself.
#[cold]
pub fn take_over() {
    /// 0: not done yet; 1: done, as far as it can be done.
    static DONE: AtomicU32 = AtomicU32::new(0);
    static LOCK: StaticLock = StaticLock::new();
    if DONE.load(Acquire) != 0 {
        return;
    }
    let functions = [&DLSYM, &DLOPEN, &DLVSYM];
    let addresses = functions.map(LoaderFunction::address);
    if let [0, ..] | [_, 0, _] = addresses {
        return;
    }
    let Some(_guard) = LOCK.lock() else { return };
    let is_own = |object: &Object| [Some(c"libc.so.6"), Some(c"libdl.so.2")].contains(&object.soname());
    let mut interposed = false;
    each_object_behind_us(&mut |object| {
        interposed |= addresses.iter().any(|address| object.contains(*address)) && !is_own(object);
        interposed
    });
    each_object_behind_us(&mut |object| {
        if !interposed
            && let Some(hooks) = hooks()
            && addresses.iter().any(|address| object.contains(*address))
            && let Some(table) = object.writable_symbols()
        {
            for (function, address) in functions.iter().zip(addresses) {
                let Some(hook) = hooks.function(function.name) else { continue };
                object.each_function(function.name, &mut |version| {
                    if version.address == address {
                        table.redirect(&version, hook.address);
                    }
                });
            }
        }
        false
    });
    DONE.store(1, Release);
}

/// Calls the real `dlsym`; only for handles whose answer does not depend on the caller.
pub fn look_up(handle: *mut c_void, name: &CStr) -> *mut c_void {
    type Dlsym = unsafe extern "C" fn(*mut c_void, *const c_char) -> *mut c_void;
    match DLSYM.address() {
        0 => null_mut(),
        // SAFETY: the address is dlsym's; name is a C string; the handle is the caller's.
        address => unsafe { transmute_copy::<usize, Dlsym>(&address)(handle, name.as_ptr()) },
    }
}

/// The same of the real `dlvsym`.
pub fn look_up_version(handle: *mut c_void, name: &CStr, version: *const c_char) -> *mut c_void {
    type Dlvsym = unsafe extern "C" fn(*mut c_void, *const c_char, *const c_char) -> *mut c_void;
    match DLVSYM.address() {
        0 => null_mut(),
        // SAFETY: the address is dlvsym's; name is a C string; handle and version are the caller's.
        address => unsafe { transmute_copy::<usize, Dlvsym>(&address)(handle, name.as_ptr(), version) },
    }
}

/// Whether the loader finds the same file for us as for a caller: it looks for a bare name where the caller's object says.
pub fn finds_the_same(path: &CStr, caller: usize) -> bool {
    let bytes = path.to_bytes();
    if bytes.contains(&b'/') {
        return !bytes.contains(&b'$');
    }
    let (mut own_path, mut is_program) = (false, true);
    each_object(&mut |object| {
        // DT_RPATH counts for what the object opens and all below it, the program's for all; DT_RUNPATH for the object alone.
        own_path |= !is_program && object.has_rpath() || object.contains(caller) && object.has_runpath();
        is_program = false;
        own_path
    });
    !own_path
}

/// Calls the real `dlopen` from here; null when the loader cannot load the file.
pub fn open(path: &CStr, flags: c_int) -> *mut c_void {
    type Dlopen = unsafe extern "C" fn(*const c_char, c_int) -> *mut c_void;
    let name = if path.is_empty() { null() } else { path.as_ptr() };
    match DLOPEN.address() {
        0 => null_mut(),
        // SAFETY: the address is dlopen's; name is null or a C string.
        address => unsafe { transmute_copy::<usize, Dlopen>(&address)(name, flags) },
    }
}
