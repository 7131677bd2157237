//! The atomics of this crate: the real ones, or loom's when a model is checked
//! (`RUSTFLAGS="--cfg loom" cargo test -p gpuquota-quota --lib --release loom`).

#[cfg(not(loom))]
pub use core::sync::atomic::{AtomicU64, Ordering};
#[cfg(loom)]
pub use loom::sync::atomic::{AtomicU64, Ordering};
