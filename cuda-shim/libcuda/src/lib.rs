//! The simulated `libcuda.so.1`: a driver good enough that real, unmodified CUDA software runs on it.
//!
//! Kernels take time and compute nothing; copies, fills and host functions are real. All processes of a simulated
//! machine share its devices through `cuda-shim-device`. The floors, each of which imports lower ones only:
//!
//! - `api`: the exported functions and what a caller passes to them;
//! - `model`: what a driver holds: objects, the world of all of them behind one lock, and operations upon it;
//! - `tools`: errors, arguments, bytes, a lock.

mod api;
mod model;
mod tools;
