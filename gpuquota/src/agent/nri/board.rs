//! What the plugin tells the rest of the agent.

use crate::agent::card::container;
use crate::agent::identity::Identity;
use serde::Serialize;
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

/// Events that are kept.
const EVENTS: usize = 256;
/// Containers without their quota that are named.
const NAMED: usize = 256;

/// Containers by what became of them when they were made, and how the plugin does.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Figures {
    /// Whether a runtime has taken the plugin in.
    pub connected: bool,
    /// How often a connection has ended.
    pub disconnects: u64,
    /// Containers that got a quota.
    pub given: u64,
    /// Containers that were refused.
    pub refused: u64,
    /// Containers that asked for none.
    pub unasked: u64,
    /// Those that ask for a quota and were started without it, by their ids.
    pub without_quota: BTreeMap<String, Identity>,
    /// Why there is no connection.
    #[serde(skip)]
    pub why: String,
}

/// One incident.
#[derive(Clone, Debug, Serialize)]
pub struct Event {
    /// When, UTC.
    pub time: String,
    /// Whose it is.
    #[serde(skip)]
    pub identity: Identity,
    /// What happened.
    #[serde(flatten)]
    pub kind: Kind,
}

/// What happened.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Kind {
    /// A container was not made.
    Refused {
        /// Why.
        reason: String,
    },
    /// A container asks for a quota and was started without it.
    WithoutQuota {
        /// What was done about it.
        action: String,
    },
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whose = container(&self.identity);
        match &self.kind {
            Kind::Refused { reason } => write!(f, "container {whose} is refused: {reason}"),
            Kind::WithoutQuota { action } => {
                write!(f, "container {whose} asks for a quota and was started without it: {action}")
            }
        }
    }
}

#[derive(Default)]
struct State {
    figures: Figures,
    events: VecDeque<Event>,
}

/// The board.
#[derive(Default)]
pub struct Board(Mutex<State>);

impl Board {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// As of now.
    pub fn figures(&self) -> Figures {
        self.state().figures.clone()
    }

    /// Changes the figures.
    pub fn note(&self, change: impl FnOnce(&mut Figures)) {
        change(&mut self.state().figures);
    }

    /// Whose quota is missing, from this look on.
    pub fn show_without_quota(&self, found: impl Iterator<Item = (String, Identity)>) {
        self.state().figures.without_quota = found.take(NAMED).collect();
    }

    /// Tells of an incident, in the log too.
    pub fn tell(&self, identity: Identity, kind: Kind) {
        let time = humantime::format_rfc3339_millis(SystemTime::now()).to_string();
        let event = Event { time, identity, kind };
        tracing::warn!("{event}");
        let mut state = self.state();
        if state.events.len() >= EVENTS {
            state.events.pop_front();
        }
        state.events.push_back(event);
    }

    /// What has happened since this was asked before, the oldest first.
    pub fn take_events(&self) -> VecDeque<Event> {
        std::mem::take(&mut self.state().events)
    }
}
