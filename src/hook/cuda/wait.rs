//! The program waits for a device: what was under way is over, and is settled before anything else is asked.

use super::{CUcontext, CUdeviceptr, CUevent, CUresult, CUstream, hooks, pool, sys};
use crate::meter;
use crate::process::{Quota, quota};
use core::ffi::{c_uint, c_void};

/// After such a wait.
fn waited(answer: CUresult) -> CUresult {
    if let Quota::On(process) = quota()
        && let Some(region) = process.region()
        && !meter::is_idle(process, &region.ours().header)
    {
        process.meter.settle_due(process);
    }
    answer
}

/// After one that may also have made pools give something back.
fn synchronized(answer: CUresult) -> CUresult {
    waited(pool::then_settle(answer))
}

hooks! { super::super::LIBCUDA, sys;
    cuStreamSynchronize, cuStreamSynchronize_ptsz: fn(stream: CUstream) -> CUresult = |real| synchronized(real());
    cuEventSynchronize: fn(event: CUevent) -> CUresult = |real| synchronized(real());
    cuCtxSynchronize: fn() -> CUresult = |real| synchronized(real());
    cuCtxSynchronize_v2: fn(context: CUcontext) -> CUresult = |real| synchronized(real());
    cuMemcpyDtoH: fn(to: *mut c_void, from: sys::CUdeviceptr_v1, bytes: c_uint) -> CUresult = |real| waited(real());
    cuMemcpyDtoH_v2, cuMemcpyDtoH_v2_ptds: fn(to: *mut c_void, from: CUdeviceptr, bytes: usize) -> CUresult
        = |real| waited(real());
}
