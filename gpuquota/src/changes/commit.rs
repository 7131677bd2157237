//! All of several files, or none of them.

use super::disk::Disk;
use super::state::State;
use crate::error::Error;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

/// One path, from what is there to what shall be.
#[derive(Clone, Debug)]
pub struct Step {
    /// The path.
    pub real: PathBuf,
    /// What is there.
    pub before: State,
    /// What shall be there.
    pub after: State,
    /// Who wants it, for a message.
    pub origin: String,
}

/// What the system refused at a path, for `map_err`: what to do about it is said where that is known.
pub fn refused(path: &Path, origin: &str) -> impl FnOnce(io::Error) -> Error {
    let (path, origin) = (path.display().to_string(), origin.to_owned());
    move |source| {
        let next = match source.kind() {
            io::ErrorKind::ReadOnlyFilesystem => {
                "Make the file system writable, or name another folder by --engine-dir"
            }
            io::ErrorKind::PermissionDenied => "Run this as root",
            _ => return Error::System { doing: format!("write {path} ({origin})"), source },
        };
        Error::Asked(format!("{path} ({origin}) cannot be written: {source}. {next}"))
    }
}

/// Where a file lies before it is put in its place.
pub fn beside(path: &Path) -> PathBuf {
    let mut name = OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(".gpuquota-new");
    path.with_file_name(name)
}

/// Takes all steps, or none: first every file is written beside its place, then each is renamed, and at the first failure
/// those that were renamed are put back.
pub fn commit(disk: &Disk, steps: &[&Step]) -> Result<(), Error> {
    let steps: Vec<&Step> = steps.iter().copied().filter(|step| step.before != step.after).collect();
    let mut staged = Vec::new();
    let mut outcome = Ok(());
    for step in &steps {
        staged.push(beside(&step.real));
        outcome = stage(disk, &step.real, &step.after).map_err(refused(&step.real, &step.origin));
        if outcome.is_err() {
            break;
        }
    }
    if outcome.is_ok() {
        for (done, step) in steps.iter().enumerate() {
            outcome = settle(disk, &step.real, &step.after).map_err(refused(&step.real, &step.origin));
            if outcome.is_err() {
                for step in steps[..done].iter().rev() {
                    let back = stage(disk, &step.real, &step.before);
                    let _ = back.and_then(|()| settle(disk, &step.real, &step.before));
                }
                break;
            }
        }
    }
    if outcome.is_err() {
        for path in staged {
            let _ = disk.remove(&path);
        }
    }
    outcome
}

fn stage(disk: &Disk, path: &Path, state: &State) -> io::Result<()> {
    match state {
        State::Nothing => Ok(()),
        State::File { content, mode, owner } => disk.write(&beside(path), content, *mode, *owner),
        State::Link(target) => disk.link(target, &beside(path)),
    }
}

fn settle(disk: &Disk, path: &Path, state: &State) -> io::Result<()> {
    match state {
        State::Nothing => match disk.remove(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            outcome => outcome,
        },
        _ => disk.rename(&beside(path), path),
    }
}
