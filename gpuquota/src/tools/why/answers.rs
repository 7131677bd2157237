//! All answers to `why`, for the subcommand and for the agent's page.

use super::answer::{Answer, Part, Seen, count};
use super::{memory, time};
use crate::error::Error;
use crate::tools::messages::{self, NO_CONTAINER, refused};
use crate::tools::name;
use crate::tools::node::{Container, Device, Node};
use serde::Serialize;
use std::time::Duration;

/// The container that is asked about.
pub enum Wanted {
    /// By a name of it, or a prefix.
    Name(String),
    /// By where its region is, as the agent tells it.
    Region(String),
}

impl Wanted {
    /// That container.
    pub fn of<'n>(&self, node: &'n Node) -> Result<&'n Container, Error> {
        match self {
            Self::Name(name) => name::find(node, name),
            Self::Region(path) => {
                let found = node.containers.iter().find(|container| container.path == *path);
                found.ok_or_else(|| refused(&NO_CONTAINER, format!("region {path}: it is gone")))
            }
        }
    }
}

/// What is answered.
#[derive(Serialize)]
pub struct Told {
    pub container: String,
    pub region: String,
    pub taken: String,
    /// Who has looked.
    pub source: String,
    pub answers: Vec<Answer>,
}

/// Answers by two looks, so long apart.
pub fn told(
    wanted: &Wanted,
    before: &Node,
    node: &Node,
    over: Duration,
    source: String,
) -> Result<Told, Error> {
    let before = wanted.of(before)?;
    let now = Wanted::Region(before.path.clone()).of(node)?;
    let answers = answers(&Seen { before, now, node, over });
    let (container, region, taken) = (now.names.full(), now.path.clone(), node.taken.clone());
    Ok(Told { container, region, taken, source, answers })
}

/// All answers, what is worst first.
fn answers(seen: &Seen<'_>) -> Vec<Answer> {
    if seen.now.ended {
        return vec![Answer::new(
            &messages::ENDED,
            "The container has ended: its region is gone.".to_owned(),
        )];
    }
    let mut answers = Vec::new();
    let parts = || {
        seen.now.devices.iter().map(|now| Part {
            before: seen.before.devices.iter().find(|before| before.index == now.index),
            now,
            card: seen.node.card(&now.uuid),
        })
    };
    let lost: Vec<Answer> = parts().filter_map(|part| lost(seen, &part)).collect();
    let is_lost = |part: &Part<'_>| lost.iter().any(|answer| answer.device.as_ref() == Some(&part.now.uuid));
    let held: Vec<Part<'_>> = parts().filter(|part| !is_lost(part)).collect();
    answers.extend(held.iter().filter_map(|part| unprotected(seen, part)));
    answers.extend(held.iter().filter_map(|part| memory::refused(seen, part)));
    answers.extend(held.iter().filter_map(|part| memory::full(part)));
    answers.extend(held.iter().flat_map(|part| time::slow(seen, part)));
    answers.extend(held.iter().filter_map(observed));
    let is_hindered = !answers.is_empty();
    answers.splice(0..0, lost);
    if !seen.now.processes.iter().any(|process| process.alive) {
        let says = "No living process of the container is counted.";
        answers.push(Answer::new(&messages::NOBODY, says.to_owned()));
    }
    let limits = |device: &Device| device.memory_limit.is_some() || device.core_limit.is_some();
    if !seen.now.devices.is_empty() && !seen.now.devices.iter().any(limits) {
        let says = format!(
            "None of its {} has a limit of memory or of time.",
            count(seen.now.devices.len(), "device")
        );
        answers.push(Answer::new(&messages::NO_LIMITS, says));
    } else if !is_hindered && answers.is_empty() {
        answers.push(Answer::new(&messages::NOTHING, nothing(seen)));
    }
    answers
}

fn nothing(seen: &Seen<'_>) -> String {
    let launches: u64 = seen.now.devices.iter().map(|device| device.launches).sum();
    let waits: u64 = seen.now.devices.iter().map(|device| device.waits).sum();
    format!("No request was refused so far, and {waits} of {launches} launches waited.")
}

/// A card that does not answer, or that NVML tells no more of while it tells of others.
fn lost(seen: &Seen<'_>, part: &Part<'_>) -> Option<Answer> {
    let uuid = &part.now.uuid;
    let says = match part.card {
        Some(card) if card.lost == Some(true) => format!("Card {uuid} does not answer any more."),
        None if uuid.starts_with("GPU-") && !seen.node.cards.is_empty() => {
            format!(
                "NVML does not tell of card {uuid}, which the container uses, and of {}.",
                count(seen.node.cards.len(), "other")
            )
        }
        _ => return None,
    };
    let xid = part.card.and_then(|card| card.last_xid).filter(|xid| *xid != 0);
    let says = says + &xid.map_or_else(String::new, |xid| format!(" Its last error was Xid {xid}."));
    Some(Answer::of(&messages::LOST, part.now, says))
}

fn unprotected(seen: &Seen<'_>, part: &Part<'_>) -> Option<Answer> {
    let many = seen.now.unprotected.as_ref()?.get(&part.now.uuid).copied().filter(|many| *many != 0)?;
    let seats = seen.node.processes.iter().flatten();
    let theirs = seats.filter(|seat| {
        seat.standing == "unprotected" && seat.uuid == part.now.uuid && seat.names == seen.now.names
    });
    let named: Vec<String> = theirs.map(|seat| format!("{} ({})", seat.pid, seat.command)).collect();
    let named = if named.is_empty() { String::new() } else { format!(": {}", named.join(", ")) };
    let says = format!(
        "{} of the container at {} not held by its limits{named}.",
        count(many as usize, "process"),
        if many == 1 { "the card is" } else { "the card are" },
    );
    Some(Answer::of(&messages::UNPROTECTED, part.now, says))
}

fn observed(part: &Part<'_>) -> Option<Answer> {
    let Device { would_deny, would_wait, .. } = *part.now;
    let says = format!(
        "{} would have been refused, and {} would have waited.",
        count(would_deny as usize, "request"),
        count(would_wait as usize, "launch")
    );
    (would_deny != 0 || would_wait != 0).then(|| Answer::of(&messages::OBSERVED, part.now, says))
}
