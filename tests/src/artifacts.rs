//! The paths of the artifacts under test. `make test` builds them and sets their folders in the environment. Without these
//! variables the tests use the folders into which `make` builds. They refuse an artifact that is older than its sources,
//! because a test of yesterday's library proves nothing about today's.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

/// A built artifact of the workspace: `libgpuquota.so`, `gpuquota` or `cuda-sim`. Searched for in
/// `GPUQUOTA_ARTIFACTS`, else in `target/release`.
///
/// # Panics
/// The artifact is missing, or one of its sources has changed since the build.
pub fn artifact(name: &str) -> PathBuf {
    let folder = folder("GPUQUOTA_ARTIFACTS", "target/release");
    // The simulator starts programs with the libraries that lie beside it.
    let libraries: &[&str] = if name == "cuda-sim" { &["libcuda.so", "libnvidia_ml.so"] } else { &[] };
    for part in [name].iter().chain(libraries) {
        if let Err(why) = up_to_date(&existing(folder.join(part)), &tree().join("Cargo.lock")) {
            panic!("{why}: run `make artifacts`");
        }
    }
    existing(folder.join(name))
}

/// Whether an artifact was built from the present sources, or the reason why not. Cargo writes a list of sources beside each
/// artifact. An artifact without a list was installed, and this accepts it.
///
/// As in cargo, the time of a source decides, so `make artifacts` always mends a refusal. The lock file is on no list, and its
/// content decides: `make artifacts` leaves a copy of the one that it has built with.
fn up_to_date(artifact: &Path, lock: &Path) -> Result<(), String> {
    let Ok(list) = std::fs::read_to_string(artifact.with_extension("d")) else { return Ok(()) };
    let shown = artifact.display();
    let built = modified(artifact).ok_or_else(|| format!("{shown} cannot be read"))?;
    for source in sources(&list) {
        match modified(&source) {
            None => return Err(format!("{shown} was built from {}, which is gone", source.display())),
            Some(changed) if changed > built => {
                return Err(format!("{shown} is older than {}", source.display()));
            }
            Some(_) => {}
        }
    }
    match (std::fs::read(artifact.with_file_name("Cargo.lock")), std::fs::read(lock)) {
        (Ok(then), Ok(now)) if then != now => Err(format!("{shown} was built with another Cargo.lock")),
        _ => Ok(()),
    }
}

/// The files behind the colon of a list that cargo has written: `artifact: source source`, a space in a name as `\ `.
fn sources(list: &str) -> Vec<PathBuf> {
    let (_, files) = list.lines().next().and_then(|line| line.split_once(": ")).unwrap_or_default();
    files.replace("\\ ", "\0").split_whitespace().map(|file| PathBuf::from(file.replace('\0', " "))).collect()
}

fn modified(file: &Path) -> Option<SystemTime> {
    file.metadata().and_then(|metadata| metadata.modified()).ok()
}

/// A compiled test program. Searched for in `GPUQUOTA_PROGRAMS`, else in `target/programs`.
pub fn program(name: &str) -> PathBuf {
    existing(folder("GPUQUOTA_PROGRAMS", "target/programs").join(name))
}

/// The path that a script of `scripts/` prints, which it has just made; or the reason why it cannot make it here.
pub fn fetched(script: &str, argument: &str) -> Result<PathBuf, String> {
    let path = tree().join("scripts").join(script);
    let output =
        Command::new(&path).arg(argument).output().unwrap_or_else(|why| panic!("{}: {why}", path.display()));
    if output.status.success() {
        return Ok(PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()));
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    Err(stderr.lines().last().unwrap_or("it does not say why").to_owned())
}

/// A client program of `clients/`: a script, or one that `make clients` compiles.
pub fn client(name: &str) -> PathBuf {
    let compiled = folder("GPUQUOTA_CLIENTS", "target/clients/release").join(name);
    existing(if name.ends_with(".py") { tree().join("tests/clients").join(name) } else { compiled })
}

fn folder(variable: &str, otherwise: &str) -> PathBuf {
    std::env::var_os(variable).map_or_else(|| tree().join(otherwise), PathBuf::from)
}

/// The project's tree.
fn tree() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn existing(path: PathBuf) -> PathBuf {
    path.canonicalize().unwrap_or_else(|why| panic!("{}: {why}; `make artifacts` builds it", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Scratch;
    use std::fs::File;
    use std::time::Duration;

    /// A library, its list of sources as cargo writes it, one source with a space in its name, and the lock files.
    struct Built {
        scratch: Scratch,
        library: PathBuf,
        source: PathBuf,
        lock: PathBuf,
    }

    impl Built {
        fn new() -> Self {
            let scratch = Scratch::new();
            let source = scratch.file("a source.rs", "fn one() {}");
            let library = scratch.file("libsome.so", "");
            let escaped = source.display().to_string().replace(' ', "\\ ");
            scratch.file("libsome.d", format!("{}: {escaped}\n", library.display()));
            let lock = scratch.file("Cargo.lock.now", "version = 4");
            scratch.file("Cargo.lock", "version = 4");
            Self { scratch, library, source, lock }
        }

        fn judged(&self) -> Result<(), String> {
            up_to_date(&self.library, &self.lock)
        }
    }

    #[test]
    fn a_library_that_is_older_than_a_source_of_its_own_is_refused_by_name() {
        let built = Built::new();
        assert_eq!(built.judged(), Ok(()));
        let later = SystemTime::now() + Duration::from_secs(9);
        File::options().append(true).open(&built.source).unwrap().set_modified(later).unwrap();
        let why = built.judged().unwrap_err();
        assert!(why.ends_with(&format!("libsome.so is older than {}", built.source.display())), "{why}");
    }

    #[test]
    fn a_library_whose_source_is_gone_is_refused() {
        let built = Built::new();
        std::fs::remove_file(&built.source).unwrap();
        assert!(built.judged().unwrap_err().ends_with("which is gone"));
    }

    #[test]
    fn a_library_that_was_built_with_another_lock_file_is_refused() {
        let built = Built::new();
        std::fs::write(&built.lock, "version = 5").unwrap();
        assert!(built.judged().unwrap_err().ends_with("another Cargo.lock"));
    }

    #[test]
    fn an_installed_library_is_taken_as_it_is() {
        let built = Built::new();
        std::fs::remove_file(&built.source).unwrap();
        std::fs::remove_file(built.scratch.path().join("libsome.d")).unwrap();
        assert_eq!(built.judged(), Ok(()));
    }
}
