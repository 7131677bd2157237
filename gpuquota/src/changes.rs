//! Files of a machine that are changed together: all of them or none, and back again by one command.
//!
//! Every new file is written whole beside its place and put there by a rename, so a program that has the old one open or
//! mapped goes on with it. What was there is kept in a store by the SHA-256 of its bytes. A record is written before the first
//! rename; with it the change can be taken back after a crash at any moment.
//!
//! - [`disk`]: each single write, so that a test can let it fail; [`root`]: where a path lies below `--root`;
//! - [`state`]: what lies at a path; [`record`]: what was changed; [`mod@commit`]: all renames or none.

mod commit;
mod disk;
mod record;
mod root;
mod state;
#[cfg(test)]
mod tests;

pub use disk::Disk;
pub use root::Root;
pub use state::{Content, State, digest};

use crate::error::Error;
use commit::{Step, commit};
use record::{Entry, Record, Was};
use rustix::fs::FlockOperation;
use std::fs::File;
use std::path::{Path, PathBuf};

/// Where records and stores lie, below the root.
pub const HOME: &str = "/var/lib/gpuquota";

/// A path and what it shall hold.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Absolute, below the root.
    pub path: PathBuf,
    /// What it shall hold.
    pub content: Content,
    /// Who wants it there, for a message.
    pub origin: String,
}

/// What became of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was not there before.
    Made,
    /// It was changed.
    Changed,
    /// It is no longer there.
    Removed,
    /// It was so already.
    Unchanged,
    /// Somebody else has changed it since, and it was left alone.
    Foreign,
}

impl Outcome {
    /// One word for it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Made => "made",
            Self::Changed => "changed",
            Self::Removed => "removed",
            Self::Unchanged => "unchanged",
            Self::Foreign => "left alone: somebody else has changed it",
        }
    }
}

/// What one call has made so far, to be removed where it fails.
#[derive(Default)]
struct Made {
    directories: Vec<PathBuf>,
    files: Vec<PathBuf>,
}

/// A path and what became of it.
pub type Told = (PathBuf, Outcome);

/// One set of files that come and go together.
pub struct Changes<'a> {
    root: &'a Root,
    disk: &'a Disk,
    name: &'static str,
}

impl<'a> Changes<'a> {
    /// The set of that name. Each set has its own record.
    pub fn new(root: &'a Root, disk: &'a Disk, name: &'static str) -> Self {
        Self { root, disk, name }
    }

    fn home(&self) -> PathBuf {
        self.root.real(Path::new(HOME))
    }

    fn record_file(&self) -> PathBuf {
        self.home().join(format!("{}.json", self.name))
    }

    /// The record of this set, if there is one.
    fn record(&self) -> Result<Option<Record>, Error> {
        Record::read(&self.record_file())
    }

    /// Whether something of this set is in place.
    pub fn is_there(&self) -> Result<bool, Error> {
        Ok(self.record()?.is_some())
    }

    /// What the record says was put where: the path, the SHA-256 of a whole file, and what lies there now.
    pub fn placed(&self) -> Result<Vec<(PathBuf, Option<String>, State)>, Error> {
        let entries = self.record()?.map(|record| record.entries).unwrap_or_default();
        let of = |entry: Entry| {
            let now = State::of(&self.root.real(&entry.path))?;
            let whole = entry.line.is_none().then_some(entry.installed);
            Ok((entry.path, whole, now))
        };
        entries.into_iter().map(of).collect()
    }

    /// Whether what lies at a path is what this set put there.
    pub fn holds(&self, path: &Path) -> Result<bool, Error> {
        let record = self.record()?.unwrap_or_default();
        let Some(entry) = record.entries.iter().find(|entry| entry.path == path) else { return Ok(false) };
        let now = State::of(&self.root.real(path))?;
        Ok(entry.holds(&now))
    }

    /// Brings every path to what is wanted, in this order. What an earlier call put at other paths is taken back.
    pub fn apply(&self, wanted: &[Wanted]) -> Result<Vec<Told>, Error> {
        let home = self.home();
        let origin = wanted.first().map_or_else(String::new, |wanted| wanted.origin.clone());
        let mut made = Made::default();
        let outcome = self.directory(&home, &origin, &mut made).and_then(|()| {
            let _lock = self.lock()?;
            self.apply_locked(wanted, &mut made)
        });
        if outcome.is_err() {
            // Where even the record could not be taken back, it needs them.
            let needed = self.record().ok().flatten().unwrap_or_default();
            for file in made.files.iter().filter(|file| !needed.needs(file)) {
                let _ = self.disk.remove(file);
            }
            self.forget_directories(&made.directories);
        }
        outcome
    }

    fn apply_locked(&self, wanted: &[Wanted], made: &mut Made) -> Result<Vec<Told>, Error> {
        let old = self.record()?.unwrap_or_default();
        let mut new = Record { entries: Vec::new(), directories: old.directories.clone() };
        let mut steps = Vec::new();
        for entry in old.entries.iter().filter(|entry| wanted.iter().all(|w| w.path != entry.path)).rev() {
            steps.push((entry.path.clone(), self.back(entry)?));
        }
        for wanted in wanted {
            let real = self.root.real(&wanted.path);
            let before = State::of(&real)?;
            let after = before.with(&wanted.content, &real)?;
            let known = old.entries.iter().find(|entry| entry.path == wanted.path);
            // What lay there before the first of our calls.
            let was = match known {
                Some(entry) if entry.holds(&before) || entry.was.is(&before) => entry.was.clone(),
                _ => Was::of(&before),
            };
            if let State::File { content, .. } = &before
                && matches!(&was, Was::File { digest: wants, .. } if *wants == digest(content))
            {
                let store = home_store(&self.home());
                let file = store.join(digest(content));
                self.directory(&store, &wanted.origin, made)?;
                if !file.exists() {
                    made.files.push(file.clone());
                }
                self.write_new(&file, content, &wanted.origin)?;
            }
            if let Some(parent) = real.parent() {
                self.directory(parent, &wanted.origin, made)?;
            }
            let line = match &wanted.content {
                Content::Line(line) => Some(line.clone()),
                Content::File(..) => None,
            };
            new.entries.push(Entry { path: wanted.path.clone(), installed: after.digest(), line, was });
            steps.push((
                wanted.path.clone(),
                Some(Step { real, before, after, origin: wanted.origin.clone() }),
            ));
        }
        new.directories.extend(made.directories.iter().cloned());
        let work: Vec<&Step> = steps.iter().filter_map(|(_, step)| step.as_ref()).collect();
        if new == old && work.iter().all(|step| step.before == step.after) {
            return Ok(told(&steps));
        }
        self.write_record(&new)?;
        if let Err(error) = commit(self.disk, &work) {
            // Best effort: the record of what is there again, or, if even that fails, one that undoes nothing wrong.
            let _ = if old.entries.is_empty() { self.remove_record() } else { self.write_record(&old) };
            return Err(error);
        }
        Ok(told(&steps))
    }

    /// Takes everything back, the last first.
    pub fn undo(&self) -> Result<Vec<Told>, Error> {
        let Some(_) = self.record()? else { return Ok(Vec::new()) };
        let lock = self.lock()?;
        let record = self.record()?.unwrap_or_default();
        let mut steps = Vec::new();
        for entry in record.entries.iter().rev() {
            steps.push((entry.path.clone(), self.back(entry)?));
        }
        let work: Vec<&Step> = steps.iter().filter_map(|(_, step)| step.as_ref()).collect();
        commit(self.disk, &work)?;
        self.remove_record()?;
        for entry in &record.entries {
            if let Was::File { digest, .. } = &entry.was {
                let _ = self.disk.remove(&home_store(&self.home()).join(digest));
            }
            // What a crash may have left.
            let _ = std::fs::remove_file(commit::beside(&self.root.real(&entry.path)));
        }
        drop(lock);
        let _ = std::fs::remove_file(self.home().join("lock"));
        self.forget_directories(&record.directories);
        Ok(told(&steps))
    }

    /// The step that brings a path back to what it was, if it still is what we made of it.
    fn back(&self, entry: &Entry) -> Result<Option<Step>, Error> {
        let real = self.root.real(&entry.path);
        let before = State::of(&real)?;
        let origin = format!("the record {}", self.record_file().display());
        let step = |after| Some(Step { real: real.clone(), before: before.clone(), after, origin });
        if entry.was.is(&before) {
            return Ok(step(before.clone()));
        }
        if let Some(line) = &entry.line {
            return Ok(step(before.without(line, matches!(entry.was, Was::Nothing))));
        }
        if !entry.holds(&before) {
            return Ok(None);
        }
        Ok(step(entry.was.state(&home_store(&self.home()))?))
    }

    fn lock(&self) -> Result<File, Error> {
        let path = self.home().join("lock");
        let doing = format!("lock {}", path.display());
        let file = File::create(&path).map_err(Error::system(doing.clone()))?;
        rustix::fs::flock(&file, FlockOperation::LockExclusive).map_err(Error::system(doing))?;
        Ok(file)
    }

    fn write_record(&self, record: &Record) -> Result<(), Error> {
        let path = self.record_file();
        self.write_new(&path, &record.json(), &format!("the record {}", path.display()))
    }

    fn remove_record(&self) -> Result<(), Error> {
        self.disk.remove(&self.record_file()).map_err(Error::system("remove the record"))
    }

    fn write_new(&self, path: &Path, content: &[u8], origin: &str) -> Result<(), Error> {
        let after = State::File { content: content.to_vec(), mode: 0o600, owner: None };
        let step =
            Step { real: path.to_path_buf(), before: State::of(path)?, after, origin: origin.to_owned() };
        commit(self.disk, &[&step])
    }

    /// Makes a directory and those above it, and notes those that were not there.
    fn directory(&self, path: &Path, origin: &str, made: &mut Made) -> Result<(), Error> {
        let missing: Vec<&Path> = path.ancestors().take_while(|above| !above.exists()).collect();
        for above in missing.into_iter().rev() {
            self.disk.make_directory(above).map_err(commit::refused(above, origin))?;
            made.directories.push(above.to_path_buf());
        }
        Ok(())
    }

    /// Removes directories that we made, if nothing is left in them.
    fn forget_directories(&self, made: &[PathBuf]) {
        for path in made.iter().rev() {
            if path.starts_with(self.home()) {
                let _ = std::fs::remove_file(self.home().join("lock"));
            }
            let _ = self.disk.remove_directory(path);
        }
    }
}

/// Says what became of each path.
pub fn tell(told: &[Told]) {
    for (path, outcome) in told {
        println!("{}: {}", path.display(), outcome.word());
    }
}

fn home_store(home: &Path) -> PathBuf {
    home.join("store")
}

fn told(steps: &[(PathBuf, Option<Step>)]) -> Vec<Told> {
    let outcome = |step: &Option<Step>| match step {
        None => Outcome::Foreign,
        Some(step) if step.before == step.after => Outcome::Unchanged,
        Some(Step { before: State::Nothing, .. }) => Outcome::Made,
        Some(Step { after: State::Nothing, .. }) => Outcome::Removed,
        Some(_) => Outcome::Changed,
    };
    steps.iter().map(|(path, step)| (path.clone(), outcome(step))).collect()
}
