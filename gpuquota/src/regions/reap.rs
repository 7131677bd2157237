//! Dead processes are settled by whoever looks, so that no view counts them: not HAMi's either, which other programs read.
//!
//! What they held is given back by compare-and-swap in a mapping, and a tenant that truncates the file ends whoever maps it
//! by SIGBUS. So a process of its own does it: this program under the name [`SETTLE`], with the file as its standard input.

use gpuquota_books::Reaper;
use gpuquota_region::Region;
use gpuquota_region::examine::{Examined, Found, Here, examine};
use gpuquota_region::header::half_at;
use gpuquota_region::layout::{Header, OURS, Ours, SLOT_TAKEN, SLOTS, Slot};
use gpuquota_region::slot;
use gpuquota_region::sys::Descriptor;
use std::fs::File;
use std::mem::{ManuallyDrop, offset_of, size_of};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// The name (its first argument) under which this program settles the region that is its standard input.
pub const SETTLE: &str = "gpuquota-settle";

/// How long settling one region may take; it takes milliseconds.
const PATIENCE: Duration = Duration::from_secs(1);

/// A descriptor that somebody else closes.
fn borrowed(fd: RawFd) -> ManuallyDrop<Descriptor> {
    ManuallyDrop::new(Descriptor::from_raw(fd))
}

/// Whether a file is a region of this boot and version.
fn is_region(file: &File) -> bool {
    let file = borrowed(file.as_raw_fd());
    matches!(examine(&file, Here::now()), Ok(Examined { found: Found::Ready, .. }))
}

/// Whether a slot of the region is taken and its process's lock is gone. The agent asks it often, so the lock is asked first:
/// of a living process that is the only question. Who took the slot in between has its lock when it is asked again.
pub fn has_dead(file: &impl AsRawFd) -> bool {
    const HIGH: usize = OURS + offset_of!(Ours, header) + offset_of!(Header, slot_high);
    const STATES: usize = OURS + offset_of!(Ours, slots) + offset_of!(Slot, state);
    let file = borrowed(file.as_raw_fd());
    let word = |at: usize| half_at(&file, at as u64).ok().flatten();
    let high = word(HIGH).unwrap_or(0) as usize;
    let is_taken = |at: usize| word(STATES + at * size_of::<Slot>()) == Some(SLOT_TAKEN);
    let is_free = |at: usize| slot::is_held(&file, at) == Ok(false);
    (0..high.min(SLOTS)).any(|at| is_free(at) && is_taken(at) && is_free(at))
}

/// Gives back what dead processes left in the region, if this user may write it. True if that was done.
pub fn reap(file: &impl AsRawFd) -> bool {
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    let writable = File::options().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(path);
    let Some(writable) = writable.ok().filter(is_region) else { return false };
    let mut command = Command::new("/proc/self/exe");
    command.arg0(SETTLE).env_clear().stdin(writable).stdout(Stdio::null()).stderr(Stdio::null());
    let Ok(mut child) = command.spawn() else { return false };
    let until = Instant::now() + PATIENCE;
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return status.success(),
            Ok(None) if Instant::now() < until => thread::sleep(Duration::from_millis(1)),
            // A file can hold it up, and not the one who asked for it. It ends when the file lets it.
            _ => {
                _ = child.kill();
                _ = thread::Builder::new().stack_size(64 << 10).spawn(move || child.wait());
                return false;
            }
        }
    }
}

/// The other side: settles the dead processes of the region that is the standard input. True if there was any.
pub fn settle() -> bool {
    let file = borrowed(0);
    Region::of_existing(&file).is_ok_and(|region| slot::reap(&region, &file, None, &mut Reaper) > 0)
}
