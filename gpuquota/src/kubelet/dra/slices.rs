//! The ResourceSlices of this node: what the scheduler knows of its cards.

use super::api::{Api, Refusal};
use super::capacity::Read;
use crate::kubelet::cards::Piece;
use serde_json::{Map, Value, json};

/// Versions of the group, the preferred one first.
const VERSIONS: [&str; 3] = ["v1", "v1beta2", "v1beta1"];
const GROUP: &str = "/apis/resource.k8s.io";
/// Devices of one slice, where devices may have taints.
const LONGEST: usize = 64;

/// The version of the API that a cluster has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Version(&'static str);

impl Version {
    /// Asks the cluster. `None`: it has no dynamic resource allocation.
    pub async fn of(api: &Api) -> Result<Option<Self>, Refusal> {
        let group = match api.get(GROUP).await {
            Err(refusal) if refusal.is_missing() => return Ok(None),
            group => group?,
        };
        let served: Vec<&str> = group["versions"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|of| of["version"].as_str())
            .collect();
        Ok(VERSIONS.into_iter().find(|version| served.contains(version)).map(Self))
    }

    /// The path of a claim.
    pub fn claim(self, namespace: &str, name: &str) -> String {
        format!("{GROUP}/{}/namespaces/{namespace}/resourceclaims/{name}", self.0)
    }

    /// The name with the group.
    pub fn full(self) -> String {
        format!("resource.k8s.io/{}", self.0)
    }

    fn slices(self) -> String {
        format!("{GROUP}/{}/resourceslices", self.0)
    }

    /// Before v1 a cluster knows no capacity that several claims consume.
    pub fn divides(self) -> bool {
        self.0 == "v1"
    }
}

/// A card as a device of a slice.
fn device(piece: &Piece, policies: &Read, version: Version) -> Value {
    let (is_shared, capacity) = policies.capacity(piece.memory, piece.is_shared && version.divides());
    let mut of = Map::new();
    of.insert("attributes".to_owned(), json!(piece.attributes));
    of.insert("capacity".to_owned(), capacity);
    if is_shared {
        of.insert("allowMultipleAllocations".to_owned(), json!(true));
    }
    if let Some(trouble) = &piece.trouble {
        let taint =
            json!({ "key": "gpuquota.dev/unhealthy", "value": trouble.label(), "effect": "NoSchedule" });
        of.insert("taints".to_owned(), json!([taint]));
    }
    // The oldest version has all but the name in a part of its own.
    match version.0 {
        "v1beta1" => json!({ "name": piece.name, "basic": of }),
        _ => {
            of.insert("name".to_owned(), json!(piece.name));
            Value::Object(of)
        }
    }
}

/// The slices of this node, each but for its pool's generation.
pub fn wanted(
    pieces: &[Piece],
    policies: &Read,
    version: Version,
    driver: &str,
    node: &str,
    uid: &str,
) -> Vec<Value> {
    let devices: Vec<Value> = pieces.iter().map(|piece| device(piece, policies, version)).collect();
    let parts: Vec<&[Value]> = devices.chunks(LONGEST).collect();
    let start: String = node.chars().take(200).collect();
    let owner = json!({ "apiVersion": "v1", "kind": "Node", "name": node, "uid": uid, "controller": true });
    let slice = |(at, devices): (usize, &&[Value])| {
        json!({
            "apiVersion": version.full(),
            "kind": "ResourceSlice",
            "metadata": { "name": format!("{start}-{driver}-{at}"), "ownerReferences": [owner] },
            "spec": {
                "driver": driver,
                "nodeName": node,
                "pool": { "name": node, "generation": 1, "resourceSliceCount": parts.len() },
                "devices": devices,
            },
        })
    };
    parts.iter().enumerate().map(slice).collect()
}

/// Whether all that is wanted is there. What the server adds (the time of a taint, say) is not looked at.
fn is_there(wanted: &Value, found: &Value) -> bool {
    match (wanted, found) {
        (Value::Object(wanted), Value::Object(found)) => wanted.iter().all(|(key, value)| {
            key == "generation" || found.get(key).is_some_and(|found| is_there(value, found))
        }),
        (Value::Array(wanted), Value::Array(found)) => {
            wanted.len() == found.len()
                && wanted.iter().zip(found).all(|(wanted, found)| is_there(wanted, found))
        }
        (wanted, found) => wanted == found,
    }
}

/// Whether a device has a taint that is not wanted any more; the other parts of a device do not go.
fn has_old_taint(wanted: &Value, found: &Value) -> bool {
    let devices = |of: &Value| of["spec"]["devices"].as_array().cloned().unwrap_or_default();
    let taints = |of: &Value| {
        let taints = of["taints"].as_array().or_else(|| of["basic"]["taints"].as_array());
        taints.map_or(0, Vec::len)
    };
    devices(wanted).iter().zip(devices(found).iter()).any(|(wanted, found)| taints(found) > taints(wanted))
}

/// What writing has shown.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// How many slices were made, changed or removed.
    pub changes: usize,
    /// Whether the server has dropped what divides a card.
    pub is_undivided: bool,
}

/// Makes the slices of this node as they are wanted. All of a pool's have one generation, which rises with each change.
pub async fn write(
    api: &Api,
    version: Version,
    driver: &str,
    node: &str,
    wanted: Vec<Value>,
) -> Result<Written, Refusal> {
    let path = version.slices();
    let of_node = format!("{path}?fieldSelector=spec.nodeName%3D{node}%2Cspec.driver%3D{driver}");
    let mut found = api.get(&of_node).await?["items"].as_array().cloned().unwrap_or_default();
    found.retain(|slice| slice["spec"]["driver"] == driver && slice["spec"]["nodeName"] == node);
    let named = |name: &Value| found.iter().find(|slice| slice["metadata"]["name"] == *name);
    let is_right = |slice: &Value| {
        named(&slice["metadata"]["name"])
            .is_some_and(|found| is_there(&slice["spec"], &found["spec"]) && !has_old_taint(slice, found))
    };
    let mut written = Written::default();
    if wanted.len() == found.len() && wanted.iter().all(is_right) {
        written.is_undivided =
            wanted.iter().any(|slice| is_undivided(slice, named(&slice["metadata"]["name"])));
        return Ok(written);
    }
    let generation =
        found.iter().filter_map(|slice| slice["spec"]["pool"]["generation"].as_i64()).max().unwrap_or(0) + 1;
    for slice in &wanted {
        let mut slice = slice.clone();
        slice["spec"]["pool"]["generation"] = json!(generation);
        let answer = match named(&slice["metadata"]["name"]) {
            None => api.create(&path, &slice).await?,
            Some(found) => {
                slice["metadata"]["resourceVersion"] = found["metadata"]["resourceVersion"].clone();
                let name = slice["metadata"]["name"].as_str().unwrap_or_default().to_owned();
                api.update(&format!("{path}/{name}"), &slice).await?
            }
        };
        written.is_undivided |= is_undivided(&slice, Some(&answer));
        written.changes += 1;
    }
    for old in &found {
        let name = &old["metadata"]["name"];
        if !wanted.iter().any(|slice| slice["metadata"]["name"] == *name) {
            match api.delete(&format!("{path}/{}", name.as_str().unwrap_or_default())).await {
                Err(refusal) if !refusal.is_missing() => return Err(refusal),
                _ => written.changes += 1,
            }
        }
    }
    Ok(written)
}

/// Whether a slice was to divide a card, and what the server has kept does not.
fn is_undivided(wanted: &Value, kept: Option<&Value>) -> bool {
    let divides = |of: &Value| {
        let devices = of["spec"]["devices"].as_array();
        devices.is_some_and(|devices| devices.iter().any(|device| device["allowMultipleAllocations"] == true))
    };
    divides(wanted) && kept.is_some_and(|kept| !divides(kept))
}
