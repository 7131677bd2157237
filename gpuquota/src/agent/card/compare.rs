//! Card and books laid side by side: who is counted, who is not, and where the figures differ.

use super::books::Book;
use super::nvml::CardDevice;
use super::process::Subject;
use crate::agent::identity::{Identity, Naming};
use serde::Serialize;
use std::collections::HashMap;

/// What may lie between card and books without a word: what the driver rounds and counts to no process.
const SLACK: u64 = 64 << 20;
/// And so much more for each process.
const SLACK_EACH: u64 = 8 << 20;

/// How a process stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// It has a slot in a region.
    Counted,
    /// It belongs to a container with limits and has no slot.
    Unprotected,
    /// It belongs to no container with limits.
    Outside,
}

impl Standing {
    /// The word for people and metrics.
    pub fn word(self) -> &'static str {
        match self {
            Self::Counted => "counted",
            Self::Unprotected => "unprotected",
            Self::Outside => "outside",
        }
    }
}

/// A process at a device.
#[derive(Clone, Debug, Serialize)]
pub struct Seated {
    /// The device's UUID.
    pub uuid: String,
    /// The process's pid here.
    pub pid: u32,
    /// Its command's name.
    pub command: String,
    /// Memory by the card, where it tells.
    pub card_bytes: Option<u64>,
    /// Memory by the books, where it is counted.
    pub booked_bytes: Option<u64>,
    /// Its container.
    #[serde(flatten)]
    pub identity: Identity,
    /// How it stands.
    pub standing: Standing,
    /// The process itself.
    #[serde(skip)]
    pub subject: Option<Subject>,
    /// Which of the books is its container's.
    #[serde(skip)]
    pub book: Option<usize>,
}

/// A container's memory at a device, by both.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// Its container.
    #[serde(flatten)]
    pub identity: Identity,
    /// The device's UUID.
    pub uuid: String,
    /// What the card's processes of the container have.
    pub card_bytes: u64,
    /// What the books have.
    pub booked_bytes: u64,
    /// Whether that is more than what the driver rounds.
    pub is_large: bool,
}

/// Lays them side by side.
pub fn compare(card: &[CardDevice], books: &[Book], names: &Naming) -> (Vec<Seated>, Vec<Difference>) {
    let mut subjects: HashMap<u32, Option<(Subject, Identity)>> = HashMap::new();
    let mut seated = Vec::new();
    for device in card {
        for process in &device.processes {
            let subject = subjects.entry(process.pid).or_insert_with(|| {
                let subject = Subject::of(process.pid, names)?;
                let identity = names.of_process(&subject.cgroup);
                Some((subject, identity))
            });
            let (standing, book) = subject
                .as_ref()
                .map_or((Standing::Outside, None), |(subject, own)| stand(subject, own, books, names));
            let of_book = book.and_then(|at| books.get(at));
            let own = || subject.as_ref().map(|(_, identity)| identity.clone()).unwrap_or_default();
            seated.push(Seated {
                uuid: device.uuid.clone(),
                pid: process.pid,
                command: subject.as_ref().map(|(subject, _)| subject.command.clone()).unwrap_or_default(),
                card_bytes: process.bytes,
                booked_bytes: of_book
                    .filter(|_| standing == Standing::Counted)
                    .and_then(|book| booked(book, &device.uuid, process.pid)),
                identity: of_book.map_or_else(own, |book| book.identity.clone()),
                standing,
                subject: subject.as_ref().map(|(subject, _)| subject.clone()),
                book,
            });
        }
    }
    let differences = differences(card, books, &seated);
    (seated, differences)
}

/// Where a process belongs, and whether it is counted there.
pub fn stand(
    subject: &Subject,
    identity: &Identity,
    books: &[Book],
    names: &Naming,
) -> (Standing, Option<usize>) {
    // Most are held by their locks, and then nobody need know where all others live.
    if let Some(at) = books.iter().position(|book| book.owners.contains(&subject.pid)) {
        return (Standing::Counted, Some(at));
    }
    let homes: Vec<bool> = books.iter().map(|book| book.is_home_of(subject, identity, names)).collect();
    let counted = books.iter().zip(&homes).position(|(book, is_here)| book.has_slot(subject, *is_here));
    let limited = books.iter().zip(&homes).position(|(book, is_here)| *is_here && book.is_limited());
    match (counted, limited) {
        (Some(at), _) => (Standing::Counted, Some(at)),
        (None, Some(at)) => (Standing::Unprotected, Some(at)),
        (None, None) => (Standing::Outside, homes.iter().position(|is_here| *is_here)),
    }
}

/// What one process holds of a device by the books.
fn booked(book: &Book, uuid: &str, pid: u32) -> Option<u64> {
    let device = book.region.devices.iter().find(|device| device.uuid == uuid)?;
    let process = book.region.alive().find(|process| process.host_pid == Some(pid))?;
    let shares = process.devices.iter().filter(|share| share.device == device.index);
    Some(shares.map(|share| share.bytes).fold(0, u64::saturating_add))
}

fn differences(card: &[CardDevice], books: &[Book], seated: &[Seated]) -> Vec<Difference> {
    let mut all = Vec::new();
    for (at, book) in books.iter().enumerate() {
        for device in card.iter().filter(|device| !device.is_lost) {
            let Some(booked_bytes) = book.used(&device.uuid) else { continue };
            let of_container: Vec<&Seated> = seated
                .iter()
                .filter(|process| process.book == Some(at) && process.uuid == device.uuid)
                .collect();
            // Before it tells all of them, the card tells nothing of the sum.
            let bytes: Option<Vec<u64>> = of_container.iter().map(|process| process.card_bytes).collect();
            let Some(bytes) = bytes else { continue };
            let card_bytes = bytes.iter().fold(0, |sum: u64, bytes| sum.saturating_add(*bytes));
            let slack = SLACK + SLACK_EACH * of_container.len() as u64;
            let is_large = card_bytes.abs_diff(booked_bytes) > slack;
            let identity = book.identity.clone();
            all.push(Difference { identity, uuid: device.uuid.clone(), card_bytes, booked_bytes, is_large });
        }
    }
    all
}
