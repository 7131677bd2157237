//! Which living processes of the node have mapped the library, and which version of it.

use crate::agent::identity::Cgroup;
use crate::changes::digest;
use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Names under which containers see the library.
const NAMES: [&str; 3] = ["libgpuquota.so", "libvgpu.so", "libvgpu-control.so"];

/// One version that processes have mapped.
#[derive(Debug, Default, serde::Serialize)]
pub struct Version {
    /// The SHA-256 of its file; nothing where it could not be read.
    pub sha256: Option<String>,
    /// The path by which a process knows it.
    pub path: PathBuf,
    /// Processes.
    pub pids: Vec<u32>,
    /// Containers of them, by the beginning of their ids.
    pub containers: Vec<String>,
}

/// Looks at every process.
pub fn versions(proc: &Path) -> Vec<Version> {
    let mut digests: HashMap<(String, u64), Option<String>> = HashMap::new();
    let mut found: BTreeMap<(Option<String>, PathBuf), Version> = BTreeMap::new();
    let entries = fs::read_dir(proc).into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    for pid in pids {
        let maps = fs::read(proc.join(pid.to_string()).join("maps")).unwrap_or_default();
        let maps = String::from_utf8_lossy(&maps);
        let Some(mapping) = maps.lines().find_map(mapping) else { continue };
        let sha256 = digests
            .entry((mapping.device.to_owned(), mapping.inode))
            .or_insert_with(|| read(proc, pid, &mapping))
            .clone();
        let path = PathBuf::from(mapping.path);
        let version = found.entry((sha256.clone(), path.clone())).or_default();
        (version.sha256, version.path) = (sha256, path);
        version.pids.push(pid);
        if let Some(id) = Cgroup::of(proc, pid).and_then(|cgroup| cgroup.container_id) {
            let id: String = id.chars().take(12).collect();
            if !version.containers.contains(&id) {
                version.containers.push(id);
            }
        }
    }
    found.into_values().collect()
}

/// A line of a process's maps that is the library.
struct Mapping<'m> {
    range: &'m str,
    device: &'m str,
    inode: u64,
    path: &'m str,
}

fn mapping(line: &str) -> Option<Mapping<'_>> {
    let path = &line[line.find('/')?..];
    let path = path.strip_suffix(" (deleted)").unwrap_or(path);
    let name = path.rsplit('/').next()?;
    let is_ours = NAMES
        .iter()
        .any(|known| name.strip_prefix(known).is_some_and(|rest| rest.is_empty() || rest.starts_with('.')));
    let mut words = line.split_whitespace();
    let range = words.next()?;
    let device = words.nth(2)?;
    let inode = words.next()?.parse().ok()?;
    is_ours.then_some(Mapping { range, device, inode, path })
}

/// The bytes that the process has mapped, also where another file has its name by now.
fn read(proc: &Path, pid: u32, mapping: &Mapping<'_>) -> Option<String> {
    let own = proc.join(pid.to_string());
    if let Ok(bytes) = fs::read(own.join("map_files").join(mapping.range)) {
        return Some(digest(&bytes));
    }
    let path = own.join("root").join(mapping.path.trim_start_matches('/'));
    let same = fs::metadata(&path).is_ok_and(|metadata| metadata.ino() == mapping.inode);
    same.then(|| fs::read(&path).ok()).flatten().map(|bytes| digest(&bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_library_is_known_by_its_names_and_nothing_else_is() {
        let line = |path: &str| format!("7f10-7f20 r-xp 00001000 08:01 77                  {path}");
        for path in ["/usr/local/vgpu/libvgpu.so", "/x/libvgpu.so.v2.10.0", "/a b/libgpuquota.so (deleted)"] {
            let line = line(path);
            let mapping = mapping(&line).expect(path);
            assert_eq!((mapping.range, mapping.device, mapping.inode), ("7f10-7f20", "08:01", 77));
            assert_eq!(mapping.path, path.trim_end_matches(" (deleted)"));
        }
        for path in ["/usr/lib/libcuda.so.1", "/x/libvgpu.sock", "[stack]", "/libgpuquota.so/x"] {
            assert!(mapping(&line(path)).is_none(), "{path}");
        }
    }
}
