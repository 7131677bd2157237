//! What is a file that is to become a region, and who holds it?
//!
//! A file in which no process of ours or of HAMi-core's lives is nobody's: whatever version or boot it is of, it is made
//! anew. A region that living processes hold is never cleared, whatever this process thinks of its boot or clocks. Where its
//! contents are lost, because somebody has truncated the file or overwritten it, they are made anew, and those processes put
//! back what they hold (`lost`).

use crate::hami::{self, View};
use crate::header::{Mismatch, RecordTable, half, half_at, word};
use crate::layout::{self, FILE_BYTES, Header, OURS};
use crate::lock::{living, process_stat};
use crate::names::Lost;
use crate::removed::maps_inode;
use crate::sys::{self, Descriptor, Errno};
use core::fmt;
use core::mem::offset_of;

/// Why a region could not be had. `holder` is a living process, 0 where it cannot be told which.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OpenError {
    /// The file cannot be opened or created.
    Open(Errno),
    /// The file system has no room for the region (it takes [`FILE_BYTES`] bytes), or cannot be mapped.
    Space(Errno),
    /// Its file system, or a sandbox, has no locks of open file descriptions.
    Locks(Errno),
    /// The file is something else, and is left as it is.
    NotARegion,
    /// Living processes hold a region of another major version.
    OtherVersion {
        /// That version.
        major: u32,
        /// One of them.
        holder: u32,
    },
    /// Living processes hold a region of this major version whose records lie otherwise than this version writes them. Both
    /// would corrupt what the other one writes.
    OtherLayout {
        /// The first number that differs.
        mismatch: Mismatch,
        /// One of them.
        holder: u32,
    },
    /// A living process uses the file with HAMi-core, which keeps other books in it.
    HamiCore {
        /// That process.
        holder: u32,
    },
    /// Living processes hold the region, whose path now names a file that is no region.
    Replaced {
        /// One of them.
        holder: u32,
    },
    /// Living processes hold the region, whose names were removed, and it cannot be opened.
    Removed {
        /// One of them.
        holder: u32,
    },
    /// Another process has been initialising the region for over two seconds.
    Busy,
    /// No process uses the region, and the next one that does makes it anew.
    Stale,
}

impl OpenError {
    /// What went wrong, for people.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Open(Errno(libc::ENOENT)) => "it does not exist, or its directory does not",
            Self::Open(Errno(libc::EACCES | libc::EPERM)) => "permission denied",
            Self::Open(Errno(libc::EROFS)) => "its file system is read-only",
            Self::Open(Errno(libc::EISDIR)) => "it is a directory",
            Self::Open(Errno(libc::ELOOP)) => "it is a symbolic link of another user's",
            Self::Open(Errno(libc::ENOLINK)) => "it is a symbolic link that leads nowhere",
            Self::Open(Errno(libc::EMFILE)) => "this process may open no more files (RLIMIT_NOFILE)",
            Self::Open(Errno(libc::ENFILE)) => "the machine may open no more files",
            Self::Open(Errno(libc::EBUSY)) => "other processes keep changing its names",
            Self::Open(Errno(libc::EWOULDBLOCK)) => "another process has a lease on the file",
            Self::Open(_) => "it cannot be opened",
            Self::Space(Errno(libc::ENOSPC | libc::EDQUOT)) => "no space left for it (it takes 4 MiB)",
            Self::Space(Errno(libc::EFBIG)) => {
                "this process may make no file as large as it is, 4 MiB (RLIMIT_FSIZE, ulimit -f)"
            }
            Self::Space(Errno(libc::ENOMEM)) => "this process has no address space for it, 4 MiB (RLIMIT_AS)",
            Self::Space(_) => "it cannot be mapped",
            Self::Locks(_) => {
                "its file system or a sandbox refuses locks of open file descriptions (F_OFD_SETLK), by which \
                 processes see who lives"
            }
            Self::NotARegion => "the file exists and is no region",
            Self::OtherVersion { .. } => "it was made by an incompatible version",
            Self::OtherLayout { .. } => {
                "it was made by another version, which lays its records out otherwise"
            }
            Self::HamiCore { .. } => "HAMi-core keeps its books in it",
            Self::Replaced { .. } => "another file that is no region has taken its path",
            Self::Removed { .. } => "it was removed and cannot be opened any more",
            Self::Busy => "another process has been initialising it for too long",
            Self::Stale => {
                "no process uses it, and it is of another boot or version, or damaged: the next program makes it anew"
            }
        }
    }

    /// The number that was found in the file and the one that this version knows, with its name, where that is the reason.
    #[must_use]
    pub fn numbers(&self) -> Option<Mismatch> {
        match *self {
            Self::OtherVersion { major, .. } => Some(Mismatch {
                of: "major version",
                found: u64::from(major),
                known: u64::from(layout::ABI_MAJOR),
            }),
            Self::OtherLayout { mismatch, .. } => Some(mismatch),
            _ => None,
        }
    }

    /// A living process because of which the file cannot be used, 0 where it cannot be told which.
    #[must_use]
    pub fn holder(&self) -> Option<u32> {
        match *self {
            Self::OtherVersion { holder, .. }
            | Self::OtherLayout { holder, .. }
            | Self::HamiCore { holder }
            | Self::Replaced { holder }
            | Self::Removed { holder } => Some(holder),
            _ => None,
        }
    }
}

impl From<Lost> for OpenError {
    fn from(lost: Lost) -> Self {
        match lost {
            Lost::Open(error) => Self::Open(error),
            Lost::Locks(error) => Self::Locks(error),
            Lost::Replaced { holder } => Self::Replaced { holder },
            Lost::Removed { holder } => Self::Removed { holder },
        }
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason())?;
        self.numbers().map_or(Ok(()), |numbers| write!(f, " ({numbers})"))?;
        match self.holder() {
            None => Ok(()),
            Some(0) => f.write_str("; a process that is not visible from here holds it"),
            Some(holder) => write!(f, "; process {holder} holds it"),
        }
    }
}

/// What distinguishes this boot and these clocks from others.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Here {
    /// `/proc/sys/kernel/random/boot_id`.
    pub boot_id: [u64; 2],
    /// Inode of the time namespace.
    pub time_namespace: u64,
}

impl Here {
    /// Those of this process.
    #[must_use]
    pub fn now() -> Self {
        let mut buffer = [0u8; 64];
        let text = sys::read_file(c"/proc/sys/kernel/random/boot_id", &mut buffer).unwrap_or(&[]);
        let digits = text.iter().filter_map(|byte| (*byte as char).to_digit(16));
        let mut boot_id = [0u64; 2];
        for (index, digit) in digits.enumerate() {
            if let Some(word) = boot_id.get_mut(index / 16) {
                *word = *word << 4 | u64::from(digit);
            }
        }
        Self { boot_id, time_namespace: sys::inode_of(c"/proc/self/ns/time") }
    }
}

/// What a file is when it is opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Found {
    /// A region with which this version can work.
    Ready,
    /// Nobody's: empty, or of another boot, version or library, half initialised or cut short. Or a region that processes hold,
    /// and whose contents are lost.
    Fresh,
}

/// What [`examine`] finds.
#[derive(Clone, Copy, Debug)]
pub struct Examined {
    /// What it is.
    pub found: Found,
    /// Bytes of the file.
    pub size: u64,
    /// Whether processes hold slots.
    pub held: bool,
}

/// How many bytes of the header are read before the file is mapped.
const HEAD_BYTES: usize = offset_of!(Header, leases);

/// How a region's head says what it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Head {
    Ready,
    OtherBoot,
    Unfinished,
    OtherVersion(u32),
    OtherLayout(Mismatch),
}

/// What a file is. It is not mapped yet, so a file that is something else is not touched.
pub fn examine(file: &Descriptor, here: Here) -> Result<Examined, OpenError> {
    let stat = file.stat().map_err(OpenError::Open)?;
    if !stat.regular {
        return Err(OpenError::NotARegion);
    }
    let holder = living(file).map_err(OpenError::Locks)?;
    let mut buffer = [0u8; HEAD_BYTES];
    let head = file.read_at(&mut buffer, OURS as u64).map_err(OpenError::Open)?;
    let whole = stat.size >= FILE_BYTES as u64 && has_end(file, head);
    let found = match (word(head, offset_of!(Header, magic)).unwrap_or(0), holder) {
        (layout::MAGIC, None) => match read_head(head, here) {
            Head::Ready if whole => Found::Ready,
            _ => Found::Fresh,
        },
        (layout::MAGIC, Some(holder)) => match read_head(head, here) {
            // Who holds it is of this boot, whatever the file or this process says.
            Head::Ready | Head::OtherBoot if whole => Found::Ready,
            Head::OtherVersion(major) => return Err(OpenError::OtherVersion { major, holder }),
            Head::OtherLayout(mismatch) => return Err(OpenError::OtherLayout { mismatch, holder }),
            _ => Found::Fresh,
        },
        // Who has a slot there has had it in a region.
        (_, Some(_)) => Found::Fresh,
        (0, None) => {
            let flag = half_at(file, 0).map_err(OpenError::Open)?.unwrap_or(0);
            if flag.cast_signed() == hami::MAGIC {
                if let Some(holder) = hami_core(file, stat.identity.inode) {
                    return Err(OpenError::HamiCore { holder });
                }
            } else if flag != 0 || stat.size != 0 && !whole {
                // Blocks that were taken for a region whose initialisation never began are nobody's.
                return Err(OpenError::NotARegion);
            }
            Found::Fresh
        }
        _ => return Err(OpenError::NotARegion),
    };
    Ok(Examined { found, size: stat.size, held: holder.is_some() })
}

fn read_head(head: &[u8], here: Here) -> Head {
    let major = half(head, offset_of!(Header, abi_major)).unwrap_or(0);
    if major != layout::ABI_MAJOR {
        return Head::OtherVersion(major);
    }
    if half(head, offset_of!(Header, state)) != Some(layout::STATE_READY) {
        return Head::Unfinished;
    }
    let Some(table) = RecordTable::read(head) else { return Head::Unfinished };
    if let Some(mismatch) = table.mismatch() {
        return Head::OtherLayout(mismatch);
    }
    let boot_id = [0, 8].map(|at| word(head, offset_of!(Header, boot_id).wrapping_add(at)).unwrap_or(0));
    if here.boot_id != [0; 2] && boot_id != here.boot_id { Head::OtherBoot } else { Head::Ready }
}

/// Whether a file holds the contents of a region of this version, whole.
pub(crate) fn is_ready(file: &Descriptor, here: Here) -> bool {
    let mut buffer = [0u8; HEAD_BYTES];
    let Ok(head) = file.read_at(&mut buffer, OURS as u64) else { return false };
    word(head, offset_of!(Header, magic)) == Some(layout::MAGIC)
        && matches!(read_head(head, here), Head::Ready | Head::OtherBoot)
        && has_end(file, head)
}

/// Whether the end of the file is that of this header.
fn has_end(file: &Descriptor, head: &[u8]) -> bool {
    let mut end = [0u8; 8];
    let at = (FILE_BYTES as u64).saturating_sub(8);
    file.read_at(&mut end, at).is_ok_and(|end| word(end, 0) == word(head, offset_of!(Header, created_at_ns)))
}

/// A living process that has its books in HAMi-core's region.
fn hami_core(file: &Descriptor, inode: u64) -> Option<u32> {
    let read = |at: usize| half_at(file, at as u64).ok().flatten();
    let count = (read(offset_of!(View, proc_num))? as usize).min(hami::SLOTS);
    let pid = |at: usize| {
        let record = at.checked_mul(size_of::<hami::Process>())?;
        read(offset_of!(View, procs).checked_add(record)?.checked_add(offset_of!(hami::Process, pid))?)
    };
    let uses =
        |pid: &u32| *pid != 0 && process_stat(*pid).is_some_and(|stat| stat.runs) && maps_inode(*pid, inode);
    (0..count).filter_map(pid).find(uses)
}

/// Whether a file may be replaced: nobody uses it, and it is empty, a region, or HAMi-core's.
#[must_use]
pub fn is_spare(file: &Descriptor) -> bool {
    examine(file, Here::now()).is_ok_and(|examined| !examined.held)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::file::Region;
    use crate::file::tests::BOOT;
    use std::format;
    use std::vec::Vec;

    /// The head of our part, with one field changed.
    fn changed(head: &[u8], at: usize, bytes: &[u8]) -> Vec<u8> {
        let mut head = head[..HEAD_BYTES].to_vec();
        head[at..at + bytes.len()].copy_from_slice(bytes);
        head
    }

    #[test]
    fn a_head_tells_its_boot_its_version_and_the_number_that_differs() {
        let bytes = Region::in_memory().bytes();
        let head = &bytes[OURS..OURS + HEAD_BYTES];
        assert_eq!(read_head(head, BOOT), Head::Ready);
        assert_eq!(read_head(head, Here { boot_id: [9, 9], ..BOOT }), Head::OtherBoot);
        assert_eq!(read_head(&changed(head, offset_of!(Header, state), &[0]), BOOT), Head::Unfinished);
        assert_eq!(
            read_head(&changed(head, offset_of!(Header, abi_major), &[2]), BOOT),
            Head::OtherVersion(2)
        );
        let minor = changed(head, offset_of!(Header, abi_minor), &[99]);
        assert_eq!(read_head(&minor, BOOT), Head::Ready, "the same records: the same layout");
        let longer = changed(head, offset_of!(Header, record_bytes) + 4, &1024u32.to_le_bytes());
        let Head::OtherLayout(mismatch) = read_head(&longer, BOOT) else { panic!("another layout") };
        let said = format!("{}", OpenError::OtherLayout { mismatch, holder: 7 });
        assert!(said.contains("(bytes of a slot record: found 1024, this version writes 512)"), "{said}");
        assert!(said.ends_with("; process 7 holds it"), "{said}");
    }
}
