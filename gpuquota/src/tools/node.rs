//! The node as the tools know it: the agent's JSON (`docs/agent.md`), of this version or an older one.
//!
//! What an older agent does not tell is empty here, and what a later one adds is passed over.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// Everything at one moment.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Node {
    pub taken: String,
    pub containers: Vec<Container>,
    #[serde(default)]
    pub cards: Vec<Card>,
    #[serde(default)]
    pub events: Vec<Event>,
    /// Those at the cards. An older agent does not tell them.
    pub processes: Option<Vec<Seat>>,
}

/// Whose something is; what nobody knows is empty.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(default)]
pub struct Names {
    pub namespace: String,
    pub pod: String,
    pub container: String,
}

impl Names {
    /// As people write it: `namespace/pod/container`, without what nobody knows.
    pub fn full(&self) -> String {
        joined(&[&self.namespace, &self.pod, &self.container])
    }
}

/// Names as people write them, without what nobody knows.
pub fn joined(words: &[&str]) -> String {
    let words: Vec<_> = words.iter().copied().filter(|word| !word.is_empty()).collect();
    words.join("/")
}

/// One container.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Container {
    #[serde(flatten)]
    pub names: Names,
    pub engine: String,
    pub path: String,
    pub ended: bool,
    pub fallbacks: u64,
    pub devices: Vec<Device>,
    pub processes: Vec<Process>,
    pub utilization: BTreeMap<String, f64>,
    pub unprotected: Option<BTreeMap<String, u64>>,
    pub card_bytes: BTreeMap<String, u64>,
}

/// What a container has of a device.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Device {
    pub index: usize,
    pub uuid: String,
    pub memory_limit: Option<u64>,
    pub memory_total: u64,
    pub used: u64,
    pub peak: u64,
    pub denied: u64,
    pub would_deny: u64,
    pub spilled: u64,
    pub core_limit: Option<u32>,
    pub gpu_time_ns: Option<u64>,
    pub waited_ns: u64,
    pub waited_in_flight_ns: u64,
    pub launches: u64,
    pub waits: u64,
    pub would_wait: u64,
    pub context_bytes: u64,
    pub lease: Lease,
    pub asked: Vec<Asked>,
}

/// How it stands to the other containers of a device.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Lease {
    pub request_percent: Option<u32>,
    pub burst: bool,
    pub idle_only: bool,
    pub waited_ns: u64,
    pub held_ns: u64,
}

/// Limits that somebody asked for.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Asked {
    pub by: String,
    pub pid: Option<u32>,
    pub memory_limit: Option<u64>,
    pub core_limit: Option<u64>,
    pub from_file: Vec<String>,
}

/// One process of a container.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Process {
    pub pid: u32,
    pub host_pid: Option<u32>,
    pub alive: bool,
    pub priority: u32,
    pub devices: Vec<Held>,
}

/// What it holds of a device.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Held {
    pub device: usize,
    pub bytes: u64,
    pub context_bytes: u64,
}

/// A card's own figures.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Card {
    pub uuid: String,
    pub index: u32,
    pub model: Option<String>,
    pub driver: Option<String>,
    pub lost: Option<bool>,
    pub memory_total_bytes: Option<u64>,
    pub memory_used_bytes: Option<u64>,
    pub utilization_ratio: Option<f64>,
    pub power_watts: Option<f64>,
    pub power_limit_watts: Option<f64>,
    pub temperature_celsius: Option<f64>,
    pub throttled: BTreeMap<String, bool>,
    pub last_xid: Option<u64>,
}

/// A process at a card.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct Seat {
    pub uuid: String,
    pub pid: u32,
    pub command: String,
    pub card_bytes: Option<u64>,
    pub booked_bytes: Option<u64>,
    #[serde(flatten)]
    pub names: Names,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub pod_uid: String,
    pub engine: String,
    /// `counted`, `unprotected` or `outside`.
    pub standing: String,
}

/// What has happened.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct Event {
    pub id: String,
    #[serde(flatten)]
    pub names: Names,
    pub device_uuid: Option<String>,
    pub time: String,
    pub pid: u32,
    pub event: String,
    /// The fields of this kind of event.
    #[serde(flatten)]
    pub more: Map<String, Value>,
}

impl Event {
    /// A number of it; 0 if it has none of this name.
    pub fn number(&self, name: &str) -> u64 {
        self.more.get(name).and_then(Value::as_u64).unwrap_or(0)
    }

    /// A word of it.
    pub fn word(&self, name: &str) -> &str {
        self.more.get(name).and_then(Value::as_str).unwrap_or("")
    }
}

impl Node {
    /// Reads an agent's answer.
    pub fn parse(json: &[u8]) -> Result<Self, String> {
        serde_json::from_slice(json).map_err(|error| error.to_string())
    }

    /// The card of this UUID.
    pub fn card(&self, uuid: &str) -> Option<&Card> {
        self.cards.iter().find(|card| card.uuid == uuid)
    }

    /// The other containers that live and have the device.
    pub fn neighbours<'n>(&'n self, of: &'n Container, uuid: &'n str) -> impl Iterator<Item = &'n Container> {
        let others = self.containers.iter().filter(move |other| !other.ended && other.path != of.path);
        others.filter(move |other| other.devices.iter().any(|device| device.uuid == uuid))
    }
}
