//! Asking and waiting for what was enqueued.

use crate::model::objects::time::Mark;
use crate::model::operations::{host, stamps};
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

/// Waits until a mark is reached, as a call does that does nothing else.
pub fn wait(mark: &Mark) {
    let waits = mark.seat.takes_time() && !mark.is_done();
    mark.seat.spend(|latency| latency.synchronize_ns);
    end(mark, waits);
}

/// The same in a call that has taken its part of the host's time.
pub fn wait_as_well(mark: &Mark) {
    end(mark, mark.seat.takes_time() && !mark.is_done());
}

fn end(mark: &Mark, waits: bool) {
    stamps::wait(mark.seat, mark.time);
    for host in &mark.hosts {
        host::wait(host);
    }
    if waits {
        mark.seat.spend(|latency| latency.wake_ns);
    }
}
