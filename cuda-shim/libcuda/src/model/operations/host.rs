//! Functions of the host in a stream: they really run, on a thread of the driver, when their time has come.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, Once, PoisonError};
use std::time::Duration;

use crate::model::objects::op::{Function, HostCall, Op};
use crate::model::objects::time::{HostOp, Mark};
use crate::model::operations::stamps;

static WAITING: Mutex<VecDeque<Arc<HostOp>>> = Mutex::new(VecDeque::new());

static CHANGED: Condvar = Condvar::new();

/// How long the thread sleeps before it looks at the device's time again.
const LOOK: Duration = Duration::from_micros(200);

/// Has `call` made once `due` is reached.
pub fn enqueue(call: HostCall, due: Mark) -> Arc<HostOp> {
    static STARTED: Once = Once::new();
    STARTED.call_once(|| {
        // Without a thread nothing would ever run; a process that cannot start one has worse troubles.
        let _ = std::thread::Builder::new().name("cuda-sim-host".into()).spawn(serve);
    });
    let op = Arc::new(HostOp::new(call, due));
    WAITING.lock().unwrap_or_else(PoisonError::into_inner).push_back(op.clone());
    CHANGED.notify_all();
    op
}

/// Waits until a call has returned.
pub fn wait(op: &HostOp) {
    let mut waiting = WAITING.lock().unwrap_or_else(PoisonError::into_inner);
    while !op.is_done() {
        waiting = CHANGED.wait(waiting).unwrap_or_else(PoisonError::into_inner);
    }
}

fn serve() {
    loop {
        // What it waits for may be the count of a log.
        stamps::write_due();
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
        stamps::write_due();
        let call = op.call();
        let data = std::ptr::with_exposed_provenance_mut(call.data);
        match call.function {
            Function::Plain(function) => function(data),
            Function::Callback(function, stream) => function(stream, 0, data),
            Function::Write(value) => value.write(),
            Function::Await(..) => {}
            Function::Copy(copy) => Op::Copy(copy).perform(),
            Function::Fill(fill) => Op::Fill(fill).perform(),
        }
        let waiting = WAITING.lock().unwrap_or_else(PoisonError::into_inner);
        op.finish();
        CHANGED.notify_all();
        drop(waiting);
    }
}
