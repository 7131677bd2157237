//! The regions of the node, as they come and go.
//!
//! Directories may belong to tenants. Each step looks at one name that the directory itself gave, without following links, so
//! no name can lead out of it; and there are limits to how much anybody can make us read.

use super::directory::{Directory, Entry, Owner, UNMADE, directory_of};
use super::look::{Seen, is_held};
use super::names::shown;
use super::owners::owners;
use super::place::{Kind, Places};
use super::read::Sparse;
use super::reap::{has_dead, reap};
use super::report::Region;
use super::watch::Watcher;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::read_dir;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Regions of one node that are read; and of one user who is not root. More are a mishap.
const REGIONS: usize = 1024;
const REGIONS_OF_USER: usize = 64;
/// How long one search reads; what is left then is a mishap. The places that nobody but root writes come first.
const BUDGET: Duration = Duration::from_secs(5);
/// What is wrong at a time, as far as it is remembered.
const TROUBLES: usize = 16 << 10;
/// How long the dead of a region that could not be settled are left, at first and at most.
const VAIN: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// A region that was found.
#[derive(Debug)]
pub struct Found {
    /// The container: `<podUID>_<container>` where an engine named the place so, else the file's name. No two are the same, and
    /// no character of it is one that a terminal would obey.
    pub container: String,
    /// Where it is.
    pub path: PathBuf,
    /// Which file: its file system and its number there.
    pub inode: (u64, u64),
    /// The processes that hold it, by the kernel's word, as they are called here.
    pub owners: Vec<u32>,
    /// What it says.
    pub region: Region,
}

/// What whoever gives leases has of a region.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Has {
    /// Nothing yet.
    Nothing,
    /// Its file.
    File,
    /// It gives it no leases as long as its devices do nothing.
    Asleep,
}

/// A region that a living process holds, for whoever gives leases.
pub struct Living {
    /// Whose it is.
    pub owner: Owner,
    /// Which file: its file system and its number there.
    pub inode: (u64, u64),
    /// It itself, open for reading, where that was asked for.
    pub file: Option<OwnedFd>,
    /// What it says of its devices.
    pub region: Region,
}

/// The regions that living processes hold.
#[derive(Default)]
pub struct AllLiving {
    /// Those that were read.
    pub read: Vec<Living>,
    /// Those that are asleep and of which nothing has changed; whether anybody still holds them was not asked.
    pub still: Vec<(u64, u64)>,
}

/// A file that should have been a region and was not taken, or a directory that could not be read.
#[derive(Clone, Debug)]
pub struct Mishap {
    /// Where it is.
    pub path: PathBuf,
    /// One word for a metric's label.
    pub word: &'static str,
}

/// What was found so far, and how to know of changes.
pub struct Index(Mutex<State>);

struct State {
    places: Places,
    roots: Vec<Directory>,
    watcher: Watcher,
    room: Sparse,
    /// What is wrong now, by path; and what was not told yet.
    troubles: BTreeMap<PathBuf, &'static str>,
    untold: Vec<Mishap>,
    /// Whether those that are asleep were settled the last time.
    of_all: bool,
}

impl Index {
    /// For a program that goes on.
    pub fn new(places: Places) -> Self {
        Self::with(places, true)
    }

    /// Looks once.
    pub fn once(places: Places) -> (Vec<Found>, Vec<Mishap>) {
        Self::with(places, false).search()
    }

    fn with(places: Places, by_events: bool) -> Self {
        let root = |place: &super::place::Place| Directory::new(place.kind, place.path.clone(), (0, 0), None);
        let roots = places.0.iter().map(root).collect();
        let watcher = Watcher::new(by_events);
        let (troubles, untold) = (BTreeMap::new(), Vec::new());
        Self(Mutex::new(State {
            places,
            roots,
            watcher,
            room: Sparse::default(),
            troubles,
            untold,
            of_all: false,
        }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads every region; and what went wrong since the last time, each once: for the one who counts it.
    pub fn search(&self) -> (Vec<Found>, Vec<Mishap>) {
        let mut state = self.state();
        (Self::read_all(&mut state), std::mem::take(&mut state.untold))
    }

    /// Reads every region, and leaves what went wrong to [`Self::search`].
    pub fn regions(&self) -> Vec<Found> {
        Self::read_all(&mut self.state())
    }

    /// Reads every region. A file or a container's name that turns up twice counts once, the first time.
    fn read_all(state: &mut State) -> Vec<Found> {
        let until = Instant::now() + BUDGET;
        let mut found = Vec::new();
        let mut failed = Vec::new();
        state.each(|entry, room| {
            if Instant::now() > until {
                return failed.push((entry.path.clone(), "out_of_time"));
            }
            let Ok(file) = &entry.file else { return };
            let read = match room.region(file) {
                Ok(region) if region.processes.iter().any(|process| !process.alive) && settle(entry) => {
                    entry.file.as_ref().map_or(Ok(region), |file| room.region(file))
                }
                read => read,
            };
            match read {
                Ok(region) => {
                    let (container, path) = (entry.container.to_string(), entry.path.clone());
                    let owners = entry.file.as_ref().map(owners).unwrap_or_default();
                    found.push(Found { container, path, inode: entry.identity, owners, region })
                }
                Err(why) => {
                    entry.good_until = None;
                    failed.push((entry.path.clone(), why.word()));
                }
            }
        });
        let mishaps = failed.into_iter().map(|(path, word)| Mishap { path, word });
        state.untold.extend(mishaps);
        found
    }

    /// What every region says of its devices alone; what goes wrong is left to [`Self::search`].
    pub fn devices(&self) -> Vec<Found> {
        let mut found = Vec::new();
        self.state().each(|entry, room| {
            if let Ok(file) = &entry.file
                && let Ok((region, _)) = room.devices(file)
            {
                let (container, path) = (entry.container.to_string(), entry.path.clone());
                found.push(Found { container, path, inode: entry.identity, owners: owners(file), region });
            }
        });
        found
    }

    /// The regions that living processes hold, with their devices; without their files where the caller `has` them.
    pub fn living(&self, has: impl Fn((u64, u64)) -> Has) -> AllLiving {
        let mut living = AllLiving::default();
        self.state().each(|entry, room| {
            let Ok(file) = &entry.file else { return };
            let known = has(entry.identity);
            // What has stirred was found by [`Self::settle`] a moment ago.
            if known == Has::Asleep && entry.still.is_some() {
                living.still.push(entry.identity);
                return;
            }
            let again = || if known == Has::File { Ok(None) } else { file.try_clone().map(Some) };
            entry.still = None;
            if is_held(file)
                && let Ok((region, still)) = room.devices(file)
                && let Ok(file) = again()
            {
                entry.still = (known == Has::Asleep).then_some(still);
                let file = file.map(OwnedFd::from);
                living.read.push(Living { owner: entry.owner, inode: entry.identity, file, region });
            }
        });
        living
    }

    /// Settles the dead processes of the regions that the last search took; of those that are asleep only every other time. True
    /// if devices of one that was asleep have done something.
    pub fn settle(&self) -> bool {
        let mut has_stirred = false;
        let state = &mut *self.state();
        state.of_all = !state.of_all;
        for root in &mut state.roots {
            root.each_taken(&mut |entry| {
                if state.of_all || entry.still.is_none() {
                    settle(entry);
                }
                if let (Some(still), Ok(file)) = (&entry.still, &entry.file)
                    && !still.is_so(file)
                {
                    entry.still = None;
                    has_stirred = true;
                }
            });
        }
        has_stirred
    }

    /// A directory that was asked for and cannot be read now, for people.
    pub fn missing(&self) -> Option<String> {
        let state = self.state();
        let asked = state.places.0.iter().filter(|place| place.is_asked_for).map(|place| &place.path);
        let mut troubles = asked.filter_map(|path| Some((path, read_dir(path).err()?)));
        troubles.next().map(|(path, error)| format!("{} cannot be read: {error}", shown(path)))
    }

    /// Comes back with true once nobody else is at it: a search that does not end is told by silence.
    pub fn answers(&self) -> bool {
        drop(self.state());
        true
    }
}

/// Settles the dead of a region, if there are any. True if that was done.
fn settle(entry: &mut Entry) -> bool {
    let now = Instant::now();
    let Ok(file) = &entry.file else { return false };
    if entry.settle_at.is_some_and(|at| now < at) || !has_dead(file) {
        return false;
    }
    let is_done = reap(file) && !has_dead(file);
    entry.vain = if is_done { 0 } else { entry.vain.saturating_add(1) };
    let (least, most) = VAIN;
    entry.settle_at = (!is_done).then(|| now + least.saturating_mul(1 << entry.vain.min(8)).min(most));
    is_done
}

impl State {
    /// Shows the region of every container to `look`, after a look at what has changed.
    fn each(&mut self, mut look: impl FnMut(&mut Entry, &mut Sparse)) {
        self.watcher.take_in();
        let mut troubles = BTreeMap::new();
        for (place, root) in self.places.0.iter().zip(&mut self.roots) {
            let path = directory_of(place.kind, &place.path).to_owned();
            root.refresh(&|| Ok(Seen::path(&path)?), &mut self.watcher);
            // A place that nobody asked for need not be there.
            if !place.is_asked_for && root.identity == (0, 0) {
                root.trouble = None;
            }
        }
        let mut chosen = Vec::new();
        for root in &mut self.roots {
            choose(root, &self.places, &mut self.room, &mut chosen, &mut troubles);
        }
        let (mut files, mut containers, mut users) = (HashSet::new(), HashSet::new(), HashMap::new());
        let mut taken = 0;
        for entry in chosen {
            if !files.insert(entry.identity) {
                continue;
            }
            let of_user: &mut usize = match entry.owner {
                Owner::User(_) => users.entry(entry.owner).or_insert(0),
                Owner::Container(..) => &mut 0,
            };
            *of_user += 1;
            let word = if taken >= REGIONS || *of_user > REGIONS_OF_USER {
                "too_many"
            } else if !containers.insert(Arc::clone(&entry.container)) {
                "duplicate"
            } else {
                taken += 1;
                entry.is_taken = true;
                look(entry, &mut self.room);
                continue;
            };
            troubles.insert(entry.path.clone(), word);
        }
        for (path, word) in &troubles {
            if self.troubles.get(path) != Some(word) && self.untold.len() < TROUBLES {
                self.untold.push(Mishap { path: path.clone(), word });
            }
        }
        self.troubles = troubles;
    }
}

/// Adds the region of each container in a directory, and what is wrong there.
fn choose<'d>(
    directory: &'d mut Directory,
    places: &Places,
    room: &mut Sparse,
    chosen: &mut Vec<&'d mut Entry>,
    troubles: &mut BTreeMap<PathBuf, &'static str>,
) {
    let mut tell = |path: PathBuf, word: &'static str| {
        if troubles.len() < TROUBLES {
            troubles.insert(path, word);
        }
    };
    if let Some(word) = directory.trouble {
        tell(directory.path.clone(), word);
    }
    let now = Instant::now();
    let mut regions = Vec::new();
    for entry in directory.files.values_mut() {
        entry.is_taken = false;
        match entry.fault(room, now) {
            Some(UNMADE) => {}
            Some(word) => tell(entry.path.clone(), word),
            None => regions.push(entry),
        }
    }
    if directory.kind == Kind::Container {
        let known = regions.iter().position(|entry| Some(entry.identity) == directory.chosen);
        let living: Vec<usize> = if regions.len() < 2 {
            (0..regions.len()).collect()
        } else {
            (0..regions.len()).filter(|at| regions[*at].file.as_ref().is_ok_and(is_held)).collect()
        };
        // Of several that live, the one that was there first; of several that do not, the one that did.
        let at = match living.as_slice() {
            [only] => Some(*only),
            [] => known,
            several => known.filter(|at| several.contains(at)),
        };
        if at.is_none() && !regions.is_empty() || living.len() > 1 {
            tell(directory.path.clone(), "several_regions");
        }
        let one = at.map(|at| regions.swap_remove(at));
        directory.chosen = one.as_ref().map(|entry| entry.identity);
        chosen.extend(one);
    } else {
        chosen.extend(regions);
    }
    for inner in directory.directories.values_mut() {
        // A place within another one is no container's directory there.
        if !places.0.iter().any(|place| place.path == inner.path) {
            choose(inner, places, room, chosen, troubles);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_reads_the_regions_alone_takes_no_mishap_from_the_one_who_counts_them() {
        let root = std::env::temp_dir().join(format!("gpuquota-index-{}", std::process::id()));
        std::fs::create_dir(&root).expect("a directory");
        std::fs::write(root.join("bad.cache"), b"no region").expect("a file");
        let index = Index::new(Places::only(std::slice::from_ref(&root)));
        assert!(index.regions().is_empty());
        let mishaps = index.search().1;
        std::fs::remove_dir_all(&root).expect("it is ours");
        assert_eq!(mishaps.len(), 1, "{mishaps:?}");
    }
}
