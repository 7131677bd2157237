//! What is prepared, on disk: a checkpoint, and for each claim a limits file, a region and a CDI specification.
//!
//! The checkpoint is written before the first file of a claim and after the last one, each time whole, by fsync and rename. So after a
//! kill at any step a second try, or [`Store::open`], completes or takes back what was begun.

use crate::cdi::spec::{Device, Edits, Mount, Spec};
use crate::changes::Disk;
use crate::given::{Files, Region, binds};
use crate::kubelet::common::{Common, Part};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// The version of the checkpoint's form.
const VERSION: u32 = 1;
/// The kind of our CDI devices.
pub const KIND: &str = "gpuquota.dev/claim";
/// What the names of our specifications begin with.
const PREFIX: &str = "gpuquota.dev-claim-";
/// The version of CDI that has all that is written here.
const CDI_VERSION: &str = "0.5.0";

/// A device of a claim.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claimed {
    pub requests: Vec<String>,
    pub pool: String,
    pub device: String,
    pub uuid: String,
}

/// What a claim becomes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wanted {
    pub namespace: String,
    pub name: String,
    pub parts: Vec<Part>,
    pub devices: Vec<Claimed>,
    /// The text of the limits file.
    pub limits: String,
}

/// How far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum State {
    Begun,
    Prepared,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Entry {
    state: State,
    #[serde(flatten)]
    wanted: Wanted,
}

#[derive(Debug, Serialize, Deserialize)]
struct Checkpoint {
    version: u32,
    claims: BTreeMap<String, Entry>,
}

/// All of it.
pub struct Store {
    path: PathBuf,
    specs: PathBuf,
    common: Common,
    files: Files,
    disk: Disk,
    claims: BTreeMap<String, Entry>,
}

/// A file that everybody may read, at once or not at all, and on the disk.
fn write(disk: &Disk, path: &Path, text: &str) -> io::Result<()> {
    let beside = path.with_extension("new");
    disk.write(&beside, text.as_bytes(), 0o644, None)?;
    disk.rename(&beside, path)
}

/// Reads the checkpoint; none is an empty one.
fn read(path: &Path) -> io::Result<BTreeMap<String, Entry>> {
    let text = match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        read => read?,
    };
    let why = |why: String| {
        let next = "Move it away once no pod of this node has a claim of this driver";
        io::Error::other(format!("{}: {why}. {next}", path.display()))
    };
    let read: Checkpoint = serde_json::from_slice(&text).map_err(|error| why(error.to_string()))?;
    match read.version {
        VERSION => Ok(read.claims),
        other => Err(why(format!("it is of version {other}, and this program knows {VERSION}"))),
    }
}

impl Store {
    /// Opens it, takes back what was begun and not completed, and makes again what a restart of the node has taken: places for
    /// regions and CDI specifications lie in memory.
    pub fn open(path: &Path, specs: &Path, common: &Common, files: Files, disk: Disk) -> io::Result<Self> {
        fs::create_dir_all(specs)?;
        let claims = read(path)?;
        let (path, specs) = (path.to_owned(), specs.to_owned());
        let mut store = Self { path, specs, common: common.clone(), files, disk, claims };
        let begun = |(uid, entry): (&String, &Entry)| (entry.state == State::Begun).then(|| uid.clone());
        for uid in store.claims.iter().filter_map(begun).collect::<Vec<_>>() {
            store.unprepare(&uid)?;
        }
        store.remove_orphans()?;
        for (uid, entry) in &store.claims {
            store.make(uid, &entry.wanted)?;
        }
        Ok(store)
    }

    /// Removes what belongs to no claim: its entry was never written, or is gone already.
    fn remove_orphans(&self) -> io::Result<()> {
        for id in self.files.ids()?.iter().filter(|id| !self.claims.contains_key(*id)) {
            self.files.take(id)?;
        }
        for entry in fs::read_dir(&self.specs)? {
            let entry = entry?;
            let name = entry.file_name();
            let uid = name
                .to_str()
                .and_then(|name| name.strip_prefix(PREFIX))
                .map(|name| name.trim_end_matches(".json"));
            if uid.is_some_and(|uid| !self.claims.contains_key(uid)) {
                self.disk.remove(&entry.path())?;
            }
        }
        Ok(())
    }

    fn save(&self, claims: &BTreeMap<String, Entry>) -> io::Result<()> {
        let checkpoint = Checkpoint { version: VERSION, claims: claims.clone() };
        let text = serde_json::to_string_pretty(&checkpoint).map_err(io::Error::other)?;
        write(&self.disk, &self.path, &(text + "\n"))
    }

    fn change(&mut self, change: impl FnOnce(&mut BTreeMap<String, Entry>)) -> io::Result<()> {
        let mut claims = self.claims.clone();
        change(&mut claims);
        self.save(&claims)?;
        self.claims = claims;
        Ok(())
    }

    fn spec(&self, uid: &str) -> PathBuf {
        self.specs.join(format!("{PREFIX}{uid}.json"))
    }

    /// Makes the files of a claim, or makes them whole.
    fn make(&self, uid: &str, wanted: &Wanted) -> io::Result<()> {
        let preload = self.files.preload(&self.common.library)?;
        // Containers of the claim may have the region mounted that is there.
        let given = self.files.give(uid, &format!("{uid}_claim"), &wanted.limits, Region::Stays)?;
        let uuids: Vec<&str> = wanted.parts.iter().map(|part| part.uuid.as_str()).collect();
        let (variables, _) = self.common.seen(&uuids);
        let edits = Edits {
            env: variables.into_iter().map(|(name, value)| format!("{name}={value}")).collect(),
            mounts: binds(&self.common.library, &preload, &given).iter().map(Mount::of).collect(),
            ..Edits::default()
        };
        let spec = Spec {
            cdi_version: CDI_VERSION.to_owned(),
            kind: KIND.to_owned(),
            annotations: BTreeMap::new(),
            devices: vec![Device::new(uid.to_owned(), edits)],
            container_edits: Edits::default(),
        };
        spec.check("gpuquota dra").map_err(|error| io::Error::other(error.to_string()))?;
        let (path, text) = (self.spec(uid), spec.json());
        if fs::read(&path).is_ok_and(|known| known == text.as_bytes()) {
            return Ok(());
        }
        write(&self.disk, &path, &text)
    }

    /// What a claim has become, if it is prepared.
    pub fn prepared(&self, uid: &str) -> Option<&Wanted> {
        self.claims.get(uid).filter(|entry| entry.state == State::Prepared).map(|entry| &entry.wanted)
    }

    /// All but one, with their names.
    pub fn others(&self, uid: &str) -> Vec<(String, &Wanted)> {
        let others = self.claims.iter().filter(|(other, _)| *other != uid);
        others.map(|(_, of)| (format!("{}/{}", of.wanted.namespace, of.wanted.name), &of.wanted)).collect()
    }

    /// Every claim: UID, namespace, name.
    pub fn all(&self) -> Vec<(String, String, String)> {
        let of = |(uid, entry): (&String, &Entry)| {
            (uid.clone(), entry.wanted.namespace.clone(), entry.wanted.name.clone())
        };
        self.claims.iter().map(of).collect()
    }

    /// Prepares a claim: all of it, or nothing stays.
    pub fn prepare(&mut self, uid: &str, wanted: Wanted) -> io::Result<()> {
        let done = self.try_prepare(uid, &wanted);
        if done.is_err() && self.prepared(uid).is_none() {
            // Whatever of it cannot be removed now is when this program starts anew.
            let _ = self.unprepare(uid);
        }
        done
    }

    fn try_prepare(&mut self, uid: &str, wanted: &Wanted) -> io::Result<()> {
        if self.prepared(uid).is_none() {
            let entry = Entry { state: State::Begun, wanted: wanted.clone() };
            self.change(|claims| _ = claims.insert(uid.to_owned(), entry))?;
        }
        self.make(uid, wanted)?;
        if self.prepared(uid).is_none() {
            self.change(|claims| {
                if let Some(entry) = claims.get_mut(uid) {
                    entry.state = State::Prepared;
                }
            })?;
        }
        Ok(())
    }

    /// Takes a claim back. The entry goes last, so that a second try finds what the first one left.
    pub fn unprepare(&mut self, uid: &str) -> io::Result<()> {
        let path = self.spec(uid);
        if path.exists() {
            self.disk.remove(&path)?;
        }
        self.files.take(uid)?;
        if self.claims.contains_key(uid) {
            self.change(|claims| _ = claims.remove(uid))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
