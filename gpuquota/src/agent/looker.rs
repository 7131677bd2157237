//! How the node's snapshot is put together.

use super::card::View;
use super::counters::Ledger;
use super::events::EventLog;
use super::history::{History, Seen};
use super::snapshot::{Container, LOOK_BUCKETS, Names, Own, Snapshot, printable};
use super::who::Who;
use crate::regions::{Found, Index, Mishap, shown};
use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

impl Own {
    fn count(&mut self, mishaps: &[Mishap], took: Duration) {
        for mishap in mishaps {
            let errors = self.errors.entry(mishap.word).or_default();
            *errors = errors.saturating_add(1);
        }
        let bucket = LOOK_BUCKETS.iter().position(|bound| took.as_secs_f64() <= *bound);
        self.look_times[bucket.unwrap_or(LOOK_BUCKETS.len())] += 1;
        self.looking_seconds += took.as_secs_f64();
    }

    fn leave_out(&mut self, reason: &'static str, count: usize) {
        *self.left_out.entry(reason).or_default() += count as u64;
    }
}

fn now_utc() -> String {
    humantime::format_rfc3339_millis(SystemTime::now()).to_string()
}

/// What is remembered from one look to the next.
pub struct Looker {
    who: Who,
    ledger: Ledger,
    log: EventLog,
    own: Own,
    max_devices: usize,
}

impl Looker {
    /// `grace`: how long what has ended is told. `max_devices`: of how many devices of containers anything is told.
    pub fn new(who: Who, grace: Duration, max_devices: usize) -> Self {
        // No reason is new to who watches them.
        let left_out = BTreeMap::from([("bound", 0), ("duplicate", 0)]);
        let own = Own { left_out, ..Own::default() };
        Self { who, ledger: Ledger::new(grace, max_devices), log: EventLog::new(), own, max_devices }
    }

    /// A look for the history, which changes nothing of what the next look tells.
    pub fn glance(&self, index: &Index, history: &Mutex<History>) {
        let found = index.devices();
        let named: Vec<(Names, String)> =
            found.iter().map(|found| (self.who.whose(found).0, shown(&found.path))).collect();
        let seen = found.iter().zip(&named);
        let seen = seen.map(|(found, (names, path))| Seen { names, path, region: &found.region });
        let mut history = history.lock().unwrap_or_else(PoisonError::into_inner);
        history.take(&now_utc(), &self.who.cards_now(), seen, Instant::now());
    }

    /// Looks at the node.
    pub fn look(&mut self, index: &Index) -> Snapshot {
        let begun = Instant::now();
        let (found, mishaps) = index.search();
        self.own.count(&mishaps, begun.elapsed());
        self.put_together(found, begun)
    }

    /// The same where this caller has looked at the cards.
    pub fn look_with(&mut self, index: &Index, cards: Arc<View>) -> Snapshot {
        self.who.show(cards);
        self.look(index)
    }

    /// What is told of what was found: the only place where the node's picture is put together.
    pub fn put_together(&mut self, found: Vec<Found>, now: Instant) -> Snapshot {
        self.who.begin(&mut self.log);
        let mut told = HashSet::new();
        let mut containers = Vec::new();
        let mut devices = 0;
        for found in found {
            let (mut names, engine) = self.who.whose(&found);
            // Of two regions of one container each is told.
            if told.contains(&names) {
                names.container = format!("{}/{}", names.container, printable(&found.container));
            }
            // A container without devices is a line of its own all the same.
            let more = found.region.devices.len().max(1);
            if devices + more > self.max_devices {
                self.own.leave_out("bound", more);
            } else if !told.insert(names.clone()) {
                self.own.leave_out("duplicate", more);
            } else {
                devices += more;
                let container = self.ledger.see(names, found, now, &mut self.log);
                containers.push(Container { engine, ..container });
            }
        }
        self.who.add_cards(&mut containers);
        let ended = self.ledger.ended(now);
        let mut left_out = 0;
        for container in ended {
            let more = container.region.devices.len().max(1);
            if devices + more > self.max_devices {
                left_out += more;
            } else {
                devices += more;
                containers.push(container);
            }
        }
        self.own.leave_out("bound", left_out);
        let taken = now_utc();
        let events = self.log.all();
        let own = Own { sources: self.who.sources(), nri: self.who.nri(), ..self.own.clone() };
        let (cards, processes) = (self.who.cards(), self.who.processes());
        Snapshot { taken, containers, cards, processes, events, own }
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::regions::{Device, LeaseReport, Process, ProcessDevice, Refusals, Region};

    pub fn device(index: usize, uuid: &str) -> Device {
        Device {
            index,
            offset: 0,
            uuid: uuid.to_owned(),
            memory_limit: Some(2 << 30),
            memory_total: 0,
            used: 1 << 30,
            peak: 1 << 30,
            denied: 3,
            denied_by: Refusals([2, 0, 1, 0, 0, 4]),
            would_deny: 0,
            spilled: 0,
            spills: 0,
            physical_limit: None,
            core_limit: Some(30),
            gpu_time_ns: Some(1_500_000_000),
            waited_ns: 250_000_000,
            waited_in_flight_ns: 50_000_000,
            launches: 7,
            waits: 3,
            wait_times: [0, 1, 0, 0, 1, 0, 0, 1],
            would_wait: 4,
            clamped: 0,
            limit_conflicts: 2,
            context_bytes: 0,
            estimated_contexts: 0,
            asked: vec![],
            lease: LeaseReport { waited_ns: 100_000_000, held_ns: 2_000_000_000, ..LeaseReport::default() },
        }
    }

    pub fn found(name: &str, uuid: &str) -> Found {
        let process = |slot: usize, kinds: [u64; 5]| Process {
            slot,
            pid: 7,
            host_pid: None,
            priority: 0,
            alive: true,
            devices: vec![ProcessDevice {
                device: 0,
                bytes: kinds.iter().sum(),
                kinds: kinds.into(),
                pending_ns: 0,
            }],
        };
        let processes =
            vec![process(0, [1 << 20, 2 << 20, 0, 3 << 20, 0]), process(1, [1 << 20, 0, 0, 0, 5])];
        let region = Region {
            abi: [1, 4],
            generation: 1,
            time_namespace: 0,
            fallbacks: 0,
            devices: vec![device(0, uuid)],
            processes,
            events: vec![],
        };
        let (path, owners) = (format!("/{name}").into(), Vec::new());
        Found { container: name.to_owned(), path, inode: (0, 0), owners, region }
    }

    pub fn looker() -> Looker {
        Looker::new(Who::default(), Duration::from_secs(300), 4096)
    }

    pub fn snapshot(found: Vec<Found>) -> Snapshot {
        looker().put_together(found, Instant::now())
    }

    #[test]
    fn what_passes_the_bound_is_counted_and_left_out() {
        let mut looker = Looker::new(Who::default(), Duration::from_secs(300), 3);
        let mut wide = found("wide", "GPU-1");
        wide.region.devices.push(device(1, "GPU-2"));
        let now = Instant::now();
        let snapshot = looker.put_together(vec![found("a", "GPU-1"), wide, found("b", "GPU-1")], now);
        let names: Vec<_> =
            snapshot.containers.iter().map(|container| container.names.container.as_str()).collect();
        assert_eq!(names, ["a", "wide"]);
        assert_eq!(snapshot.own.left_out["bound"], 1);
    }

    #[test]
    fn names_that_are_the_same_are_told_once() {
        let alike = ["a"; 3].map(|name| found(name, "GPU-1"));
        let snapshot = snapshot(alike.into());
        let names = snapshot.containers.iter().map(|container| container.names.container.as_str());
        assert!(names.eq(["a", "a/a"]));
        assert_eq!(snapshot.own.left_out["duplicate"], 1);
    }

    #[test]
    fn looks_and_mishaps_are_counted_from_the_start_on() {
        let mut own = Own::default();
        for took in [Duration::from_micros(10), Duration::from_millis(50), Duration::from_secs(9)] {
            own.count(&[Mishap { path: "/x".into(), word: "too_short" }], took);
        }
        assert_eq!(own.errors["too_short"], 3);
        assert_eq!(own.look_times, [1, 0, 1, 0, 0, 0, 1]);
    }
}
