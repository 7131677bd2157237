//! Where the command's region lives: a path that was given, or a fresh one that goes when the command has ended.

use crate::error::Error;
use crate::regions;
use gpuquota_region::{Region, names};
use rustix::process::getuid;
use std::ffi::CString;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// The region of one command.
pub struct Home {
    path: PathBuf,
    ours: bool,
}

impl Home {
    /// The region at `path`, made if it is not there; it stays.
    pub fn given(path: &Path) -> Result<Self, Error> {
        let doing = format!("make {} absolute", path.display());
        let path = std::path::absolute(path).map_err(Error::system(doing))?;
        Self { path, ours: false }.opened()
    }

    /// A region that nobody else has, in this user's runtime directory.
    pub fn fresh() -> Result<Self, Error> {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let name = format!("{}-{:x}.cache", std::process::id(), since.as_nanos());
        Self { path: runtime_directory()?.join(name), ours: true }.opened()
    }

    /// Where it is, absolute.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes the region now, as this user: the command may start its GPU work as another one, and what is wrong
    /// with the place is better said here.
    fn opened(self) -> Result<Self, Error> {
        let refused = |reason: &str| Error::Asked(format!("region {}: {reason}", self.path.display()));
        if self.path.as_os_str().len() > 1023 {
            return Err(refused("the path is longer than 1023 bytes"));
        }
        let path = CString::new(self.path.as_os_str().as_bytes()).map_err(|_| refused("no such path"))?;
        const USUAL_PRIORITY: i32 = 1;
        match Region::open(&path, USUAL_PRIORITY) {
            Ok(_mapped) => Ok(self),
            Err(error) => Err(refused(&error.to_string())),
        }
    }
}

impl Drop for Home {
    /// A region that was made for this command goes with it, unless a process that it left behind lives on it.
    fn drop(&mut self) {
        let in_use = || regions::read_path(&self.path).is_ok_and(|region| region.alive().next().is_some());
        if self.ours && !in_use() {
            // Already gone is as good.
            if let Ok(path) = CString::new(self.path.as_os_str().as_bytes()) {
                names::remove(&path);
            }
        }
    }
}

/// The first directory for regions that this user may write to.
fn runtime_directory() -> Result<PathBuf, Error> {
    let user = std::env::var_os("XDG_RUNTIME_DIR").map(|path| Path::new(&path).join("gpuquota"));
    let own = PathBuf::from(format!("/tmp/gpuquota-{}", getuid().as_raw()));
    let places: Vec<PathBuf> =
        [Some("/run/gpuquota".into()), user.filter(|path| path.is_absolute()), Some(own)]
            .into_iter()
            .flatten()
            .collect();
    let mut refused = io::Error::from(io::ErrorKind::NotFound);
    for place in &places {
        match prepare(place) {
            Ok(()) => return Ok(place.clone()),
            Err(error) => refused = error,
        }
    }
    let looked: Vec<String> = places.iter().map(|place| place.display().to_string()).collect();
    Err(Error::System { doing: format!("keep a region in any of {}", looked.join(", ")), source: refused })
}

/// Makes the directory if needed. It must be this user's own: in /tmp somebody else may have been faster.
fn prepare(directory: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o755).create(directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let found = fs::symlink_metadata(directory)?;
    let own = found.is_dir() && found.uid() == getuid().as_raw() && found.mode() & 0o022 == 0;
    if own { Ok(()) } else { Err(io::ErrorKind::PermissionDenied.into()) }
}
