//! What HAMi's monitor has to say, in the words of its region.
//!
//! Every five seconds it counts `recent_kernel` down, which launches set to 2; it makes that word negative while a task
//! of higher priority is at work on the device, and `utilization_switch` 0 while nobody else is. Neither word says when
//! it was written, so that a monitor that is gone would block or lend for ever; here both expire. That it lives shows in
//! what it counts down, and in a block that it says again after we have marked it.

use core::sync::atomic::Ordering::Relaxed;
use gpuquota_region::layout::Header;
use gpuquota_region::{hami::View, sys};

/// `recent_kernel`: there was a launch.
const AT_WORK: i32 = 2;
/// `recent_kernel`, where any negative value blocks: read by one of us. The monitor writes -1 again, or 0.
const MARKED: i32 = -2;

/// What a monitor says holds for three of its rounds.
const HOLDS_NS: u64 = 15_000_000_000;
/// How often a blocked launch looks.
const NAP_NS: u64 = 2_000_000;

/// Says that the container is at work; true if a monitor blocks it.
#[inline(always)]
pub fn at_work(view: &View, header: &Header) -> bool {
    let recent = view.recent_kernel.load(Relaxed);
    recent != AT_WORK && count(view, header, recent)
}

#[cold]
fn count(view: &View, header: &Header, recent: i32) -> bool {
    if (0..AT_WORK).contains(&recent) {
        // Before the first launch the word is 0 without any monitor.
        if view.has_launched() {
            header.monitor_ns.store(sys::monotonic_ns(), Relaxed);
        }
        view.show_launch(sys::realtime_ns());
        view.recent_kernel.store(AT_WORK, Relaxed);
    }
    recent < 0
}

/// Whether a monitor blocks the container.
#[inline]
pub fn blocks(view: &View) -> bool {
    view.recent_kernel.load(Relaxed) < 0
}

/// Whether a monitor lends the container what is idle, whatever its share.
#[inline]
pub fn lends(view: &View, header: &Header) -> bool {
    view.utilization_switch.load(Relaxed) == 0
        && sys::monotonic_coarse_ns().saturating_sub(header.monitor_ns.load(Relaxed)) < HOLDS_NS
}

/// Waits while a monitor blocks the container; answers for how long.
#[cold]
pub fn wait(view: &View) -> u64 {
    let _errno = sys::KeepErrno::new();
    let word = &view.recent_kernel;
    let asked = sys::monotonic_ns();
    let (mut now, mut said) = (asked, asked);
    loop {
        match word.load(Relaxed) {
            0.. => return now.saturating_sub(asked),
            MARKED if now.saturating_sub(said) > HOLDS_NS => {
                let _ = word.compare_exchange(MARKED, AT_WORK, Relaxed, Relaxed);
            }
            MARKED => {}
            blocked => {
                let _ = word.compare_exchange(blocked, MARKED, Relaxed, Relaxed);
                said = now;
            }
        }
        sys::sleep_until(now.saturating_add(NAP_NS));
        now = sys::monotonic_ns();
    }
}
