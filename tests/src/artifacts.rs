//! Where the things under test lie. `make test` builds them and says so by the environment; without it they
//! are looked for where `make` puts them.

use std::path::{Path, PathBuf};
use std::process::Command;

/// A built artifact of the workspace: `libgpuquota.so`, `gpuquota` or `cuda-sim`. Searched for in
/// `GPUQUOTA_ARTIFACTS`, else in `target/release`.
pub fn artifact(name: &str) -> PathBuf {
    existing(folder("GPUQUOTA_ARTIFACTS", "target/release").join(name))
}

/// A compiled test program. Searched for in `GPUQUOTA_PROGRAMS`, else in `target/programs`.
pub fn program(name: &str) -> PathBuf {
    existing(folder("GPUQUOTA_PROGRAMS", "target/programs").join(name))
}

/// What a script of `scripts/` makes and prints the path of, or the reason why it cannot be had here.
pub fn fetched(script: &str, argument: &str) -> Result<PathBuf, String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts").join(script);
    let output =
        Command::new(&path).arg(argument).output().unwrap_or_else(|why| panic!("{}: {why}", path.display()));
    if output.status.success() {
        return Ok(PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()));
    }
    let told = String::from_utf8_lossy(&output.stderr);
    Err(told.lines().last().unwrap_or("it does not say why").to_owned())
}

/// A client program of `clients/`: a script, or one that `make clients` compiles.
pub fn client(name: &str) -> PathBuf {
    let compiled = folder("GPUQUOTA_CLIENTS", "target/clients/release").join(name);
    existing(if name.ends_with(".py") {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("clients").join(name)
    } else {
        compiled
    })
}

fn folder(variable: &str, otherwise: &str) -> PathBuf {
    match std::env::var_os(variable) {
        Some(folder) => PathBuf::from(folder),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(otherwise),
    }
}

fn existing(path: PathBuf) -> PathBuf {
    path.canonicalize().unwrap_or_else(|why| panic!("{}: {why}; `make artifacts` builds it", path.display()))
}
