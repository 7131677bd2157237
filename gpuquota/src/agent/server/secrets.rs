//! Files with secrets: read again when they change; one that became wrong is told once, and the last right one holds.

use crate::error::Error;
use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock};
use subtle::ConstantTimeEq;
use tracing::{info, warn};

/// Longer tokens are refused.
const LONGEST: usize = 4096;

/// What tells that a file is another one than before.
type Stamp = Option<(u64, u64, i64, i64, u64)>;

/// Files, and when they were read.
pub struct Watched {
    paths: Vec<PathBuf>,
    stamps: Mutex<Vec<Stamp>>,
}

impl Watched {
    pub fn new(paths: &[&Path]) -> Self {
        let paths: Vec<PathBuf> = paths.iter().map(|path| path.to_path_buf()).collect();
        Self { stamps: Mutex::new(paths.iter().map(|path| stamp(path)).collect()), paths }
    }

    /// Whether any of them has changed since this was asked last.
    pub fn changed(&self) -> bool {
        let now: Vec<Stamp> = self.paths.iter().map(|path| stamp(path)).collect();
        let mut before: MutexGuard<'_, _> = self.stamps.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = *before != now;
        *before = now;
        changed
    }
}

fn stamp(path: &Path) -> Stamp {
    let of = |file: Metadata| (file.dev(), file.ino(), file.mtime(), file.mtime_nsec(), file.size());
    std::fs::metadata(path).ok().map(of)
}

/// The bearer token.
pub struct Token {
    path: PathBuf,
    watched: Watched,
    token: RwLock<Vec<u8>>,
}

impl Token {
    pub fn read(path: &Path) -> Result<Self, Error> {
        let watched = Watched::new(&[path]);
        let token =
            read(path).map_err(|why| Error::Asked(format!("token-file {}: {why}", path.display())))?;
        Ok(Self { path: path.to_owned(), watched, token: RwLock::new(token) })
    }

    /// Reads the file again if it has changed.
    pub fn reload(&self) {
        if !self.watched.changed() {
            return;
        }
        match read(&self.path) {
            Ok(token) => {
                *self.token.write().unwrap_or_else(PoisonError::into_inner) = token;
                info!("the token is read again");
            }
            Err(why) => warn!("the token of before holds: {}: {why}", self.path.display()),
        }
    }

    /// Whether a header `Authorization` brings it. The time that this takes tells nothing of the token but its length.
    pub fn is_in(&self, authorization: &[u8]) -> bool {
        let (scheme, given) = authorization.split_at_checked("Bearer ".len()).unwrap_or((&[], &[]));
        let token = self.token.read().unwrap_or_else(PoisonError::into_inner);
        scheme.eq_ignore_ascii_case(b"Bearer ") && bool::from(given.ct_eq(&token))
    }
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let text = std::fs::read(path)?;
    let token = text.trim_ascii();
    if token.is_empty() || token.len() > LONGEST || !token.iter().all(u8::is_ascii_graphic) {
        return Err(io::Error::other(format!("a token is one word of up to {LONGEST} printable characters")));
    }
    Ok(token.to_vec())
}
