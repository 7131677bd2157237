//! What has happened between card and books, for people, logs and programs.

use super::compare::{Difference, Seated};
use crate::agent::identity::Identity;
use crate::words;
use serde::Serialize;
use std::fmt;
use std::time::SystemTime;

/// One incident.
#[derive(Clone, Debug, Serialize)]
pub struct Event {
    /// When, UTC.
    pub time: String,
    /// Whose it is; nobody's where a device itself tells something.
    #[serde(skip)]
    pub identity: Identity,
    /// The device's UUID.
    #[serde(skip)]
    pub uuid: String,
    /// What happened.
    #[serde(flatten)]
    pub kind: EventKind,
}

/// What happened.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum EventKind {
    /// A process of a container with limits uses a card without being counted.
    Unprotected {
        /// Its pid here.
        pid: u32,
        /// Its command's name.
        command: String,
        /// Memory that it has, where the card tells.
        card_bytes: Option<u64>,
        /// What was done about it.
        action: String,
    },
    /// Card and books differ by more than the driver rounds.
    Difference {
        /// Memory of the container's processes by the card.
        card_bytes: u64,
        /// The same by its books.
        booked_bytes: u64,
    },
    /// They agree again.
    Agreement,
    /// A device has stopped answering.
    Lost,
    /// A device has told an error.
    Xid {
        /// NVIDIA's number of the error.
        xid: u64,
    },
}

impl Event {
    fn new(identity: Identity, uuid: &str, kind: EventKind) -> Self {
        let time = humantime::format_rfc3339_millis(SystemTime::now()).to_string();
        Self { time, identity, uuid: uuid.to_owned(), kind }
    }

    /// A process past the limits of its container.
    pub fn unprotected(process: &Seated, action: String) -> Self {
        let Seated { pid, card_bytes, .. } = *process;
        let kind = EventKind::Unprotected { pid, command: process.command.clone(), card_bytes, action };
        Self::new(process.identity.clone(), &process.uuid, kind)
    }

    /// A difference that lasts, or its end.
    pub fn difference(difference: &Difference) -> Self {
        let Difference { identity, uuid, card_bytes, booked_bytes, is_large } = difference;
        let (card_bytes, booked_bytes) = (*card_bytes, *booked_bytes);
        let kind =
            if *is_large { EventKind::Difference { card_bytes, booked_bytes } } else { EventKind::Agreement };
        Self::new(identity.clone(), uuid, kind)
    }

    /// What a device itself tells.
    pub fn of_device(uuid: &str, kind: EventKind) -> Self {
        Self::new(Identity::default(), uuid, kind)
    }
}

/// A container as people are told it.
pub fn container(identity: &Identity) -> String {
    let Identity { namespace, pod, container, .. } = identity;
    let words = [namespace, pod, container].into_iter().filter(|word| !word.is_empty());
    words.map(|word| word.escape_debug().to_string()).collect::<Vec<_>>().join("/")
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (uuid, owner) = (&self.uuid, container(&self.identity));
        match &self.kind {
            EventKind::Unprotected { pid, command, card_bytes, action } => {
                let command = command.escape_debug();
                let has =
                    card_bytes.map_or_else(String::new, |bytes| format!(" has {} and", words::bytes(bytes)));
                write!(
                    f,
                    "process {pid} ({command}) of {owner}{has} uses {uuid} without being counted: {action}"
                )
            }
            EventKind::Difference { card_bytes, booked_bytes } => {
                let [card, books] = [card_bytes, booked_bytes].map(|bytes| words::bytes(*bytes));
                write!(f, "{owner} has {card} of {uuid} by the card, and {books} by its books")
            }
            EventKind::Agreement => write!(f, "{owner}: card {uuid} and books agree again"),
            EventKind::Lost => write!(f, "{uuid} does not answer any more"),
            EventKind::Xid { xid } => write!(f, "{uuid} tells error Xid {xid}"),
        }
    }
}
