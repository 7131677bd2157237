//! The names of a region's file. A file that has lost its names is out of reach of newcomers and tools, and the next process
//! would make a second region: a second cap.
//!
//! So a region has two names in one directory: the path that everybody knows, and `.NAME.gpuquota` beside it, which the
//! usual cleaners (`rm DIR/*`) do not match, where no engine's monitor minds it. Whoever looks for the region finds it by either name as long as living processes
//! hold it, and gives it the other one back. Where both are gone, `removed` may find it.

use crate::links::{link, link_open, look, open_existing, unlink};
use crate::lock::living;
use crate::paths::{PathBuffer, split};
use crate::removed;
use crate::sys::{Descriptor, Errno, Identity};
use core::ffi::CStr;

/// What stands before and behind the name in the second name.
pub const SECOND: [&[u8]; 2] = [b".", b".gpuquota"];

/// How often a search begins again because another process changed the names meanwhile.
const TRIES: usize = 16;

/// What became of the names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Names {
    /// They were as they should be.
    Intact,
    /// The path was gone, or another file without living processes had it: it names the region again.
    Restored,
    /// Both names are gone. The region was found by the process that holds it.
    Nameless {
        /// That process.
        holder: u32,
    },
    /// Living processes hold another region under the second name.
    Split {
        /// One of them, 0 if it cannot be told.
        holder: u32,
    },
}

impl Names {
    /// A number for each case, 0 for [`Self::Intact`].
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Self::Intact => 0,
            Self::Restored => 1,
            Self::Nameless { .. } => 2,
            Self::Split { .. } => 3,
        }
    }
}

/// Why there is no region at a path, nor can one be made there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lost {
    /// The file cannot be opened.
    Open(Errno),
    /// Nobody can tell which processes hold it.
    Locks(Errno),
    /// A living process holds the region; its path now names a file that is no region.
    Replaced {
        /// The process.
        holder: u32,
    },
    /// A living process holds the region, whose names were removed, and it cannot be opened.
    Removed {
        /// The process.
        holder: u32,
    },
}

/// The second name of the region at `path`.
#[must_use]
pub fn second(path: &CStr) -> Option<PathBuffer> {
    let (directory, name) = split(path);
    let [before, behind] = SECOND;
    let longest = 255usize.checked_sub(before.len())?.checked_sub(behind.len())?;
    if name.is_empty() || name.len() > longest {
        return None;
    }
    PathBuffer::of(&[directory, before, name, behind])
}

/// The name of the region of which this is the second name.
#[must_use]
pub fn first_of(name: &[u8]) -> Option<&[u8]> {
    let [before, behind] = SECOND;
    name.strip_prefix(before)?.strip_suffix(behind).filter(|name| !name.is_empty())
}

fn open(path: &CStr) -> Result<Option<Descriptor>, Errno> {
    match open_existing(path) {
        Ok(file) => Ok(Some(file)),
        Err(Errno(libc::ENOENT)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Finds the region at `path` by either name or by a process that holds it, and restores the path. `is_spare` tells whether a
/// file may be replaced because it is a region that nobody holds, or empty. `None`: there is none.
pub fn find(
    path: &CStr,
    is_spare: &dyn Fn(&Descriptor) -> bool,
) -> Result<Option<(Descriptor, Names)>, Lost> {
    let second = second(path);
    for _ in 0..TRIES {
        let named = open(path).map_err(Lost::Open)?;
        // Nobody needs the second name, so nothing depends on it.
        let kept = second.as_ref().and_then(|second| open(second.as_c_str()).ok().flatten());
        let (Some(kept), Some(second)) = (kept, second.as_ref()) else { return only(path, named) };
        if let Some(file) = &named
            && file.identity() == kept.identity()
        {
            return Ok(Some((kept, Names::Intact)));
        }
        let Some(holder) = living(&kept).map_err(Lost::Locks)? else {
            // Whoever removed the path meant it, as nobody used the region.
            if unlink(second.as_c_str()).is_ok() {
                continue;
            }
            return only(path, named);
        };
        if let Some(file) = named {
            if living(&file).map_err(Lost::Locks)?.is_some() {
                return Ok(Some((file, Names::Split { holder })));
            }
            if !is_spare(&file) || unlink(path).is_err() {
                return Err(Lost::Replaced { holder });
            }
        }
        match link(second.as_c_str(), path) {
            Ok(()) => return Ok(Some((kept, Names::Restored))),
            // Another process did the same.
            Err(Errno(libc::EEXIST)) => {}
            // It is found by its second name all the same.
            Err(_) => return Ok(Some((kept, Names::Intact))),
        }
    }
    Err(Lost::Open(Errno(libc::EBUSY)))
}

/// The file that the path names, as there is no second name; or one without any name.
fn only(path: &CStr, named: Option<Descriptor>) -> Result<Option<(Descriptor, Names)>, Lost> {
    if let Some(file) = named {
        return Ok(Some((file, Names::Intact)));
    }
    match removed::find(path) {
        None => Ok(None),
        Some(removed::Holder { pid, file: Some(file) }) if living(&file).map_err(Lost::Locks)?.is_some() => {
            Ok(Some((file, Names::Nameless { holder: pid })))
        }
        // It has a descriptor and no slot, so it holds nothing.
        Some(removed::Holder { file: Some(_), .. }) => Ok(None),
        Some(removed::Holder { pid, file: None }) => Err(Lost::Removed { holder: pid }),
    }
}

/// Whether an engine's monitor would mind the second name. HAMi's and Koordinator's containers have the library beside the region,
/// and HAMi's monitor takes no folder with a third file in it; KAI's takes every file of its folder, none of which ends in
/// `.cache`, for a container.
fn is_an_engines(path: &CStr) -> bool {
    let (directory, name) = split(path);
    let library = PathBuffer::of(&[directory, b"libvgpu.so"]);
    !name.ends_with(b".cache") || library.is_some_and(|library| look(library.as_c_str()).is_ok())
}

/// Gives a region its second name, where it has none. It is not needed for the quota, so nothing is said where it cannot be.
pub fn secure(path: &CStr, file: &Descriptor) {
    if !file.stat().is_ok_and(|stat| stat.names == 1) {
        return;
    }
    let Some(second) = second(path).filter(|_| !is_an_engines(path)) else { return };
    let add = || link_open(file, second.as_c_str()).or_else(|_| link(path, second.as_c_str()));
    if add() == Err(Errno(libc::EEXIST)) {
        // `find` has looked: nobody holds that file.
        let _ = unlink(second.as_c_str());
        let _ = add();
    }
}

/// The same for a process that holds the region: it must not open and close its own file, which would drop its classic lock.
pub fn restore(path: &CStr, file: &Descriptor, is_spare: &dyn Fn(&Descriptor) -> bool) -> Names {
    let Ok(stat) = file.stat() else { return Names::Intact };
    if names(path, stat.identity) {
        secure(path, file);
        return Names::Intact;
    }
    let own = || link_open(file, path).is_ok();
    match open(path) {
        Ok(None) if stat.names == 0 => Names::Nameless { holder: 0 },
        Ok(None) if own() => Names::Restored,
        Ok(Some(other)) => match living(&other) {
            Ok(Some(holder)) => Names::Split { holder },
            Ok(None) if stat.names != 0 && is_spare(&other) && unlink(path).is_ok() && own() => {
                Names::Restored
            }
            _ => Names::Intact,
        },
        _ => Names::Intact,
    }
}

/// Whether `path` names this file.
#[must_use]
pub fn names(path: &CStr, file: Identity) -> bool {
    look(path).is_ok_and(|named| named.identity == file || named.symbolic)
}

/// Opens the file again by one of its names, or by the descriptor that is kept, and makes sure that it is this one.
pub fn open_again(path: &CStr, known: Identity, kept: Option<&Descriptor>) -> Result<Descriptor, Errno> {
    let is_it = |file: &Descriptor| file.identity() == Ok(known);
    if let Ok(file) = open_existing(path)
        && is_it(&file)
    {
        return Ok(file);
    }
    if let Some(second) = second(path)
        && let Ok(file) = open_existing(second.as_c_str())
        && is_it(&file)
    {
        return Ok(file);
    }
    let by_descriptor = kept.filter(|file| is_it(file)).and_then(Descriptor::proc_path);
    let flags = libc::O_RDWR | libc::O_NOCTTY;
    by_descriptor.map_or(Err(Errno(libc::ESTALE)), |path| Descriptor::open(path.as_c_str(), flags, 0))
}

/// Removes both names of a region that nobody needs any more.
pub fn remove(path: &CStr) {
    let _ = unlink(path);
    if let Some(second) = second(path) {
        let _ = unlink(second.as_c_str());
    }
}
