//! What the page at `/` shows of a look: less than the JSON, because it goes to each reader once a second.

use super::snapshot::{Container, Names, NodeDevice, NodeEvent, Snapshot};
use crate::regions::Device;
use crate::tools::events::fields;
use crate::tools::messages;
use crate::tools::node::Event;
use serde::Serialize;

/// Events that are shown, the newest ones.
const EVENTS: usize = 20;

/// All of it.
#[derive(Serialize)]
struct Picture<'s> {
    taken: &'s str,
    version: &'static str,
    devices: Vec<NodeDevice<'s>>,
    containers: Vec<Row<'s>>,
    /// The newest one first.
    events: Vec<Happened<'s>>,
}

/// A living container.
#[derive(Serialize)]
struct Row<'s> {
    #[serde(flatten)]
    names: &'s Names,
    /// Its region, by which the page asks why.
    path: &'s str,
    processes: usize,
    devices: Vec<Part<'s>>,
}

/// What it has of a device.
#[derive(Serialize)]
struct Part<'s> {
    uuid: &'s str,
    /// On the node, where a card tells it.
    index: u32,
    used: u64,
    memory_limit: Option<u64>,
    spilled: u64,
    core_limit: Option<u32>,
    /// Parts of the time since the look before.
    utilization: Option<f64>,
    waiting: Option<f64>,
    denied: u64,
    /// Processes that no limit holds.
    unprotected: u64,
}

#[derive(Serialize)]
struct Happened<'s> {
    id: &'s str,
    time: String,
    code: &'static str,
    title: &'static str,
    #[serde(flatten)]
    names: &'s Names,
    device_uuid: Option<&'s str>,
    pid: u32,
    says: String,
}

/// As JSON.
pub fn of(snapshot: &Snapshot) -> serde_json::Result<String> {
    let living = snapshot.containers.iter().filter(|container| !container.ended);
    serde_json::to_string(&Picture {
        taken: &snapshot.taken,
        version: env!("CARGO_PKG_VERSION"),
        devices: snapshot.devices(),
        containers: living.map(|container| row(snapshot, container)).collect(),
        events: snapshot.events.iter().rev().take(EVENTS).map(|event| happened(event)).collect(),
    })
}

fn row<'s>(snapshot: &'s Snapshot, container: &'s Container) -> Row<'s> {
    Row {
        names: &container.names,
        path: &container.path,
        processes: container.region.alive().count(),
        devices: container.region.devices.iter().map(|device| part(snapshot, container, device)).collect(),
    }
}

fn part<'s>(snapshot: &'s Snapshot, container: &'s Container, device: &'s Device) -> Part<'s> {
    let unprotected = container.unprotected.as_ref().and_then(|by| by.get(&device.uuid));
    Part {
        uuid: &device.uuid,
        index: snapshot.card(&device.uuid).map_or(device.index as u32, |card| card.index),
        used: device.used,
        memory_limit: device.memory_limit,
        spilled: device.spilled,
        core_limit: device.core_limit,
        utilization: container.utilization.get(&device.index).copied(),
        waiting: container.waiting.get(&device.index).copied(),
        denied: device.denied,
        unprotected: unprotected.copied().unwrap_or(0),
    }
}

fn happened(event: &NodeEvent) -> Happened<'_> {
    let told = serde_json::to_value(event).and_then(serde_json::from_value::<Event>).unwrap_or_default();
    let message = messages::of_event(&told.event);
    Happened {
        id: &event.id,
        says: fields::told(&told),
        time: told.time,
        code: message.code,
        title: message.title,
        names: &event.names,
        device_uuid: event.device_uuid.as_deref(),
        pid: told.pid,
    }
}
