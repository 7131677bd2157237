//! Memory that another API has made (Vulkan, Direct3D, NvSci) and CUDA uses: charged while it is imported.
//!
//! The other API is not metered, so the size that CUDA is told is all that is known.
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

type Memory = sys::CUexternalMemory;
type Description = sys::CUDA_EXTERNAL_MEMORY_HANDLE_DESC;

fn import(memory: *mut Memory, description: *const Description, call: impl Fn() -> CUresult) -> CUresult {
    if memory.is_null() || description.is_null() {
        return call();
    }
    // SAFETY: not null, and the caller passes it to the driver, which reads it too.
    let bytes = unsafe { (*description).size };
    // SAFETY: not null, and read only after the driver has written to it.
    allocate_with_handle(Kind::External, bytes, call, || unsafe { *memory } as u64)
}

hooks! { sys;
    cuImportExternalMemory: fn(memory: *mut Memory, description: *const Description) -> CUresult
        = |real| import(memory, description, real);
    cuDestroyExternalMemory: fn(memory: Memory) -> CUresult = |real| release(Kind::External, memory as u64, real);
}
