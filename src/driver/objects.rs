//! The objects that the loader has loaded, in load order.
//!
//! `dl_iterate_phdr` is a name that others interpose, and ThreadSanitizer's function jumps to nowhere until its own start
//! is over, in which it calls our `dlsym`. So the library takes libc's own function out of libc's symbol table.
//!
//! # Safety
//! This file may use `unsafe` because it reads the loader's public records (`r_debug`, `link_map`) up to libc's, which is
//! loaded before the program runs and never unloaded, and calls libc's function with a callback of its type.
#![allow(unsafe_code)]

use super::elf::Object;
use core::ffi::{CStr, c_char, c_int, c_void};
use core::mem::transmute_copy;
use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};

type Callback = unsafe extern "C" fn(*mut libc::dl_phdr_info, usize, *mut c_void) -> c_int;
type Iterate = unsafe extern "C" fn(Option<Callback>, *mut c_void) -> c_int;

/// Calls `visit` for each loaded object of this namespace in load order, until it returns true.
pub fn each_object(visit: &mut dyn FnMut(&Object) -> bool) {
    each_record(&mut |info| Object::of(info).is_some_and(|object| visit(&object)));
}

/// How many objects were ever loaded, and how many there are now.
pub fn count() -> (u64, usize) {
    let (mut loaded, mut now) = (0, 0usize);
    each_record(&mut |info| {
        loaded = info.dlpi_adds;
        now = now.wrapping_add(1);
        false
    });
    (loaded, now)
}

fn each_record(visit: &mut dyn FnMut(&libc::dl_phdr_info) -> bool) {
    unsafe extern "C" fn callback(info: *mut libc::dl_phdr_info, _: usize, data: *mut c_void) -> c_int {
        // SAFETY: data is the &mut &mut dyn FnMut below, info is the loader's record, valid during the call.
        let (visit, info) =
            unsafe { (&mut *data.cast::<&mut dyn FnMut(&libc::dl_phdr_info) -> bool>(), &*info) };
        c_int::from(visit(info))
    }
    let mut visit = visit;
    // SAFETY: the callback gets the pointer to `visit`, which outlives the call.
    unsafe { iterate()(Some(callback), (&raw mut visit).cast()) };
}

/// libc's own `dl_iterate_phdr`; where it cannot be found, the one that the loader gave this library.
fn iterate() -> Iterate {
    static ITERATE: AtomicUsize = AtomicUsize::new(0);
    let mut address = ITERATE.load(Relaxed);
    if address == 0 {
        address = of_libc(c"dl_iterate_phdr").unwrap_or(libc::dl_iterate_phdr as *const () as usize);
        ITERATE.store(address, Relaxed);
    }
    // SAFETY: the function has this type.
    unsafe { transmute_copy::<usize, Iterate>(&address) }
}

/// The beginning of the loader's record of all objects.
#[repr(C)]
struct Debug {
    version: c_int,
    first: *const LinkMap,
}

/// The public part of the loader's record of an object.
#[repr(C)]
struct LinkMap {
    base: usize,
    name: *const c_char,
    dynamic: usize,
    next: *const LinkMap,
}

/// A function of libc's, without any call of a function that others interpose.
fn of_libc(name: &CStr) -> Option<usize> {
    // SAFETY: the kernel's own vector, which has the program's headers.
    let (headers, count) = unsafe { (libc::getauxval(libc::AT_PHDR), libc::getauxval(libc::AT_PHNUM)) };
    // SAFETY: the kernel's word, or the loader's where it was started by its own name.
    let program = unsafe { Object::of_program(headers as *const libc::Elf64_Phdr, count as usize) }?;
    let debug = program.debug()? as *const Debug;
    // SAFETY: the loader has put its record there.
    let mut next = unsafe { (*debug).first };
    while !next.is_null() {
        // SAFETY: a record of the loader's; it is not after libc's, and those before it are never removed.
        let map = unsafe { &*next };
        if map.is_libc()
            // SAFETY: libc lies where its base says (`is_libc`).
            && let Some(libc) = unsafe { Object::beginning_at(map.base, map.name) }
        {
            return Some(libc.function(name)?.address);
        }
        next = map.next;
    }
    None
}

impl LinkMap {
    /// Whether this is libc, and lies where its base says: the base of an object that was prelinked is only the distance
    /// from where it should lie.
    fn is_libc(&self) -> bool {
        if self.name.is_null() {
            return false;
        }
        // SAFETY: the loader's name of a loaded object.
        let name = unsafe { CStr::from_ptr(self.name) }.to_bytes();
        let near = self.dynamic.checked_sub(self.base).is_some_and(|distance| distance < 1 << 30);
        name.ends_with(b"/libc.so.6") && self.base != 0 && self.base.is_multiple_of(4096) && near
    }
}
