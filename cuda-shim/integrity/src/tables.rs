//! The tables. Each begins with its size in bytes (only the context-local storage has none); an entry that no known client
//! needs answers `NOT_SUPPORTED`. Tables that are not listed are refused, which every client known takes well.
//!
//! # Safety
//! The entries are called by libcudart with pointers of its own, by the signatures in the comments.
#![allow(unsafe_code)]

use core::ffi::c_void;

use crate::driver::{
    Context, DRIVER, INVALID_CONTEXT, INVALID_VALUE, NOT_INITIALIZED, NOT_SUPPORTED, Result, SUCCESS,
};
use crate::{answer, local_storage};

/// The private table of this identifier (its bytes in memory order), or `None` where the driver refuses it.
pub fn export_table(id: &[u8; 16]) -> Option<*const c_void> {
    match u128::from_be_bytes(*id) {
        0x6bd5fb6c_5bf4_e74a_8987_d93912fd9df9 => Some(CUDART_INTERFACE.address()),
        0xa094798c_2e74_2e74_93f2_0800200c0a66 => Some(TOOLS_RUNTIME_CALLBACK_HOOKS.address()),
        0x42d85a81_23f6_cb47_8298_f6e78a3aecdc => Some(TOOLS_TLS.address()),
        0x21318c60_9714_3248_8ca6_41ff7324c8f2 => Some(TOOLS_UNNAMED.address()),
        0xc693336e_1121_df11_a8c3_68f355d89593 => Some(CONTEXT_LOCAL_STORAGE.address()),
        0x263e8860_7cd2_6143_92f6_bbd5006dfa7e => Some(CONTEXT_CHECKS.address()),
        0xd4082055_bde6_704b_8d34_ba123c66e1f2 => Some(INTEGRITY_CHECK.address()),
        0x1734dc26_800d_4745_8726_c0f1e7dd8bca => Some(CUBLAS_UNNAMED.address()),
        0x7cb63f9b_9ca4_8e42_a484_beb66e6aed7f => Some(CUPTI_UNNAMED.address()),
        _ => None,
    }
}

/// A table as the client sees it: addresses of functions, the first word often its size.
#[repr(transparent)]
struct Table<const N: usize>([*const c_void; N]);

// SAFETY: a table is never written, and what it points to is code.
unsafe impl<const N: usize> Sync for Table<N> {}

impl<const N: usize> Table<N> {
    /// A table whose first word is its size, with these entries; all others answer `NOT_SUPPORTED`.
    const fn sized(entries: &[(usize, *const c_void)]) -> Self {
        let mut table = Self::plain(entries);
        table.0[0] = core::ptr::without_provenance(size_of::<Self>());
        table
    }

    /// The same without a size.
    const fn plain(entries: &[(usize, *const c_void)]) -> Self {
        let mut slots = [not_supported as *const c_void; N];
        let mut next = 0;
        while next < entries.len() {
            slots[entries[next].0] = entries[next].1;
            next += 1;
        }
        Self(slots)
    }

    const fn address(&self) -> *const c_void {
        &raw const self.0 as *const c_void
    }
}

static CUDART_INTERFACE: Table<13> = Table::sized(&[
    (1, load_wrapper as *const c_void),
    (2, primary_context as *const c_void),
    (6, load_wrapper_ext as *const c_void),
    (7, unload_notice as *const c_void),
    (8, load_fatbin_ext as *const c_void),
    (12, succeed as *const c_void),
]);

static TOOLS_RUNTIME_CALLBACK_HOOKS: Table<7> =
    Table::sized(&[(2, runtime_callbacks as *const c_void), (6, driver_callbacks as *const c_void)]);

static TOOLS_TLS: Table<4> = Table::sized(&[(2, tools_tls as *const c_void)]);

/// Unknown to ZLUDA; what cuBLAS does with [`tools_tls`] goes through it. Its matrix products fail where
/// one of these three does, and are content where they succeed and store nothing.
static TOOLS_UNNAMED: Table<88> = Table::sized(&[
    (4, succeed as *const c_void),
    (39, succeed as *const c_void),
    (51, succeed as *const c_void),
]);

static CONTEXT_LOCAL_STORAGE: Table<4> = Table::plain(&[
    (0, local_storage::put as *const c_void),
    (1, local_storage::delete as *const c_void),
    (2, local_storage::get as *const c_void),
]);

static CONTEXT_CHECKS: Table<5> =
    Table::sized(&[(2, check_context as *const c_void), (3, succeed as *const c_void)]);

static INTEGRITY_CHECK: Table<3> = Table::sized(&[(1, integrity_check as *const c_void)]);

/// Unknown to ZLUDA; cuBLAS crashes without the table and is content with refusals from it.
static CUBLAS_UNNAMED: Table<16> = Table::sized(&[]);

/// Unknown to ZLUDA; CUPTI does not load without it, tells its version with it, and records nothing.
static CUPTI_UNNAMED: Table<67> = Table::sized(&[]);

extern "C" fn not_supported() -> Result {
    NOT_SUPPORTED
}

/// For entries whose arguments carry nothing: also the loader of compilers and tools' per-thread reads.
extern "C" fn succeed() -> Result {
    SUCCESS
}

/// `(CUcontext *context, CUdevice device)`: the primary context's handle, not activated by it.
unsafe extern "C" fn primary_context(context: *mut Context, device: i32) -> Result {
    let Some(driver) = DRIVER.get() else { return NOT_INITIALIZED };
    if context.is_null() {
        return INVALID_VALUE;
    }
    match (driver.primary_context)(device) {
        Ok(handle) => {
            // SAFETY: the caller passes a place for a handle; it is not null.
            unsafe { *context = handle };
            SUCCESS
        }
        Err(error) => error,
    }
}

/// `(CUmodule *module, const wrapper *image)`.
unsafe extern "C" fn load_wrapper(module: *mut *mut c_void, image: *const c_void) -> Result {
    let Some(driver) = DRIVER.get() else { return NOT_INITIALIZED };
    if module.is_null() || image.is_null() {
        return INVALID_VALUE;
    }
    // SAFETY: the caller passes a place for a handle and an image, as cuModuleLoadData takes them.
    unsafe { (driver.load_module)(module, image) }
}

/// `(CUmodule *module, const wrapper *image, void *, void *, unsigned)`: what the last three say is unknown.
unsafe extern "C" fn load_wrapper_ext(
    module: *mut *mut c_void,
    image: *const c_void,
    _: *mut c_void,
    _: *mut c_void,
    _: u32,
) -> Result {
    // SAFETY: as the caller's.
    unsafe { load_wrapper(module, image) }
}

/// `(const fatbin *image, CUmodule *module, void *, void *, unsigned)`.
unsafe extern "C" fn load_fatbin_ext(
    image: *const c_void,
    module: *mut *mut c_void,
    _: *mut c_void,
    _: *mut c_void,
    _: u32,
) -> Result {
    // SAFETY: as the caller's.
    unsafe { load_wrapper(module, image) }
}

/// `(size_t)`: told that a module goes; the runtime unloads it by `cuModuleUnload` besides.
extern "C" fn unload_notice(_: usize) {}

/// `(void **buffer, size_t *length)`: flags of subscribed runtime callbacks. All zero: no tool listens.
unsafe extern "C" fn runtime_callbacks(buffer: *mut *const u32, length: *mut usize) {
    static FLAGS: [u32; 1024] = [0; 1024];
    // SAFETY: the caller passes places for both or null.
    unsafe { hand_out(&FLAGS, buffer, length) }
}

/// The same for driver callbacks.
unsafe extern "C" fn driver_callbacks(buffer: *mut *const u32, length: *mut usize) {
    static FLAGS: [u32; 14] = [0; 14];
    // SAFETY: the caller passes places for both or null.
    unsafe { hand_out(&FLAGS, buffer, length) }
}

/// # Safety
/// Each pointer is null or writable.
unsafe fn hand_out(flags: &'static [u32], buffer: *mut *const u32, length: *mut usize) {
    if !buffer.is_null() {
        // SAFETY: not null, and the caller's by contract.
        unsafe { *buffer = flags.as_ptr() };
    }
    if !length.is_null() {
        // SAFETY: not null, and the caller's by contract.
        unsafe { *length = flags.len() };
    }
}

/// `(void **tls, ...)`: per-thread data of tools. Any value passes; it comes back to [`TOOLS_UNNAMED`].
unsafe extern "C" fn tools_tls(tls: *mut *const c_void) -> Result {
    static NOTHING: [u64; 64] = [0; 64];
    if tls.is_null() {
        return INVALID_VALUE;
    }
    // SAFETY: not null, and the caller passes a place for a pointer.
    unsafe { *tls = NOTHING.as_ptr().cast() };
    SUCCESS
}

/// `(CUcontext context, uint32_t *first, const void **second)`: bits that were never seen set.
unsafe extern "C" fn check_context(context: Context, first: *mut u32, second: *mut *const c_void) -> Result {
    let Some(driver) = DRIVER.get() else { return NOT_INITIALIZED };
    if !context.is_null() && !(driver.is_context)(context) {
        return INVALID_CONTEXT;
    }
    if !first.is_null() {
        // SAFETY: not null, and the caller passes a place for a word.
        unsafe { *first = 0 };
    }
    if !second.is_null() {
        // SAFETY: not null, and the caller passes a place for a pointer.
        unsafe { *second = core::ptr::null() };
    }
    SUCCESS
}

/// `(uint32_t version, uint64_t seconds, uint8_t answer[16])`: proves to the runtime that it speaks to a
/// driver that knows the key; a wrong answer is error 103 from every call of the runtime.
unsafe extern "C" fn integrity_check(version: u32, seconds: u64, answer: *mut [u8; 16]) -> Result {
    let Some(driver) = DRIVER.get() else { return NOT_INITIALIZED };
    if answer.is_null() {
        return INVALID_VALUE;
    }
    let question = answer::Question {
        version,
        seconds,
        cudart_interface: CUDART_INTERFACE.address(),
        integrity_check: INTEGRITY_CHECK.address(),
        entry: INTEGRITY_CHECK.0[1],
    };
    let ours = answer::answer(&question, (driver.version)(), &(driver.identities)());
    // SAFETY: not null, and the caller passes room for 16 bytes.
    unsafe { answer.write_unaligned(ours) };
    SUCCESS
}
