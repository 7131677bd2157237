//! The contents of a region that living processes hold are lost: its file was truncated, or overwritten in place.
//!
//! The file itself is still there, and with it the locks that show who lives, and every mapping. So nothing is lost that the
//! processes do not know together: each puts back its own part at its next call. The first of them makes the file anew.
//! [`Region::born_ns`] tells that this has happened: every region has another one.

use crate::examine::{Here, is_ready};
use crate::fault;
use crate::file::{Fresh, InitLock, OpenError, Region};
use crate::layout::FILE_BYTES;
use crate::sys::{self, Descriptor};
use core::sync::atomic::Ordering::{Relaxed, Release};

/// What a process remembers of the contents that it saw last.
#[derive(Clone, Copy, Default)]
pub struct Seen {
    /// When they were made: [`Region::born_ns`].
    pub born_ns: u64,
    /// When this process last found them whole, nanoseconds since 1970.
    pub whole_at_ns: u64,
    /// How often the file had been made.
    pub generation: u64,
}

impl Seen {
    /// The contents as they are now.
    #[must_use]
    pub fn now(region: &Region) -> Self {
        let whole_at_ns = sys::realtime_ns();
        Self {
            born_ns: region.born_ns(),
            whole_at_ns,
            generation: region.ours().header.generation.load(Relaxed),
        }
    }
}

impl Region {
    /// When the contents of the file were made, nanoseconds since 1970; 0: they are lost. This reads the end of the file, because
    /// whoever cuts the file takes the end first.
    #[inline(always)]
    #[must_use]
    pub fn born_ns(&self) -> u64 {
        self.ours().end().load(Relaxed)
    }

    /// Shows everybody that the contents are lost.
    pub fn lose(&self) {
        self.ours().end().store(0, Release);
    }

    /// Makes sure that the file has its length and a region's contents. Contents that were made since `seen` are another
    /// process's, which has been faster; all others are of no use. Answers whether this has made them anew.
    pub fn make_whole(&self, file: &Descriptor, seen: Seen, priority: i32) -> Result<bool, OpenError> {
        let _init = InitLock::take(file)?;
        file.allocate(FILE_BYTES as u64).map_err(OpenError::Space)?;
        fault::attach(file).map_err(OpenError::Space)?;
        let here = Here::now();
        if is_ready(file, here) && self.born_ns() > seen.whole_at_ns {
            return Ok(false);
        }
        self.make_anew(here, seen, priority);
        Ok(true)
    }

    /// The same for contents that no other process shares, because the file is out of reach.
    pub fn make_whole_alone(&self, seen: Seen, priority: i32) {
        self.make_anew(Here::now(), seen, priority);
    }

    fn make_anew(&self, here: Here, seen: Seen, priority: i32) {
        // Clocks may be set back.
        let born_ns = sys::realtime_ns().max(seen.whole_at_ns.saturating_add(1));
        let generation = seen.generation;
        self.initialise(here, priority, &Fresh { zeroed: false, born_ns, generation, told: true });
    }
}
