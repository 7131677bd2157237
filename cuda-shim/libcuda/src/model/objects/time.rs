//! When work completes: a moment in a seat's time together with the host functions that must have run.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::{Acquire, Release};

use cuda_shim_device::Seat;

use crate::model::objects::op::{Function, HostCall};

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

/// A call in a stream.
pub struct HostOp {
    call: HostCall,
    due: Mark,
    done: AtomicBool,
}

impl HostOp {
    /// A call that is made once `due` is reached.
    pub fn new(call: HostCall, due: Mark) -> HostOp {
        HostOp { call, due, done: AtomicBool::new(false) }
    }

    /// What is called.
    pub fn call(&self) -> HostCall {
        self.call
    }

    /// Whether bytes behind it have to wait for it.
    pub fn holds_bytes_up(&self) -> bool {
        !self.is_done() && self.call.holds_bytes_up()
    }

    /// Whether its time has come.
    pub fn is_ready(&self) -> bool {
        let holds = |function| !matches!(function, Function::Await(value, how) if !value.holds(how));
        self.due.is_done() && holds(self.call.function)
    }

    /// Whether it has returned.
    pub fn is_done(&self) -> bool {
        self.done.load(Acquire)
    }

    /// Notes that it has returned.
    pub fn finish(&self) {
        self.done.store(true, Release);
    }
}
