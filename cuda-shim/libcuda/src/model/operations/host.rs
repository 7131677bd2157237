//! Functions of the host in a stream: they really run, on a thread of the driver, when their time has come.

use std::collections::VecDeque;
use std::ffi::c_void;
use std::sync::atomic::{AtomicBool, Ordering::Acquire, Ordering::Release};
use std::sync::{Arc, Condvar, Mutex, Once, PoisonError};
use std::time::Duration;

use crate::op::{self, Op};
use crate::stamps;
use crate::time::Mark;
use crate::values::Value;

/// What is called. `CUstreamCallback` also hears of the stream and of a status.
#[derive(Clone, Copy)]
pub enum Function {
    /// `CUhostFn`.
    Plain(extern "C" fn(*mut c_void)),
    /// `CUstreamCallback`, with the stream's handle.
    Callback(extern "C" fn(u64, i32, *mut c_void), u64),
    /// A value that a stream writes.
    Write(Value),
    /// One that it waits for, and by which comparison.
    Await(Value, u32),
    /// Bytes that are moved behind one of these.
    Copy(op::Copy),
    Fill(op::Fill),
}

/// A call that a client asked for, with its argument.
#[derive(Clone, Copy)]
pub struct HostCall {
    pub function: Function,
    pub data: usize,
}

impl HostCall {
    /// Whether it is about a value in memory, or stands behind such a one.
    pub fn holds_bytes_up(&self) -> bool {
        !matches!(self.function, Function::Plain(_) | Function::Callback(..))
    }
}

/// A call in a stream.
pub struct HostOp {
    call: HostCall,
    due: Mark,
    done: AtomicBool,
}

static WAITING: Mutex<VecDeque<Arc<HostOp>>> = Mutex::new(VecDeque::new());
static CHANGED: Condvar = Condvar::new();

/// How long the thread sleeps before it looks at the device's time again.
const LOOK: Duration = Duration::from_micros(200);

impl HostOp {
    /// Whether bytes behind it have to wait for it.
    pub fn holds_bytes_up(&self) -> bool {
        !self.is_done() && self.call.holds_bytes_up()
    }

    /// Whether its time has come.
    fn is_ready(&self) -> bool {
        let holds = |function| !matches!(function, Function::Await(value, how) if !value.holds(how));
        self.due.is_done() && holds(self.call.function)
    }

    /// Whether it has returned.
    pub fn is_done(&self) -> bool {
        self.done.load(Acquire)
    }

    /// Waits until it has returned.
    pub fn wait(&self) {
        let mut waiting = WAITING.lock().unwrap_or_else(PoisonError::into_inner);
        while !self.is_done() {
            waiting = CHANGED.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// Has `call` made once `due` is reached.
pub fn enqueue(call: HostCall, due: Mark) -> Arc<HostOp> {
    static STARTED: Once = Once::new();
    STARTED.call_once(|| {
        // Without a thread nothing would ever run; a process that cannot start one has worse troubles.
        let _ = std::thread::Builder::new().name("cuda-sim-host".into()).spawn(serve);
    });
    let op = Arc::new(HostOp { call, due, done: AtomicBool::new(false) });
    WAITING.lock().unwrap_or_else(PoisonError::into_inner).push_back(op.clone());
    CHANGED.notify_all();
    op
}

fn serve() {
    loop {
        // What it waits for may be the count of a log.
        stamps::settle();
        let mut waiting = WAITING.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(ready) = waiting.iter().position(|op| op.is_ready()) else {
            let none = waiting.is_empty();
            if none {
                drop(CHANGED.wait(waiting));
            } else {
                drop(waiting);
                std::thread::sleep(LOOK);
            }
            continue;
        };
        let Some(op) = waiting.remove(ready) else { continue };
        drop(waiting);
        stamps::settle();
        let data = std::ptr::with_exposed_provenance_mut(op.call.data);
        match op.call.function {
            Function::Plain(function) => function(data),
            Function::Callback(function, stream) => function(stream, 0, data),
            Function::Write(value) => value.write(),
            Function::Await(..) => {}
            Function::Copy(copy) => Op::Copy(copy).perform(),
            Function::Fill(fill) => Op::Fill(fill).perform(),
        }
        let waiting = WAITING.lock().unwrap_or_else(PoisonError::into_inner);
        op.done.store(true, Release);
        CHANGED.notify_all();
        drop(waiting);
    }
}
