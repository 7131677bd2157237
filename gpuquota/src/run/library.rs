//! Where is libgpuquota.so, and how does it get in?

use crate::error::Error;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

const NAME: &str = "libgpuquota.so";
const VARIABLE: &str = "GPUQUOTA_LIBRARY";

/// The library: what `GPUQUOTA_LIBRARY` says, else beside this program or where packages put it.
pub fn find() -> Result<PathBuf, Error> {
    if let Some(path) = std::env::var_os(VARIABLE).filter(|path| !path.is_empty()) {
        return usable(Path::new(&path))
            .ok_or_else(|| Error::Asked(format!("{VARIABLE}={path:?} is no file")));
    }
    let places = places(std::env::current_exe().ok().as_deref());
    places.iter().find_map(|place| usable(place)).ok_or_else(|| {
        let looked: Vec<String> = places.iter().map(|place| place.display().to_string()).collect();
        Error::Asked(format!("{NAME} is not found; looked at {}. Set {VARIABLE} to it.", looked.join(", ")))
    })
}

fn places(own: Option<&Path>) -> Vec<PathBuf> {
    let beside = own.and_then(Path::parent).into_iter();
    beside
        .flat_map(|here| [here.to_path_buf(), here.join("../lib"), here.join("../lib/gpuquota")])
        .chain(["/usr/local/lib/gpuquota", "/usr/lib/gpuquota"].map(PathBuf::from))
        .map(|place| place.join(NAME))
        .collect()
}

fn usable(path: &Path) -> Option<PathBuf> {
    path.canonicalize().ok().filter(|path| path.is_file())
}

/// The value of `LD_PRELOAD`: what was there keeps its place, ours comes last, and only once.
pub fn preload(library: &Path, inherited: Option<&OsStr>) -> Result<OsString, Error> {
    let separates = |byte: &u8| matches!(byte, b':' | b' ');
    let own = library.as_os_str();
    if own.as_bytes().iter().any(separates) {
        let message = "cannot be preloaded: the loader would split its path at the blank or colon";
        return Err(Error::Asked(format!("{} {message}", own.display())));
    }
    let mut value = inherited.unwrap_or_default().to_os_string();
    if !value.as_bytes().split(|byte| separates(byte)).any(|known| known == own.as_bytes()) {
        if !value.is_empty() {
            value.push(":");
        }
        value.push(own);
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_inherited_preload_is_kept_and_ours_is_there_once() {
        let of = |old: Option<&str>| preload(Path::new("/l.so"), old.map(OsStr::new)).expect("a value");
        assert_eq!(of(None), "/l.so");
        assert_eq!(of(Some("")), "/l.so");
        assert_eq!(of(Some("/a.so /b.so")), "/a.so /b.so:/l.so");
        assert_eq!(of(Some("/a.so:/l.so")), "/a.so:/l.so");
    }

    #[test]
    fn a_path_that_the_loader_would_split_is_refused() {
        assert!(preload(Path::new("/a b/l.so"), None).is_err());
        assert!(preload(Path::new("/a:b/l.so"), None).is_err());
    }
}
