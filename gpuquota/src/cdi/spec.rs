//! A CDI specification: what of the format is written and checked here.
//!
//! Runtimes read the file with the format's own library; the tests let Podman do so. That library's port to Rust brings a hundred
//! crates into this program, a reader of schemas over the network among them, and none of its types can be made from outside.

use crate::error::Error;
use crate::given::Bind;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Versions of the format that have all that is written here.
const VERSIONS: [&str; 6] = ["0.5.0", "0.6.0", "0.7.0", "0.8.0", "1.0.0", "1.1.0"];

/// The file.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Spec {
    pub cdi_version: String,
    pub kind: String,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    pub devices: Vec<Device>,
    #[serde(default)]
    pub container_edits: Edits,
}

/// A device.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Device {
    name: String,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<String, String>,
    container_edits: Edits,
}

impl Device {
    pub fn new(name: String, container_edits: Edits) -> Self {
        Self { name, annotations: BTreeMap::new(), container_edits }
    }

    pub fn name(&self) -> &str {
        &self.name
    }
}

/// What a container gets. Devices and hooks of others are passed over.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Edits {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mounts: Vec<Mount>,
    #[serde(flatten)]
    pub others: BTreeMap<String, serde_json::Value>,
}

impl Edits {
    fn is_empty(&self) -> bool {
        self.env.is_empty() && self.mounts.is_empty() && self.others.is_empty()
    }
}

/// A mount.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Mount {
    pub host_path: PathBuf,
    container_path: PathBuf,
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    kind: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    options: Vec<String>,
}

impl Mount {
    fn new(host: &Path, container: &Path, kind: Option<&str>, options: &[&str]) -> Self {
        let options = options.iter().map(|option| (*option).to_owned()).collect();
        let kind = kind.map(str::to_owned);
        Self { host_path: host.to_path_buf(), container_path: container.to_path_buf(), kind, options }
    }

    /// A file of the node that the container can only read.
    pub fn read_only(host: &Path, container: &Path) -> Self {
        Self::new(host, container, None, &["ro", "nosuid", "nodev", "bind"])
    }

    /// What a container is given.
    pub fn of(bind: &Bind) -> Self {
        let access = if bind.is_read_only { "ro" } else { "rw" };
        let options = [access, "nosuid", "nodev", "bind"];
        Self::new(&bind.source, Path::new(&bind.destination), None, &options)
    }

    /// A small file system of the container's own, for any of its users.
    pub fn tmpfs(container: &Path) -> Self {
        let options = ["rw", "nosuid", "nodev", "noexec", "mode=1777", "size=16m"];
        Self::new(Path::new("tmpfs"), container, Some("tmpfs"), &options)
    }
}

impl Spec {
    /// Reads a file. JSON only: the others that the format allows are not what is written here.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let shown = path.display();
        let text = fs::read(path).map_err(|error| {
            Error::Asked(format!("{shown}: {error}. Write it with gpuquota cdi generate"))
        })?;
        serde_json::from_slice(&text).map_err(|error| {
            Error::Asked(format!(
                "{shown}: it is no CDI specification in JSON: {error}. Write it with gpuquota cdi generate"
            ))
        })
    }

    /// The file's text.
    pub fn json(&self) -> String {
        serde_json::to_string_pretty(self).expect("plain data has a JSON form") + "\n"
    }

    /// Checks the rules of the format.
    pub fn check(&self, origin: &str) -> Result<(), Error> {
        let refused = |what: &str, value: &str, next: &str| {
            Err(Error::Asked(format!("{origin}: {what} {value:?}: {next}")))
        };
        if !VERSIONS.contains(&self.cdi_version.as_str()) {
            return refused(
                "cdiVersion",
                &self.cdi_version,
                &format!("write one of {}", VERSIONS.join(", ")),
            );
        }
        let is_kind = self
            .kind
            .split_once('/')
            .is_some_and(|(vendor, class)| is_word(vendor, b"_-.", true) && is_word(class, b"_-.", true));
        if !is_kind {
            return refused("kind", &self.kind, "write VENDOR/CLASS, such as gpuquota.dev/gpu");
        }
        if self.devices.is_empty() {
            return refused("devices", "", "there is none, and runtimes refuse such a file");
        }
        let mut names = BTreeSet::new();
        for device in &self.devices {
            if !is_word(&device.name, b"_-.:", false) {
                let next = "write letters, digits, _ - . and :, the first and the last a letter or a digit";
                return refused("device", &device.name, next);
            }
            if !names.insert(&device.name) {
                return refused("device", &device.name, "it is there twice; leave one of them out");
            }
            if device.container_edits.is_empty() {
                return refused("device", &device.name, "it gives a container nothing; leave it out");
            }
        }
        for edits in self.edits() {
            for variable in &edits.env {
                if variable.split_once('=').is_none_or(|(name, _)| name.is_empty()) {
                    return refused("env", variable, "write NAME=VALUE");
                }
            }
            for mount in &edits.mounts {
                if !mount.container_path.is_absolute() {
                    let path = mount.container_path.display().to_string();
                    return refused("containerPath", &path, "write an absolute path");
                }
            }
        }
        Ok(())
    }

    /// Checks that what a container would mount is there: runtimes start no container otherwise.
    pub fn check_sources(&self, origin: &str) -> Result<(), Error> {
        let binds = self.edits().flat_map(|edits| &edits.mounts).filter(|mount| mount.kind.is_none());
        match binds.into_iter().find(|mount| !mount.host_path.exists()) {
            None => Ok(()),
            Some(mount) => Err(Error::Asked(format!(
                "{origin}: hostPath {:?}: it is not there, so no container with this device would start. Run gpuquota install and gpuquota cdi generate",
                mount.host_path.display().to_string()
            ))),
        }
    }

    fn edits(&self) -> impl Iterator<Item = &Edits> {
        self.devices.iter().map(|device| &device.container_edits).chain([&self.container_edits])
    }
}

/// Whether a text is letters, digits and a few more, with a letter (or a digit, where it need not be a letter) at its start and
/// either at its end.
fn is_word(text: &str, others: &[u8], letter_first: bool) -> bool {
    let bytes = text.as_bytes();
    let starts =
        |byte: &u8| if letter_first { byte.is_ascii_alphabetic() } else { byte.is_ascii_alphanumeric() };
    bytes.first().is_some_and(starts)
        && bytes.last().is_some_and(u8::is_ascii_alphanumeric)
        && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || others.contains(byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(change: impl FnOnce(&mut serde_json::Value)) -> Result<Spec, String> {
        let mut value = serde_json::json!({
            "cdiVersion": "0.5.0",
            "kind": "gpuquota.dev/gpu",
            "devices": [{ "name": "2GiB-30", "containerEdits": { "env": ["A=b"] } }],
            "containerEdits": { "deviceNodes": [{ "path": "/dev/nvidia0" }] },
        });
        change(&mut value);
        let spec: Spec = serde_json::from_value(value).map_err(|error| error.to_string())?;
        spec.check("here.json").map_err(|error| error.to_string())?;
        Ok(spec)
    }

    #[test]
    fn a_specification_is_refused_by_the_name_of_what_is_wrong() {
        assert!(spec(|_| ()).is_ok());
        for (at, value, told) in [
            ("/cdiVersion", "0.1.0", "cdiVersion \"0.1.0\""),
            ("/kind", "gpu", "kind \"gpu\""),
            ("/kind", "9.dev/gpu", "kind"),
            ("/devices/0/name", "-x", "device \"-x\""),
            ("/devices/0/name", "a b", "device \"a b\""),
            ("/devices/0/containerEdits/env/0", "=b", "env \"=b\""),
        ] {
            let refused = spec(|spec| *spec.pointer_mut(at).expect(at) = value.into()).expect_err(at);
            assert!(refused.starts_with("here.json: ") && refused.contains(told), "{refused}");
        }
        let twice = spec(|spec| {
            let devices = spec["devices"].as_array_mut().expect("a list");
            devices.push(devices[0].clone());
        });
        assert!(twice.expect_err("two of one name").contains("twice"));
        assert!(spec(|spec| spec["devices"] = serde_json::json!([])).is_err());
        assert!(spec(|spec| spec["kinds"] = "x".into()).expect_err("a misspelled key").contains("kinds"));
    }
}
