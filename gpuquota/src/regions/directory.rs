//! One directory that is searched, and what was seen in it.
//!
//! It is read again when the kernel says that a name in it has come or gone, and now and then in any case; never so often that
//! reading it takes more than a hundredth of the time, whatever its owner does.

use super::look::{Seen, names, regions, restore};
use super::names::plain;
use super::place::{Kind, OF_OTHERS, OF_USERS};
use super::read::{Sparse, Still};
use super::unreadable::Unreadable;
use super::watch::Watcher;
use gpuquota_region::names::SECOND;
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How often a directory is read whose changes the kernel tells; and where it does not.
const RESCAN: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_secs(2);
/// Reading it takes at most so small a part of the time. That is against tenants, who may change theirs without end; in a
/// directory in which nobody but root or this user can make names, a new one never waits for longer than this.
const COST: u32 = 100;
const LONGEST_REST: Duration = Duration::from_secs(1);
/// How long a region is taken for one without another look.
const GOOD: Duration = Duration::from_secs(5);
/// Files of one container's directory that may be regions, and directories of one user.
const FILES: usize = 16;
const CONTAINERS_OF_USER: usize = 256;

/// Who made a region, and whose work and memory is bounded together.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Owner {
    /// One container: the directory, or the file where it has none of its own.
    Container(u64, u64),
    /// A user of the node who is not root.
    User(u32),
}

/// A file that may be a region.
pub struct Entry {
    pub path: PathBuf,
    /// The container's name, where it is one of a container.
    pub container: Arc<str>,
    pub identity: (u64, u64),
    pub owner: Owner,
    /// It itself, where it is a regular file that could be opened.
    pub file: Result<File, &'static str>,
    /// It was a region, and is not looked at again before this.
    pub good_until: Option<Instant>,
    /// When its dead may be settled again, and how often that was in vain.
    pub settle_at: Option<Instant>,
    pub vain: u32,
    /// Whether the last search took it, so that it is within all bounds.
    pub is_taken: bool,
    /// Its devices as they were, where whoever gives leases only wants to know when that changes.
    pub still: Option<Still>,
}

/// A directory.
pub struct Directory {
    pub kind: Kind,
    pub path: PathBuf,
    pub identity: (u64, u64),
    owner: Option<u32>,
    /// The number under which the kernel tells of it.
    watch: Option<i32>,
    /// Whether something in it has changed since it was read.
    is_stale: bool,
    /// When it is read again in any case, and before when it is not.
    due: Instant,
    rests: Instant,
    changed: (i64, i64),
    pub files: BTreeMap<OsString, Entry>,
    pub directories: BTreeMap<OsString, Self>,
    /// Which file of a container's directory was its region last.
    pub chosen: Option<(u64, u64)>,
    /// Why it cannot be read, or only in part.
    pub trouble: Option<&'static str>,
}

impl Directory {
    pub fn new(kind: Kind, path: PathBuf, identity: (u64, u64), owner: Option<u32>) -> Self {
        let now = Instant::now();
        Self {
            kind,
            path,
            identity,
            owner,
            watch: None,
            is_stale: true,
            due: now,
            rests: now,
            changed: (0, 0),
            files: BTreeMap::new(),
            directories: BTreeMap::new(),
            chosen: None,
            trouble: None,
        }
    }

    /// Reads again what has changed. `open` looks at the directory itself.
    pub fn refresh(&mut self, open: &dyn Fn() -> Result<Seen, Unreadable>, watcher: &mut Watcher) {
        let now = Instant::now();
        self.is_stale |= self.watch.is_some_and(|watch| watcher.has_changed(watch));
        if now >= self.due || self.is_stale && now >= self.rests {
            let mut is_tenants = true;
            match open().and_then(|seen| Ok((seen.open_directory()?, seen))) {
                Ok((directory, seen)) => {
                    is_tenants = self.owner.is_some() || !seen.is_ours_alone();
                    self.read(&directory, &seen, watcher);
                }
                Err(why) => {
                    self.forget(watcher);
                    self.trouble = Some(why.word());
                    self.due = now + POLL;
                }
            }
            let rest = now.elapsed() * COST;
            self.rests = now + if is_tenants { rest } else { rest.min(LONGEST_REST) };
            self.due = self.due.max(self.rests);
        }
        for (name, directory) in &mut self.directories {
            let inside = || Ok(Seen::at(open()?.open_directory()?, name)?);
            directory.refresh(&inside, watcher);
        }
    }

    fn read(&mut self, directory: &OwnedFd, seen: &Seen, watcher: &mut Watcher) {
        if self.identity != seen.identity() {
            self.forget(watcher);
            self.identity = seen.identity();
        }
        // Names come and go all the time where everybody has files.
        let is_crowded = matches!(self.kind, Kind::Users | Kind::File);
        if self.watch.is_none() && !is_crowded {
            self.watch = watcher.add(directory);
        }
        self.is_stale = false;
        self.due = Instant::now() + if self.watch.is_some() { RESCAN } else { POLL };
        if is_crowded && self.changed == seen.changed() && self.kind == Kind::Users {
            return;
        }
        self.changed = seen.changed();
        let (names, is_all) = self.names(directory);
        self.trouble = (!is_all).then_some("too_many_names");
        let mut old_files = std::mem::take(&mut self.files);
        let mut old_directories = std::mem::take(&mut self.directories);
        for name in names {
            // What is gone already is not there.
            let Ok(seen) = Seen::at(directory, &name) else { continue };
            if seen.is_directory() && self.kind != Kind::Container {
                self.take_directory(name, &seen, &mut old_directories);
            } else if !seen.is_link() && self.may_be_region(name.as_bytes()) {
                self.take_file(name, &seen, &mut old_files);
            }
        }
        old_directories.into_values().for_each(|mut gone| gone.forget(watcher));
    }

    fn names(&self, directory: &OwnedFd) -> (Vec<OsString>, bool) {
        match self.kind {
            Kind::Users => names(directory, |name| name.starts_with(b"gpuquota-")),
            Kind::File => {
                let name = self.path.file_name().unwrap_or_default().to_owned();
                let [before, behind] = SECOND.map(OsStr::from_bytes);
                restore(directory, &name, &[before, &name, behind].into_iter().collect::<OsString>());
                (vec![name], true)
            }
            Kind::Container => {
                let (mut names, is_all) = regions(directory, |name| name.ends_with(b".cache"));
                let fit = names.len() <= FILES;
                names.truncate(FILES);
                (names, is_all && fit)
            }
            Kind::Tree | Kind::UserTree => regions(directory, |_| true),
        }
    }

    fn may_be_region(&self, name: &[u8]) -> bool {
        match self.kind {
            Kind::Tree | Kind::UserTree => name.ends_with(b".cache") || name.contains(&b'_'),
            Kind::Container | Kind::File => true,
            Kind::Users => false,
        }
    }

    fn take_directory(&mut self, name: OsString, seen: &Seen, old: &mut BTreeMap<OsString, Self>) {
        let user = |name: &OsStr| name.to_str()?.strip_prefix("gpuquota-")?.parse::<u32>().ok();
        let (kind, owner) = match self.kind {
            Kind::Users if user(&name) == Some(seen.owner()) => (Kind::UserTree, Some(seen.owner())),
            Kind::UserTree if self.directories.len() >= CONTAINERS_OF_USER => {
                self.trouble = Some("too_many_names");
                return;
            }
            Kind::Tree | Kind::UserTree => (Kind::Container, self.owner),
            Kind::Users | Kind::Container | Kind::File => return,
        };
        let known = old.remove(&name).filter(|known| known.identity == seen.identity());
        let new = || Self::new(kind, self.path.join(&name), seen.identity(), owner);
        self.directories.insert(name.clone(), known.unwrap_or_else(new));
    }

    fn take_file(&mut self, name: OsString, seen: &Seen, old: &mut BTreeMap<OsString, Entry>) {
        let known = old.remove(&name).filter(|known| known.identity == seen.identity() && known.file.is_ok());
        let owner = match (self.owner, self.kind) {
            (Some(user), _) if user != 0 => Owner::User(user),
            (_, Kind::Container) => Owner::Container(self.identity.0, self.identity.1),
            _ if seen.owner() != 0 => Owner::User(seen.owner()),
            _ => Owner::Container(seen.identity().0, seen.identity().1),
        };
        let path = if self.kind == Kind::File { self.path.clone() } else { self.path.join(&name) };
        let container = self.container(&name);
        let new = || Entry {
            path,
            container: container.into(),
            identity: seen.identity(),
            owner,
            file: seen.open().map(File::from).map_err(|why| why.word()),
            good_until: None,
            settle_at: None,
            vain: 0,
            is_taken: false,
            still: None,
        };
        self.files.insert(name, known.unwrap_or_else(new));
    }

    /// Forgets all that was seen in it.
    pub fn forget(&mut self, watcher: &mut Watcher) {
        if let Some(watch) = self.watch.take() {
            watcher.remove(watch);
        }
        self.files.clear();
        std::mem::take(&mut self.directories).into_values().for_each(|mut gone| gone.forget(watcher));
    }

    /// Shows each region that the last search took.
    pub fn each_taken(&mut self, look: &mut dyn FnMut(&mut Entry)) {
        self.files.values_mut().filter(|entry| entry.is_taken).for_each(&mut *look);
        self.directories.values_mut().for_each(|inner| inner.each_taken(look));
    }

    /// The container of a file in it, by its name.
    fn container(&self, name: &OsStr) -> String {
        if self.kind == Kind::Container {
            return plain(self.path.file_name().unwrap_or_default());
        }
        let name = name.as_bytes();
        plain(OsStr::from_bytes(name.strip_suffix(b".cache").unwrap_or(name)))
    }
}

/// The agent makes an empty file of this name for a container that gets its quota by NRI.
pub const PREPARED: &str = "region.cache";
/// An empty file that this program has made becomes a region when the first process of its container or user wants one: no
/// fault that is told.
pub const UNMADE: &str = "unmade";

fn is_unmade(file: &File, path: &Path) -> bool {
    let of_user =
        || path.parent().is_some_and(|folder| [OF_USERS, OF_OTHERS].map(Path::new).contains(&folder));
    (path.ends_with(PREPARED) || of_user()) && file.metadata().is_ok_and(|found| found.len() == 0)
}

impl Entry {
    /// Why it is no region; `None`: it is one, or was a moment ago.
    pub fn fault(&mut self, room: &mut Sparse, now: Instant) -> Option<&'static str> {
        if self.good_until.is_some_and(|until| now < until) {
            return None;
        }
        let fault = match &self.file {
            Ok(file) => {
                let word = room.check(file).err().map(|why| why.word());
                word.map(|word| if is_unmade(file, &self.path) { UNMADE } else { word })
            }
            Err(word) => Some(*word),
        };
        self.good_until = fault.is_none().then(|| now + GOOD);
        fault
    }
}

/// The path of a place's directory.
pub fn directory_of(kind: Kind, path: &Path) -> &Path {
    match kind {
        Kind::File => path.parent().unwrap_or(path),
        _ => path,
    }
}
