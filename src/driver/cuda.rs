//! Typed questions to the CUDA driver. No policy: the answers are the driver's.
//!
//! # Safety
//! This file may use `unsafe` because it calls the real driver with pointers to its own locals or with handles that
//! the driver gave.
#![allow(unsafe_code)]

pub mod arenas;
pub mod events;
pub mod managed;

use super::sys::cuda as sys;
use crate::uuid::Uuid;
use core::ptr::null_mut;
pub use sys::{CUcontext, CUdevice, CUdeviceptr, CUresult, CUstream};

/// The calls that succeed.
const CUDA_SUCCESS: CUresult = CUresult::CUDA_SUCCESS;

impl CUresult {
    /// The answer to a request over the cap.
    pub const OUT_OF_MEMORY: Self = Self::CUDA_ERROR_OUT_OF_MEMORY;

    /// The call succeeded.
    #[inline(always)]
    pub fn is_success(self) -> bool {
        self == CUDA_SUCCESS
    }

    /// The device itself has no room.
    #[inline(always)]
    pub fn is_out_of_memory(self) -> bool {
        self == Self::OUT_OF_MEMORY
    }
}

/// How many devices the driver shows.
pub fn device_count() -> i32 {
    let mut count = 0;
    // SAFETY: writes an integer to a local.
    let answer = sys::cuDeviceGetCount::REAL.get().map(|ask| unsafe { ask(&mut count) });
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

/// Does something with another context current.
pub fn within<T>(context: u64, act: impl FnOnce() -> Option<T>) -> Option<T> {
    if current_context() == Some(context) {
        return act();
    }
    let (push, pop) = (sys::cuCtxPushCurrent_v2::REAL.get()?, sys::cuCtxPopCurrent_v2::REAL.get()?);
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
    let Some(ask) = sys::cuCtxGetApiVersion::REAL.get() else { return true };
    // SAFETY: writes an integer to a local; the driver knows its handles.
    unsafe { ask(context as CUcontext, &mut version) == CUDA_SUCCESS }
}

/// The ordinal of the calling thread's device; the first one's where the driver does not tell.
pub fn current_device() -> CUdevice {
    let mut device = 0;
    // SAFETY: writes an integer to a local.
    let answer = sys::cuCtxGetDevice::REAL.get().map(|ask| unsafe { ask(&mut device) });
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
    let first = sys::cuDeviceGetUuid::REAL.get().and_then(tell);
    let Some(bytes) = sys::cuDeviceGetUuid_v2::REAL.get().and_then(tell).or(first) else { return false };
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
    let answer = unsafe { sys::cuDeviceTotalMem_v2::REAL.get()?(&mut bytes, ordinal) };
    (answer == CUDA_SUCCESS).then_some(bytes as u64)
}

/// Whether a device's primary context exists; true if the driver does not tell.
pub fn primary_is_active(ordinal: CUdevice) -> bool {
    let (mut flags, mut active) = (0, 1);
    let Some(ask) = sys::cuDevicePrimaryCtxGetState::REAL.get() else { return true };
    // SAFETY: writes two integers to locals.
    let answer = unsafe { ask(ordinal, &mut flags, &mut active) };
    answer != CUDA_SUCCESS || active != 0
}
