//! The words of the region through which HAMi's monitor and the library talk to each other.
//!
//! Launches set `recent_kernel` to 2, and every five seconds the monitor counts it down. The monitor makes it negative
//! while a task of higher priority works on the device, and sets `utilization_switch` to 0 while no other task does.
//! Neither word says when it was written, so a monitor that has died would block or lend for ever. Here both expire. The
//! library sees that a monitor lives when it counts a word down, or repeats a block that the library has marked.

use core::sync::atomic::Ordering::Relaxed;
use gpuquota_region::layout::Header;
use gpuquota_region::{hami::View, sys};

/// `recent_kernel`: the container has launched.
const LAUNCHED: i32 = 2;
/// `recent_kernel`: a process of the container has read the block. Any negative value blocks; the monitor overwrites this
/// one with -1 or 0.
const MARKED: i32 = -2;

/// A monitor's word holds for so long: three of its rounds.
const EXPIRY_NS: u64 = 15_000_000_000;
/// How often a blocked launch reads the word.
const POLL_NS: u64 = 2_000_000;

/// Reports a launch to the monitor; true if a monitor blocks it.
#[inline(always)]
pub fn report_launch(view: &View, header: &Header) -> bool {
    let recent = view.recent_kernel.load(Relaxed);
    recent != LAUNCHED && report_first_launch(view, header, recent)
}

/// The same for the first launch since the monitor's last round.
#[cold]
fn report_first_launch(view: &View, header: &Header, recent: i32) -> bool {
    if (0..LAUNCHED).contains(&recent) {
        // Before the first launch the word is 0 without any monitor.
        if view.has_launched() {
            header.monitor_ns.store(sys::monotonic_ns(), Relaxed);
        }
        view.show_launch(sys::realtime_ns());
        view.recent_kernel.store(LAUNCHED, Relaxed);
    }
    recent < 0
}

/// Whether a monitor blocks the container.
#[inline]
pub fn blocks(view: &View) -> bool {
    view.recent_kernel.load(Relaxed) < 0
}

/// Whether a monitor lends the container the device's idle time, whatever its share.
#[inline]
pub fn lends(view: &View, header: &Header) -> bool {
    view.utilization_switch.load(Relaxed) == 0
        && sys::monotonic_coarse_ns().saturating_sub(header.monitor_ns.load(Relaxed)) < EXPIRY_NS
}

/// Waits while a monitor blocks the container; answers how long it has waited.
#[cold]
pub fn wait(view: &View) -> u64 {
    let _errno = sys::KeepErrno::new();
    let word = &view.recent_kernel;
    let began = sys::monotonic_ns();
    let (mut now, mut marked_at) = (began, began);
    loop {
        match word.load(Relaxed) {
            0.. => return now.saturating_sub(began),
            MARKED if now.saturating_sub(marked_at) > EXPIRY_NS => {
                let _ = word.compare_exchange(MARKED, LAUNCHED, Relaxed, Relaxed);
            }
            MARKED => {}
            blocked => {
                let _ = word.compare_exchange(blocked, MARKED, Relaxed, Relaxed);
                marked_at = now;
            }
        }
        sys::sleep_until(now.saturating_add(POLL_NS));
        now = sys::monotonic_ns();
    }
}
