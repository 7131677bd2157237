//! One agent for each place: two would divide the containers of a device, and with them its shares.
//!
//! The agent holds a lock on a file of its own in every directory that it searches for others; the kernel drops it when the
//! agent ends, whichever way. The file is the agent's user's alone, so no tenant can hold the lock in its stead. Agents in
//! containers of their own share these directories and little else.

use crate::error::Error;
use crate::regions::shown;
use rustix::fs::{CWD, FlockOperation, Mode, OFlags, flock, fstat, openat, unlinkat};
use rustix::io::Errno;
use rustix::process::geteuid;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

/// The file's name in a directory.
const NAME: &str = ".gpuquota-agent";
/// The agent of the known places has one here too: those need not be there yet.
const NODE: &str = "/run";
/// How long another agent may take to end, which was told to.
const PATIENCE: Duration = Duration::from_millis(300);

/// The locks of this agent, for as long as it runs.
pub struct Alone(#[allow(dead_code, reason = "dropping them gives the locks back")] Vec<OwnedFd>);

impl Alone {
    /// Takes the lock in each of these directories, or for the node where none is named.
    pub fn at(roots: &[PathBuf]) -> Result<Self, Error> {
        let node = [PathBuf::from(NODE)];
        let directories = if roots.is_empty() { &node } else { roots };
        let mut locks = Vec::new();
        for directory in directories {
            match lock(directory) {
                Ok(lock) => locks.push(lock),
                Err(Errno::WOULDBLOCK) => {
                    let place = shown(directory);
                    return Err(Error::Asked(format!("another agent serves {place}; there may be one only")));
                }
                // It is not there, or only root may write it: then there is nothing that could be divided.
                Err(_) => {}
            }
        }
        Ok(Self(locks))
    }
}

fn lock(directory: &Path) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = openat(CWD, directory, flags, Mode::empty())?;
    let file = own_file(&directory)?;
    let until = Instant::now() + PATIENCE;
    loop {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(file),
            Err(Errno::WOULDBLOCK) if Instant::now() < until => thread::sleep(Duration::from_millis(20)),
            Err(error) => return Err(error),
        }
    }
}

/// The file in a directory. One that another user has made there is in the way, and goes.
fn own_file(directory: &OwnedFd) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let open = || openat(directory, NAME, flags, Mode::RUSR | Mode::WUSR);
    let is_own = |file: &OwnedFd| {
        fstat(file).is_ok_and(|stat| stat.st_uid == geteuid().as_raw() && stat.st_mode & 0o7_7077 == 0)
    };
    match open() {
        Ok(file) if is_own(&file) => Ok(file),
        _ => {
            unlinkat(directory, NAME, rustix::fs::AtFlags::empty())?;
            open().and_then(|file| if is_own(&file) { Ok(file) } else { Err(Errno::PERM) })
        }
    }
}
