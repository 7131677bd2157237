//! Names that lie in files: the kubelet's log directories, and what Podman and CRI-O keep of their containers.
//!
//! All of them belong to root. They are read anew when a directory's time of change says that something has changed.

use super::facts::{Fact, MOST};
use super::source::Source;
use serde::Deserialize;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Bytes of a file of Podman's that are read.
const LONGEST: u64 = 16 << 20;

/// `/var/log/pods/<namespace>_<pod>_<UID>/<container>`.
pub struct PodLogs {
    path: PathBuf,
    /// Each pod's directory when it was read, and what it said.
    read: Vec<(PathBuf, Option<SystemTime>, Vec<Fact>)>,
    changed: Option<SystemTime>,
}

/// `/var/log/containers/<pod>_<namespace>_<container>-<id>.log`.
pub struct ContainerLogs {
    path: PathBuf,
    changed: Option<SystemTime>,
}

/// `containers.json` of the storage that Podman and CRI-O use.
pub struct Storage {
    path: PathBuf,
    changed: Vec<Option<SystemTime>>,
}

/// When a directory or file changed last; `None` where there is none.
fn changed(path: &Path) -> Option<SystemTime> {
    fs::metadata(path).and_then(|metadata| metadata.modified()).ok()
}

/// The names in a directory.
fn names(path: &Path) -> io::Result<Vec<String>> {
    let entries = fs::read_dir(path)?.take(MOST).flatten();
    Ok(entries.filter_map(|entry| entry.file_name().to_str().map(str::to_owned)).collect())
}

impl PodLogs {
    pub fn new(path: PathBuf) -> Self {
        Self { path, read: Vec::new(), changed: None }
    }

    fn pod(path: &Path) -> Vec<Fact> {
        let name = path.file_name().and_then(OsStr::to_str).unwrap_or("");
        let words: Vec<&str> = name.split('_').collect();
        let [namespace, pod, uid] = words[..] else { return Vec::new() };
        let of = |container: String| Fact {
            namespace: namespace.to_owned(),
            pod: pod.to_owned(),
            pod_uid: Some(uid.to_owned()),
            container,
            ..Fact::default()
        };
        let containers = names(path).unwrap_or_default();
        let containers = if containers.is_empty() { vec![String::new()] } else { containers };
        containers.into_iter().filter_map(|name| of(name).checked()).collect()
    }
}

impl Source for PodLogs {
    fn name(&self) -> &'static str {
        "pod_logs"
    }

    fn facts(&mut self) -> io::Result<Option<Vec<Fact>>> {
        let now = changed(&self.path);
        let mut is_new = now != self.changed;
        if is_new {
            let pods = if now.is_some() { names(&self.path)? } else { Vec::new() };
            let mut known: Vec<_> = std::mem::take(&mut self.read);
            self.read = pods
                .into_iter()
                .map(|name| self.path.join(name))
                .map(|path| match known.iter().position(|(known, ..)| *known == path) {
                    Some(at) => known.swap_remove(at),
                    None => (path, None, Vec::new()),
                })
                .collect();
            self.changed = now;
        }
        for (path, read, facts) in &mut self.read {
            let now = changed(path);
            if now != *read {
                (*read, *facts, is_new) = (now, Self::pod(path), true);
            }
        }
        Ok(is_new.then(|| self.read.iter().flat_map(|(_, _, facts)| facts.clone()).collect()))
    }
}

impl ContainerLogs {
    pub fn new(path: PathBuf) -> Self {
        Self { path, changed: None }
    }

    fn fact(name: &str) -> Option<Fact> {
        let (names, id) = name.strip_suffix(".log")?.rsplit_once('-')?;
        let words: Vec<&str> = names.split('_').collect();
        let [pod, namespace, container] = words[..] else { return None };
        let [pod, namespace, container] = [pod, namespace, container].map(str::to_owned);
        Fact { container_id: Some(id.to_owned()), pod, namespace, container, ..Fact::default() }.checked()
    }
}

impl Source for ContainerLogs {
    fn name(&self) -> &'static str {
        "container_logs"
    }

    fn facts(&mut self) -> io::Result<Option<Vec<Fact>>> {
        let now = changed(&self.path);
        if now == self.changed {
            return Ok(None);
        }
        let all = if now.is_some() { names(&self.path)? } else { Vec::new() };
        self.changed = now;
        Ok(Some(all.iter().filter_map(|name| Self::fact(name)).collect()))
    }
}

/// What is read of a container in `containers.json`.
#[derive(Deserialize)]
struct Stored {
    id: String,
    #[serde(default)]
    names: Vec<String>,
}

impl Storage {
    pub fn new(path: PathBuf) -> Self {
        Self { path, changed: Vec::new() }
    }

    fn read(path: &Path) -> io::Result<Vec<Fact>> {
        let mut text = String::new();
        File::open(path)?.take(LONGEST).read_to_string(&mut text)?;
        let stored: Vec<Stored> = serde_json::from_str(&text)?;
        let fact = |Stored { id, names }: Stored| {
            let name = names.into_iter().next()?;
            let of_pod = Fact::of_kubernetes_name(&name).map(|fact| Fact { runtime: "cri-o", ..fact });
            let named = of_pod.unwrap_or(Fact { container: name, runtime: "podman", ..Fact::default() });
            Fact { container_id: Some(id), ..named }.checked()
        };
        Ok(stored.into_iter().filter_map(fact).collect())
    }
}

impl Source for Storage {
    fn name(&self) -> &'static str {
        "container_storage"
    }

    fn facts(&mut self) -> io::Result<Option<Vec<Fact>>> {
        // One directory for each storage driver that was ever used.
        let files = ["overlay", "vfs", "btrfs", "zfs"]
            .map(|driver| self.path.join(format!("{driver}-containers/containers.json")));
        let now: Vec<_> = files.iter().map(|file| changed(file)).collect();
        if now == self.changed {
            return Ok(None);
        }
        let there = files.iter().zip(&now).filter(|(_, changed)| changed.is_some());
        let facts: io::Result<Vec<_>> = there.map(|(file, _)| Self::read(file)).collect();
        let facts = facts?;
        self.changed = now;
        Ok(Some(facts.concat()))
    }
}
