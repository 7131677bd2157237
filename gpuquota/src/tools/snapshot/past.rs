//! The last minutes of a node, as its agent tells them (`/api/v1/history`), or as this program has looked at them.

use crate::tools::node::Names;
use serde::Deserialize;

/// All looks, the oldest first. Every list has one value for each of them.
#[derive(Debug, Default, Deserialize)]
pub struct Past {
    pub times: Vec<String>,
    pub cards: Vec<Card>,
    pub containers: Vec<Container>,
}

/// One card.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Card {
    pub uuid: String,
    pub index: u32,
    pub model: Option<String>,
    pub memory_total: Option<u64>,
    pub used: Vec<Option<u64>>,
    pub busy: Vec<Option<f64>>,
}

/// One device of a container.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Container {
    #[serde(flatten)]
    pub names: Names,
    pub device_uuid: String,
    pub device_index: u32,
    pub memory_limit: Option<u64>,
    pub core_limit: Option<u32>,
    pub used: Vec<Option<u64>>,
    pub busy: Vec<Option<f64>>,
    pub waiting: Vec<Option<f64>>,
    pub denied: Vec<Option<u64>>,
}

impl Past {
    /// Reads an answer.
    pub fn parse(json: &str) -> Result<Self, String> {
        serde_json::from_str(json).map_err(|error| error.to_string())
    }

    /// The card of a device.
    pub fn card(&self, uuid: &str) -> Option<&Card> {
        self.cards.iter().find(|card| card.uuid == uuid)
    }
}
