//! The files of containers that were given a quota, in a directory that only root writes.
//!
//! | path | what |
//! |---|---|
//! | `REGION/region.cache` | the region; its file is everybody's, its directory is not |
//! | `OWN/ID/limits` | the limits file of what has that id |
//! | `OWN/ID/region` | the name of its region's directory |
//! | `OWN/ld.so.preload` | what is mounted there |
//!
//! `OWN` is one directory for each who gives: `.nri`, `.dra`, `.device-plugin`. Several ids may name one region, such as a
//! container and the one that was there before it under the same name; the directory goes with the last of them. A crash at any
//! step leaves what a second try completes.

use crate::agent::identity::is_name;
use crate::changes::Disk;
use crate::regions::{self, PREPARED};
use rustix::process::geteuid;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

/// The directories of those who give.
pub const BY_ANNOTATIONS: &str = ".nri";
pub const BY_CLAIMS: &str = ".dra";
pub const BY_UNITS: &str = ".device-plugin";

const LIMITS: &str = "limits";
const NAMED: &str = "region";
const PRELOAD: &str = "ld.so.preload";
/// Bytes of a name that becomes one of a file.
const LONGEST_NAME: usize = 128;

/// Whether a name leads nowhere else.
fn is_plain(name: &str, longest: usize) -> bool {
    is_name(name, longest) && !name.starts_with('.')
}

/// The region's directory of a container. Refuses names that would make it another container's.
fn is_usable(id: &str, region: &str) -> bool {
    let of = region.split_once('_');
    is_plain(id, LONGEST_NAME)
        && of.is_some_and(|(owner, name)| is_plain(owner, LONGEST_NAME) && is_plain(name, LONGEST_NAME))
}

/// Why a name is refused.
pub fn unusable() -> io::Error {
    io::Error::other("its id, its pod's UID or its name is none that Kubernetes gives")
}

/// What a container is given.
#[derive(Debug)]
pub struct Given {
    /// The limits file.
    pub limits: PathBuf,
    /// The region's directory.
    pub directory: PathBuf,
}

/// What becomes of a region that is there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Region {
    /// It is made anew, unless a process in it lives.
    Anew,
    /// It stays: containers that have it mounted may be about to start.
    Stays,
}

/// All of them.
pub struct Files {
    base: PathBuf,
    own: PathBuf,
    // Containers of one pod come and go at the same time.
    changing: Mutex<Disk>,
}

/// Makes the directory if needed. It must be this user's own, and nobody else may write to it.
fn directory(disk: &Disk, path: &Path) -> io::Result<()> {
    match disk.make_directory(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let found = fs::symlink_metadata(path)?;
    let is_own = found.is_dir() && found.uid() == geteuid().as_raw() && found.mode() & 0o022 == 0;
    let why = || {
        io::Error::new(
            io::ErrorKind::PermissionDenied,
            "it is not a directory that only the agent's user writes",
        )
    };
    if is_own { Ok(()) } else { Err(why()) }
}

/// Writes a file that everybody may read; who reads it meanwhile sees the old one or the new one.
fn write(disk: &Disk, path: &Path, text: &str) -> io::Result<()> {
    let beside = path.with_extension("new");
    disk.write(&beside, text.as_bytes(), 0o444, None)?;
    disk.rename(&beside, path)
}

/// Nothing is an error that is already gone.
fn gone(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// A region whose processes are all dead goes, with both of its names.
fn remove_region(disk: &Disk, directory: &Path) -> io::Result<bool> {
    let path = directory.join(PREPARED);
    if regions::read_path(&path).is_ok_and(|region| region.alive().next().is_some()) {
        return Ok(false);
    }
    for entry in fs::read_dir(directory)? {
        disk.remove(&entry?.path())?;
    }
    Ok(true)
}

impl Files {
    /// Those of one who gives.
    pub fn at(base: &Path, own: &str, disk: Disk) -> io::Result<Self> {
        if let Some(parent) = base.parent() {
            fs::create_dir_all(parent)?;
        }
        directory(&disk, base)?;
        // The runtime tells sources of mounts without links, and they are compared.
        let base = base.canonicalize()?;
        let own = base.join(own);
        directory(&disk, &own)?;
        Ok(Self { base, own, changing: Mutex::new(disk) })
    }

    /// The file that is mounted as `/etc/ld.so.preload`.
    pub fn preload(&self, library: &Path) -> io::Result<PathBuf> {
        let path = self.own.join(PRELOAD);
        let line = format!("{}\n", library.display());
        if fs::read(&path).is_ok_and(|known| known == line.as_bytes()) {
            return Ok(path);
        }
        let disk = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        write(&disk, &path, &line).map(|()| path)
    }

    /// Makes the files of an id whose region's directory has that name.
    pub fn give(&self, id: &str, region: &str, limits: &str, found: Region) -> io::Result<Given> {
        if !is_usable(id, region) {
            return Err(unusable());
        }
        let disk = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let (place, own) = (self.base.join(region), self.own.join(id));
        directory(&disk, &own)?;
        write(&disk, &own.join(NAMED), region)?;
        write(&disk, &own.join(LIMITS), limits)?;
        directory(&disk, &place)?;
        let file = place.join(PREPARED);
        // The processes of a container that was here before have ended; what lives keeps its region.
        if !file.exists() || found == Region::Anew && remove_region(&disk, &place)? {
            // As a region's files are; the first process of the container makes it one.
            let beside = own.join("prepared.new");
            disk.write(&beside, b"", 0o1666, None)?;
            disk.rename(&beside, &file)?;
        }
        Ok(Given { limits: own.join(LIMITS), directory: place })
    }

    /// Other limits for an id that has files.
    pub fn limit(&self, id: &str, limits: &str) -> io::Result<()> {
        let disk = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        if !is_plain(id, LONGEST_NAME) {
            return Err(unusable());
        }
        write(&disk, &self.own.join(id).join(LIMITS), limits)
    }

    /// When the files of an id were made last.
    pub fn made(&self, id: &str) -> io::Result<SystemTime> {
        fs::metadata(self.own.join(id).join(NAMED))?.modified()
    }

    /// Who gave a limits file of this node, by its path.
    pub fn giver(&self, path: &Path) -> Option<&'static str> {
        let below = path.strip_prefix(&self.base).ok().filter(|_| path.ends_with(LIMITS))?;
        [BY_ANNOTATIONS, BY_CLAIMS, BY_UNITS].into_iter().find(|own| below.starts_with(own))
    }

    /// Removes the files of what is gone. The name of its region goes last, so that a second try finds it.
    pub fn take(&self, id: &str) -> io::Result<()> {
        let disk = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let own = self.own.join(id);
        if !is_plain(id, LONGEST_NAME) || !own.exists() {
            return Ok(());
        }
        let read = |id: &str| fs::read_to_string(self.own.join(id).join(NAMED));
        let named = match read(id) {
            Ok(named) => Some(named),
            // It was not made whole.
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        if let Some(named) = named.filter(|named| is_usable(id, named)) {
            let others = self.ids()?;
            let mut others = others.iter().filter(|other| *other != id);
            let place = self.base.join(&named);
            let is_named = others.any(|other| read(other).is_ok_and(|other| other == named));
            if !is_named && place.exists() && remove_region(&disk, &place)? {
                disk.remove_directory(&place)?;
            }
        }
        for entry in fs::read_dir(&own)? {
            let entry = entry?;
            if entry.file_name() != NAMED {
                disk.remove(&entry.path())?;
            }
        }
        gone(disk.remove(&own.join(NAMED)))?;
        disk.remove_directory(&own)
    }

    /// The ids of all that have files here.
    pub fn ids(&self) -> io::Result<Vec<String>> {
        let mut ids = Vec::new();
        for entry in fs::read_dir(&self.own)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                ids.extend(entry.file_name().into_string().ok());
            }
        }
        Ok(ids)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            Self(std::env::temp_dir().join(format!("gpuquota-nri-{}-{name}", std::process::id())))
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn region(name: &str) -> String {
        format!("0f4c2d1e-5a6b-4c7d-8e9f-0a1b2c3d4e5f_{name}")
    }

    fn files(scratch: &Scratch) -> Files {
        Files::at(&scratch.0, ".nri", Disk::default()).expect("files")
    }

    #[test]
    fn a_container_that_is_started_again_keeps_its_place_until_the_last_one_is_gone() {
        let scratch = Scratch::new("again");
        let files = files(&scratch);
        let first = files.give("one", &region("main"), "memory = 1GiB\n", Region::Anew).expect("given");
        let second = files.give("two", &region("main"), "memory = 2GiB\n", Region::Anew).expect("given");
        assert_eq!(first.directory, second.directory);
        assert_ne!(first.limits, second.limits);
        files.take("one").expect("taken");
        assert!(second.directory.join(PREPARED).exists() && !first.limits.exists());
        assert_eq!(fs::read_to_string(&second.limits).expect("text"), "memory = 2GiB\n");
        files.take("two").expect("taken");
        files.take("two").expect("nothing is there any more");
        assert!(!second.directory.exists());
        assert_eq!(files.ids().expect("ids"), [""; 0]);
    }

    #[test]
    fn names_that_lead_elsewhere_are_refused() {
        let scratch = Scratch::new("names");
        let files = files(&scratch);
        for (id, name) in
            [("..", "main"), ("a/b", "main"), ("one", "../x"), ("one", ""), ("one", ".nri"), ("", "x")]
        {
            files.give(id, &region(name), "", Region::Anew).expect_err("refused");
        }
        files.give("one", "a_b_", "", Region::Anew).expect("a name may have such a letter");
        files.take("one").expect("taken");
        files.take("../..").expect("nothing is done");
        assert_eq!(files.ids().expect("ids"), [""; 0]);
    }

    #[test]
    fn a_directory_that_others_may_write_is_refused() {
        let scratch = Scratch::new("open");
        fs::create_dir(&scratch.0).expect("a directory");
        fs::set_permissions(&scratch.0, Permissions::from_mode(0o777)).expect("ours");
        assert!(Files::at(&scratch.0, ".nri", Disk::default()).is_err());
    }
}
