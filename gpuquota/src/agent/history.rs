//! The last minutes of the node: what each container and each card had, some seconds apart. Bounded, and lost with the agent.

use super::counters::part;
use super::snapshot::{Card, Names};
use crate::regions::{Device, Region};
use serde::Serialize;
use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

/// How often the agent takes a look for it.
pub const EVERY: Duration = Duration::from_secs(5);
/// Looks that are kept: ten minutes of them, or more where they are rarer.
const KEPT: usize = 120;
/// Devices of containers that are kept, those included that have ended since.
const MOST: usize = 2048;

/// All looks that are kept.
#[derive(Debug, Default)]
pub struct History {
    /// When each look was, UTC.
    times: VecDeque<String>,
    /// Looks so far.
    looks: u32,
    cards: BTreeMap<String, (Card, Line<OfCard>)>,
    /// By the place of the region, and the device's index there.
    containers: BTreeMap<(String, usize), (Named, Line<OfContainer>)>,
}

/// Samples, each with the number of its look.
#[derive(Debug)]
struct Line<T>(VecDeque<Sample<T>>);

/// What one look has seen. It is small, because there are many.
#[derive(Clone, Copy, Debug)]
struct Sample<T> {
    seen: T,
    /// The look's number, without what is the same for all that are kept.
    look: u16,
}

/// A part of the time in thousandths; none where nothing is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Part(u16);

impl Part {
    const NONE: Self = Self(u16::MAX);

    fn of(part: Option<f64>) -> Self {
        part.map_or(Self::NONE, |part| {
            Self((part * 1000.0).round().clamp(0.0, f64::from(u16::MAX - 1)) as u16)
        })
    }

    fn told(self) -> Option<f64> {
        (self != Self::NONE).then(|| f64::from(self.0) / 1000.0)
    }
}

impl<T> Default for Line<T> {
    fn default() -> Self {
        Self(VecDeque::new())
    }
}

#[derive(Clone, Copy, Debug)]
struct OfCard {
    used: Option<u64>,
    busy: Part,
}

#[derive(Clone, Copy, Debug)]
#[repr(Rust, packed(2))]
struct OfContainer {
    used: u64,
    /// Parts of the time since the look before: in which it used the device, and in which its launches waited.
    busy: Part,
    waiting: Part,
    /// Refusals since the look before.
    denied: u16,
}

/// A container's device as the last look found it, and what was counted by then.
#[derive(Debug)]
struct Named {
    names: Names,
    uuid: String,
    memory_limit: Option<u64>,
    core_limit: Option<u32>,
    used_ns: Option<(u64, Instant)>,
    waited_ns: Option<(u64, Instant)>,
    denied: u64,
}

impl<T> Line<T> {
    fn push(&mut self, looks: u32, seen: T) {
        self.0.push_back(Sample { seen, look: looks as u16 });
    }

    /// How many looks ago a sample was taken.
    fn age(looks: u32, sample: &Sample<T>) -> usize {
        usize::from((looks as u16).wrapping_sub(sample.look))
    }

    /// Drops what is too old; whether anything is left.
    fn is_kept(&mut self, looks: u32) -> bool {
        while self.0.front().is_some_and(|sample| Self::age(looks, sample) >= KEPT) {
            self.0.pop_front();
        }
        !self.0.is_empty()
    }

    /// A value for each look that is kept; none where there was none.
    fn series<V: Clone>(&self, looks: u32, many: usize, value: impl Fn(&T) -> Option<V>) -> Vec<Option<V>> {
        let mut series = vec![None; many];
        for sample in &self.0 {
            let at = many.checked_sub(Self::age(looks, sample) + 1);
            if let Some(slot) = at.and_then(|at| series.get_mut(at)) {
                *slot = value(&sample.seen);
            }
        }
        series
    }
}

impl Named {
    fn of(names: &Names, device: &Device) -> Self {
        let (names, uuid, denied) = (names.clone(), device.uuid.clone(), device.denied);
        let (memory_limit, core_limit) = (device.memory_limit, device.core_limit);
        Self { names, uuid, memory_limit, core_limit, used_ns: None, waited_ns: None, denied }
    }

    fn take(&mut self, device: &Device, now: Instant) -> OfContainer {
        let waited = device.waited_ns.saturating_add(device.lease.waited_ns);
        (self.memory_limit, self.core_limit) = (device.memory_limit, device.core_limit);
        let denied = device.denied.saturating_sub(self.denied);
        let denied = u16::try_from(denied).unwrap_or(u16::MAX);
        self.denied = device.denied;
        OfContainer {
            used: device.used,
            busy: Part::of(part(&mut self.used_ns, device.gpu_time_ns, now).map(|part| part.min(1.0))),
            waiting: Part::of(part(&mut self.waited_ns, Some(waited), now)),
            denied,
        }
    }
}

/// A container as a look has found it.
pub struct Seen<'l> {
    pub names: &'l Names,
    /// Where its region is.
    pub path: &'l str,
    pub region: &'l Region,
}

impl History {
    /// Takes a look, which was at this time.
    pub fn take<'l>(
        &mut self,
        taken: &str,
        cards: &[Card],
        containers: impl Iterator<Item = Seen<'l>>,
        now: Instant,
    ) {
        self.looks = self.looks.saturating_add(1);
        self.times.push_back(taken.to_owned());
        if self.times.len() > KEPT {
            self.times.pop_front();
        }
        for card in cards {
            let (last, line) = self.cards.entry(card.uuid.clone()).or_default();
            *last = card.clone();
            let busy = Part::of(card.utilization_ratio);
            line.push(self.looks, OfCard { used: card.memory_used_bytes, busy });
        }
        for container in containers {
            self.take_container(&container, now);
        }
        let looks = self.looks;
        self.cards.retain(|_, (_, line)| line.is_kept(looks));
        self.containers.retain(|_, (_, line)| line.is_kept(looks));
    }

    fn take_container(&mut self, container: &Seen<'_>, now: Instant) {
        for device in &container.region.devices {
            let key = (container.path.to_owned(), device.index);
            if self.containers.len() >= MOST && !self.containers.contains_key(&key) {
                return;
            }
            let new = || (Named::of(container.names, device), Line::default());
            let (named, line) = self.containers.entry(key).or_insert_with(new);
            // Who it is may be learned later.
            named.names.clone_from(container.names);
            line.push(self.looks, named.take(device, now));
        }
    }

    /// As JSON.
    pub fn told(&self) -> Told<'_> {
        let (looks, many) = (self.looks, self.times.len());
        let cards = self.cards.iter().map(|(uuid, (card, line))| ToldCard {
            uuid,
            index: card.index,
            model: card.model.as_deref(),
            memory_total: card.memory_total_bytes,
            used: line.series(looks, many, |sample| sample.used),
            busy: line.series(looks, many, |sample| sample.busy.told()),
        });
        let containers = self.containers.iter().map(|((_, index), (named, line))| ToldContainer {
            names: &named.names,
            device_uuid: &named.uuid,
            device_index: *index,
            memory_limit: named.memory_limit,
            core_limit: named.core_limit,
            used: line.series(looks, many, |sample| Some(sample.used)),
            busy: line.series(looks, many, |sample| sample.busy.told()),
            waiting: line.series(looks, many, |sample| sample.waiting.told()),
            denied: line.series(looks, many, |sample| Some(sample.denied)),
        });
        Told { times: &self.times, cards: cards.collect(), containers: containers.collect() }
    }
}

/// What is told of it.
#[derive(Debug, Serialize)]
pub struct Told<'h> {
    times: &'h VecDeque<String>,
    cards: Vec<ToldCard<'h>>,
    containers: Vec<ToldContainer<'h>>,
}

#[derive(Debug, Serialize)]
struct ToldCard<'h> {
    uuid: &'h str,
    index: u32,
    model: Option<&'h str>,
    memory_total: Option<u64>,
    used: Vec<Option<u64>>,
    busy: Vec<Option<f64>>,
}

#[derive(Debug, Serialize)]
struct ToldContainer<'h> {
    #[serde(flatten)]
    names: &'h Names,
    device_uuid: &'h str,
    device_index: usize,
    memory_limit: Option<u64>,
    core_limit: Option<u32>,
    used: Vec<Option<u64>>,
    busy: Vec<Option<f64>>,
    waiting: Vec<Option<f64>>,
    denied: Vec<Option<u16>>,
}

#[cfg(test)]
mod tests {
    use super::super::looker::tests::found;
    use super::*;
    use crate::regions::Found;
    use serde_json::{Value, json};

    fn told(history: &History) -> Value {
        serde_json::to_value(history.told()).expect("plain data")
    }

    fn take(history: &mut History, found: &[Found], now: Instant) {
        let names: Vec<Names> = found
            .iter()
            .map(|found| Names { container: found.container.clone(), ..Names::default() })
            .collect();
        let seen = found.iter().zip(&names).map(|(found, names)| Seen {
            names,
            path: found.path.to_str().expect("text"),
            region: &found.region,
        });
        history.take("2026-11-28T00:00:00Z", &[], seen, now);
    }

    #[test]
    fn each_look_is_told_with_what_was_used_waited_and_refused_since_the_one_before() {
        let (mut history, begun) = (History::default(), Instant::now());
        let looks = [(0, 0, 3), (500, 1000, 3), (1000, 1000, 5), (0, 0, 0)];
        for (look, (used_ms, waited_ms, denied)) in looks.iter().enumerate() {
            let mut found = found("a", "GPU-1");
            let device = &mut found.region.devices[0];
            device.gpu_time_ns = Some(used_ms * 1_000_000);
            (device.waited_ns, device.lease.waited_ns, device.denied) = (waited_ms * 1_000_000, 0, *denied);
            take(&mut history, &[found], begun + look as u32 * EVERY);
        }
        let told = told(&history);
        assert_eq!(told["times"].as_array().map(Vec::len), Some(4));
        let line = &told["containers"][0];
        assert_eq!((&line["container"], &line["device_uuid"]), (&json!("a"), &json!("GPU-1")));
        let near = |name: &str| {
            let values = line[name].as_array().expect("numbers").iter().map(Value::as_f64);
            values.map(|part| part.map(|part| (part * 1000.0).round() / 1000.0)).collect::<Vec<_>>()
        };
        // A region that is made anew begins at nought.
        assert_eq!(near("busy"), [None, Some(0.1), Some(0.1), Some(0.0)]);
        assert_eq!(near("waiting"), [None, Some(0.2), Some(0.0), Some(0.0)]);
        assert_eq!(line["denied"], json!([0, 0, 2, 0]));
        assert_eq!(line["used"], json!([1 << 30, 1 << 30, 1 << 30, 1 << 30]));
    }

    #[test]
    fn what_comes_later_or_has_ended_leaves_gaps_and_what_is_old_is_forgotten() {
        let (mut history, begun) = (History::default(), Instant::now());
        let mut look = 0;
        let mut see = |names: &[&str]| {
            let all: Vec<Found> = names.iter().map(|name| found(name, "GPU-1")).collect();
            take(&mut history, &all, begun + look * EVERY);
            look += 1;
            told(&history)
        };
        see(&["old"]);
        see(&["old", "late"]);
        let told = see(&["late"]);
        let used =
            |told: &Value, at: usize| told["containers"][at]["used"].as_array().expect("numbers").clone();
        let gib = json!(1 << 30);
        assert_eq!(used(&told, 0), [json!(null), gib.clone(), gib.clone()]);
        assert_eq!(used(&told, 1), [gib.clone(), gib, json!(null)]);
        for _ in 0..KEPT {
            see(&["late"]);
        }
        let told = see(&["late"]);
        assert_eq!(told["times"].as_array().map(Vec::len), Some(KEPT));
        assert_eq!(told["containers"].as_array().map(Vec::len), Some(1));
        assert!(used(&told, 0).iter().all(|value| !value.is_null()));
    }

    #[test]
    fn a_sample_is_small_and_parts_are_told_as_they_were() {
        assert_eq!(size_of::<Sample<OfContainer>>(), 16);
        let told = [None, Some(0.0), Some(0.25), Some(3.5), Some(1e9)].map(|part| Part::of(part).told());
        assert_eq!(told, [None, Some(0.0), Some(0.25), Some(3.5), Some(65.534)]);
    }

    #[test]
    fn churn_leaves_no_more_than_the_bound() {
        let (mut history, begun) = (History::default(), Instant::now());
        for round in 0..10u32 {
            let all: Vec<Found> =
                (0..1000).map(|number| found(&format!("c{round}-{number}"), "GPU-1")).collect();
            take(&mut history, &all, begun + round * EVERY);
        }
        assert_eq!(history.containers.len(), MOST);
    }
}
