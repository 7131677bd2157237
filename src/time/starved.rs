//! For how long the calling thread was ready and the host gave it no processor.

use crate::thread;
use gpuquota_quota::share::Clock;
use gpuquota_quota::share::starved::{Delay, Starved};
use gpuquota_region::paths::number;
use gpuquota_region::sys;

/// Of this process.
static STARVED: Starved = Starved::unknown();

/// By how much the virtual time may stay behind the clock at a launch.
#[cold]
pub fn credit_ns(clock: Clock, now_ns: u64) -> u64 {
    STARVED.credit_ns(clock, now_ns, delay)
}

/// Asks the kernel. `None` where it does not count that.
fn delay() -> Option<Delay> {
    let mut buffer = [0; 96];
    let text = sys::read_file(c"/proc/thread-self/schedstat", &mut buffer).ok()?;
    let waited = text.split(|byte| byte.is_ascii_whitespace()).nth(1)?;
    Some(Delay { thread: thread::number(), total_ns: number(waited)? })
}
