//! Typed questions to the CUDA driver. No policy: the answers are the driver's.
//!
//! # Safety
//! This file may use `unsafe` because it calls the real driver with pointers to its own locals or with handles that
//! the driver gave.
#![allow(unsafe_code)]

pub mod arenas;
pub mod contexts;
pub mod events;
pub mod heaps;
pub mod managed;

use super::sys::cuda as sys;
use crate::uuid::Uuid;
use core::ptr::null_mut;
pub use sys::{CUcontext, CUdevice, CUdeviceptr, CUresult, CUstream};

/// The answer of a call that succeeded.
const CUDA_SUCCESS: CUresult = CUresult::CUDA_SUCCESS;

impl CUresult {
    /// The answer to a request over the cap.
    pub const OUT_OF_MEMORY: Self = Self::CUDA_ERROR_OUT_OF_MEMORY;

    /// Whether the call succeeded.
    #[inline(always)]
    pub fn is_success(self) -> bool {
        self == CUDA_SUCCESS
    }

    /// Whether the driver found no memory.
    #[inline(always)]
    pub fn is_out_of_memory(self) -> bool {
        self == Self::OUT_OF_MEMORY
    }
}

/// The number of devices that the driver shows.
pub fn device_count() -> i32 {
    let mut count = 0;
    // SAFETY: writes an integer to a local.
    let answer = sys::cuDeviceGetCount::REAL.get().map(|query| unsafe { query(&mut count) });
    if answer == Some(CUDA_SUCCESS) { count } else { 0 }
}

/// The device of a location, or the device that it is a part of; `None` for the host.
pub fn ordinal_of(location: &sys::CUmemLocation) -> Option<CUdevice> {
    // SAFETY: plain numbers; the type says which of them was written.
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
    let answer = unsafe { sys::cuCtxGetCurrent::REAL.get()?(&mut context) };
    (answer == CUDA_SUCCESS && !context.is_null()).then_some(context as u64)
}

/// The context of a stream.
pub fn context_of(stream: CUstream) -> Option<u64> {
    let mut context: CUcontext = null_mut();
    // SAFETY: writes a handle to a local; the caller is about to use the stream.
    let answer = unsafe { sys::cuStreamGetCtx::REAL.get()?(stream, &mut context) };
    (answer == CUDA_SUCCESS && !context.is_null()).then_some(context as u64)
}

/// The context behind a green context.
pub fn context_of_green(green: sys::CUgreenCtx) -> Option<u64> {
    let mut context: CUcontext = null_mut();
    // SAFETY: writes a handle to a local; the caller is about to use the green context.
    let answer = unsafe { sys::cuCtxFromGreenCtx::REAL.get()?(&mut context, green) };
    (answer == CUDA_SUCCESS && !context.is_null()).then_some(context as u64)
}

/// A number of a context that no later context of the process has; `None` where the driver has none.
pub fn context_number(context: u64) -> Option<u64> {
    let mut number = 0;
    // SAFETY: writes an integer to a local; for a handle that is no context the driver answers with an error.
    let answer = unsafe { sys::cuCtxGetId::REAL.get()?(context as CUcontext, &mut number) };
    (answer == CUDA_SUCCESS).then_some(number)
}

/// Runs `action` with another context current.
pub fn within<T>(context: u64, action: impl FnOnce() -> Option<T>) -> Option<T> {
    if current_context() == Some(context) {
        return action();
    }
    let (push, pop) = (sys::cuCtxPushCurrent_v2::REAL.get()?, sys::cuCtxPopCurrent_v2::REAL.get()?);
    // SAFETY: for a handle that is no context the driver answers with an error.
    if unsafe { push(context as CUcontext) } != CUDA_SUCCESS {
        return None;
    }
    let answer = action();
    let mut popped = null_mut();
    // SAFETY: writes a handle to a local.
    unsafe { pop(&mut popped) };
    answer
}

/// Whether a context exists; true if the driver lacks the call.
pub fn context_lives(context: u64) -> bool {
    let mut version = 0;
    let Some(query) = sys::cuCtxGetApiVersion::REAL.get() else { return true };
    // SAFETY: writes an integer to a local; for a handle that is no context the driver answers with an error.
    unsafe { query(context as CUcontext, &mut version) == CUDA_SUCCESS }
}

/// The ordinal of the calling thread's device; that of the first device if the driver answers with an error.
pub fn current_device() -> CUdevice {
    let mut device = 0;
    // SAFETY: writes an integer to a local.
    let answer = sys::cuCtxGetDevice::REAL.get().map(|query| unsafe { query(&mut device) });
    if answer == Some(CUDA_SUCCESS) { device } else { 0 }
}

/// Writes a device's UUID as NVML writes it; false if the driver does not give it.
pub fn uuid_of(ordinal: CUdevice, uuid: &mut Uuid) -> bool {
    // SAFETY: writes 16 bytes to a local.
    let read = |query: unsafe extern "C" fn(*mut sys::CUuuid, CUdevice) -> CUresult| unsafe {
        let mut uuid = sys::CUuuid { bytes: [0; 16] };
        let found = query(&mut uuid, ordinal) == CUDA_SUCCESS && uuid.bytes != [0; 16];
        found.then(|| uuid.bytes.map(|byte| byte as u8))
    };
    let first = sys::cuDeviceGetUuid::REAL.get().and_then(read);
    let Some(bytes) = sys::cuDeviceGetUuid_v2::REAL.get().and_then(read).or(first) else { return false };
    // For a MIG instance the first version of the call gives the UUID of the whole device.
    let is_instance = first.is_some_and(|first| first != bytes);
    uuid.push(if is_instance { b"MIG-" } else { b"GPU-" });
    uuid.push_groups(&bytes);
    true
}

/// The memory of the whole device, bytes.
pub fn total_memory(ordinal: CUdevice) -> Option<u64> {
    let mut bytes = 0usize;
    // SAFETY: writes an integer to a local.
    let answer = unsafe { sys::cuDeviceTotalMem_v2::REAL.get()?(&mut bytes, ordinal) };
    (answer == CUDA_SUCCESS).then_some(bytes as u64)
}

/// The size of the blocks in which the driver gives out the memory of a device; `None` if the driver does not say.
pub fn granularity(ordinal: CUdevice) -> Option<u64> {
    let query = sys::cuMemGetAllocationGranularity::REAL.get()?;
    let mut bytes = 0usize;
    // SAFETY: plain data, for which zeroes are valid.
    let mut properties: sys::CUmemAllocationProp = unsafe { core::mem::zeroed() };
    properties.type_ = sys::CU_MEM_ALLOCATION_TYPE_PINNED;
    properties.location.type_ = sys::CU_MEM_LOCATION_TYPE_DEVICE;
    properties.location.__bindgen_anon_1.id = ordinal;
    // SAFETY: reads a local, and writes an integer to another one.
    let answer = unsafe { query(&mut bytes, &properties, sys::CU_MEM_ALLOC_GRANULARITY_MINIMUM) };
    (answer == CUDA_SUCCESS && bytes != 0).then_some(bytes as u64)
}

/// Whether a device's primary context exists; true if the driver does not say.
pub fn primary_is_active(ordinal: CUdevice) -> bool {
    let (mut flags, mut active) = (0, 1);
    let Some(query) = sys::cuDevicePrimaryCtxGetState::REAL.get() else { return true };
    // SAFETY: writes two integers to locals.
    let answer = unsafe { query(ordinal, &mut flags, &mut active) };
    answer != CUDA_SUCCESS || active != 0
}
