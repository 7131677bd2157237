//! What both commands are told, and what both do with it.

use super::beside;
use crate::agent::logs;
use crate::changes::Disk;
use crate::error::Error;
use crate::given::{Bind, Files, REGIONS, binds, region};
use crate::library::INSTALLED;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// How a container gets the card's device and driver.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Visible {
    /// By NVIDIA_VISIBLE_DEVICES, which NVIDIA's runtime reads.
    #[default]
    Env,
    /// By the CDI devices nvidia.com/gpu=UUID that NVIDIA's toolkit writes.
    Cdi,
    /// By somebody else.
    None,
}

/// What both commands are told.
#[derive(clap::Args, Clone, Debug)]
pub struct Common {
    /// The library on the node and, by the same path, in containers.
    #[arg(long, value_name = "FILE", default_value = INSTALLED)]
    pub library: PathBuf,

    /// Where regions and limits files are made.
    #[arg(long, value_name = "DIR", default_value = REGIONS)]
    pub root: PathBuf,

    /// How a container gets the card's device and driver.
    #[arg(long, value_enum, default_value_t)]
    pub visible: Visible,

    /// A card that is not divided: its UUID, its name such as gpu-0, or all. May be given several times. The device plugin does not
    /// offer it, and the DRA driver offers it whole.
    #[arg(long, value_name = "CARD")]
    pub whole: Vec<String>,

    /// Go on although another plugin or driver on this node books the same cards.
    #[arg(long)]
    pub beside_others: bool,

    /// The kubelet's directory on the node.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/kubelet")]
    pub kubelet: PathBuf,
}

impl Common {
    /// The usual one, with these places.
    #[cfg(test)]
    pub fn of_test(root: &Path, library: &Path) -> Self {
        #[derive(clap::Parser)]
        struct Line {
            #[command(flatten)]
            common: Common,
        }
        let words = [Path::new("x"), Path::new("--root"), root, Path::new("--library"), library];
        <Line as clap::Parser>::parse_from(words).common
    }

    /// Begins: the log, and whether this node is somebody else's. `own` is what the names of this command's sockets begin with.
    pub fn begin(&self, own: &str) -> Result<(), Error> {
        logs::plain();
        for path in [&self.library, &self.root, &self.kubelet] {
            if !path.is_absolute() {
                return Err(Error::Asked(format!("{}: write an absolute path", path.display())));
            }
        }
        let others = beside::others(&self.kubelet, Path::new("/"), own);
        for other in &others {
            tracing::warn!("{other}");
        }
        match others.first() {
            Some(other) if !self.beside_others => Err(Error::Asked(format!(
                "{other}. Both would give away the same cards. Remove it from this node, or say --beside-others if it serves other cards"
            ))),
            _ => Ok(()),
        }
    }

    /// The files of what is given.
    pub fn files(&self, own: &str) -> Result<Files, Error> {
        let doing = || format!("keep limits in {}", self.root.display());
        Files::at(&self.root, own, Disk::default()).map_err(Error::system(doing()))
    }

    /// Whether the library is there, in words for who wants a container.
    pub fn has_library(&self) -> Result<(), String> {
        match self.library.is_file() {
            true => Ok(()),
            false => Err(format!(
                "the library {} is not on this node. Install it (gpuquota install), or say where it is (--library)",
                self.library.display()
            )),
        }
    }

    /// What a container sees of its cards: variables, and names of CDI devices.
    pub fn seen(&self, uuids: &[&str]) -> (Vec<(String, String)>, Vec<String>) {
        match self.visible {
            Visible::Env => (vec![("NVIDIA_VISIBLE_DEVICES".to_owned(), uuids.join(","))], Vec::new()),
            Visible::Cdi => (Vec::new(), uuids.iter().map(|uuid| format!("nvidia.com/gpu={uuid}")).collect()),
            Visible::None => Default::default(),
        }
    }
}

/// A part of one card.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// The card's UUID.
    pub uuid: String,
    /// Bytes of its memory.
    pub memory: u64,
    /// Percent of its time that are booked; `None`: what others leave.
    pub cores: Option<u64>,
    /// Percent that it may have while others leave it; `None`: what is booked, or all.
    pub cores_limit: Option<u64>,
}

impl Part {
    /// One more part of the same card.
    pub fn add(&mut self, other: &Self) {
        self.memory = self.memory.saturating_add(other.memory);
        self.cores = match (self.cores, other.cores) {
            (Some(one), Some(other)) => Some((one + other).min(100)),
            (one, other) => one.or(other),
        };
        let limit = self.cores_limit.max(other.cores_limit);
        self.cores_limit = limit.map(|limit| limit.max(self.cores.unwrap_or(0)));
    }
}

/// What a container may have of a card that it was not given. A tenant may make other cards visible by a variable of its own.
const OF_OTHERS: &str = "1";

/// The limits file of a container with these parts, and further lines. What is booked as time is guaranteed.
pub fn limits(by: &str, parts: &[Part], further: &[(&str, String)]) -> String {
    let mut text = format!("# By gpuquota {by}.\n");
    let mut line = |key: &str, others: Option<&str>, of: &dyn Fn(&Part) -> Option<String>| {
        let own = parts.iter().filter_map(|part| Some(format!("{}={}", part.uuid, of(part)?)));
        let values: Vec<_> = others.map(str::to_owned).into_iter().chain(own).collect();
        if !values.is_empty() {
            text.push_str(&format!("{key} = {}\n", values.join(",")));
        }
    };
    line("memory", Some(OF_OTHERS), &|part| Some(part.memory.to_string()));
    line("cores", None, &|part| part.cores_limit.or(part.cores).map(|cores| cores.to_string()));
    line("cores_request", None, &|part| part.cores.map(|cores| cores.to_string()));
    for (key, value) in further {
        text.push_str(&format!("{key} = {value}\n"));
    }
    text + &format!("region = {}\n", region())
}

/// What is mounted into a container that was given these files.
pub fn mounts(common: &Common, files: &Files, given: &crate::given::Given) -> std::io::Result<[Bind; 5]> {
    Ok(binds(&common.library, &files.preload(&common.library)?, given))
}

#[cfg(test)]
mod tests {
    use super::*;
    use gpuquota_quota::limits;

    #[test]
    fn the_library_understands_the_limits_of_every_card() {
        let part =
            |uuid: &str, memory, cores| Part { uuid: uuid.to_owned(), memory, cores, cores_limit: None };
        let parts = [part("GPU-aa", 8 << 30, Some(30)), part("GPU-bb", 4 << 30, None)];
        let text = super::limits("dra", &parts, &[("policy", "burst-share".to_owned())]);
        let reading = limits::read(&|_| None, Some(text.as_bytes()));
        assert_eq!(reading.problems.iter().count(), 0, "{text}");
        let of = |uuid: &str| {
            let uuid = uuid.as_bytes();
            (
                reading.limits.memory_for(0, uuid),
                reading.limits.cores_for(0, uuid),
                reading.limits.request_for(0, uuid),
            )
        };
        assert_eq!(of("GPU-aa"), (Some(8 << 30), Some(30), Some(30)));
        assert_eq!(of("GPU-bb"), (Some(4 << 30), None, None));
        // A card that was not given has no room for anything.
        assert_eq!(of("GPU-cc"), (Some(1), None, None));
    }
}
