//! What every holder of a cap can do.

use crate::regions::Device;
use std::path::PathBuf;

/// What is asked for one device; `None` leaves what there is.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wanted {
    /// Bytes of memory.
    pub memory: Option<u64>,
    /// Percent of GPU time.
    pub cores: Option<u8>,
    /// Percent that is guaranteed beside others.
    pub request: Option<u8>,
    /// Whether everything else that was set before is taken back.
    pub reset: bool,
}

/// The cap on memory that holds somewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cap {
    /// None, as far as can be told.
    Unset,
    /// So many bytes.
    Of(u64),
    /// So many bytes, set further up: it holds, and programs inside are told of the whole device.
    Above(u64, PathBuf),
}

/// What holds caps.
pub trait Backend {
    /// What it is called.
    fn name(&self) -> &'static str;
    /// Sets what it can hold of this, and looks whether it holds.
    fn set(&self, device: &Device, wanted: &Wanted) -> Result<(), String>;
    /// The cap on memory that it holds.
    fn cap(&self, device: &Device) -> Result<Cap, String>;
}
