//! Memory that another API has made (Vulkan, Direct3D, NvSci) and CUDA uses: charged while it is imported.
//!
//! Whoever made it is not metered, so what CUDA is told of its size is all that anybody knows.
//!
//! # Safety
//! This room may use `unsafe` because it reads the caller's descriptor and the out-parameter that the driver has just
//! written successfully.
#![allow(unsafe_code)]

use super::{
    CUresult, hooks,
    memory::{allocation, release},
    sys,
};
use crate::holdings::{Key, Kind};

type Memory = sys::CUexternalMemory;
type Description = sys::CUDA_EXTERNAL_MEMORY_HANDLE_DESC;

fn import(memory: *mut Memory, description: *const Description, call: impl Fn() -> CUresult) -> CUresult {
    if memory.is_null() || description.is_null() {
        return call();
    }
    // SAFETY: not null, and the caller passes it to the driver, which reads it too.
    let bytes = unsafe { (*description).size };
    allocation(&call, |process, place| {
        process.allocate(place.device, bytes, &call, || {
            // SAFETY: not null, and the driver has just written to it.
            (Key::new(Kind::External, unsafe { *memory } as u64), place.context)
        })
    })
}

hooks! { super::super::LIBCUDA, sys;
    cuImportExternalMemory: fn(memory: *mut Memory, description: *const Description) -> CUresult
        = |real| import(memory, description, real);
    cuDestroyExternalMemory: fn(memory: Memory) -> CUresult = |real| release(Kind::External, memory as u64, real);
}
