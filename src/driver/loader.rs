//! The dynamic loader: its real functions, and this library's place among the loaded objects.
//!
//! # Safety
//! This file may use `unsafe` because it calls the loader's functions at the addresses that objects export under their names.
#![allow(unsafe_code)]

use super::elf::{self, Object};
use core::ffi::{CStr, c_char, c_int, c_void};
use core::mem::transmute_copy;
use core::ptr::{null, null_mut};
use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering::Relaxed};

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
            elf::each_object(&mut |object| {
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
    elf::each_object(&mut |object| {
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

/// Calls the real `dlsym`; only for handles whose answer does not depend on the caller.
pub fn look_up(handle: *mut c_void, name: &CStr) -> *mut c_void {
    type Dlsym = unsafe extern "C" fn(*mut c_void, *const c_char) -> *mut c_void;
    match DLSYM.address() {
        0 => null_mut(),
        // SAFETY: the address is dlsym's; name is a C string; the handle is the caller's.
        address => unsafe { transmute_copy::<usize, Dlsym>(&address)(handle, name.as_ptr()) },
    }
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
