//! Asking and waiting for what was enqueued.

use crate::model::objects::time::Mark;
use crate::model::operations::{host, latency, stamps};
use crate::tools::status::{NOT_READY, Outcome};

/// Tells a caller whether a mark is reached.
///
/// # Errors
/// `NOT_READY` if not.
pub fn ask(mark: &Mark) -> Outcome {
    if !mark.is_done() {
        return Err(NOT_READY);
    }
    stamps::write_due();
    Ok(())
}

/// Waits until a mark is reached.
pub fn wait(mark: &Mark) {
    let waits = latency::are_simulated() && !mark.is_done();
    latency::spend(|latency| latency.synchronize_ns);
    stamps::wait(mark.seat, mark.time);
    for host in &mark.hosts {
        host::wait(host);
    }
    if waits {
        latency::spend(|latency| latency.wake_ns);
    }
}
