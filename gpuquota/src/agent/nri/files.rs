//! The files of containers that got a quota by NRI, in a directory that only root writes.
//!
//! | path | what |
//! |---|---|
//! | `POD-UID_CONTAINER/region.cache` | the region; its file is everybody's, its directory is not |
//! | `.nri/ID/limits` | the limits file of the container with that id |
//! | `.nri/ID/region` | the name of its region's directory |
//! | `.nri/ld.so.preload` | what is mounted there |
//!
//! A container that is started again has the same region's directory and another id, so the directory goes with the last id that
//! names it.

use crate::agent::identity::is_name;
use crate::regions::{self, PREPARED};
use rustix::process::geteuid;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

const OWN: &str = ".nri";
const LIMITS: &str = "limits";
const NAMED: &str = "region";
const PRELOAD: &str = "ld.so.preload";
/// Bytes of a name that becomes one of a file.
const LONGEST_NAME: usize = 128;

/// Who a container is.
#[derive(Clone, Copy, Debug)]
pub struct Who<'n> {
    pub id: &'n str,
    pub pod_uid: &'n str,
    pub name: &'n str,
}

impl Who<'_> {
    /// The region's directory. Refuses names that would lead elsewhere, or to another container's.
    fn directory(self) -> io::Result<String> {
        let plain = |name: &str| is_name(name, LONGEST_NAME) && !name.starts_with('.');
        let is_usable =
            plain(self.id) && plain(self.pod_uid) && plain(self.name) && !self.pod_uid.contains('_');
        if is_usable { Ok(format!("{}_{}", self.pod_uid, self.name)) } else { Err(unusable()) }
    }
}

fn unusable() -> io::Error {
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

/// All of them.
pub struct Files {
    base: PathBuf,
    // Containers of one pod come and go at the same time.
    changing: Mutex<()>,
}

/// Makes the directory if needed. It must be this user's own, and nobody else may write to it.
fn directory(path: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o755).create(path) {
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
fn write(path: &Path, text: &str) -> io::Result<()> {
    let beside = path.with_extension("new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o644).open(&beside)?;
    file.write_all(text.as_bytes())?;
    file.set_permissions(Permissions::from_mode(0o444))?;
    fs::rename(&beside, path)
}

/// A region whose processes are all dead goes, with both of its names.
fn remove_region(directory: &Path) -> io::Result<bool> {
    let path = directory.join(PREPARED);
    if regions::read_path(&path).is_ok_and(|region| region.alive().next().is_some()) {
        return Ok(false);
    }
    for entry in fs::read_dir(directory)? {
        fs::remove_file(entry?.path())?;
    }
    Ok(true)
}

impl Files {
    pub fn at(base: &Path) -> io::Result<Self> {
        if let Some(parent) = base.parent() {
            fs::create_dir_all(parent)?;
        }
        directory(base)?;
        directory(&base.join(OWN))?;
        Ok(Self { base: base.to_owned(), changing: Mutex::default() })
    }

    /// The file that is mounted as `/etc/ld.so.preload`.
    pub fn preload(&self, library: &str) -> io::Result<PathBuf> {
        let path = self.base.join(OWN).join(PRELOAD);
        let line = format!("{library}\n");
        if fs::read(&path).is_ok_and(|known| known == line.as_bytes()) {
            return Ok(path);
        }
        let _one = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        write(&path, &line).map(|()| path)
    }

    /// Makes the files of a container that is made.
    pub fn give(&self, who: Who<'_>, limits: &str) -> io::Result<Given> {
        let name = who.directory()?;
        let _one = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let (region, own) = (self.base.join(&name), self.base.join(OWN).join(who.id));
        directory(&own)?;
        write(&own.join(NAMED), &name)?;
        write(&own.join(LIMITS), limits)?;
        directory(&region)?;
        // The processes of a container that was here before have ended; what lives keeps its region.
        if remove_region(&region)? {
            let file = File::create_new(region.join(PREPARED))?;
            // As a region's files are; the first process of the container makes it one.
            file.set_permissions(Permissions::from_mode(0o1666))?;
        }
        Ok(Given { limits: own.join(LIMITS), directory: region })
    }

    /// Whether a path is a limits file that was given here.
    pub fn is_limits(&self, path: &Path) -> bool {
        path.starts_with(self.base.join(OWN)) && path.ends_with(LIMITS)
    }

    /// Removes the files of a container that is gone.
    pub fn take(&self, id: &str) -> io::Result<()> {
        let _one = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        if !is_name(id, LONGEST_NAME) || id.starts_with('.') {
            return Ok(());
        }
        let own = self.base.join(OWN).join(id);
        let named = match fs::read_to_string(own.join(NAMED)) {
            Ok(named) => named,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        fs::remove_dir_all(&own)?;
        let is_named = self.ids()?.iter().any(|other| {
            fs::read_to_string(self.base.join(OWN).join(other).join(NAMED)).is_ok_and(|other| other == named)
        });
        let region = self.base.join(&named);
        if is_named || !is_name(&named, 2 * LONGEST_NAME + 1) || !region.exists() {
            return Ok(());
        }
        if remove_region(&region)? { fs::remove_dir(&region) } else { Ok(()) }
    }

    /// The ids of all containers that have files here.
    pub fn ids(&self) -> io::Result<Vec<String>> {
        let mut ids = Vec::new();
        for entry in fs::read_dir(self.base.join(OWN))? {
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

    fn who<'n>(id: &'n str, name: &'n str) -> Who<'n> {
        Who { id, pod_uid: "0f4c2d1e-5a6b-4c7d-8e9f-0a1b2c3d4e5f", name }
    }

    #[test]
    fn a_container_that_is_started_again_keeps_its_place_until_the_last_one_is_gone() {
        let scratch = Scratch::new("again");
        let files = Files::at(&scratch.0).expect("files");
        let first = files.give(who("one", "main"), "memory = 1GiB\n").expect("given");
        let second = files.give(who("two", "main"), "memory = 2GiB\n").expect("given");
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
        let files = Files::at(&scratch.0).expect("files");
        for (id, name) in
            [("..", "main"), ("a/b", "main"), ("one", "../x"), ("one", ""), ("one", ".nri"), ("", "x")]
        {
            files.give(who(id, name), "").expect_err("refused");
        }
        let odd = Who { pod_uid: "a_b", ..who("one", "c") };
        files.give(odd, "").expect_err("it could be another container's");
        files.take("../..").expect("nothing is done");
        assert_eq!(files.ids().expect("ids"), [""; 0]);
    }

    #[test]
    fn a_directory_that_others_may_write_is_refused() {
        let scratch = Scratch::new("open");
        fs::create_dir(&scratch.0).expect("a directory");
        fs::set_permissions(&scratch.0, Permissions::from_mode(0o777)).expect("ours");
        assert!(Files::at(&scratch.0).is_err());
    }
}
