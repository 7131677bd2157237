//! The sizes of a device's blocks, and the blocks that this process's allocations share.

use super::shared_blocks::SharedBlocks;
use crate::devices::Devices;
use crate::driver::cuda;
use crate::lock::{Lock, LockGuard};
use core::sync::atomic::{AtomicU8, Ordering::Relaxed};
use gpuquota_region::layout::DEVICES;

/// How long an allocation that needs an open block waits for another thread's attempt.
const ATTEMPT_WAIT_NS: u64 = 20_000_000;
/// Pause between two looks.
const ATTEMPT_PAUSE_NS: u64 = 20_000;
/// How often the driver is asked for the size of its blocks.
const ATTEMPTS: usize = 3;

/// The sizes of blocks, and the number of charged ones. All-zero bytes: not known yet, none.
pub struct Blocks {
    /// The thread that calls the driver without a reservation holds it.
    pub attempt: Lock,
    /// Binary logarithm of a block's size + 1 by device; 0: not known yet.
    shifts: [AtomicU8; DEVICES],
    /// The blocks that allocations fill in part.
    pub shared: SharedBlocks,
}

impl Blocks {
    /// Binary logarithm of the size of a device's blocks; 0 as long as nothing was allocated there.
    #[inline(always)]
    pub fn shift(&self, device: u8) -> u32 {
        self.shifts
            .get(usize::from(device))
            .map_or(0, |shift| u32::from(shift.load(Relaxed)).saturating_sub(1))
    }

    /// The same, and asks the driver at the first time.
    #[inline(always)]
    pub fn learned(&self, devices: &Devices, device: u8) -> u32 {
        match self.shifts.get(usize::from(device)).map(|shift| shift.load(Relaxed)) {
            Some(0) => self.learn(devices, device),
            Some(known) => u32::from(known).wrapping_sub(1),
            None => 0,
        }
    }

    #[cold]
    fn learn(&self, devices: &Devices, device: u8) -> u32 {
        let ordinal = devices.ordinal_of(device).unwrap_or_else(cuda::current_device);
        // The answer holds for the life of the process, so that every allocation is given back as it was charged. One call
        // that fails must not decide it.
        let asked = core::iter::repeat_with(|| cuda::granularity(ordinal)).take(ATTEMPTS);
        let block = asked.flatten().find(|block| block.is_power_of_two()).unwrap_or(1);
        self.set_shift(device, block.trailing_zeros());
        block.trailing_zeros()
    }

    /// Sets the size of a device's blocks.
    pub fn set_shift(&self, device: u8, shift: u32) {
        if let Some(known) = self.shifts.get(usize::from(device)) {
            known.store((shift as u8).wrapping_add(1), Relaxed);
        }
    }

    /// Waits for the attempt of another thread, which is one call of the driver.
    pub fn next_attempt(&self) -> Option<LockGuard<'_>> {
        self.attempt.lock_within(ATTEMPT_WAIT_NS, ATTEMPT_PAUSE_NS)
    }
}
