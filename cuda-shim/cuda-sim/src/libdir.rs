//! The folder of the two libraries, under the names that programs ask for.

use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::{env, fs, io, process};

use crate::states::Outcome;

/// Name in the folder, and the library that cargo built.
const NAMES: [(&str, &str); 3] =
    [("libcuda.so.1", "libcuda.so"), ("libcuda.so", "libcuda.so"), ("libnvidia-ml.so.1", "libnvidia_ml.so")];

/// The folder beside this executable; its links are made if they are not there yet.
pub fn libdir() -> Outcome<PathBuf> {
    let executable = env::current_exe().map_err(|error| format!("own path: {error}"))?;
    let beside = executable.parent().ok_or("own path has no folder")?;
    let folder = beside.join("cuda-sim-lib");
    fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    for (name, built) in NAMES {
        if !beside.join(built).exists() {
            let wanted = "see *Install* in cuda-shim/README.md";
            return Err(format!("{} is missing: {wanted}", beside.join(built).display()));
        }
        place(&folder, name, built).map_err(|error| format!("{}: {error}", folder.join(name).display()))?;
    }
    Ok(folder)
}

/// Several may do this at once: the link is made under a name of our own and moved into place.
fn place(folder: &std::path::Path, name: &str, built: &str) -> io::Result<()> {
    let target = PathBuf::from("..").join(built);
    if fs::read_link(folder.join(name)).is_ok_and(|there| there == target) {
        return Ok(());
    }
    let draft = folder.join(format!(".{name}-{}", process::id()));
    let _ = fs::remove_file(&draft);
    symlink(&target, &draft)?;
    fs::rename(&draft, folder.join(name))
}
