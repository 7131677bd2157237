//! Where states lie: one file each, in a folder of the user's in shared memory.

use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::{env, fs, io, process};

use cuda_shim_device::{Machine, OpenError, STATE_ENV, State, tell};

/// What goes wrong, for people.
pub type Outcome<T> = Result<T, String>;

/// A state's file; a fresh one is removed with this value.
pub struct StateFile {
    pub path: PathBuf,
    fresh: bool,
}

impl Drop for StateFile {
    fn drop(&mut self) {
        if self.fresh {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn folder() -> Outcome<PathBuf> {
    let user = fs::metadata("/proc/self").map(|own| own.uid()).unwrap_or(0);
    let folder = Path::new("/dev/shm").join(format!("cuda-sim-{user}"));
    let made = fs::DirBuilder::new().recursive(true).mode(0o755).create(&folder);
    made.map_err(|error| format!("{}: {error}", folder.display()))?;
    Ok(folder)
}

fn named(name: &str) -> Outcome<PathBuf> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.is_empty() || name.starts_with('.') || !name.chars().all(plain) {
        return Err(format!("state \"{name}\": a name is letters, digits, '-', '_' and '.'"));
    }
    Ok(folder()?.join(name))
}

/// The state to run on: the named one, made if it is not there yet, or a fresh one.
pub fn prepare(name: Option<&str>, machine: &Machine) -> Outcome<StateFile> {
    let path = match name {
        Some(name) => named(name)?,
        None => folder()?.join(format!("fresh-{}", process::id())),
    };
    // Made beside its place and linked there: nobody ever sees half of one.
    let draft = path.with_file_name(format!(".draft-{}", process::id()));
    let _ = fs::remove_file(&draft);
    State::create(&draft, machine).map_err(|error| format!("{}: {error}", draft.display()))?;
    let placed = match (fs::hard_link(&draft, &path), name) {
        (Err(error), Some(name)) if error.kind() == io::ErrorKind::AlreadyExists => join(name, &path, &draft),
        (placed, _) => placed.map_err(|error| format!("{}: {error}", path.display())),
    };
    let _ = fs::remove_file(&draft);
    placed?;
    Ok(StateFile { path, fresh: name.is_none() })
}

/// Joins a state that is there already, and says so if it is not the machine of the draft.
fn join(name: &str, path: &Path, draft: &Path) -> Outcome<()> {
    let machine = |path| State::machine_of(path).map_err(|error: OpenError| error.to_string());
    let made =
        machine(path).map_err(|error| format!("{error}; cuda-sim forget --state {name} removes it"))?;
    if made != machine(draft)? {
        tell(format_args!(
            "cuda-sim: state {name} is there already and stays the machine that it was made as; \
             cuda-sim forget --state {name} removes it"
        ));
    }
    Ok(())
}

/// The file of a state that must exist: the named one, or that of the environment.
pub fn existing(name: Option<&str>) -> Outcome<PathBuf> {
    let path = match name {
        Some(name) => named(name)?,
        None => env::var_os(STATE_ENV).map(PathBuf::from).ok_or_else(|| {
            format!(
                "no machine here: name one with --state, or ask within cuda-sim run (which sets {STATE_ENV})"
            )
        })?,
    };
    if path.exists() { Ok(path) } else { Err(format!("there is no state {}", path.display())) }
}

/// Removes a named state.
pub fn forget(name: &str) -> Outcome<()> {
    let path = existing(Some(name))?;
    fs::remove_file(&path).map_err(|error| format!("{}: {error}", path.display()))
}
