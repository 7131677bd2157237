//! Names of files: open, link and remove them, list a directory.
//!
//! # Safety
//! This module may use `unsafe` because it is the crate's border to the kernel: every block passes pointers to live
//! locals or to C strings, and hands nothing out but integers and [`Descriptor`]s.
#![allow(unsafe_code)]

use crate::paths::number;
use crate::sys::{Descriptor, Errno, Identity, check, errno, user};
use core::ffi::CStr;

/// What a name stands for, without following a symbolic link.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Named {
    /// Which file it is.
    pub identity: Identity,
    /// Its owner.
    pub owner: u32,
    /// Whether it is a symbolic link.
    pub symbolic: bool,
}

/// Looks at a name.
pub fn look(path: &CStr) -> Result<Named, Errno> {
    // SAFETY: path is a C string; stat is plain data that the call fills when it returns 0.
    let stat = unsafe {
        let mut stat: libc::stat = core::mem::zeroed();
        check(libc::lstat(path.as_ptr(), &mut stat))?;
        stat
    };
    Ok(Named {
        identity: Identity { device: stat.st_dev, inode: stat.st_ino },
        owner: stat.st_uid,
        symbolic: stat.st_mode & libc::S_IFMT == libc::S_IFLNK,
    })
}

/// Opens the file at `path` to read and write it. A symbolic link is followed only if root or this user made it: in a
/// directory that is open to all anybody may have put one there. ENOLINK: it leads nowhere.
pub fn open_existing(path: &CStr) -> Result<Descriptor, Errno> {
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_NONBLOCK;
    match Descriptor::open(path, flags | libc::O_NOFOLLOW, 0) {
        Err(Errno(libc::ELOOP)) => {
            let link = look(path)?;
            if !link.symbolic || link.owner != 0 && link.owner != user() {
                return Err(Errno(libc::ELOOP));
            }
            Descriptor::open(path, flags, 0).map_err(|error| match error {
                Errno(libc::ENOENT | libc::ELOOP) => Errno(libc::ENOLINK),
                other => other,
            })
        }
        opened => opened,
    }
}

/// Gives the file at `from` another name.
pub fn link(from: &CStr, to: &CStr) -> Result<(), Errno> {
    // SAFETY: both are C strings.
    check(unsafe { libc::link(from.as_ptr(), to.as_ptr()) }).map(|_| ())
}

/// Gives an open file another name. A file without any name cannot get one.
pub fn link_open(file: &Descriptor, to: &CStr) -> Result<(), Errno> {
    let path = file.proc_path().ok_or(Errno(libc::ENAMETOOLONG))?;
    let here = libc::AT_FDCWD;
    let follow = libc::AT_SYMLINK_FOLLOW;
    // SAFETY: both are C strings.
    check(unsafe { libc::linkat(here, path.as_c_str().as_ptr(), here, to.as_ptr(), follow) }).map(|_| ())
}

/// Removes a name.
pub fn unlink(path: &CStr) -> Result<(), Errno> {
    // SAFETY: path is a C string.
    check(unsafe { libc::unlink(path.as_ptr()) }).map(|_| ())
}

/// The text of a symbolic link, as far as it fits.
pub fn read_link<'b>(path: &CStr, buffer: &'b mut [u8]) -> Result<&'b [u8], Errno> {
    // SAFETY: path is a C string; the buffer is ours and its length is passed along.
    let length = unsafe { libc::readlink(path.as_ptr(), buffer.as_mut_ptr().cast(), buffer.len()) };
    let length = usize::try_from(length).map_err(|_| errno())?;
    buffer.get(..length).ok_or(Errno(libc::EIO))
}

/// Calls `visit` with each name in a directory that is a number, until it answers true. True if it did.
pub fn any_number(directory: &CStr, visit: &mut dyn FnMut(u32) -> bool) -> bool {
    let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_NOCTTY;
    let Ok(directory) = Descriptor::open(directory, flags, 0) else { return false };
    let mut buffer = [0u8; 4096];
    loop {
        let Some(entries) = directory.entries(&mut buffer).filter(|entries| !entries.is_empty()) else {
            return false;
        };
        let mut rest = entries;
        // linux_dirent64: inode (8 bytes), offset (8), length of the record (2), type (1), name.
        while let Some([low, high]) = rest.get(16..18) {
            let length = usize::from(u16::from_le_bytes([*low, *high]));
            let name = rest.get(19..length).and_then(|name| name.split(|byte| *byte == 0).next());
            if name.and_then(number).and_then(|number| u32::try_from(number).ok()).is_some_and(&mut *visit) {
                return true;
            }
            match rest.get(length..) {
                Some(next) if length != 0 => rest = next,
                _ => break,
            }
        }
    }
}
