//! What was changed, as a file that outlives us.

use super::state::{State, digest};
use crate::error::Error;
use serde::{Deserialize, Serialize};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// All changes of one set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// In the order in which they were made.
    pub entries: Vec<Entry>,
    /// Directories that were made for them.
    pub directories: Vec<PathBuf>,
}

/// One path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Absolute, below the root.
    pub path: PathBuf,
    /// The SHA-256 of what was put there.
    pub installed: String,
    /// The line that was added, where the file is not all ours.
    pub line: Option<String>,
    /// What was there before.
    pub was: Was,
}

impl Entry {
    /// Whether it still is what we made of it.
    pub fn holds(&self, now: &State) -> bool {
        match (&self.line, now) {
            (Some(line), State::File { .. }) => now.without(line, false) != *now,
            _ => now.digest() == self.installed,
        }
    }
}

/// What was at a path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Was {
    /// Nothing.
    Nothing,
    /// A file, whose bytes are in the store.
    File {
        /// Its SHA-256, which is its name in the store.
        digest: String,
        /// Its permissions.
        mode: u32,
        /// User and group.
        owner: Option<(u32, u32)>,
    },
    /// A symbolic link.
    Link(PathBuf),
}

impl Was {
    /// That of a state.
    pub fn of(state: &State) -> Self {
        match state {
            State::Nothing => Self::Nothing,
            State::Link(target) => Self::Link(target.clone()),
            State::File { content, mode, owner } => {
                Self::File { digest: digest(content), mode: *mode, owner: *owner }
            }
        }
    }

    /// Whether it is that still or again.
    pub fn is(&self, state: &State) -> bool {
        match (self, state) {
            (Self::Nothing, State::Nothing) => true,
            (Self::Link(was), State::Link(is)) => was == is,
            (Self::File { digest: was, .. }, State::File { content, .. }) => *was == digest(content),
            _ => false,
        }
    }

    /// The state, its bytes from the store.
    pub fn state(&self, store: &Path) -> Result<State, Error> {
        match self {
            Self::Nothing => Ok(State::Nothing),
            Self::Link(target) => Ok(State::Link(target.clone())),
            Self::File { digest: name, mode, owner } => {
                let path = store.join(name);
                let content = fs::read(&path)
                    .map_err(Error::system(format!("read what was replaced, {}", path.display())))?;
                if digest(&content) != *name {
                    return Err(Error::Asked(format!(
                        "{}: its bytes are not those that were replaced. Put the old file back by hand",
                        path.display()
                    )));
                }
                Ok(State::File { content, mode: *mode, owner: *owner })
            }
        }
    }
}

impl Record {
    /// Whether it names this file of the store.
    pub fn needs(&self, file: &Path) -> bool {
        let names = |was: &Was| matches!(was, Was::File { digest, .. } if file.ends_with(digest));
        self.entries.iter().any(|entry| names(&entry.was))
    }

    /// The record in a file.
    pub fn read(path: &Path) -> Result<Option<Self>, Error> {
        let text = match fs::read(path) {
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Ok(None);
            }
            text => text.map_err(Error::system(format!("read {}", path.display())))?,
        };
        let record = serde_json::from_slice(&text).map_err(|error| {
            Error::Asked(format!(
                "{}: it is no record of gpuquota install ({error}). Move it away, and put back by hand what it names",
                path.display()
            ))
        })?;
        Ok(Some(record))
    }

    /// The file's text.
    pub fn json(&self) -> Vec<u8> {
        let mut text = serde_json::to_vec_pretty(self).expect("plain data has a JSON form");
        text.push(b'\n');
        text
    }
}
