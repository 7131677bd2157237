//! When work completes: a moment in a seat's time together with the host functions that must have run.

use std::sync::Arc;

use cuda_shim_device::Seat;

use crate::ffi::Outcome;
use crate::hostfn::HostOp;
use crate::stamps;
use crate::status::NOT_READY;

/// Everything that was enqueued up to some point.
#[derive(Clone)]
pub struct Mark {
    pub seat: &'static Seat,
    /// Seat time.
    pub time: u64,
    /// Host functions enqueued before, as far as they had not run then.
    pub hosts: Vec<Arc<HostOp>>,
}

impl Mark {
    /// Whether it is reached.
    pub fn is_done(&self) -> bool {
        self.hosts.iter().all(|host| host.is_done()) && self.seat.now() >= self.time
    }

    /// Tells a caller whether it is reached.
    ///
    /// # Errors
    /// `NOT_READY` if not.
    pub fn ask(&self) -> Outcome {
        if !self.is_done() {
            return Err(NOT_READY);
        }
        stamps::settle();
        Ok(())
    }

    /// Waits until it is reached.
    pub fn wait(&self) {
        stamps::wait(self.seat, self.time);
        for host in &self.hosts {
            host.wait();
        }
    }
}

/// What a stream, or all streams of a context, have before them.
#[derive(Default)]
pub struct Timeline {
    /// Seat time at which the work enqueued so far ends.
    pub tail: u64,
    pub hosts: Vec<Arc<HostOp>>,
}

impl Timeline {
    /// Follows `mark` too.
    pub fn join(&mut self, time: u64, hosts: &[Arc<HostOp>]) {
        self.tail = self.tail.max(time);
        if !hosts.is_empty() || !self.hosts.is_empty() {
            self.hosts.retain(|host| !host.is_done());
            self.hosts.extend(hosts.iter().filter(|host| !host.is_done()).cloned());
        }
    }

    /// The end of everything enqueued so far.
    pub fn mark(&self, seat: &'static Seat) -> Mark {
        Mark { seat, time: self.tail, hosts: self.hosts.clone() }
    }
}
