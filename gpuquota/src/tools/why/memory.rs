//! Why a request for memory is refused.

use super::super::messages;
use super::super::node::{Container, Event};
use super::answer::{Answer, Part, Seen, count};
use crate::words::bytes;

/// A card with less than one part in so many of its memory left is full.
const FULL: u64 = 50;

/// Why the last request was refused, if any was.
pub fn refused(seen: &Seen<'_>, part: &Part<'_>) -> Option<Answer> {
    let device = part.now;
    if device.denied == 0 {
        return None;
    }
    let of_device = |event: &&Event| {
        event.names == seen.now.names && event.device_uuid.as_deref() == Some(device.uuid.as_str())
    };
    let events: Vec<&Event> = seen.node.events.iter().filter(of_device).collect();
    let so_far = format!("{} so far", count(device.denied as usize, "refusal"));
    let Some(at) = events.iter().rposition(|event| event.event == "denied") else {
        return Some(Answer::of(&messages::REFUSED_BEFORE, device, format!("There were {so_far}.")));
    };
    let last = events[at];
    let [requested, used, limit] = ["requested", "used", "limit"].map(|name| last.number(name));
    let tried = format!(
        "Process {} was refused {} when {} of {} were in use ({so_far}, the last at {})",
        last.pid,
        bytes(requested),
        bytes(used),
        bytes(limit),
        last.time
    );
    let contexts = contexts(seen.now, device.index);
    if requested == device.context_bytes {
        let says = format!("{tried}. It was for a context; the container has {}.", told(contexts));
        return Some(Answer::of(&messages::CONTEXTS, device, says));
    }
    if requested > limit {
        let says = format!("{tried}: alone it is more than the limit.");
        return Some(Answer::of(&messages::ABOVE_THE_CAP, device, says));
    }
    // The holders are listed once a second.
    let listed = events[..].iter().rposition(|event| event.event == "holder").map_or(&[][..], |end| {
        let begin =
            events[..end].iter().rposition(|event| event.event != "holder").map_or(0, |before| before + 1);
        &events[begin..=end]
    });
    let own = listed.iter().filter(|event| event.number("holder") == u64::from(last.pid));
    let own: u64 = own.map(|event| event.number("bytes")).sum();
    let mut others: Vec<&&Event> =
        listed.iter().filter(|event| event.number("holder") != u64::from(last.pid)).collect();
    others.sort_by_key(|event| std::cmp::Reverse(event.number("bytes")));
    let of_others: u64 = others.iter().map(|event| event.number("bytes")).sum();
    let of_contexts = listed.iter().filter(|event| event.word("kind") == "contexts");
    let of_contexts: u64 = of_contexts.map(|event| event.number("bytes")).sum();
    if 2 * of_contexts > used {
        let says = format!("{tried}. Most of it was contexts; the container has {}.", told(contexts));
        return Some(Answer::of(&messages::CONTEXTS, device, says));
    }
    Some(match others.first() {
        Some(largest) if of_others >= own => {
            let (holder, held) = (largest.number("holder"), bytes(largest.number("bytes")));
            let kind = largest.word("kind");
            let says = format!(
                "{tried}. Others of its container held {}: process {holder} alone {held}, most of it {kind}.",
                bytes(of_others)
            );
            let next = format!(
                "End process {holder} or let it give memory back, or raise the limit: gpuquota limit {} --memory {}",
                seen.now.names.full(),
                enough(used + requested)
            );
            Answer::of(&messages::HELD_BY_OTHERS, device, says).next(next)
        }
        _ => {
            let says = format!("{tried}. The process itself held {}.", bytes(own));
            let next = format!(
                "Raise the limit, or let the program ask for less: gpuquota limit {} --memory {}",
                seen.now.names.full(),
                enough(used + requested)
            );
            Answer::of(&messages::ABOVE_THE_CAP, device, says).next(next)
        }
    })
}

/// Contexts that living processes have, and their bytes.
fn contexts(container: &Container, device: usize) -> (usize, u64) {
    let held =
        container.processes.iter().filter(|process| process.alive).flat_map(|process| &process.devices);
    let of: Vec<u64> = held.filter(|held| held.device == device).map(|held| held.context_bytes).collect();
    (of.iter().filter(|bytes| **bytes != 0).count(), of.iter().sum())
}

fn told((many, sum): (usize, u64)) -> String {
    format!("contexts of {} in {}", bytes(sum), count(many, "process"))
}

/// A limit that would have been enough, in whole MiB.
fn enough(sum: u64) -> String {
    format!("{}MiB", sum.div_ceil(1 << 20))
}

/// Whether the card itself has no memory, although the limit would allow more.
pub fn full(part: &Part<'_>) -> Option<Answer> {
    let (device, card) = (part.now, part.card?);
    let (total, used) = (card.memory_total_bytes?, card.memory_used_bytes?);
    let free = total.saturating_sub(used);
    let left = device.memory_limit.unwrap_or(total).saturating_sub(device.used);
    if free > total / FULL || left <= free {
        return None;
    }
    let says = format!(
        "The card has {} of {} left, while the container could have {} more: it has {}.",
        bytes(free),
        bytes(total),
        bytes(left),
        bytes(device.used)
    );
    Some(Answer::of(&messages::CARD_FULL, device, says))
}
