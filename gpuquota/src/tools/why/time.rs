//! Why a container is slow.

use super::super::messages::{self, Message};
use super::super::node::Device;
use super::answer::{Answer, Part, Seen, count};
use crate::words::{bytes, seconds};
use std::time::Duration;

/// Waits are told from one part in so many of the time on.
const TOLD: u64 = 50;

/// What it waited for, in a stretch of time.
struct Waits {
    /// For its share, for others, for its own work.
    ns: [u64; 3],
    /// How long that was, as a sentence says it.
    when: String,
    is_long: [bool; 3],
}

fn waited(device: &Device) -> [u64; 3] {
    [device.waited_ns, device.lease.waited_ns, device.waited_in_flight_ns]
}

/// What slows it down, what costs most first.
pub fn slow(seen: &Seen<'_>, part: &Part<'_>) -> Vec<Answer> {
    let mut answers = Vec::new();
    if let Some(waits) = waits(part, seen.over) {
        let mut causes: Vec<(usize, &'static Message)> =
            [&messages::SHARE, &messages::NEIGHBOURS, &messages::IN_FLIGHT].into_iter().enumerate().collect();
        causes.sort_by_key(|(at, _)| std::cmp::Reverse(waits.ns[*at]));
        for (at, message) in causes.into_iter().filter(|(at, _)| waits.is_long[*at]) {
            answers.push(because(message, seen, part, &waits, waits.ns[at]));
        }
    }
    if part.now.spilled != 0 {
        let says = format!(
            "{} of the {} that it has lie on the host.",
            bytes(part.now.spilled),
            bytes(part.now.used)
        );
        answers.push(Answer::of(&messages::ON_THE_HOST, part.now, says));
    }
    answers.extend(throttled(part));
    answers.extend(outsiders(seen, part));
    answers
}

/// Of the time that was watched, if it launched in it; else of its whole life.
fn waits(part: &Part<'_>, over: Duration) -> Option<Waits> {
    let now = waited(part.now);
    if let Some(before) =
        part.before.filter(|before| before.launches < part.now.launches || waited(before) < now)
    {
        let then = waited(before);
        let ns = [0, 1, 2].map(|at: usize| now[at].saturating_sub(then[at]));
        let over_ns = u64::try_from(over.as_nanos()).unwrap_or(u64::MAX);
        let is_long = ns.map(|ns| ns > over_ns / TOLD);
        return Some(Waits { ns, when: format!("In the last {:.1} s", over.as_secs_f64()), is_long });
    }
    let used = part.now.gpu_time_ns?;
    let all = now.iter().fold(used, |sum, ns| sum.saturating_add(*ns));
    let is_long = now.map(|ns| ns > all / TOLD);
    Some(Waits { ns: now, when: "Since it began (it launches nothing now)".to_owned(), is_long })
}

fn because(message: &'static Message, seen: &Seen<'_>, part: &Part<'_>, waits: &Waits, ns: u64) -> Answer {
    let device = part.now;
    let waited = format!("{} its launches waited {:.2} s", waits.when, seconds(ns));
    let used = device
        .gpu_time_ns
        .map_or_else(String::new, |used| format!("; it has used {:.2} s of GPU time so far", seconds(used)));
    let share = device.core_limit.map_or_else(|| "none".to_owned(), |percent| format!("{percent}%"));
    let says = match message.code {
        code if code == messages::SHARE.code => format!("{waited} for its share, which is {share}{used}."),
        code if code == messages::NEIGHBOURS.code => {
            format!("{waited} because other containers had the card. {}", neighbours(seen, part))
        }
        _ => format!("{waited} for work of their own process{used}."),
    };
    Answer::of(message, device, says)
}

/// Who the others are.
fn neighbours(seen: &Seen<'_>, part: &Part<'_>) -> String {
    let uuid = part.now.uuid.as_str();
    let told = seen.node.neighbours(seen.now, uuid).filter_map(|other| {
        let device = other.devices.iter().find(|device| device.uuid == uuid)?;
        let share = device
            .core_limit
            .map_or_else(|| "no share".to_owned(), |percent| format!("a share of {percent}%"));
        let busy = other.utilization.get(&device.index.to_string());
        let busy = busy.map_or_else(String::new, |part| format!(", had it {:.0}% of the time", part * 100.0));
        Some(format!("{} ({share}{busy})", other.names.full()))
    });
    let all: Vec<String> = told.collect();
    match all.len() {
        0 => "They have no quota that is seen from here.".to_owned(),
        many if many > 4 => format!("They are {} and {} more.", all[..4].join(", "), many - 4),
        _ => format!("They are {}.", all.join(", ")),
    }
}

fn throttled(part: &Part<'_>) -> Option<Answer> {
    let card = part.card?;
    let by: Vec<&str> =
        card.throttled.iter().filter(|(_, is)| **is).map(|(reason, _)| reason.as_str()).collect();
    if by.is_empty() {
        return None;
    }
    let heat = card
        .temperature_celsius
        .map_or_else(String::new, |degrees| format!(" It has {degrees:.0} degrees Celsius."));
    Some(Answer::of(
        &messages::THROTTLED,
        part.now,
        format!("The card holds its clocks back: {}.{heat}", by.join(", ")),
    ))
}

fn outsiders(seen: &Seen<'_>, part: &Part<'_>) -> Option<Answer> {
    let seats = seen.node.processes.iter().flatten();
    let outside: Vec<String> = seats
        .filter(|seat| seat.standing == "outside" && seat.uuid == part.now.uuid)
        .map(|seat| format!("{} ({})", seat.pid, seat.command))
        .collect();
    if outside.is_empty() {
        return None;
    }
    let some = outside.iter().take(4).cloned().collect::<Vec<_>>().join(", ");
    let says = format!("{} without a quota at the card, among them {some}.", count(outside.len(), "process"));
    Some(Answer::of(&messages::OUTSIDERS, part.now, says))
}
