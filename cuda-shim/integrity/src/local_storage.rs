//! Context-local storage: what libcudart and its libraries keep with a context, by a key of their own.
//!
//! Looked up in nearly every call of the runtime and written a few times per context, so the entries are an
//! immutable list behind one pointer: a reader takes no lock, may run in a signal handler, after a fork or
//! while the process exits, and every change installs a new list. Old lists are kept, since a reader may
//! still be in one: some 40 bytes per live entry and change.
//!
//! # Safety
//! Called by libcudart with pointers of its own, by the signatures in the comments.
#![allow(unsafe_code)]

use core::ffi::c_void;
use core::ptr::null_mut;
use core::sync::atomic::{AtomicPtr, Ordering};

use crate::driver::{
    Context, DRIVER, INVALID_CONTEXT, INVALID_HANDLE, INVALID_VALUE, NOT_INITIALIZED, Result, SUCCESS,
};

/// Called with context, key and value when the context goes.
type Destructor = unsafe extern "C" fn(Context, *mut c_void, *mut c_void);

#[derive(Clone, Copy)]
struct Entry {
    context: Context,
    key: *mut c_void,
    value: *mut c_void,
    destructor: Option<Destructor>,
}

impl Entry {
    fn is(&self, context: Context, key: *mut c_void) -> bool {
        self.context == context && self.key == key
    }
}

static ENTRIES: AtomicPtr<Vec<Entry>> = AtomicPtr::new(null_mut());

fn entries() -> &'static [Entry] {
    resolve(ENTRIES.load(Ordering::Acquire))
}

fn resolve(list: *mut Vec<Entry>) -> &'static [Entry] {
    if list.is_null() {
        return &[];
    }
    // SAFETY: only `change` installs lists, each made by Box::into_raw, then neither written nor freed.
    unsafe { &*list }
}

/// Installs what `new` makes of the entries. `None` leaves them as they are. Returns the former entries.
fn change(new: impl Fn(&[Entry]) -> Option<Vec<Entry>>) -> Option<&'static [Entry]> {
    let mut seen = ENTRIES.load(Ordering::Acquire);
    loop {
        let made = Box::into_raw(Box::new(new(resolve(seen))?));
        match ENTRIES.compare_exchange(seen, made, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => return Some(resolve(seen)),
            Err(newer) => {
                // SAFETY: made above and seen by nobody, since it was not installed.
                drop(unsafe { Box::from_raw(made) });
                seen = newer;
            }
        }
    }
}

/// The context meant: the one given, or the current one for null.
fn meant(context: Context) -> core::result::Result<Context, Result> {
    if !context.is_null() {
        return Ok(context);
    }
    let current = (DRIVER.get().ok_or(NOT_INITIALIZED)?.current_context)();
    if current.is_null() { Err(INVALID_CONTEXT) } else { Ok(current) }
}

/// `(CUcontext context, void *key, void *value, destructor)`.
pub extern "C" fn put(
    context: Context,
    key: *mut c_void,
    value: *mut c_void,
    destructor: Option<Destructor>,
) -> Result {
    let context = match meant(context) {
        Ok(context) => context,
        Err(error) => return error,
    };
    if !DRIVER.get().is_some_and(|driver| (driver.is_context)(context)) {
        return INVALID_CONTEXT;
    }
    change(|old| {
        let kept = old.iter().filter(|entry| !entry.is(context, key));
        Some(kept.copied().chain([Entry { context, key, value, destructor }]).collect())
    });
    SUCCESS
}

/// `(CUcontext context, void *key)`: forgets the value, without its destructor.
pub extern "C" fn delete(context: Context, key: *mut c_void) -> Result {
    let context = match meant(context) {
        Ok(context) => context,
        Err(error) => return error,
    };
    let changed = change(|old| {
        old.iter().any(|entry| entry.is(context, key)).then(|| {
            let kept = old.iter().filter(|entry| !entry.is(context, key));
            kept.copied().collect()
        })
    });
    if changed.is_some() { SUCCESS } else { INVALID_HANDLE }
}

/// `(void **value, CUcontext context, void *key)`.
pub unsafe extern "C" fn get(value: *mut *mut c_void, context: Context, key: *mut c_void) -> Result {
    if value.is_null() {
        return INVALID_VALUE;
    }
    let context = match meant(context) {
        Ok(context) => context,
        Err(error) => return error,
    };
    match entries().iter().find(|entry| entry.is(context, key)) {
        Some(entry) => {
            // SAFETY: not null, and the caller passes a place for a pointer.
            unsafe { *value = entry.value };
            SUCCESS
        }
        None => INVALID_HANDLE,
    }
}

/// Forgets all that was kept with a context that was reset or destroyed, and calls the destructors. Call it
/// without holding a lock of the driver: destructors may call back.
pub fn context_gone(context: Context) {
    let former = change(|old| {
        let holds = old.iter().any(|entry| entry.context == context);
        holds.then(|| old.iter().filter(|entry| entry.context != context).copied().collect())
    });
    for entry in former.unwrap_or_default().iter().filter(|entry| entry.context == context) {
        if let Some(destructor) = entry.destructor {
            // SAFETY: given with the entry to be called with just these, once, when its context goes.
            unsafe { destructor(entry.context, entry.key, entry.value) };
        }
    }
}
