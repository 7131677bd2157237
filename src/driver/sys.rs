//! NVIDIA's types, and a typed slot for each function of theirs that the library intercepts or calls: bindgen's output,
//! checked in (`src/driver/sys.sh` regenerates it). The header is the witness: a hook of another signature does not compile.
//!
//! # Safety
//! This file may use `unsafe` because it asks the driver one question, whose answer goes into a local.
#![allow(unsafe_code)]
#![allow(
    non_camel_case_types,
    non_snake_case,
    non_upper_case_globals,
    missing_docs,
    dead_code,
    unused_imports,
    clippy::all
)]

pub mod cuda;
pub mod nvml;

use super::library::Library;
use crate::thread::HookGuard;

/// The driver.
pub static LIBCUDA: Library = Library::new(
    c"libcuda.so.1",
    "libcuda.so",
    "cu",
    &[c"cuInit", c"cuDeviceGet", c"cuCtxGetCurrent", c"cuMemAlloc_v2"],
    &[cuda::TABLE],
    is_stub,
);

/// Whether the driver is the stand-in that programs are linked to where no driver is: all its calls answer so.
fn is_stub() -> bool {
    let (mut count, _inside) = (0, HookGuard::enter());
    cuda::cuDeviceGetCount::REAL.get().is_some_and(|query| {
        // SAFETY: writes an integer to a local.
        (unsafe { query(&mut count) }) == cuda::cudaError_enum::CUDA_ERROR_STUB_LIBRARY
    })
}

/// NVML.
pub static LIBNVML: Library = Library::new(
    c"libnvidia-ml.so.1",
    "libnvidia-ml.so",
    "nvml",
    &[c"nvmlInit_v2", c"nvmlDeviceGetMemoryInfo"],
    &[nvml::TABLE, undeclared::TABLE],
    || false,
);

/// A function that no header declares; nvidia-smi calls it.
pub mod undeclared {
    use super::nvml::nvmlReturn_t;

    crate::driver::library::functions! { crate::driver::sys::LIBNVML;
        nvmlInternalGetExportTable: fn(table: *mut *const core::ffi::c_void, identifier: *const core::ffi::c_void) -> nvmlReturn_t;
    }
}
