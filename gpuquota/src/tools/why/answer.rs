//! An answer, and what it is made of.

use crate::tools::messages::Message;
use crate::tools::node::{Card, Container, Device, Node};
use serde::Serialize;
use std::time::Duration;

/// One answer.
#[derive(Serialize)]
pub struct Answer {
    #[serde(rename = "code")]
    pub message: &'static Message,
    pub title: &'static str,
    /// The device that it is about.
    pub device: Option<String>,
    /// A sentence with figures.
    pub says: String,
    pub next: String,
}

impl Answer {
    /// Of a device, in these words.
    pub fn of(message: &'static Message, device: &Device, says: String) -> Self {
        Self { device: Some(device.uuid.clone()), ..Self::new(message, says) }
    }

    pub fn new(message: &'static Message, says: String) -> Self {
        Self { message, title: message.title, device: None, says, next: message.next.to_owned() }
    }

    /// With a next step of its own.
    pub fn next(mut self, next: String) -> Self {
        self.next = next;
        self
    }
}

/// A container at two moments, and everything around it at the later one.
pub struct Seen<'n> {
    pub before: &'n Container,
    pub now: &'n Container,
    pub node: &'n Node,
    /// Between the two.
    pub over: Duration,
}

/// One device of a container, with the same.
pub struct Part<'n> {
    pub before: Option<&'n Device>,
    pub now: &'n Device,
    pub card: Option<&'n Card>,
}

/// `1 device`, `2 devices`.
pub fn count(many: usize, what: &str) -> String {
    match (many, what) {
        (1, _) => format!("1 {what}"),
        (_, "process" | "launch") => format!("{many} {what}es"),
        _ => format!("{many} {what}s"),
    }
}
