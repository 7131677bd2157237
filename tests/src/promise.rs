//! What a test promises to the readers of `docs/complaints.md`: a test that ends without having asserted it fails.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// The promise that answers complaints. `tests/tests/complaints.rs` holds the page against these, and looks into what is
/// asserted.
#[must_use]
pub struct Promise {
    complaints: &'static [&'static str],
    asserted: AtomicBool,
}

impl Promise {
    /// To those who complained in these threads: the first of a row each.
    pub const fn to(complaints: &'static [&'static str]) -> Self {
        Self { complaints, asserted: AtomicBool::new(false) }
    }

    /// Makes the assertions that keep the promise.
    #[track_caller]
    pub fn asserts<T>(&self, assertions: impl FnOnce() -> T) -> T {
        let result = assertions();
        self.asserted.store(true, Relaxed);
        result
    }
}

impl Drop for Promise {
    fn drop(&mut self) {
        let kept = self.asserted.load(Relaxed) || std::thread::panicking();
        assert!(
            kept,
            "the test ended without asserting what docs/complaints.md promises: {:?}",
            self.complaints
        );
    }
}
