//! Why a device's overhead has to be measured again.

use core::sync::atomic::{AtomicU8, Ordering::Relaxed};
use gpuquota_region::layout::DEVICES;

/// A call may have changed the overhead.
pub const CALL: u8 = 1;
/// The charge of pools or graphs has changed. It may have been late at the last measurement, and what it then lacked or had too
/// much counts as overhead until the next one.
pub const ARENAS: u8 = 2;
/// This process has opened memory of others, which becomes its own when they die. This reason stays.
pub const IMPORTS: u8 = 4;
/// This process has had small arrays. They share blocks with its other memory, so each block that this opens or gives up may
/// change what counts as overhead. This reason stays.
pub const SMALL_ARRAYS: u8 = 8;

/// The reasons by device. All-zero bytes: none.
pub struct Due([AtomicU8; DEVICES]);

impl Due {
    /// The reasons for a device.
    #[inline]
    pub fn reasons(&self, device: u8) -> u8 {
        self.0.get(usize::from(device)).map_or(0, |reasons| reasons.load(Relaxed))
    }

    /// Whether a reason holds for any device.
    pub fn any(&self, reason: u8) -> bool {
        self.0.iter().any(|reasons| reasons.load(Relaxed) & reason != 0)
    }

    /// Adds a reason for a device.
    pub fn add(&self, device: u8, reason: u8) {
        if let Some(reasons) = self.0.get(usize::from(device)) {
            reasons.fetch_or(reason, Relaxed);
        }
    }

    /// Adds a reason for every device.
    pub fn add_everywhere(&self, reason: u8) {
        self.0.iter().for_each(|reasons| _ = reasons.fetch_or(reason, Relaxed));
    }

    /// A measurement of a device begins.
    pub fn begin(&self, device: u8) {
        if let Some(reasons) = self.0.get(usize::from(device)) {
            reasons.fetch_and(IMPORTS | SMALL_ARRAYS, Relaxed);
        }
    }
}
