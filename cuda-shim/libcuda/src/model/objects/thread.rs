//! What belongs to the calling thread. No value here has a destructor: clients call the driver from exit
//! handlers, after destructors of thread-local values have run.

use std::cell::Cell;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use crate::model::objects::handle::{ContextHandle, Handle};
use crate::tools::status::{INVALID_CONTEXT, INVALID_VALUE, Outcome};

/// Contexts that one thread can stack.
const DEPTH: usize = 64;

struct Thread {
    id: Cell<u64>,
    depth: Cell<usize>,
    stack: [Cell<u64>; DEPTH],
    capture_mode: Cell<u32>,
}

thread_local! {
    static THREAD: Thread = const {
        Thread {
            id: Cell::new(0),
            depth: Cell::new(0),
            stack: [const { Cell::new(0) }; DEPTH],
            capture_mode: Cell::new(0),
        }
    };
}

/// A number that no other thread of the process ever has.
pub fn id() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    THREAD.with(|thread| {
        if thread.id.get() == 0 {
            thread.id.set(NEXT.fetch_add(1, Relaxed));
        }
        thread.id.get()
    })
}

/// The current context, null for none.
#[inline]
pub fn current() -> ContextHandle {
    THREAD.with(|thread| match thread.depth.get() {
        0 => Handle::NULL,
        depth => Handle::of(thread.stack[depth - 1].get()),
    })
}

/// Makes `context` current in place of what was; null leaves none.
pub fn set_current(context: ContextHandle) {
    THREAD.with(|thread| {
        let depth = thread.depth.get();
        if context.is_null() {
            thread.depth.set(depth.saturating_sub(1));
        } else {
            thread.depth.set(depth.max(1));
            thread.stack[depth.max(1) - 1].set(context.raw());
        }
    });
}

/// Stacks `context` on what is current.
pub fn push(context: ContextHandle) -> Outcome {
    THREAD.with(|thread| {
        let depth = thread.depth.get();
        thread.stack.get(depth).ok_or(INVALID_VALUE)?.set(context.raw());
        thread.depth.set(depth + 1);
        Ok(())
    })
}

/// Takes the current context off.
pub fn pop() -> Outcome<ContextHandle> {
    THREAD.with(|thread| {
        let depth = thread.depth.get().checked_sub(1).ok_or(INVALID_CONTEXT)?;
        thread.depth.set(depth);
        Ok(Handle::of(thread.stack[depth].get()))
    })
}

/// Exchanges the thread's capture mode (0 global, 1 thread-local, 2 relaxed).
pub fn exchange_capture_mode(mode: u32) -> u32 {
    THREAD.with(|thread| thread.capture_mode.replace(mode))
}

/// The thread's capture mode.
pub fn capture_mode() -> u32 {
    THREAD.with(|thread| thread.capture_mode.get())
}
