//! Streams and events: does a stream capture, is it idle, when did an event complete?
//!
//! # Safety
//! This file may use `unsafe` because it calls the real driver with pointers to its own locals, with events and streams of
//! ours, and with streams that the caller is about to use.
#![allow(unsafe_code)]

use super::{CUDA_SUCCESS, CUstream, sys};
use core::ptr::null_mut;
pub use sys::CUevent;

/// Whether the stream would capture a launch. Any answer but "no" counts as yes: the driver answers for the legacy stream
/// with an error while a capture that forbids its use is open.
#[inline]
pub fn is_capturing(stream: CUstream, per_thread: bool) -> bool {
    let query = if per_thread { sys::cuStreamIsCapturing_ptsz::REAL.get() } else { None };
    let Some(query) = query.or_else(|| sys::cuStreamIsCapturing::REAL.get()) else { return false };
    let mut status = sys::CU_STREAM_CAPTURE_STATUS_NONE;
    // SAFETY: writes an integer to a local.
    let answer = unsafe { query(stream, &mut status) };
    answer != CUDA_SUCCESS || status != sys::CU_STREAM_CAPTURE_STATUS_NONE
}

/// Whether all work of a stream has completed; false if the driver does not say.
pub fn is_idle(stream: CUstream, per_thread: bool) -> bool {
    let query = if per_thread { sys::cuStreamQuery_ptsz::REAL.get() } else { None };
    let query = query.or_else(|| sys::cuStreamQuery::REAL.get());
    // SAFETY: a stream that the caller is about to use.
    query.is_some_and(|query| unsafe { query(stream) } == CUDA_SUCCESS)
}

/// While this lives, calls of this thread may use events although another thread's capture forbids that by default.
pub struct Relaxed(Option<sys::CUstreamCaptureMode>);

impl Relaxed {
    /// Relaxes this thread's capture mode until dropped.
    pub fn enter() -> Self {
        Self(Self::exchange(sys::CU_STREAM_CAPTURE_MODE_RELAXED))
    }

    fn exchange(mode: sys::CUstreamCaptureMode) -> Option<sys::CUstreamCaptureMode> {
        let mut mode = mode;
        // SAFETY: reads and writes a local.
        let answer = unsafe { sys::cuThreadExchangeStreamCaptureMode::REAL.get()?(&mut mode) };
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
    let answer = unsafe { sys::cuEventCreate::REAL.get()?(&mut event, 0) };
    (answer == CUDA_SUCCESS).then_some(event)
}

/// Gives an event back.
pub fn destroy_event(event: CUevent) {
    if let Some(destroy) = sys::cuEventDestroy_v2::REAL.get() {
        // SAFETY: an event of ours, and nothing uses it afterwards.
        unsafe { destroy(event) };
    }
}

/// A stream that waits for no other.
pub fn create_stream() -> Option<CUstream> {
    let mut stream = null_mut();
    // SAFETY: writes a handle to a local.
    let answer = unsafe { sys::cuStreamCreate::REAL.get()?(&mut stream, sys::CU_STREAM_NON_BLOCKING) };
    (answer == CUDA_SUCCESS).then_some(stream)
}

/// Records an event of ours.
pub fn record(event: CUevent, stream: CUstream, per_thread: bool) -> bool {
    let own = if per_thread { sys::cuEventRecord_ptsz::REAL.get() } else { None };
    let Some(record) = own.or_else(|| sys::cuEventRecord::REAL.get()) else { return false };
    // SAFETY: an event of ours and a stream that the caller is about to use.
    unsafe { record(event, stream) == CUDA_SUCCESS }
}

/// Whether an event of ours has completed: all work before it in its stream is over.
pub fn is_over(event: CUevent) -> bool {
    // SAFETY: an event of ours.
    sys::cuEventQuery::REAL.get().is_some_and(|query| unsafe { query(event) } == CUDA_SUCCESS)
}

/// Time from one event of ours to another, nanoseconds; may be negative.
pub fn between_ns(from: CUevent, to: CUevent) -> Option<i64> {
    let mut milliseconds = 0f32;
    // SAFETY: events of ours, both recorded; writes a number to a local.
    let answer = unsafe { sys::cuEventElapsedTime::REAL.get()?(&mut milliseconds, from, to) };
    (answer == CUDA_SUCCESS).then_some((f64::from(milliseconds) * 1e6) as i64)
}

/// As [`between_ns`] for an interval that cannot be negative.
pub fn elapsed_ns(start: CUevent, end: CUevent) -> Option<u64> {
    between_ns(start, end).map(|elapsed| u64::try_from(elapsed).unwrap_or(0))
}
