//! The contents of the region are lost because somebody has truncated its file or overwritten it: this process's part of the way
//! back. `gpuquota_region::lost` has the file's, and the floors above put back what they know.

use super::Container;
use super::contents::marks;
use super::notes::Note;
use crate::lock::LockGuard;
use crate::thread;
use core::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use gpuquota_quota::text::Line;
use gpuquota_region::layout::{EVENT_CONTENTS_LOST, NO_DEVICE};
use gpuquota_region::lost::Seen;
use gpuquota_region::{Region, fault, slot, sys};

/// How long a process that has come back waits for the others, and its pause between two looks.
const PATIENCE_NS: u64 = 300_000_000;
const PAUSE_NS: u64 = 200_000;

impl Container {
    /// The first look at the region.
    pub(super) fn see_contents(&self, region: &Region) {
        let mut seen = Seen::now(region);
        // If they are lost already, the next look finds another number.
        seen.born_ns = seen.born_ns.max(1);
        self.contents.see(seen, self.has_file_share());
    }

    /// The handler of SIGBUS gets the region's file.
    pub(super) fn watch_file(&'static self) {
        fault::watch_file(&self.file, self.path());
    }

    /// Whether the region has the contents that this process knows.
    #[inline(always)]
    pub fn is_whole(&self) -> bool {
        self.has_contents(self.known_contents())
    }

    /// When the contents that this process knows were made.
    #[inline(always)]
    pub fn known_contents(&self) -> u64 {
        self.contents.born_ns.load(Relaxed)
    }

    /// Whether the region has contents that were made then.
    #[inline(always)]
    pub fn has_contents(&self, born_ns: u64) -> bool {
        self.region().born_ns() == born_ns
    }

    /// Whether no launch of the container may have to wait: neither the region nor the limits file sets a share, and the
    /// agent gives no leases. False also where the contents of the region are lost.
    #[inline(always)]
    pub fn is_unthrottled(&self) -> bool {
        self.header().shares.load(Relaxed) == self.contents.calm.load(Relaxed)
    }

    /// Begins to restore lost contents. `None`: they are whole, or this thread cannot restore them now.
    pub fn begin_to_restore(&self) -> Option<LockGuard<'_>> {
        if thread::is_nested() {
            // The code that this signal handler has interrupted may be amid a change of the books.
            return None;
        }
        let restoring = self.contents.restoring.lock(|| {})?;
        (!self.is_whole()).then_some(restoring)
    }

    /// Makes the contents of the region anew, unless another process has. Answers whether this process has.
    pub fn make_contents_whole(&self) -> bool {
        let (region, seen) = (self.region(), self.contents.seen());
        let priority = self.limits().priority;
        let made = self.with_file(|file| region.make_whole(file, seen, priority));
        let Ok(Ok(anew)) = made else {
            // The file is out of reach, or the file system is full.
            if region.born_ns() <= seen.whole_at_ns {
                region.make_whole_alone(seen, priority);
            }
            return true;
        };
        anew
    }

    /// Waits until all living processes have put back what they know, or for [`PATIENCE_NS`]: those that make a call come back at once,
    /// and what they hold must not be given away before. Answers when the contents were whole after that, nanoseconds since 1970;
    /// `None` if they were lost again.
    pub fn wait_for_others(&self, born_ns: u64) -> Option<u64> {
        let (region, until) = (self.region(), sys::monotonic_ns().saturating_add(PATIENCE_NS));
        let is_missing = || self.with_file(|file| slot::any_is_missing(&region, file)).unwrap_or(false);
        while region.born_ns() == born_ns && !fault::is_detached() && is_missing() {
            let now = sys::monotonic_ns();
            if now >= until {
                break;
            }
            sys::sleep_until(now.wrapping_add(PAUSE_NS));
        }
        let now = sys::realtime_ns();
        (born_ns != 0 && region.born_ns() == born_ns).then_some(now)
    }

    /// This process has put back what it knows: `bytes`. Contents that were lost again meanwhile are found at the next look.
    pub fn end_restoring(&self, [born_ns, now_ns]: [u64; 2], anew: bool, bytes: u64) {
        let region = self.region();
        let whole_at_ns = match fault::is_detached() {
            // What others have made of the file since then counts.
            true => self.contents.seen().whole_at_ns,
            false => now_ns.max(born_ns),
        };
        let seen = Seen { born_ns, whole_at_ns, ..Seen::now(&region) };
        self.contents.marks.store(0, Release);
        self.contents.see(seen, self.has_file_share());
        region.event(EVENT_CONTENTS_LOST, NO_DEVICE, u64::from(anew), bytes, 0);
        if !self.contents.told.swap(true, Relaxed) && !self.limits().quiet {
            let mut line = Line::default();
            Note::Contents { alone: fault::is_detached() }.write(&mut line, self.path().to_bytes());
            sys::write_stderr(line.end());
        }
    }

    /// Once a second: notes that the contents were whole, or that they are to be restored.
    pub(super) fn look_after_contents(&self) {
        let (contents, now) = (&self.contents, sys::realtime_ns());
        if fault::is_detached() {
            contents.born_ns.store(1, Release);
        } else if self.is_whole() && self.has_its_marks() {
            contents.whole_at_ns.store(now, Relaxed);
        }
    }

    /// Whether this process's part of the region is as new as it was. Where it is not, everybody is to see that.
    fn has_its_marks(&self) -> bool {
        let Some(at) = self.claimed_slot() else { return true };
        let before = self.contents.marks.load(Acquire);
        let now = marks(&self.region(), at);
        let has_them = now.is_some_and(|now| now >= before);
        match now.filter(|_| has_them) {
            Some(now) => _ = self.contents.marks.fetch_max(now, AcqRel),
            None => self.region().lose(),
        }
        has_them
    }
}
