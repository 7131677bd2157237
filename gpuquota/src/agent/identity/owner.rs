//! A region's file, opened by its path.

use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, fstat, open, openat2};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

/// Opens a region that was found. No part of its path may be a link, and what is no regular file is not opened at all: a tenant
/// may have put anything there since it was found.
pub fn open_region(path: &Path) -> Option<OwnedFd> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let resolve = ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let place = openat2(CWD, path, flags, Mode::empty(), resolve).ok()?;
    let is_file = FileType::from_raw_mode(fstat(&place).ok()?.st_mode) == FileType::RegularFile;
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let again = format!("/proc/self/fd/{}", place.as_raw_fd());
    is_file.then(|| open(again, flags, Mode::empty()).ok())?
}
