//! What a stream can be given to do, and what each such thing costs in time.

use std::ffi::c_void;

use crate::model::objects::handle::{EventHandle, GraphHandle, KernelHandle};
use crate::model::objects::moves::{self, BUS, Copy, Fill, LATENCY, MEMORY};
use crate::model::objects::value::Value;
use crate::tools::bytes;

/// A kernel and how it is launched.
#[derive(Clone, Copy)]
pub struct Launch {
    pub kernel: KernelHandle,
    pub grid: [u32; 3],
    pub block: [u32; 3],
    pub shared: u32,
    pub params: u64,
    pub extra: u64,
    pub timing: Timing,
}

/// One piece of work.
#[derive(Clone, Copy)]
pub enum Op {
    Kernel(Launch),
    Copy(Copy),
    Fill(Fill),
    Host(HostCall),
    Record(EventHandle),
    Wait(EventHandle),
    /// Memory that a graph allocates: its address and size.
    Alloc(u64, u64),
    Free(u64),
    Empty,
    /// A graph within a graph.
    Child(GraphHandle),
}

impl Op {
    /// Nanoseconds that it takes once it may begin.
    pub fn duration(&self) -> u64 {
        match self {
            Op::Kernel(launch) => launch.timing.duration,
            Op::Copy(copy) => LATENCY + copy.bytes() * 1000 / if copy.by_bus { BUS } else { MEMORY },
            Op::Fill(fill) => LATENCY + fill.width * fill.height * 1000 / MEMORY,
            _ => 0,
        }
    }

    /// The same as a call in a stream, if it moves any bytes.
    pub fn as_call(&self) -> Option<HostCall> {
        let function = match *self {
            Op::Copy(copy) => Function::Copy(copy),
            Op::Fill(fill) => Function::Fill(fill),
            _ => return None,
        };
        Some(HostCall { function, data: 0 })
    }

    /// Moves its bytes. The time that this takes is not the time that it stands for.
    pub fn perform(&self) {
        match self {
            Op::Copy(copy) => {
                for slice in 0..copy.depth {
                    for row in 0..copy.height {
                        let to = copy.to + slice * copy.to_slice + row * copy.to_pitch;
                        let from = copy.from + slice * copy.from_slice + row * copy.from_pitch;
                        bytes::copy(to, from, copy.width);
                    }
                }
            }
            Op::Fill(fill) => {
                let pattern = fill.value.to_le_bytes();
                let uniform = pattern[..fill.element as usize].iter().all(|byte| *byte == pattern[0]);
                let pattern = &pattern[..if uniform { 1 } else { fill.element as usize }];
                for row in 0..fill.height {
                    let to = fill.to + row * fill.pitch;
                    bytes::fill(to, fill.width, pattern);
                }
            }
            _ => {}
        }
    }
}

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
    Copy(moves::Copy),
    Fill(moves::Fill),
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

/// How long a launch takes, and where it writes down when that was; 0 for nowhere.
#[derive(Clone, Copy)]
pub struct Timing {
    pub duration: u64,
    pub log: u64,
}
