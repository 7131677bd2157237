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

/// The name that each copy of this library carries, whatever its file is called (build.rs).
pub const OUR_SONAME: &CStr = c"libgpuquota.so";

/// Our hook for a function of NVIDIA's, which is our export of the same name; `None` for functions that we do not intercept,
/// and where another copy of us comes first.
pub fn hook(name: &CStr) -> Option<*mut c_void> {
    let function = Object::own()?.function(name)?;
    is_first_copy().then_some(function.address as *mut c_void)
}

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
pub fn program_needs(soname: &CStr) -> bool {
    let mut needs = false;
    elf::each_object(&mut |object| {
        needs = object.needs(soname);
        true
    });
    needs
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
