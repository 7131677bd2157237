//! What the kernel says of changes in directories.

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};
use std::collections::HashSet;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};

/// Names that come and go, and the end of the directory itself.
const NAMES: WatchFlags = WatchFlags::CREATE
    .union(WatchFlags::DELETE)
    .union(WatchFlags::MOVE)
    .union(WatchFlags::DELETE_SELF)
    .union(WatchFlags::MOVE_SELF)
    .union(WatchFlags::ONLYDIR);

/// The directories of which the kernel tells. Without it they are read every other second.
pub struct Watcher {
    inotify: Option<OwnedFd>,
    changed: HashSet<i32>,
    /// Events were lost: anything may have changed.
    has_lost: bool,
}

impl Watcher {
    /// `None` of `by_events`: nothing is told, as for one look.
    pub fn new(by_events: bool) -> Self {
        let start = || inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC).ok();
        Self { inotify: by_events.then(start).flatten(), changed: HashSet::new(), has_lost: false }
    }

    /// Takes in what has happened since the last time.
    pub fn take_in(&mut self) {
        self.changed.clear();
        self.has_lost = false;
        let Some(inotify) = &self.inotify else { return };
        let mut room = [MaybeUninit::uninit(); 16 << 10];
        let mut events = Reader::new(inotify, &mut room);
        while let Ok(event) = events.next() {
            self.has_lost |= event.events().contains(ReadFlags::QUEUE_OVERFLOW);
            self.changed.insert(event.wd());
        }
    }

    /// Whether names in a directory may have changed.
    pub fn has_changed(&self, watch: i32) -> bool {
        self.has_lost || self.changed.contains(&watch)
    }

    /// Watches a directory; `None`: that cannot be done, or no more.
    pub fn add(&self, directory: &OwnedFd) -> Option<i32> {
        let path = format!("/proc/self/fd/{}", directory.as_raw_fd());
        inotify::add_watch(self.inotify.as_ref()?, path, NAMES).ok()
    }

    /// Watches it no more.
    pub fn remove(&self, watch: i32) {
        if let Some(inotify) = &self.inotify {
            // The kernel has removed it if the directory is gone.
            let _ = inotify::remove_watch(inotify, watch);
        }
    }
}
