//! Bytes that are moved or set, and how long that takes.

/// Nanoseconds that any copy or fill takes, and bytes per microsecond of bus and memory.
pub const LATENCY: u64 = 1500;
pub const BUS: u64 = 25_000;
pub const MEMORY: u64 = 1_500_000;

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

impl Copy {
    /// A plain run of bytes.
    pub fn line(to: u64, from: u64, width: u64, by_bus: bool) -> Copy {
        Copy { to, from, width, height: 1, depth: 1, by_bus, ..Copy::default() }
    }

    pub fn bytes(&self) -> u64 {
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
