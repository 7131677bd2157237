//! The objects that the loader has loaded, in load order.
//!
//! `dl_iterate_phdr` is a name that others interpose, and ThreadSanitizer's function jumps to nowhere until its own start
//! is over, in which it calls our `dlsym`. So the library takes libc's own function out of libc's symbol table.
//!
//! libc holds a lock while it calls back, and a child that is forked meanwhile never gets it. There the library reads the
//! loader's records itself.
//!
//! # Safety
//! This file may use `unsafe` because it reads the loader's public records (`r_debug`, `link_map`) where nobody can unload
//! what they name, and calls libc's function with a callback of its type.
#![allow(unsafe_code)]

use super::elf::Object;
use core::ffi::{CStr, c_char, c_int, c_void};
use core::mem::transmute_copy;
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use gpuquota_region::sys;

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

/// The process whose threads are amid a walk, and their number: `pid << 32 | number`.
static WALKING: AtomicU64 = AtomicU64::new(0);

/// A thread that walks. The loader holds a lock meanwhile, and does not release it in a child that is forked then.
struct Walk;

impl Walk {
    /// `None` in a process that was forked amid a walk of another thread.
    fn begin() -> Option<Self> {
        let process = u64::from(sys::pid()) << 32;
        let mut seen = WALKING.load(Relaxed);
        loop {
            let (walker, number) = (seen >> 32 << 32, seen & 0xffff_ffff);
            if walker != process && number != 0 {
                return None;
            }
            let next = process | number.wrapping_add(1);
            match WALKING.compare_exchange(seen, next, Relaxed, Relaxed) {
                Ok(_) => return Some(Self),
                Err(other) => seen = other,
            }
        }
    }
}

impl Drop for Walk {
    fn drop(&mut self) {
        WALKING.fetch_sub(1, Relaxed);
    }
}

fn each_record(visit: &mut dyn FnMut(&libc::dl_phdr_info) -> bool) {
    unsafe extern "C" fn callback(info: *mut libc::dl_phdr_info, _: usize, data: *mut c_void) -> c_int {
        // SAFETY: data is the &mut &mut dyn FnMut below, info is the loader's record, valid during the call.
        let (visit, info) =
            unsafe { (&mut *data.cast::<&mut dyn FnMut(&libc::dl_phdr_info) -> bool>(), &*info) };
        c_int::from(visit(info))
    }
    let Some(_walk) = Walk::begin() else {
        return each_map(&mut |map| map.record().is_some_and(|info| visit(&info)));
    };
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

/// Calls `visit` for the loader's records of objects, without the loader's lock, until it returns true. So nobody may unload
/// an object before the one at which `visit` ends.
fn each_map(visit: &mut dyn FnMut(&LinkMap) -> bool) {
    let Some(debug) = program().and_then(|program| program.debug()) else { return };
    // SAFETY: the loader has put its record there.
    let mut next = unsafe { (*(debug as *const Debug)).first };
    while !next.is_null() {
        // SAFETY: a record of the loader's.
        let map = unsafe { &*next };
        if visit(map) {
            return;
        }
        next = map.next;
    }
}

/// Whether an object was loaded from a path that `is_wanted`. Only before the program runs: then nothing is unloaded.
pub fn any_path(is_wanted: &dyn Fn(&[u8]) -> bool) -> bool {
    let mut found = false;
    each_map(&mut |map| {
        found = is_wanted(map.name());
        found
    });
    found
}

/// The program itself.
pub fn program() -> Option<Object<'static>> {
    // SAFETY: the kernel's own vector, which has the program's headers, or the loader's where it was started by its own name.
    unsafe {
        let (headers, count) = (libc::getauxval(libc::AT_PHDR), libc::getauxval(libc::AT_PHNUM));
        Object::of_program(headers as *const libc::Elf64_Phdr, count as usize)
    }
}

/// A function of libc's, without any call of a function that others interpose. The walk ends at libc, and what is loaded
/// before it is never unloaded.
fn of_libc(name: &CStr) -> Option<usize> {
    let mut found = None;
    each_map(&mut |map| {
        let is_libc = map.name().ends_with(b"/libc.so.6");
        if is_libc && map.lies_at_its_base() {
            // SAFETY: libc is never unloaded.
            let libc = unsafe { Object::beginning_at(map.base, map.name) };
            found = libc.and_then(|libc| Some(libc.function(name)?.address));
        }
        is_libc
    });
    found
}

impl LinkMap {
    fn name(&self) -> &[u8] {
        // SAFETY: the loader's name of a loaded object.
        if self.name.is_null() { b"" } else { unsafe { CStr::from_ptr(self.name) }.to_bytes() }
    }

    /// The base of an object that was prelinked is only the distance from where it should lie.
    fn lies_at_its_base(&self) -> bool {
        let near = self.dynamic.checked_sub(self.base).is_some_and(|distance| distance < 1 << 30);
        self.base != 0 && self.base.is_multiple_of(4096) && near
    }

    /// The object's record as `dl_iterate_phdr` gives it.
    fn record(&self) -> Option<libc::dl_phdr_info> {
        // SAFETY: plain data.
        let mut info: libc::dl_phdr_info = unsafe { core::mem::zeroed() };
        if self.name().is_empty() && program().is_some_and(|program| program.base() == self.base) {
            // SAFETY: the kernel's own vector.
            let (headers, count) =
                unsafe { (libc::getauxval(libc::AT_PHDR), libc::getauxval(libc::AT_PHNUM)) };
            (info.dlpi_phdr, info.dlpi_phnum) = (headers as *const libc::Elf64_Phdr, count as u16);
        } else if self.lies_at_its_base() {
            // SAFETY: an object is mapped there.
            let header = unsafe { &*(self.base as *const libc::Elf64_Ehdr) };
            info.dlpi_phdr = self.base.wrapping_add(header.e_phoff as usize) as *const libc::Elf64_Phdr;
            info.dlpi_phnum = header.e_phnum;
        } else {
            return None;
        }
        (info.dlpi_addr, info.dlpi_name) = (self.base as u64, self.name);
        Some(info)
    }
}
