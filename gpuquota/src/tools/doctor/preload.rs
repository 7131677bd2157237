//! What the loader is told to preload.

use super::elf::{self, Elf};
use super::finding::Finding;
use crate::regions::shown;
use crate::run::library;
use crate::tools::messages::{
    LIBRARY_FINE, NOT_PRELOADED, OTHER_BUILD, OTHER_QUOTA, PRELOAD_MISSING, PRELOAD_UNFIT, PRELOAD_UNREADABLE,
};
use std::ffi::OsStr;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// The library's name.
pub const NAME: &str = "libgpuquota.so";
/// Libraries of others that interpose the driver, and whose they are.
const OTHERS: [(&str, &str); 7] = [
    ("libvgpu.so", "HAMi"),
    ("libvgpu-control.so", "vgpu-manager"),
    ("libcuda-control.so", "GPU Manager"),
    ("libgemhook.so", "KubeShare"),
    ("libnvshare.so", "nvshare"),
    ("libcgpu.so", "cGPU"),
    ("libcuda_limiter.so", "TensorFusion"),
];

/// Whether a file is the library: by its name, or under the name that an engine gives it (`gpuquota install --engine`).
pub fn is_ours(path: &Path, seen: &Path) -> bool {
    let is_named = path.file_name() == Some(OsStr::new(NAME));
    is_named
        || other_quota(path).is_some() && elf::read(seen).is_ok_and(|bytes| crate::library::is_it(&bytes))
}

/// Whose quota library a file is, by its name.
pub fn other_quota(path: &Path) -> Option<&'static str> {
    let name = path.file_name()?;
    OTHERS.iter().find(|(known, _)| OsStr::new(known) == name).map(|(_, whose)| *whose)
}

/// Where entries stand.
const FILE: &str = "etc/ld.so.preload";
const VARIABLE: &str = "LD_PRELOAD";

/// The files that are preloaded here, and what is wrong with them.
pub fn look(system: &Path) -> Vec<Finding> {
    let mut findings = Vec::new();
    let file = system.join(FILE);
    let mut entries: Vec<(String, PathBuf)> = Vec::new();
    match fs::read(&file) {
        Ok(text) => entries.extend(split(&text).map(|path| (shown(&file), path))),
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => {
            findings.push(Finding::error(&PRELOAD_UNREADABLE, format!("{}: {error}.", shown(&file))))
        }
    }
    let variable = std::env::var_os(VARIABLE).unwrap_or_default();
    entries.extend(split(variable.as_bytes()).map(|path| (VARIABLE.to_owned(), path)));
    // What this process was given is a path of its own.
    let root = |from: &str| if from == VARIABLE { Path::new("/") } else { system };
    let (ours, others): (Vec<_>, Vec<_>) =
        entries.iter().partition(|(from, path)| is_ours(path, &within(root(from), path)));
    for (from, path) in others {
        if let Some(whose) = other_quota(path) {
            findings.push(Finding::error(
                &OTHER_QUOTA,
                format!("{from} names {}, which is {whose}'s.", shown(path)),
            ));
        }
    }
    if ours.is_empty() {
        let says = format!("{} and LD_PRELOAD do not name {NAME}.", shown(&file));
        findings.push(Finding::warning(&NOT_PRELOADED, says));
    }
    findings.extend(ours.iter().map(|(from, path)| of_entry(root(from), from, path)));
    findings
}

/// The loader takes blanks and colons as separators; lines of the file too.
fn split(text: &[u8]) -> impl Iterator<Item = PathBuf> {
    let words = text.split(|byte| byte.is_ascii_whitespace() || *byte == b':');
    words.filter(|word| !word.is_empty()).map(|word| PathBuf::from(OsStr::from_bytes(word)))
}

/// Where `$LIB` may lead a program of this processor.
fn places(path: &Path) -> Vec<PathBuf> {
    let text = path.to_string_lossy();
    if !text.contains("$LIB") && !text.contains("${LIB}") {
        return vec![path.to_owned()];
    }
    let triple = format!("lib/{}-linux-gnu", std::env::consts::ARCH);
    [&triple, "lib64", "lib"].map(|lib| text.replace("${LIB}", lib).replace("$LIB", lib).into()).to_vec()
}

/// The same path in the system that is looked at.
fn within(system: &Path, path: &Path) -> PathBuf {
    system.join(path.strip_prefix("/").unwrap_or(path))
}

fn of_entry(system: &Path, from: &str, path: &Path) -> Finding {
    let found = places(path).into_iter().map(|place| within(system, &place)).find(|place| place.exists());
    let Some(found) = found else {
        return Finding::error(
            &PRELOAD_MISSING,
            format!("{from} names {}, which is not there.", shown(path)),
        );
    };
    let bytes = match elf::read(&found) {
        Ok(bytes) => bytes,
        Err(error) => {
            return Finding::error(&PRELOAD_MISSING, format!("{from} names {}: {error}.", shown(path)));
        }
    };
    match Elf::parse(&bytes) {
        Some(library) if library.is_shared() => {}
        _ => {
            let says =
                format!("{from} names {}, which is no shared library of this processor.", shown(&found));
            return Finding::error(&PRELOAD_UNFIT, says);
        }
    }
    other_build(&found)
        .unwrap_or_else(|| Finding::fine(&LIBRARY_FINE, format!("{from} names {}.", shown(&found))))
}

/// Whether a library is another build than the one beside this program.
pub fn other_build(library: &Path) -> Option<Finding> {
    let own = library::find().ok()?;
    let is_other = elf::same_build(library, &own) == Some(false);
    is_other.then(|| {
        Finding::warning(&OTHER_BUILD, format!("{} is another build than {}.", shown(library), shown(&own)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_split_as_the_loader_does() {
        let paths: Vec<PathBuf> = split(b" /a.so:/b.so\n/c.so\t\n").collect();
        assert_eq!(paths, ["/a.so", "/b.so", "/c.so"].map(PathBuf::from));
        assert_eq!(places(Path::new("/usr/$LIB/x.so")).len(), 3);
        assert_eq!(other_quota(Path::new("/usr/local/vgpu/libvgpu.so")), Some("HAMi"));
    }
}
