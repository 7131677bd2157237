//! What has been loaded since we looked last: copies of NVIDIA's libraries, and objects that were bound to their functions, or
//! to ours, without us.

use super::elf::Object;
use super::elf::references::Reference;
use super::library::Library;
use super::loader::{finds_the_same, hook, open, take_over};
use super::objects::{any_path, count, each_object, program};
use super::sys::{LIBCUDA, LIBNVML};
use core::ffi::{CStr, c_int};
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

/// NVIDIA's libraries.
pub static LIBRARIES: [&Library; 2] = [&LIBCUDA, &LIBNVML];

/// Whether something may have been opened since.
static OPENED: AtomicBool = AtomicBool::new(false);
/// Whether NVIDIA's own library has opened something since.
static OPENED_BY_DRIVER: AtomicBool = AtomicBool::new(false);
/// How many objects had been loaded in all when we looked last.
static SEEN: AtomicU64 = AtomicU64::new(0);

/// Says that an object is about to be opened, by the driver itself or by the program.
pub fn opens(by_driver: bool) {
    OPENED.store(true, Relaxed);
    if by_driver {
        OPENED_BY_DRIVER.store(true, Relaxed);
    }
}

/// Looks, if something was opened through us since.
pub fn look_if_opened() {
    if OPENED.load(Relaxed) {
        look();
    }
}

/// Looks, if anything was loaded since.
pub fn look() {
    let (loaded, now) = count();
    let Some(new) = loaded.checked_sub(SEEN.load(Relaxed)).filter(|new| *new > 0) else { return };
    let by_driver = OPENED_BY_DRIVER.swap(false, Relaxed);
    OPENED.store(false, Relaxed);
    SEEN.store(loaded, Relaxed);
    // What is new comes last.
    let old = now.saturating_sub(new as usize);
    let mut met = false;
    for library in LIBRARIES {
        let (mut index, mut may_be) = (0usize, false);
        each_object(&mut |object| {
            index = index.wrapping_add(1);
            may_be = index > old && library.may_be(object);
            may_be
        });
        met |= may_be && library.meet(by_driver);
    }
    let mut index = 0usize;
    each_object(&mut |object| {
        index = index.wrapping_add(1);
        // A copy that was met late may have been bound to before.
        if index > old || met {
            bind(object);
        }
        false
    });
}

/// Before the program runs. Most programs have neither of NVIDIA's libraries nor a weak reference to one.
pub fn start() {
    let mut concerned = any_path(&|path| LIBRARIES.iter().any(|library| library.is_file(path)));
    if let Some(program) = program() {
        let is_ours = |name: &CStr| library_of(name).is_some();
        program.each_reference(&is_ours, &mut |reference| concerned |= reference.is_weak);
    }
    if concerned {
        look();
        take_over();
    }
}

/// Opens NVIDIA's libraries, if they can be opened, so that they lead to the hooks before an object is bound to them first.
#[cold]
pub fn open_all() {
    for library in LIBRARIES {
        if !library.adopt() {
            open(library.soname, libc::RTLD_LAZY | libc::RTLD_LOCAL);
            library.adopt();
        }
    }
}

/// Opens a file of NVIDIA's before the program does, so that it leads to the hooks before the program has it.
pub fn open_first(path: &CStr, flags: c_int, caller: usize) {
    for library in LIBRARIES {
        if library.is_file(path.to_bytes()) && finds_the_same(path, caller) {
            open(path, flags & (libc::RTLD_LAZY | libc::RTLD_NOW | libc::RTLD_DEEPBIND) | libc::RTLD_LOCAL);
            look();
            library.adopt();
        }
    }
}

/// Whether an address lies in a copy of NVIDIA's libraries.
pub fn is_driver(address: usize) -> bool {
    LIBRARIES.iter().any(|library| library.role_at(address).is_some())
}

fn library_of(name: &CStr) -> Option<&'static Library> {
    LIBRARIES.into_iter().find(|library| name.to_bytes().starts_with(library.prefix))
}

/// Binds an object's references anew: those that are bound to NVIDIA's functions to the hooks, as it was opened with
/// RTLD_DEEPBIND; and weak ones that are bound to a hook to nothing, if the library is not there.
fn bind(object: &Object) {
    if is_driver(object.bounds().0) {
        return;
    }
    object.each_reference(&|name| library_of(name).is_some(), &mut |reference: &Reference| {
        let (Some(library), Some(hook)) = (library_of(reference.name), hook(reference.name)) else { return };
        let target = reference.target();
        if library.role_at(target).is_some() {
            reference.bind(hook as usize);
        } else if reference.is_weak && target == hook as usize && !library.is_adopted() {
            reference.bind(0);
        }
    });
}
