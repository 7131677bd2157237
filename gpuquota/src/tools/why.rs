//! `gpuquota why`: why a container's requests are refused and why it is slow, in sentences with figures.

mod answer;
mod memory;
mod time;

use super::messages::{self, NO_CONTAINER, refused};
use super::node::{Container, Device, Node};
use super::source::{Source, Where, is_path};
use super::{name, output};
use crate::environment::Environment;
use crate::error::Error;
use crate::regions::harmless;
use crate::regions::shown;
use answer::{Answer, Part, Seen, count};
use serde::Serialize;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Say why a container's requests for memory are refused, and why it is slow.
#[derive(clap::Args)]
pub struct Why {
    /// A container, or a region file. Without it: the region that the environment names.
    ///
    /// A container is named as namespace/pod/container, by a part of that, or by a prefix that no other has.
    container: Option<OsString>,

    /// As JSON, one object.
    #[arg(long)]
    json: bool,

    /// How long it is watched for what slows it down, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=60))]
    over: u64,

    #[command(flatten)]
    place: Where,
}

#[derive(Serialize)]
struct Told<'t> {
    container: String,
    region: &'t str,
    taken: &'t str,
    source: String,
    answers: &'t [Answer],
}

impl Why {
    /// Answers.
    pub fn run(self) -> Result<ExitCode, Error> {
        let (mut source, wanted) = self.wanted()?;
        let first = source.look()?;
        let path = wanted.of(&first)?.path.clone();
        let begun = Instant::now();
        sleep(Duration::from_secs(self.over) + Duration::from_millis(100));
        let second = source.look()?;
        let over = begun.elapsed();
        let at = |node| Wanted::Path(Path::new(&path).to_owned()).of(node);
        let seen = Seen { before: at(&first)?, now: at(&second)?, node: &second, over };
        let answers = answers(&seen);
        let container = seen.now.names.full();
        if self.json {
            let told = Told {
                container,
                region: &path,
                taken: &second.taken,
                source: source.shown(),
                answers: &answers,
            };
            return output::write(&output::json(&told));
        }
        let mut text =
            format!("{} by {}, {}\n", harmless(&container), source.shown(), harmless(&second.taken));
        for Answer { message, says, next, .. } in &answers {
            text.push_str(&format!(
                "\n{} {}\n  {}\n  Next: {}\n",
                message.code,
                message.title,
                harmless(says),
                harmless(next)
            ));
        }
        output::write(&text)
    }

    fn wanted(&self) -> Result<(Source, Wanted), Error> {
        let path = match &self.container {
            Some(name) if !is_path(name) => {
                return Ok((self.place.open()?, Wanted::Name(shown(Path::new(OsStr::new(name))))));
            }
            Some(path) => PathBuf::from(path),
            None => Environment::inherited().region()?.ok_or_else(|| {
                refused(
                    &NO_CONTAINER,
                    "which container? Name it; `gpuquota inspect` lists those of this node",
                )
            })?,
        };
        let path = std::path::absolute(&path).unwrap_or(path);
        crate::regions::read_path(&path)
            .map_err(|why| refused(&messages::REGION, format!("region {}: {why}", shown(&path))))?;
        let root = path.parent().unwrap_or(Path::new("/")).to_owned();
        let place = Where { agent: None, root: vec![root] };
        Ok((place.open()?, Wanted::Path(path)))
    }
}

/// The container that is asked about.
enum Wanted {
    Name(String),
    Path(PathBuf),
}

impl Wanted {
    fn of<'n>(&self, node: &'n Node) -> Result<&'n Container, Error> {
        match self {
            Self::Name(name) => name::find(node, name),
            Self::Path(path) => {
                let mut all = node.containers.iter();
                let found = all.find(|container| Path::new(&container.path) == path);
                found.ok_or_else(|| refused(&NO_CONTAINER, format!("region {}: it is gone", shown(path))))
            }
        }
    }
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
