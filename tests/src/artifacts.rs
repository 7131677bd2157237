//! Where the things under test lie. `make test` builds them and says so by the environment; without it they
//! are looked for where `make` puts them.

use std::path::{Path, PathBuf};

/// A built artifact of the workspace: `libgpuquota.so`, `gpuquota` or `cuda-sim`. Searched for in
/// `GPUQUOTA_ARTIFACTS`, else in `target/release`.
pub fn artifact(name: &str) -> PathBuf {
    existing(folder("GPUQUOTA_ARTIFACTS", "target/release").join(name))
}

/// A compiled test program. Searched for in `GPUQUOTA_PROGRAMS`, else in `target/programs`.
pub fn program(name: &str) -> PathBuf {
    existing(folder("GPUQUOTA_PROGRAMS", "target/programs").join(name))
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
