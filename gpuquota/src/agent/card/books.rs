//! The books beside which the card's figures are laid: what the node's regions say, each with its container's name.

use super::process::{Home, Subject};
use crate::agent::identity::{Identity, Naming};
use crate::regions::{Found, Region};
use std::cell::OnceCell;
use std::collections::BTreeSet;
use std::path::PathBuf;

/// One region.
pub struct Book {
    /// Whose it is.
    pub identity: Identity,
    /// Its file.
    pub path: PathBuf,
    /// What it says.
    pub region: Region,
    /// Its living processes by the kernel's word.
    pub owners: Vec<u32>,
    /// The containers in which those live, once somebody has asked.
    homes: OnceCell<BTreeSet<String>>,
}

/// A container as a key of a set.
fn key(home: &Home) -> String {
    match home {
        Home::Container(id) => id.clone(),
        Home::Mounts(inode) => format!("mounts:{inode}"),
    }
}

impl Book {
    /// Reads who holds a region that was found, and names it.
    pub fn of(found: Found, names: &Naming) -> Self {
        let identity = names.of_region(&found);
        let Found { path, region, owners, .. } = found;
        Self { identity, path, region, owners, homes: OnceCell::new() }
    }

    /// Whether anything is limited in it.
    pub fn is_limited(&self) -> bool {
        let limited =
            |device: &crate::regions::Device| device.memory_limit.is_some() || device.core_limit.is_some();
        self.region.devices.iter().any(limited)
    }

    fn homes(&self, names: &Naming) -> &BTreeSet<String> {
        self.homes.get_or_init(|| {
            let subjects = self.owners.iter().filter_map(|pid| Subject::of(*pid, names));
            subjects.filter_map(|subject| subject.home.as_ref().map(key)).collect()
        })
    }

    /// Whether a process is in its container.
    pub fn is_home_of(&self, subject: &Subject, identity: &Identity, names: &Naming) -> bool {
        let same_pod = !self.identity.pod_uid.is_empty() && self.identity.pod_uid == identity.pod_uid;
        let same_container = same_pod && self.identity.container == identity.container;
        same_container || subject.home.as_ref().is_some_and(|home| self.homes(names).contains(&key(home)))
    }

    /// Whether a process has a slot. One that has lost the lock that tells its pid is known by the pid that its slot has.
    pub fn has_slot(&self, subject: &Subject, is_here: bool) -> bool {
        let by_slot = |process: &crate::regions::Process| {
            process.host_pid == Some(subject.pid)
                || process.host_pid.is_none() && process.pid == subject.own_pid
        };
        self.owners.contains(&subject.pid) || is_here && self.region.alive().any(by_slot)
    }

    /// What its living processes hold of a device, without what lies on the host.
    pub fn used(&self, uuid: &str) -> Option<u64> {
        let device = self.region.devices.iter().find(|device| device.uuid == uuid)?;
        Some(device.used.saturating_sub(device.spilled))
    }
}
