//! The node as one look found it: what metrics, JSON and events all tell.

use super::card;
use super::identity::Health;
use super::nri;
use crate::regions::{Event, Region, harmless};
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Upper bounds of the buckets of a look's duration, in seconds.
pub const LOOK_BUCKETS: [f64; 6] = [0.001, 0.01, 0.1, 0.5, 1.0, 5.0];

/// Whose a region is. What nobody knows is empty, and no label.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct Names {
    pub namespace: String,
    pub pod: String,
    pub container: String,
}

/// One container and what its region says. Counters go on where a region is made anew, and never fall.
#[derive(Clone, Debug, Serialize)]
pub struct Container {
    #[serde(flatten)]
    pub names: Names,
    /// Who made it, where that is known.
    pub engine: &'static str,
    /// Where its region is.
    pub path: String,
    /// Whether its region is gone; then its counters alone are true.
    pub ended: bool,
    #[serde(flatten)]
    pub region: Region,
    /// Part of the time since the look before in which it used a device, by the device's index; measured ones only.
    pub utilization: BTreeMap<usize, f64>,
    /// The same of the time in which its launches waited for their share or for others; of several threads the sum.
    pub waiting: BTreeMap<usize, f64>,
    /// Processes that use a device and are held to no limit, by the device's UUID. `None` where nobody has looked.
    pub unprotected: Option<BTreeMap<String, u64>>,
    /// Memory of its processes by the card's own figures, by the device's UUID.
    pub card_bytes: BTreeMap<String, u64>,
}

/// An event of one container.
#[derive(Debug, Serialize)]
pub struct NodeEvent {
    /// The id by which a stream is resumed: the agent's start, and the event's number since then.
    pub id: String,
    #[serde(skip)]
    pub sequence: u64,
    #[serde(flatten)]
    pub names: Names,
    /// The UUID of the device that it concerns.
    pub device_uuid: Option<String>,
    #[serde(flatten)]
    pub event: What,
}

/// Who has told an event.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub enum What {
    /// The container's region.
    Region(Event),
    /// The card, or the agent that has held it against the books.
    Card(card::Event),
    /// The plugin of NRI.
    Nri(nri::Event),
}

/// A card's own figures, as far as anything tells them.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Card {
    pub uuid: String,
    pub index: u32,
    /// The product's name.
    pub model: Option<String>,
    /// The driver's version.
    pub driver: Option<String>,
    /// Whether it has stopped answering.
    pub lost: Option<bool>,
    pub memory_total_bytes: Option<u64>,
    pub memory_used_bytes: Option<u64>,
    /// From 0 to 1.
    pub utilization_ratio: Option<f64>,
    /// Of the memory's bus, from 0 to 1.
    pub memory_utilization_ratio: Option<f64>,
    pub power_watts: Option<f64>,
    pub power_limit_watts: Option<f64>,
    pub temperature_celsius: Option<f64>,
    pub memory_temperature_celsius: Option<f64>,
    pub fan_ratio: Option<f64>,
    /// Errors of its memory, by whether they were corrected.
    pub ecc_errors: BTreeMap<&'static str, u64>,
    /// Whether its clocks are held back, by reason.
    pub throttled: BTreeMap<&'static str, bool>,
    /// How often it has told which Xid, from the agent's start on.
    pub xids: BTreeMap<u64, u64>,
    /// The last Xid; 0: none so far.
    pub last_xid: Option<u64>,
    /// Its processes, by how they stand to the regions.
    pub processes: BTreeMap<&'static str, u64>,
    /// What a context takes, as learned from it.
    pub context_bytes: Option<u64>,
}

/// What the agent counts itself, from its start on.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Own {
    /// Files that should be regions and were not taken, by reason.
    pub errors: BTreeMap<&'static str, u64>,
    /// What was found and left out of the answers, by reason.
    pub left_out: BTreeMap<&'static str, u64>,
    /// Looks by how long they took: each in its own bucket, the last one without bound.
    pub look_times: [u64; LOOK_BUCKETS.len() + 1],
    pub looking_seconds: f64,
    /// How those do who know the names of containers.
    pub sources: Vec<Health>,
    /// How the plugin of NRI does, if there is one.
    pub nri: Option<nri::Figures>,
}

/// The node at one time.
#[derive(Clone, Debug, Serialize)]
pub struct Snapshot {
    /// When, UTC.
    pub taken: String,
    pub containers: Vec<Container>,
    pub cards: Vec<Card>,
    /// The processes at the cards.
    pub processes: Vec<card::Seated>,
    /// What has happened, the oldest first.
    pub events: Vec<Arc<NodeEvent>>,
    #[serde(rename = "agent")]
    pub own: Own,
}

/// What containers have of a device, and its card's own figures.
#[derive(Serialize)]
pub struct NodeDevice<'s> {
    pub uuid: &'s str,
    pub index: u32,
    /// Containers that use it.
    pub containers: u64,
    /// The sum of their caps.
    pub memory_allocated: u64,
    /// The sum of their shares in percent.
    pub cores_allocated: u64,
    pub card: Option<&'s Card>,
}

impl NodeDevice<'_> {
    /// What its card says.
    pub fn of_card<T>(&self, figure: fn(&Card) -> Option<T>) -> Option<T> {
        self.card.and_then(figure)
    }
}

impl Snapshot {
    /// The devices of the cards and those that containers name.
    pub fn devices(&self) -> Vec<NodeDevice<'_>> {
        let mut devices: BTreeMap<&str, NodeDevice<'_>> = BTreeMap::new();
        let (containers, memory_allocated, cores_allocated) = (0, 0, 0);
        let new = |uuid, index, card| NodeDevice {
            uuid,
            index,
            containers,
            memory_allocated,
            cores_allocated,
            card,
        };
        for card in &self.cards {
            devices.insert(&card.uuid, new(&card.uuid, card.index, Some(card)));
        }
        for container in self.containers.iter().filter(|container| !container.ended) {
            for device in &container.region.devices {
                let entry = devices.entry(&device.uuid);
                let entry = entry.or_insert_with(|| new(&device.uuid, device.index as u32, None));
                entry.containers += 1;
                entry.memory_allocated =
                    entry.memory_allocated.saturating_add(device.memory_limit.unwrap_or(0));
                entry.cores_allocated += u64::from(device.core_limit.unwrap_or(0).min(100));
            }
        }
        devices.into_values().collect()
    }

    /// The card with this UUID.
    pub fn card(&self, uuid: &str) -> Option<&Card> {
        self.cards.iter().find(|card| card.uuid == uuid)
    }
}

/// A name of one line without anything that a terminal might obey, whatever a tenant calls its containers.
pub fn printable(name: &str) -> String {
    harmless(name).replace('\n', "\\x0a")
}
