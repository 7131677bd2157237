//! What containers count, kept so that no counter ever falls: a region that is made anew begins at zero, and a tenant can
//! write anything into its own.

use super::events::{EventLog, Told};
use super::snapshot::{Container, Names};
use crate::regions::{Device, Found, Refusals, Region, shown};
use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

/// Where a device's record has a counter; `None` where nothing measures it.
type Field = fn(&mut Device) -> Option<&mut u64>;

/// How many there are.
const KEPT: usize = 14;

/// Every counter of a device but the wait times.
const COUNTERS: [Field; KEPT] = [
    |device| Some(&mut device.denied),
    |device| Some(&mut device.would_deny),
    |device| Some(&mut device.spills),
    |device| device.gpu_time_ns.as_mut(),
    |device| Some(&mut device.waited_ns),
    |device| Some(&mut device.waited_in_flight_ns),
    |device| Some(&mut device.launches),
    |device| Some(&mut device.waits),
    |device| Some(&mut device.would_wait),
    |device| Some(&mut device.clamped),
    |device| Some(&mut device.limit_conflicts),
    |device| Some(&mut device.estimated_contexts),
    |device| Some(&mut device.lease.waited_ns),
    |device| Some(&mut device.lease.held_ns),
];
/// Steps of the wait times.
const STEPS: usize = gpuquota_region::layout::WAIT_TIMES;
/// Reasons of refusals.
const REASONS: usize = Refusals::REASONS;

/// One counter: what regions before this one have counted, and the highest value of this one.
#[derive(Clone, Copy, Debug, Default)]
struct Counter {
    before: u64,
    high: u64,
}

impl Counter {
    /// `anew`: whether the region is another one than at the look before.
    fn see(&mut self, value: u64, anew: bool) -> u64 {
        if anew {
            self.before = self.total();
            self.high = 0;
        }
        self.high = self.high.max(value);
        self.total()
    }

    fn total(self) -> u64 {
        self.before.saturating_add(self.high)
    }
}

#[derive(Clone, Copy, Debug)]
struct DeviceCounters {
    fields: [Counter; KEPT],
    steps: [Counter; STEPS],
    refusals: [Counter; REASONS],
    /// GPU time at the look before, and when that was.
    used: Option<(u64, Instant)>,
    /// The time that launches had waited by then, and when that was.
    waited: Option<(u64, Instant)>,
}

/// Parts of the time since the look before.
struct Parts {
    /// In which the device was used, if that was measured.
    used: Option<f64>,
    /// In which launches waited; of several threads the sum.
    waiting: Option<f64>,
}

/// Which region it is: its file and how often that was initialised.
type Identity = (u64, u64, u64);

#[derive(Debug)]
struct Known {
    identity: Identity,
    seen: Instant,
    fallbacks: Counter,
    devices: BTreeMap<(usize, String), DeviceCounters>,
    told: Told,
    last: Container,
}

/// All containers that are here or have ended lately.
#[derive(Debug)]
pub struct Ledger {
    grace: Duration,
    most: usize,
    known: HashMap<Names, Known>,
}

impl Ledger {
    /// `most`: how many containers are remembered.
    pub fn new(grace: Duration, most: usize) -> Self {
        Self { grace, most, known: HashMap::new() }
    }

    /// A container that was found, with counters that go on.
    pub fn see(&mut self, names: Names, found: Found, now: Instant, log: &mut EventLog) -> Container {
        let identity = identity(&found);
        let path = shown(&found.path);
        let mut container = Container {
            names: names.clone(),
            engine: "",
            path,
            ended: false,
            region: found.region,
            utilization: BTreeMap::new(),
            waiting: BTreeMap::new(),
            unprotected: None,
            card_bytes: BTreeMap::new(),
        };
        self.rename(&names, identity, &container.path);
        let known = self.known.entry(names.clone()).or_insert_with(|| Known {
            identity,
            seen: now,
            fallbacks: Counter::default(),
            devices: BTreeMap::new(),
            told: Told::default(),
            last: bare(&container),
        });
        let anew = known.identity != identity;
        log.take(&names, &mut known.told, &mut container.region, anew);
        known.identity = identity;
        known.seen = now;
        container.region.fallbacks = known.fallbacks.see(container.region.fallbacks, anew);
        let mut devices = BTreeMap::new();
        for device in &mut container.region.devices {
            let key = (device.index, device.uuid.clone());
            let before = known.devices.remove(&key);
            let mut counters = before.unwrap_or(DeviceCounters {
                fields: [Counter::default(); KEPT],
                steps: [Counter::default(); STEPS],
                refusals: [Counter::default(); REASONS],
                used: None,
                waited: None,
            });
            let parts = counters.go_on(device, anew, now);
            container.utilization.extend(parts.used.map(|part| (device.index, part)));
            container.waiting.extend(parts.waiting.map(|part| (device.index, part)));
            devices.insert(key, counters);
        }
        known.devices = devices;
        known.last = bare(&container);
        container
    }

    /// A region whose container is known by other names since goes on under them.
    fn rename(&mut self, names: &Names, identity: Identity, path: &str) {
        if self.known.contains_key(names) {
            return;
        }
        let same = |known: &Known| known.identity == identity && known.last.path == path;
        let before = self.known.iter().find(|(_, known)| same(known)).map(|(before, _)| before.clone());
        if let Some(known) = before.and_then(|before| self.known.remove(&before)) {
            self.known.insert(names.clone(), known);
        }
    }

    /// The containers that were not seen at this look, those that ended last first. What ended longer ago is forgotten.
    pub fn ended(&mut self, now: Instant) -> Vec<Container> {
        let grace = self.grace;
        self.known.retain(|_, known| now.duration_since(known.seen) < grace || known.seen == now);
        let mut ended: Vec<(Instant, Names)> = self
            .known
            .iter()
            .filter(|(_, known)| known.seen != now)
            .map(|(names, known)| (known.seen, names.clone()))
            .collect();
        ended.sort_by(|a, b| b.cmp(a));
        let here = self.known.len() - ended.len();
        for (_, names) in ended.drain(self.most.saturating_sub(here).min(ended.len())..) {
            self.known.remove(&names);
        }
        let known = ended.iter().filter_map(|(_, names)| self.known.get(names));
        known.map(|known| Container { ended: true, ..known.last.clone() }).collect()
    }
}

/// What of a container stays true when it has ended.
fn bare(container: &Container) -> Container {
    let Region { abi, generation, time_namespace, fallbacks, ref devices, .. } = container.region;
    let devices = devices.clone();
    let (processes, events) = (Vec::new(), Vec::new());
    let region = Region { abi, generation, time_namespace, fallbacks, devices, processes, events };
    let (names, path) = (container.names.clone(), container.path.clone());
    Container {
        names,
        engine: container.engine,
        path,
        ended: false,
        region,
        utilization: BTreeMap::new(),
        waiting: BTreeMap::new(),
        unprotected: None,
        card_bytes: BTreeMap::new(),
    }
}

fn identity(found: &Found) -> Identity {
    (found.inode.0, found.inode.1, found.region.generation)
}

impl DeviceCounters {
    /// Puts the kept counters into what the region says, and tells what has happened since the look before.
    fn go_on(&mut self, device: &mut Device, anew: bool, now: Instant) -> Parts {
        for (counter, field) in self.fields.iter_mut().zip(COUNTERS) {
            if let Some(value) = field(device) {
                *value = counter.see(*value, anew);
            }
        }
        for (counter, step) in self.steps.iter_mut().zip(&mut device.wait_times) {
            *step = counter.see(*step, anew);
        }
        for (counter, count) in self.refusals.iter_mut().zip(&mut device.denied_by.0) {
            *count = counter.see(*count, anew);
        }
        let waited = device.waited_ns.saturating_add(device.lease.waited_ns);
        Parts {
            used: part(&mut self.used, device.gpu_time_ns, now).map(|part| part.min(1.0)),
            waiting: part(&mut self.waited, Some(waited), now),
        }
    }
}

/// What part of the time since the look before a counter of nanoseconds has grown by.
pub fn part(kept: &mut Option<(u64, Instant)>, ns: Option<u64>, now: Instant) -> Option<f64> {
    let before = std::mem::replace(kept, ns.map(|ns| (ns, now)));
    let (ns, (before, when)) = (ns?, before?);
    let elapsed = now.duration_since(when).as_nanos() as f64;
    (elapsed > 0.0).then(|| ns.saturating_sub(before) as f64 / elapsed)
}

#[cfg(test)]
mod tests {
    use super::super::looker::tests::{found, looker};
    use super::*;

    #[test]
    fn a_counter_goes_on_where_the_region_is_made_anew() {
        let mut looker = looker();
        let begun = Instant::now();
        let mut seconds = 0;
        let mut see = |denied: u64, generation: u64| {
            let mut found = found("a", "GPU-1");
            found.region.devices[0].denied = denied;
            found.region.devices[0].wait_times[7] = denied;
            found.region.generation = generation;
            seconds += 1;
            let now = begun + Duration::from_secs(seconds);
            let device = looker.put_together(vec![found], now).containers[0].region.devices[0].clone();
            assert_eq!(device.denied, device.wait_times[7]);
            device.denied
        };
        assert_eq!(see(5, 1), 5);
        assert_eq!(see(9, 1), 9);
        // A tenant writes less into its own region.
        assert_eq!(see(2, 1), 9);
        // A new region begins at nought.
        assert_eq!(see(0, 2), 9);
        assert_eq!(see(4, 2), 13);
        assert_eq!(see(u64::MAX, 2), u64::MAX);
        assert_eq!(see(7, 3), u64::MAX);
    }

    #[test]
    fn what_has_ended_is_told_until_the_grace_is_over() {
        let mut looker = looker();
        let begun = Instant::now();
        let at = |seconds: u64| begun + Duration::from_secs(seconds);
        looker.put_together(vec![found("a", "GPU-1")], at(0));
        let ended = looker.put_together(vec![], at(299)).containers;
        assert!(ended[0].ended && ended[0].region.devices[0].denied == 3, "{ended:?}");
        // It comes back, with a region of its own.
        let mut back = found("a", "GPU-1");
        back.region.generation = 2;
        back.region.devices[0].denied = 1;
        assert_eq!(looker.put_together(vec![back], at(299)).containers[0].region.devices[0].denied, 4);
        assert_eq!(looker.put_together(vec![], at(598)).containers.len(), 1);
        assert!(looker.put_together(vec![], at(600)).containers.is_empty());
    }

    #[test]
    fn a_container_whose_names_are_learned_later_keeps_its_counters_and_leaves_no_other_behind() {
        let of = |name: &str, denied: u64| {
            let mut found = found(name, "GPU-1");
            found.path = "/one".into();
            found.region.devices[0].denied = denied;
            found
        };
        let (mut looker, begun) = (looker(), Instant::now());
        looker.put_together(vec![of("4711_main", 5)], begun);
        let later = looker.put_together(vec![of("main", 4)], begun + Duration::from_secs(1)).containers;
        let told: Vec<_> =
            later.iter().map(|of| (of.names.container.as_str(), of.region.devices[0].denied)).collect();
        assert_eq!(told, [("main", 5)]);
    }

    #[test]
    fn churn_leaves_no_more_than_the_bound() {
        let mut looker = super::super::looker::Looker::new(Default::default(), Duration::from_secs(300), 64);
        let begun = Instant::now();
        for round in 0..1000u64 {
            let found = (0..10).map(|number| found(&format!("c{round}-{number}"), "GPU-1")).collect();
            let snapshot = looker.put_together(found, begun + Duration::from_millis(round));
            assert!(snapshot.containers.len() <= 64);
        }
    }

    #[test]
    fn use_is_told_of_the_time_between_two_looks() {
        let mut looker = looker();
        let begun = Instant::now();
        let mut of = |used_ms: u64, at_ms: u64| {
            let mut found = found("a", "GPU-1");
            found.region.devices[0].gpu_time_ns = Some(used_ms * 1_000_000);
            let snapshot = looker.put_together(vec![found], begun + Duration::from_millis(at_ms));
            snapshot.containers[0].utilization.get(&0).copied()
        };
        assert_eq!(of(100, 0), None);
        assert_eq!(of(350, 1000), Some(0.25));
        assert_eq!(of(9000, 2000), Some(1.0));
    }

    #[test]
    fn waits_are_told_of_the_time_between_two_looks_and_several_threads_add_up() {
        let mut looker = looker();
        let begun = Instant::now();
        let mut of = |share_ms: u64, others_ms: u64, at_ms: u64| {
            let mut found = found("a", "GPU-1");
            found.region.devices[0].waited_ns = share_ms * 1_000_000;
            found.region.devices[0].lease.waited_ns = others_ms * 1_000_000;
            let snapshot = looker.put_together(vec![found], begun + Duration::from_millis(at_ms));
            snapshot.containers[0].waiting.get(&0).copied()
        };
        assert_eq!(of(100, 0, 0), None);
        assert_eq!(of(300, 50, 1000), Some(0.25));
        assert_eq!(of(2300, 1050, 2000), Some(3.0));
    }
}
