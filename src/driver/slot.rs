//! The slots of functions: where the real ones are.

use core::ffi::{CStr, c_void};
use core::ptr::null_mut;
use core::sync::atomic::{
    AtomicPtr, Ordering::AcqRel, Ordering::Acquire, Ordering::Relaxed, Ordering::Release,
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
    #[inline(always)]
    pub fn address(&self) -> Option<*mut c_void> {
        let address = self.0.load(Acquire);
        (address > ABSENT).then_some(address)
    }

    /// Whether it is not filled yet.
    pub fn is_empty(&self) -> bool {
        self.0.load(Relaxed).is_null()
    }

    /// Fills it; `None` for a function that the library does not have.
    pub fn fill(&self, address: Option<usize>) {
        self.0.store(address.map_or(ABSENT, |address| address as *mut c_void), Release);
    }

    /// Fills it, if the library does not export the function.
    pub fn fill_absent(&self, address: *mut c_void) {
        _ = self.0.compare_exchange(ABSENT, address, AcqRel, Relaxed);
    }
}

/// One function that a library may have: its name and its slot.
pub struct FunctionEntry {
    /// Name as exported.
    pub name: &'static CStr,
    /// Where the real one is.
    pub slot: &'static FunctionSlot,
}
