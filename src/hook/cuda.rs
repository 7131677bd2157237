//! The CUDA driver API: the table by subject, and the calls that the library makes itself.
//!
//! # Safety
//! This room may use `unsafe` because it calls the real driver with pointers to its own locals or with handles that
//! the driver gave.
#![allow(unsafe_code)]

pub mod array;
pub mod external;
pub mod graph;
pub mod info;
pub mod launch;
pub mod life;
pub mod memory;
pub mod module;
pub mod pitch;
pub mod pool;
pub mod resolve;
pub mod vmm;
pub mod wait;

use super::{Missing, calls, hooks};
use crate::account::Verdict;
use crate::device::Uuid;
use crate::driver::{Entry, Library, sys::cuda as sys};
use core::ptr::null_mut;
pub use sys::{CUcontext, CUdevice, CUdeviceptr, CUevent, CUresult, CUstream};

/// The driver.
pub static LIBCUDA: Library = Library::new(
    c"libcuda.so.1",
    "libcuda.so",
    &[c"cuInit", c"cuDeviceGet", c"cuCtxGetCurrent", c"cuMemAlloc_v2"],
    TABLES,
);

static TABLES: &[&[Entry]] = &[
    memory::TABLE,
    pitch::TABLE,
    vmm::TABLE,
    array::TABLE,
    external::TABLE,
    pool::TABLE,
    graph::TABLE,
    launch::TABLE,
    wait::TABLE,
    life::TABLE,
    module::TABLE,
    info::TABLE,
    resolve::TABLE,
    CALLED,
];

/// The calls that succeed.
pub const CUDA_SUCCESS: CUresult = CUresult::CUDA_SUCCESS;

impl Missing for CUresult {
    const MISSING: Self = Self::CUDA_ERROR_NOT_SUPPORTED;
}

impl Verdict for CUresult {
    #[inline(always)]
    fn is_success(self) -> bool {
        self == CUDA_SUCCESS
    }

    #[inline(always)]
    fn is_out_of_memory(self) -> bool {
        self == Self::CUDA_ERROR_OUT_OF_MEMORY
    }

    const OUT_OF_MEMORY: Self = Self::CUDA_ERROR_OUT_OF_MEMORY;
}

calls! { super::LIBCUDA, sys;
    cuDeviceGetCount: fn(*mut core::ffi::c_int) -> CUresult;
    cuDeviceGetAttribute: fn(*mut core::ffi::c_int, sys::CUdevice_attribute, CUdevice) -> CUresult;
    cuMemAdvise: fn(CUdeviceptr, usize, sys::CUmem_advise, CUdevice) -> CUresult;
    cuCtxGetCurrent: fn(*mut CUcontext) -> CUresult;
    cuCtxGetDevice: fn(*mut CUdevice) -> CUresult;
    cuCtxGetApiVersion: fn(CUcontext, *mut core::ffi::c_uint) -> CUresult;
    cuDeviceGetUuid: fn(*mut sys::CUuuid, CUdevice) -> CUresult;
    cuDeviceGetUuid_v2: fn(*mut sys::CUuuid, CUdevice) -> CUresult;
    cuDevicePrimaryCtxGetState: fn(CUdevice, *mut core::ffi::c_uint, *mut core::ffi::c_int) -> CUresult;
    cuDeviceGetMemPool: fn(*mut sys::CUmemoryPool, CUdevice) -> CUresult;
    cuDeviceGetDefaultMemPool: fn(*mut sys::CUmemoryPool, CUdevice) -> CUresult;
    cuMemPoolGetAttribute: fn(
        sys::CUmemoryPool, sys::CUmemPool_attribute, *mut core::ffi::c_void
    ) -> CUresult;
    cuDeviceGetGraphMemAttribute: fn(CUdevice, sys::CUgraphMem_attribute, *mut core::ffi::c_void) -> CUresult;
    cuGraphGetNodes: fn(sys::CUgraph, *mut sys::CUgraphNode, *mut usize) -> CUresult;
    cuGraphNodeGetType: fn(sys::CUgraphNode, *mut sys::CUgraphNodeType) -> CUresult;
    cuGraphMemAllocNodeGetParams: fn(sys::CUgraphNode, *mut sys::CUDA_MEM_ALLOC_NODE_PARAMS) -> CUresult;
    cuGraphChildGraphNodeGetGraph: fn(sys::CUgraphNode, *mut sys::CUgraph) -> CUresult;
    cuStreamIsCapturing: fn(CUstream, *mut sys::CUstreamCaptureStatus) -> CUresult;
    cuStreamIsCapturing_ptsz: fn(CUstream, *mut sys::CUstreamCaptureStatus) -> CUresult;
    cuStreamWaitEvent: fn(CUstream, CUevent, core::ffi::c_uint) -> CUresult;
    cuStreamQuery: fn(CUstream) -> CUresult;
    cuStreamQuery_ptsz: fn(CUstream) -> CUresult;
    cuThreadExchangeStreamCaptureMode: fn(*mut sys::CUstreamCaptureMode) -> CUresult;
    cuStreamGetCtx: fn(CUstream, *mut CUcontext) -> CUresult;
    cuCtxPushCurrent_v2: fn(CUcontext) -> CUresult;
    cuCtxPopCurrent_v2: fn(*mut CUcontext) -> CUresult;
    cuStreamCreate: fn(*mut CUstream, core::ffi::c_uint) -> CUresult;
    cuEventCreate: fn(*mut CUevent, core::ffi::c_uint) -> CUresult;
    cuEventDestroy_v2: fn(CUevent) -> CUresult;
    cuEventRecord: fn(CUevent, CUstream) -> CUresult;
    cuEventRecord_ptsz: fn(CUevent, CUstream) -> CUresult;
    cuEventQuery: fn(CUevent) -> CUresult;
    cuEventElapsedTime: fn(*mut f32, CUevent, CUevent) -> CUresult;
}

/// How many devices the driver shows.
pub fn device_count() -> i32 {
    let mut count = 0;
    // SAFETY: writes an integer to a local.
    let answer = cuDeviceGetCount::REAL.get().map(|ask| unsafe { ask(&mut count) });
    if answer == Some(CUDA_SUCCESS) { count } else { 0 }
}

/// The device that a location is on, wholly or in part; `None` for the host.
pub fn ordinal_of(location: &sys::CUmemLocation) -> Option<CUdevice> {
    // SAFETY: plain numbers, of which the type tells the one that was written.
    let (id, localized) = unsafe { (location.__bindgen_anon_1.id, location.__bindgen_anon_1.localized) };
    match location.type_ {
        sys::CU_MEM_LOCATION_TYPE_DEVICE => Some(id),
        sys::CU_MEM_LOCATION_TYPE_DEVICE_LOCALITY_DOMAIN => Some(CUdevice::from(localized.deviceId)),
        _ => None,
    }
}

/// The handle of the calling thread's context.
#[inline]
pub fn current_context() -> Option<u64> {
    let mut context: CUcontext = null_mut();
    // SAFETY: writes a handle to a local.
    let answer = unsafe { cuCtxGetCurrent::REAL.get()?(&mut context) };
    (answer == CUDA_SUCCESS && !context.is_null()).then_some(context as u64)
}

/// The context of a stream.
pub fn context_of(stream: CUstream) -> Option<u64> {
    let mut context: CUcontext = null_mut();
    // SAFETY: writes a handle to a local; the caller is about to use the stream.
    let answer = unsafe { cuStreamGetCtx::REAL.get()?(stream, &mut context) };
    (answer == CUDA_SUCCESS && !context.is_null()).then_some(context as u64)
}

/// Does something with another context current.
pub fn within<T>(context: u64, act: impl FnOnce() -> Option<T>) -> Option<T> {
    if current_context() == Some(context) {
        return act();
    }
    let (push, pop) = (cuCtxPushCurrent_v2::REAL.get()?, cuCtxPopCurrent_v2::REAL.get()?);
    // SAFETY: a context that the driver knows, or it answers with an error.
    if unsafe { push(context as CUcontext) } != CUDA_SUCCESS {
        return None;
    }
    let answer = act();
    let mut popped = null_mut();
    // SAFETY: writes a handle to a local.
    unsafe { pop(&mut popped) };
    answer
}

/// Whether a context is there; true if the driver does not tell.
pub fn context_lives(context: u64) -> bool {
    let mut version = 0;
    let Some(ask) = cuCtxGetApiVersion::REAL.get() else { return true };
    // SAFETY: writes an integer to a local; the driver knows its handles.
    unsafe { ask(context as CUcontext, &mut version) == CUDA_SUCCESS }
}

/// The ordinal of the calling thread's device; the first one's where the driver does not tell.
pub fn current_device() -> CUdevice {
    let mut device = 0;
    // SAFETY: writes an integer to a local.
    let answer = cuCtxGetDevice::REAL.get().map(|ask| unsafe { ask(&mut device) });
    if answer == Some(CUDA_SUCCESS) { device } else { 0 }
}

/// Writes a device's UUID as NVML writes it; false if the driver does not tell.
pub fn uuid_of(ordinal: CUdevice, uuid: &mut Uuid) -> bool {
    // SAFETY: writes 16 bytes to a local.
    let tell = |ask: unsafe extern "C" fn(*mut sys::CUuuid, CUdevice) -> CUresult| unsafe {
        let mut uuid = sys::CUuuid { bytes: [0; 16] };
        let told = ask(&mut uuid, ordinal) == CUDA_SUCCESS && uuid.bytes != [0; 16];
        told.then(|| uuid.bytes.map(|byte| byte as u8))
    };
    let first = cuDeviceGetUuid::REAL.get().and_then(tell);
    let Some(bytes) = cuDeviceGetUuid_v2::REAL.get().and_then(tell).or(first) else { return false };
    // Of a MIG instance the first version tells the whole device's.
    let is_instance = first.is_some_and(|first| first != bytes);
    uuid.push(if is_instance { b"MIG-" } else { b"GPU-" });
    uuid.push_groups(&bytes);
    true
}

/// A device's real memory, bytes.
pub fn total_memory(ordinal: CUdevice) -> Option<u64> {
    let mut bytes = 0usize;
    // SAFETY: writes an integer to a local.
    let answer = unsafe { info::cuDeviceTotalMem_v2::REAL.get()?(&mut bytes, ordinal) };
    (answer == CUDA_SUCCESS).then_some(bytes as u64)
}

/// Whether a device's primary context exists; true if the driver does not tell.
pub fn primary_is_active(ordinal: CUdevice) -> bool {
    let (mut flags, mut active) = (0, 1);
    let Some(ask) = cuDevicePrimaryCtxGetState::REAL.get() else { return true };
    // SAFETY: writes two integers to locals.
    let answer = unsafe { ask(ordinal, &mut flags, &mut active) };
    answer != CUDA_SUCCESS || active != 0
}

/// Whether a launch into the stream would be captured. Any other answer than "no" counts as yes: the legacy stream
/// answers with an error while a capture that forbids its use is open.
#[inline]
pub fn is_capturing(stream: CUstream, per_thread: bool) -> bool {
    let ask = if per_thread { cuStreamIsCapturing_ptsz::REAL.get() } else { None };
    let Some(ask) = ask.or_else(|| cuStreamIsCapturing::REAL.get()) else { return false };
    let mut status = sys::CU_STREAM_CAPTURE_STATUS_NONE;
    // SAFETY: writes an integer to a local.
    let answer = unsafe { ask(stream, &mut status) };
    answer != CUDA_SUCCESS || status != sys::CU_STREAM_CAPTURE_STATUS_NONE
}

/// Whether all that a stream was given is over; not if the driver does not tell.
pub fn is_idle(stream: CUstream, per_thread: bool) -> bool {
    let ask = if per_thread { cuStreamQuery_ptsz::REAL.get() } else { None };
    let ask = ask.or_else(|| cuStreamQuery::REAL.get());
    // SAFETY: a stream that the caller is about to use.
    ask.is_some_and(|ask| unsafe { ask(stream) } == CUDA_SUCCESS)
}

/// While held, calls of this thread may touch events although another thread's capture forbids that by default.
pub struct Relaxed(Option<sys::CUstreamCaptureMode>);

impl Relaxed {
    /// Relaxes this thread's capture mode until dropped.
    pub fn enter() -> Self {
        Self(Self::exchange(sys::CU_STREAM_CAPTURE_MODE_RELAXED))
    }

    fn exchange(mode: sys::CUstreamCaptureMode) -> Option<sys::CUstreamCaptureMode> {
        let mut mode = mode;
        // SAFETY: reads and writes a local.
        let answer = unsafe { cuThreadExchangeStreamCaptureMode::REAL.get()?(&mut mode) };
        (answer == CUDA_SUCCESS).then_some(mode)
    }
}

impl Drop for Relaxed {
    fn drop(&mut self) {
        if let Some(mode) = self.0 {
            Self::exchange(mode);
        }
    }
}

/// An event with timing, in the calling thread's context.
pub fn create_event() -> Option<CUevent> {
    let mut event = null_mut();
    // SAFETY: writes a handle to a local.
    let answer = unsafe { cuEventCreate::REAL.get()?(&mut event, 0) };
    (answer == CUDA_SUCCESS).then_some(event)
}

/// Gives an event back.
pub fn destroy_event(event: CUevent) {
    if let Some(destroy) = cuEventDestroy_v2::REAL.get() {
        // SAFETY: an event of ours that is used no more.
        unsafe { destroy(event) };
    }
}

/// A stream that waits for no other.
pub fn create_stream() -> Option<CUstream> {
    let mut stream = null_mut();
    // SAFETY: writes a handle to a local.
    let answer = unsafe { cuStreamCreate::REAL.get()?(&mut stream, sys::CU_STREAM_NON_BLOCKING) };
    (answer == CUDA_SUCCESS).then_some(stream)
}

/// Records an event of ours.
pub fn record(event: CUevent, stream: CUstream, per_thread: bool) -> bool {
    let own = if per_thread { cuEventRecord_ptsz::REAL.get() } else { None };
    let Some(record) = own.or_else(|| cuEventRecord::REAL.get()) else { return false };
    // SAFETY: an event of ours and a stream that the caller is about to use.
    unsafe { record(event, stream) == CUDA_SUCCESS }
}

/// Has a stream of ours wait for an event of ours.
pub fn wait(stream: CUstream, event: CUevent) -> bool {
    // SAFETY: both are ours, and the event is recorded.
    cuStreamWaitEvent::REAL.get().is_some_and(|wait| unsafe { wait(stream, event, 0) } == CUDA_SUCCESS)
}

/// Whether what an event of ours was recorded behind is over.
pub fn is_over(event: CUevent) -> bool {
    // SAFETY: an event of ours.
    cuEventQuery::REAL.get().is_some_and(|ask| unsafe { ask(event) } == CUDA_SUCCESS)
}

/// Time from one event of ours to another, nanoseconds; may be negative.
pub fn between_ns(from: CUevent, to: CUevent) -> Option<i64> {
    let mut milliseconds = 0f32;
    // SAFETY: events of ours, both recorded; writes a number to a local.
    let answer = unsafe { cuEventElapsedTime::REAL.get()?(&mut milliseconds, from, to) };
    (answer == CUDA_SUCCESS).then_some((f64::from(milliseconds) * 1e6) as i64)
}

/// As [`between_ns`] for an interval that cannot be negative.
pub fn elapsed_ns(start: CUevent, end: CUevent) -> Option<u64> {
    between_ns(start, end).map(|elapsed| u64::try_from(elapsed).unwrap_or(0))
}
