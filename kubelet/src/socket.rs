//! A socket of the file system, and whether it is still the one that it was.

use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use tokio::net::UnixListener;

/// What tells one socket at a path from the next one there.
pub type Identity = (u64, u64, i64, i64);

/// The socket that is at a path now.
pub fn identity(path: &Path) -> Option<Identity> {
    let found = std::fs::symlink_metadata(path).ok().filter(|found| found.file_type().is_socket())?;
    Some((found.dev(), found.ino(), found.ctime(), found.ctime_nsec()))
}

/// A socket that is listened at. It goes with this value.
pub struct Bound {
    path: PathBuf,
    identity: Option<Identity>,
    /// Who listens.
    pub listener: UnixListener,
}

impl Bound {
    /// Listens there, in the place of a socket that an earlier process left. What is no socket stays.
    pub fn at(path: &Path) -> io::Result<Self> {
        if identity(path).is_some() {
            std::fs::remove_file(path)?;
        }
        let listener = UnixListener::bind(path)?;
        Ok(Self { path: path.to_owned(), identity: identity(path), listener })
    }

    /// Whether the path still leads here.
    pub fn is_there(&self) -> bool {
        self.identity.is_some() && identity(&self.path) == self.identity
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        if self.is_there() {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}
