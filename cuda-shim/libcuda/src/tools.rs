//! What knows nothing of CUDA objects: errors, arguments as callers pass them, bytes, a lock.

pub mod bytes;
pub mod ffi;
pub mod spin;
pub mod status;
