//! Calls in which the program waits for a device. Work has completed after them, so the library corrects its charge.

use crate::driver::cuda::events::CUevent;
use crate::driver::cuda::{CUcontext, CUdeviceptr, CUresult, CUstream};
use crate::driver::sys::cuda as sys;
use crate::hook::hooks;
use crate::process::{Quota, quota};
use core::ffi::{c_uint, c_void};

/// Completes measurements after a wait.
fn waited(answer: CUresult) -> CUresult {
    if let Quota::On(process) = quota() {
        if process.scope.container.is_unthrottled() {
            process.count_time();
        } else {
            let (meter, scope) = process.meter();
            meter.complete_due(scope);
        }
    }
    answer
}

/// The same after a call at which pools may also give memory back.
fn synchronized(answer: CUresult) -> CUresult {
    if let Quota::On(process) = quota() {
        let memory = process.memory();
        memory.state.arenas.update_stale(memory.books());
    }
    waited(answer)
}

hooks! { sys;
    cuStreamSynchronize, cuStreamSynchronize_ptsz: fn(stream: CUstream) -> CUresult = |real| synchronized(real());
    cuEventSynchronize: fn(event: CUevent) -> CUresult = |real| synchronized(real());
    cuCtxSynchronize: fn() -> CUresult = |real| synchronized(real());
    cuCtxSynchronize_v2: fn(context: CUcontext) -> CUresult = |real| synchronized(real());
    cuMemcpyDtoH: fn(to: *mut c_void, from: sys::CUdeviceptr_v1, bytes: c_uint) -> CUresult = |real| waited(real());
    cuMemcpyDtoH_v2, cuMemcpyDtoH_v2_ptds: fn(to: *mut c_void, from: CUdeviceptr, bytes: usize) -> CUresult
        = |real| waited(real());
}
