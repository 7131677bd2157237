//! The snapshot in Prometheus's text format, or OpenMetrics: base units, ratios from 0 to 1, counters that end in `_total`.
//!
//! Every family stands once in a table, from which the answer and `docs/metrics.md` are made.

mod dcgm;
mod family;
mod hami;
mod native;
mod page;

use super::snapshot::Snapshot;
use family::{Family, Rows};
pub use page::page;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, prometheus_text, text};
use prometheus_client::registry::Registry;
use std::fmt;
use std::sync::Arc;

/// The formats of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Prometheus's text format, version 0.0.4.
    Text,
    /// OpenMetrics 1.0.0.
    OpenMetrics,
}

impl Format {
    /// Its `Content-Type`.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Text => prometheus_text::CONTENT_TYPE,
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// What is served beside the agent's own families.
#[derive(Clone, Debug, Default)]
pub struct Choice {
    /// HAMi's.
    pub hami: bool,
    /// dcgm-exporter's.
    pub dcgm: bool,
    /// The node's name in both.
    pub node: String,
}

struct Told {
    snapshot: Arc<Snapshot>,
    choice: Choice,
}

impl fmt::Debug for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Told").finish_non_exhaustive()
    }
}

impl Collector for Told {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let rows = Rows::of(&self.snapshot, &self.choice.node);
        let mut tables: Vec<&[Family]> = vec![&native::FAMILIES];
        if self.choice.hami {
            tables.extend([&hami::FAMILIES as &[Family], &hami::OLD_FAMILIES]);
        }
        if self.choice.dcgm {
            tables.push(&dcgm::FAMILIES);
        }
        tables.into_iter().flatten().try_for_each(|family| family.encode(&mut encoder, &rows))
    }
}

/// All metrics of a snapshot.
pub fn encode(snapshot: &Arc<Snapshot>, choice: &Choice, format: Format) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Told { snapshot: Arc::clone(snapshot), choice: choice.clone() }));
    let mut written = String::new();
    match format {
        Format::Text => prometheus_text::encode(&mut written, &registry)?,
        Format::OpenMetrics => text::encode(&mut written, &registry)?,
    }
    Ok(written)
}

#[cfg(test)]
#[path = "../../tests/common/exposition.rs"]
mod exposition;

#[cfg(test)]
mod tests;
