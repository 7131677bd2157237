//! What a stream can be given to do, and what each such thing costs in time.

use crate::bytes;
use crate::event::Event;
use crate::graph::Graph;
use crate::hostfn::{Function, HostCall};
use crate::kernel::Kernel;
use crate::launch::Timing;
use crate::table::Handle;
use crate::world::World;

/// A kernel and how it is launched.
#[derive(Clone, Copy)]
pub struct Launch {
    pub kernel: Handle<Kernel>,
    pub grid: [u32; 3],
    pub block: [u32; 3],
    pub shared: u32,
    pub params: u64,
    pub extra: u64,
    pub timing: Timing,
}

/// A box of bytes moved from one place to another; addresses are resolved and checked.
#[derive(Clone, Copy, Default)]
pub struct Copy {
    pub to: u64,
    pub to_pitch: u64,
    pub to_slice: u64,
    pub from: u64,
    pub from_pitch: u64,
    pub from_slice: u64,
    pub width: u64,
    pub height: u64,
    pub depth: u64,
    /// Whether the bytes cross the bus to the host.
    pub by_bus: bool,
}

/// A pattern repeated over rows of device memory.
#[derive(Clone, Copy)]
pub struct Fill {
    pub to: u64,
    pub pitch: u64,
    pub value: u32,
    /// Bytes of `value`: 1, 2 or 4.
    pub element: u32,
    pub width: u64,
    pub height: u64,
}

/// One piece of work.
#[derive(Clone, Copy)]
pub enum Op {
    Kernel(Launch),
    Copy(Copy),
    Fill(Fill),
    Host(HostCall),
    Record(Handle<Event>),
    Wait(Handle<Event>),
    /// Memory that a graph allocates: its address and size.
    Alloc(u64, u64),
    Free(u64),
    Empty,
    /// A graph within a graph.
    Child(Handle<Graph>),
}

/// Nanoseconds that any copy or fill takes, and bytes per microsecond of bus and memory.
const LATENCY: u64 = 1500;
const BUS: u64 = 25_000;
const MEMORY: u64 = 1_500_000;

impl Copy {
    /// A plain run of bytes.
    pub fn line(to: u64, from: u64, width: u64, by_bus: bool) -> Copy {
        Copy { to, from, width, height: 1, depth: 1, by_bus, ..Copy::default() }
    }

    fn bytes(&self) -> u64 {
        self.width.saturating_mul(self.height).saturating_mul(self.depth)
    }

    /// Bytes from the first to the last that are read.
    pub fn extent(&self) -> u64 {
        self.from_slice * self.depth.saturating_sub(1)
            + self.from_pitch * self.height.saturating_sub(1)
            + self.width
    }

    /// Bytes from the first to the last that are written.
    pub fn reach(&self) -> u64 {
        self.to_slice * self.depth.saturating_sub(1)
            + self.to_pitch * self.height.saturating_sub(1)
            + self.width
    }
}

impl Fill {
    /// Bytes from the first to the last that are written.
    pub fn reach(&self) -> u64 {
        self.pitch * self.height.saturating_sub(1) + self.width
    }
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

    /// Notes which device memory it writes, so that it reads zero when it is dealt out again.
    pub fn touch(&self, world: &mut World) {
        match self {
            Op::Copy(copy) => world.touch(copy.to, copy.reach()),
            Op::Fill(fill) => world.touch(fill.to, fill.reach()),
            Op::Alloc(address, bytes) => world.touch(*address, *bytes),
            _ => {}
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
