//! Names in directories that tenants write: looked at before they are opened, and never followed.
//!
//! To open a device node asks its driver, whatever follows, and to open a FIFO or a file with a lease waits. So a name is
//! first opened as a mere place (`O_PATH`), which asks nobody; what is there and is no regular file is not opened at all. A
//! regular file is opened through that place, so that nobody can put something else there meanwhile.

use super::unreadable::Unreadable;
use gpuquota_region::examine::is_spare;
use gpuquota_region::lock::living;
use gpuquota_region::names::first_of;
use gpuquota_region::sys::Descriptor;
use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat, fstat, linkat, openat, unlinkat};
use rustix::io::Errno;
use rustix::process::geteuid;
use std::ffi::{OsStr, OsString};
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, AsRawFd, IntoRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

/// Entries of one directory that are looked at.
const ENTRIES: usize = 8192;
/// Names of one directory that are read, where only some of them are looked at.
const NAMES: usize = 1 << 20;

const OPEN: OFlags = OFlags::RDONLY.union(OFlags::NONBLOCK).union(OFlags::NOCTTY).union(OFlags::CLOEXEC);
const PLACE: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// What a name stands for.
pub struct Seen {
    place: OwnedFd,
    stat: Stat,
}

impl Seen {
    /// Looks at one name of a directory.
    pub fn at(directory: impl AsFd, name: &OsStr) -> Result<Self, Errno> {
        let place = openat(directory, name, PLACE, Mode::empty())?;
        Ok(Self { stat: fstat(&place)?, place })
    }

    /// Looks at a path that a person named; links are followed.
    pub fn path(path: &Path) -> Result<Self, Errno> {
        let place = openat(CWD, path, PLACE.difference(OFlags::NOFOLLOW), Mode::empty())?;
        Ok(Self { stat: fstat(&place)?, place })
    }

    fn is(&self, kind: FileType) -> bool {
        FileType::from_raw_mode(self.stat.st_mode) == kind
    }

    /// Whether it is a regular file.
    pub fn is_file(&self) -> bool {
        self.is(FileType::RegularFile)
    }

    /// Whether it is a directory.
    pub fn is_directory(&self) -> bool {
        self.is(FileType::Directory)
    }

    /// Whether it is a symbolic link.
    pub fn is_link(&self) -> bool {
        self.is(FileType::Symlink)
    }

    /// Its file system and its number there. The types of these fields differ between architectures.
    #[allow(clippy::useless_conversion)]
    pub fn identity(&self) -> (u64, u64) {
        (u64::from(self.stat.st_dev), u64::from(self.stat.st_ino))
    }

    /// Whose it is.
    pub fn owner(&self) -> u32 {
        self.stat.st_uid
    }

    /// Whether nobody but root or this process's user can make names in it, where it is a directory.
    pub fn is_ours_alone(&self) -> bool {
        let is_ours = [0, geteuid().as_raw()].contains(&self.stat.st_uid);
        is_ours && self.stat.st_mode & 0o022 == 0
    }

    /// When names in it last changed, where it is a directory.
    pub fn changed(&self) -> (i64, i64) {
        (self.stat.st_mtime, self.stat.st_mtime_nsec as i64)
    }

    /// Opens a directory for reading.
    pub fn open_directory(&self) -> Result<OwnedFd, Unreadable> {
        Ok(openat(&self.place, ".", OPEN | OFlags::DIRECTORY, Mode::empty())?)
    }

    /// Opens a regular file for reading, and nothing else.
    pub fn open(&self) -> Result<OwnedFd, Unreadable> {
        if !self.is_file() {
            return Err(Unreadable::NotAFile);
        }
        let path = format!("/proc/self/fd/{}", self.place.as_raw_fd());
        Ok(openat(CWD, path, OPEN, Mode::empty())?)
    }
}

/// The names in a directory that are `wanted`, in order, so that "the first" means the same at every search; and whether that
/// is all of them.
pub fn names(directory: &OwnedFd, wanted: impl Fn(&[u8]) -> bool) -> (Vec<OsString>, bool) {
    let mut names = Vec::new();
    let mut entries = Dir::read_from(directory).into_iter().flatten().flatten().take(NAMES);
    let is_all = loop {
        let Some(entry) = entries.next() else { break true };
        let name = entry.file_name().to_bytes();
        if matches!(name, b"." | b"..") || !wanted(name) {
            continue;
        }
        if names.len() >= ENTRIES {
            break false;
        }
        names.push(OsString::from_vec(name.to_vec()));
    };
    names.sort_unstable();
    (names, is_all)
}

/// The same, where the names may be regions or directories of containers: those of which a region's second name tells that
/// they are missing are given back first.
pub fn regions(directory: &OwnedFd, wanted: impl Fn(&[u8]) -> bool) -> (Vec<OsString>, bool) {
    let (mut all, is_all) = names(directory, |name| wanted(first_of(name).unwrap_or(name)));
    let seconds: Vec<OsString> = all.extract_if(.., |name| first_of(name.as_bytes()).is_some()).collect();
    for second in seconds {
        let Some(first) = first_of(second.as_bytes()).map(|name| OsStr::from_bytes(name).to_owned()) else {
            continue;
        };
        if restore(directory, &first, &second) && !all.contains(&first) {
            all.push(first);
        }
    }
    all.sort_unstable();
    (all, is_all)
}

/// Makes `first` name the region that living processes hold under its `second` name. True if it names it now and did not
/// before.
pub fn restore(directory: &OwnedFd, first: &OsStr, second: &OsStr) -> bool {
    let Ok(kept) = Seen::at(directory, second) else { return false };
    if let Ok(named) = Seen::at(directory, first) {
        if named.identity() == kept.identity() {
            return false;
        }
        let Ok(other) = named.open().map(|file| Descriptor::from_raw(file.into_raw_fd())) else {
            return false;
        };
        if !is_held_there(&kept) || !is_spare(&other) || unlinkat(directory, first, AtFlags::empty()).is_err()
        {
            return false;
        }
    } else if !is_held_there(&kept) {
        return false;
    }
    linkat(directory, second, directory, first, AtFlags::empty()).is_ok()
}

fn is_held_there(seen: &Seen) -> bool {
    seen.is_file() && seen.open().is_ok_and(|file| is_held(&file))
}

/// Whether living processes hold the region in a file.
pub fn is_held(file: &impl AsRawFd) -> bool {
    let file = ManuallyDrop::new(Descriptor::from_raw(file.as_raw_fd()));
    living(&file).is_ok_and(|holder| holder.is_some())
}
