//! Memory of another API (Vulkan, Direct3D, NvSci) that CUDA uses: charged while the program imports it.
//!
//! The library does not intercept the other API. So the charge is the size that the program passes to CUDA.
//!
//! # Safety
//! This file may use `unsafe` because it reads the caller's descriptor and the out-parameter that the driver has just
//! written successfully.
#![allow(unsafe_code)]

use super::memory::{allocate_with_handle, release};
use crate::driver::cuda::CUresult;
use crate::driver::sys::cuda as sys;
use crate::hook::hooks;
use crate::memory::holdings::Kind;

type ExternalMemory = sys::CUexternalMemory;
type Descriptor = sys::CUDA_EXTERNAL_MEMORY_HANDLE_DESC;

fn import(
    memory: *mut ExternalMemory,
    descriptor: *const Descriptor,
    call: impl Fn() -> CUresult,
) -> CUresult {
    if memory.is_null() || descriptor.is_null() {
        return call();
    }
    // SAFETY: not null, and the caller passes it to the driver, which reads it too.
    let bytes = unsafe { (*descriptor).size };
    // SAFETY: not null, and read only after the driver has written to it.
    allocate_with_handle(Kind::External, bytes, call, || unsafe { *memory } as u64)
}

hooks! { sys;
    cuImportExternalMemory: fn(memory: *mut ExternalMemory, descriptor: *const Descriptor) -> CUresult
        = |real| import(memory, descriptor, real);
    cuDestroyExternalMemory: fn(memory: ExternalMemory) -> CUresult = |real| release(Kind::External, memory as u64, real);
}
