//! Which files of the node are regions: the places of every engine, searched in order of trust.
//!
//! Directories may belong to tenants. Each step opens one name that the directory itself gave, without following
//! links, so no name can lead out of it; and there are limits to how much anybody can make us read.

use super::read::{OPEN, Unreadable, read};
use super::reap::{has_dead, reap};
use super::report::Region;
use gpuquota_region::examine::is_spare;
use gpuquota_region::lock::living;
use gpuquota_region::names::{SECOND, first_of};
use gpuquota_region::sys::Descriptor;
use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat, fstat, linkat, openat, unlinkat};
use std::collections::HashSet;
use std::ffi::{CStr, OsStr, OsString};
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, AsRawFd, IntoRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Regions of one node that are read; more are a mishap.
const REGIONS: usize = 1024;
/// How long one search reads; what is left then is a mishap. The places that nobody but root writes come first.
const BUDGET: Duration = Duration::from_secs(5);
/// Entries of one directory that are looked at.
const ENTRIES: usize = 8192;

/// A region that was found.
#[derive(Debug)]
pub struct Found {
    /// The container: `<podUID>_<container>` where an engine named the place so, else the file's name.
    pub container: String,
    /// Where it is.
    pub path: PathBuf,
    /// What it says.
    pub region: Region,
    /// It itself, open for reading.
    pub file: OwnedFd,
}

/// A file that should have been a region and was not taken.
#[derive(Debug)]
pub struct Mishap {
    /// Where it is.
    pub path: PathBuf,
    /// One word for a metric's label.
    pub word: &'static str,
}

/// Where to look.
pub struct Places(Vec<Place>);

enum Place {
    /// Region files, and directories with one region file each.
    Tree(PathBuf),
    /// Directories `gpuquota-<uid>` of that user.
    Users(PathBuf),
    /// One file.
    File(PathBuf),
}

impl Places {
    /// These directories and no others.
    pub fn only(roots: &[PathBuf]) -> Self {
        Self(roots.iter().cloned().map(Place::Tree).collect())
    }

    /// The places of our own launcher, HAMi, KAI, HAMi DRA and Volcano.
    pub fn of_node() -> Self {
        let trees = [
            "/usr/local/vgpu/containers",
            "/usr/local/vgpu/claims",
            "/usr/local/vgpu/vgpu/containers",
            "/run/gpuquota",
        ];
        let user = std::env::var_os("XDG_RUNTIME_DIR").filter(|path| Path::new(path).is_absolute());
        let user = user.map(|path| Place::Tree(Path::new(&path).join("gpuquota")));
        let trusted = trees.into_iter().map(|path| Place::Tree(path.into())).chain(user);
        let open_to_all = [
            Place::Tree("/tmp/vgpu/containers".into()),
            Place::Users("/tmp".into()),
            Place::File("/tmp/cudevshr.cache".into()),
        ];
        Self(trusted.chain(open_to_all).collect())
    }

    /// Reads every region; a file or a container's name that turns up twice counts once, the first time.
    pub fn search(&self) -> (Vec<Found>, Vec<Mishap>) {
        let search = self.walk(Search::read);
        (search.found, search.mishaps)
    }

    /// Settles the dead processes of every region, and reads nothing else.
    pub fn settle(&self) {
        self.walk(|_, _, file, _| {
            if has_dead(&file) {
                reap(&file);
            }
        });
    }

    fn walk(&self, visit: Visit) -> Search {
        let mut search = Search {
            until: Instant::now() + BUDGET,
            found: Vec::new(),
            mishaps: Vec::new(),
            files: HashSet::new(),
            containers: HashSet::new(),
            visit,
        };
        for place in &self.0 {
            match place {
                Place::Tree(path) => search.root(path, |search, tree| search.tree(tree, path)),
                Place::Users(path) => search.root(path, |search, tmp| search.users(tmp, path)),
                Place::File(path) => search.one(path),
            }
        }
        search
    }
}

/// What is done with a file that may be a region: with its container and path.
type Visit = fn(&mut Search, &str, OwnedFd, PathBuf);

struct Search {
    until: Instant,
    found: Vec<Found>,
    mishaps: Vec<Mishap>,
    files: HashSet<(u64, u64)>,
    containers: HashSet<String>,
    visit: Visit,
}

impl Search {
    /// A place that is not there, or not open to us, has no regions.
    fn root(&mut self, path: &Path, look: impl FnOnce(&mut Self, &OwnedFd)) {
        if let Ok(directory) = openat(CWD, path, OPEN | OFlags::DIRECTORY, Mode::empty()) {
            look(self, &directory);
        }
    }

    fn one(&mut self, path: &Path) {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return };
        self.root(parent, |search, directory| {
            let [before, behind] = SECOND.map(OsStr::from_bytes);
            restore(directory, name, &[before, name, behind].into_iter().collect::<OsString>());
            if let Ok((file, stat)) = enter(directory.as_fd(), name) {
                search.file(&stem(name), file, &stat, path.to_path_buf());
            }
        });
    }

    fn users(&mut self, tmp: &OwnedFd, path: &Path) {
        for name in names(tmp) {
            let user = name.to_str().and_then(|name| name.strip_prefix("gpuquota-")?.parse::<u32>().ok());
            if let Some(user) = user
                && let Ok((directory, stat)) = enter(tmp.as_fd(), &name)
                && is(&stat, FileType::Directory)
                && stat.st_uid == user
            {
                self.tree(&directory, &path.join(&name));
            }
        }
    }

    fn tree(&mut self, tree: &OwnedFd, path: &Path) {
        for name in regions(tree) {
            let Ok((entry, stat)) = enter(tree.as_fd(), &name) else { continue };
            if is(&stat, FileType::Directory) {
                self.container(&entry, &name, &path.join(&name));
            } else if is_cache(&name) || name.as_bytes().contains(&b'_') {
                self.file(&stem(&name), entry, &stat, path.join(&name));
            }
        }
    }

    /// A container's own directory: the engines put exactly one region there, so a second one is an intruder, and
    /// nobody can tell which.
    fn container(&mut self, directory: &OwnedFd, container: &OsStr, path: &Path) {
        let mut caches = regions(directory).filter(|name| is_cache(name));
        let (Some(name), second) = (caches.next(), caches.next()) else { return };
        if second.is_some() {
            self.mishaps.push(Mishap { path: path.to_path_buf(), word: "several_regions" });
        } else if let Ok((file, stat)) = enter(directory.as_fd(), &name) {
            self.file(&container.to_string_lossy(), file, &stat, path.join(name));
        }
    }

    fn file(&mut self, container: &str, file: OwnedFd, stat: &Stat, path: PathBuf) {
        // The types of these fields differ between architectures.
        #[allow(clippy::useless_conversion)]
        let identity = (u64::from(stat.st_dev), u64::from(stat.st_ino));
        if self.files.insert(identity) {
            (self.visit)(self, container, file, path);
        }
    }

    fn read(&mut self, container: &str, file: OwnedFd, path: PathBuf) {
        let word = if self.found.len() >= REGIONS {
            "too_many"
        } else if Instant::now() > self.until {
            "out_of_time"
        } else if self.containers.contains(container) {
            "duplicate"
        } else {
            match file.try_clone().map_err(Unreadable::System).and_then(|again| Ok((read(again)?, file))) {
                Ok((region, file)) => {
                    self.containers.insert(container.to_owned());
                    return self.found.push(Found { container: container.to_owned(), path, region, file });
                }
                Err(unreadable) => unreadable.word(),
            }
        };
        self.mishaps.push(Mishap { path, word });
    }
}

/// Opens one name of a directory, whatever it is, if it is no link.
fn enter(directory: impl AsFd, name: &OsStr) -> Result<(OwnedFd, Stat), Unreadable> {
    let entry = openat(directory, name, OPEN | OFlags::NOFOLLOW, Mode::empty())?;
    let stat = fstat(&entry)?;
    Ok((entry, stat))
}

/// The names in a directory, in order, so that "the first" means the same at every search.
fn names(directory: &OwnedFd) -> impl Iterator<Item = OsString> + use<> {
    let own = |name: &CStr| !matches!(name.to_bytes(), b"." | b"..");
    let entries = Dir::read_from(directory).into_iter().flatten().flatten();
    let mut names: Vec<OsString> = entries
        .filter(|entry| own(entry.file_name()))
        .map(|entry| OsString::from_vec(entry.file_name().to_bytes().to_vec()))
        .take(ENTRIES)
        .collect();
    names.sort_unstable();
    names.into_iter()
}

/// The names in a directory that may be regions or directories of containers: those of which a region's second name tells
/// that they are missing are given back first.
fn regions(directory: &OwnedFd) -> impl Iterator<Item = OsString> + use<> {
    let mut all: Vec<OsString> = names(directory).collect();
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
    all.into_iter()
}

/// Makes `first` name the region that living processes hold under its `second` name. True if it names it now and did not
/// before.
fn restore(directory: &OwnedFd, first: &OsStr, second: &OsStr) -> bool {
    let Ok((kept, kept_stat)) = enter(directory, second) else { return false };
    if !is(&kept_stat, FileType::RegularFile) || !is_held(&kept) {
        return false;
    }
    match enter(directory, first) {
        Ok((_, stat)) if (stat.st_dev, stat.st_ino) == (kept_stat.st_dev, kept_stat.st_ino) => return false,
        Ok((other, _)) => {
            let other = Descriptor::from_raw(other.into_raw_fd());
            if !is_spare(&other) || unlinkat(directory, first, AtFlags::empty()).is_err() {
                return false;
            }
        }
        Err(_) => {}
    }
    linkat(directory, second, directory, first, AtFlags::empty()).is_ok()
}

/// Whether living processes hold the region in a file.
fn is_held(file: &OwnedFd) -> bool {
    let file = ManuallyDrop::new(Descriptor::from_raw(file.as_raw_fd()));
    living(&file).is_ok_and(|holder| holder.is_some())
}

fn is(stat: &Stat, kind: FileType) -> bool {
    FileType::from_raw_mode(stat.st_mode) == kind
}

fn is_cache(name: &OsStr) -> bool {
    name.as_bytes().ends_with(b".cache")
}

fn stem(name: &OsStr) -> String {
    let name = name.to_string_lossy();
    name.strip_suffix(".cache").unwrap_or(&name).to_owned()
}
