//! What the figures were before: for sparklines, and for what happened in between.

use crate::tools::node::{Container, Device, Node};
use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

/// Looks that are kept.
const KEPT: usize = 60;

/// One device, or one container's device.
#[derive(Default)]
struct Line {
    /// Percent of the time, the newest last.
    busy: VecDeque<u64>,
    waited: u64,
    /// Percent of the time since the look before that launches waited.
    waits: f64,
    denied: u64,
    /// Refusals since the first look.
    since: Option<u64>,
}

/// What was seen so far.
#[derive(Default)]
pub struct History {
    cards: BTreeMap<String, Line>,
    containers: BTreeMap<(String, usize), Line>,
    last: Option<Instant>,
}

impl Line {
    fn push(&mut self, percent: u64) {
        if self.busy.len() >= KEPT {
            self.busy.pop_front();
        }
        self.busy.push_back(percent);
    }
}

/// All waits of a device: for its share and for others.
fn waited(device: &Device) -> u64 {
    device.waited_ns.saturating_add(device.lease.waited_ns)
}

/// Percent of the time in which a container had a device.
pub fn busy(container: &Container, device: &Device) -> Option<f64> {
    container.utilization.get(&device.index.to_string()).map(|part| part * 100.0)
}

impl History {
    /// Takes a look.
    pub fn take(&mut self, node: &Node) {
        let passed = self.last.map(|last| last.elapsed().as_nanos() as f64);
        self.last = Some(Instant::now());
        for card in &node.cards {
            let line = self.cards.entry(card.uuid.clone()).or_default();
            line.push((card.utilization_ratio.unwrap_or(0.0) * 100.0).round() as u64);
        }
        let mut before = std::mem::take(&mut self.containers);
        for container in node.containers.iter().filter(|container| !container.ended) {
            for device in &container.devices {
                let key = (container.path.clone(), device.index);
                let mut line = before.remove(&key).unwrap_or_default();
                let now = waited(device);
                line.waits = match passed {
                    Some(passed) if line.since.is_some() => {
                        now.saturating_sub(line.waited) as f64 * 100.0 / passed
                    }
                    _ => 0.0,
                };
                line.waited = now;
                line.denied = device.denied;
                line.since.get_or_insert(device.denied);
                line.push(busy(container, device).unwrap_or(0.0).round() as u64);
                self.containers.insert(key, line);
            }
        }
    }

    /// How busy a card was.
    pub fn card(&self, uuid: &str) -> Vec<u64> {
        self.cards.get(uuid).map(|line| line.busy.iter().copied().collect()).unwrap_or_default()
    }

    /// The same of a container's device.
    pub fn container(&self, path: &str, device: usize) -> Vec<u64> {
        let line = self.containers.get(&(path.to_owned(), device));
        line.map(|line| line.busy.iter().copied().collect()).unwrap_or_default()
    }

    /// Percent of the last interval in which launches of a container waited; of several threads the sum.
    pub fn waits(&self, path: &str, device: usize) -> f64 {
        self.containers.get(&(path.to_owned(), device)).map_or(0.0, |line| line.waits)
    }

    /// Whether a request of it was refused since the first look.
    pub fn has_denied(&self, path: &str, device: usize) -> bool {
        let line = self.containers.get(&(path.to_owned(), device));
        line.is_some_and(|line| line.since.is_some_and(|since| line.denied > since))
    }
}
