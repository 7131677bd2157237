//! What has happened in all regions of the node, in the order in which the agent saw it.

use super::snapshot::{Names, NodeEvent, What};
use crate::regions::Region;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::SystemTime;

/// How many events of one container are kept, so that none pushes out those of others.
const OF_CONTAINER: usize = 64;
/// How many events are kept in all.
const IN_ALL: usize = 8192;

/// What of one container's events is in the log.
#[derive(Debug, Default)]
pub struct Told {
    last: Option<u64>,
    kept: VecDeque<u64>,
}

/// The events that are kept.
#[derive(Debug)]
pub struct EventLog {
    start: u64,
    next: u64,
    kept: BTreeMap<u64, Arc<NodeEvent>>,
}

impl EventLog {
    pub fn new() -> Self {
        let start = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        Self { start: start.map_or(0, |since| since.as_millis() as u64), next: 1, kept: BTreeMap::new() }
    }

    /// Takes the events out of a region's report; those that are new go into the log. `anew`: whether it is another region
    /// than at the look before.
    pub fn take(&mut self, names: &Names, told: &mut Told, region: &mut Region, anew: bool) {
        if anew {
            told.last = None;
        }
        for event in std::mem::take(&mut region.events) {
            if told.last.is_some_and(|last| event.number <= last) {
                continue;
            }
            told.last = Some(event.number);
            let index = event.device.map(|index| index as usize);
            let device = region.devices.iter().find(|device| Some(device.index) == index);
            let sequence =
                self.put(names.clone(), device.map(|device| device.uuid.clone()), What::Region(event));
            told.kept.push_back(sequence);
            if told.kept.len() > OF_CONTAINER {
                told.kept.pop_front().map(|oldest| self.kept.remove(&oldest));
            }
        }
    }

    /// Takes one event; its number.
    pub fn put(&mut self, names: Names, device_uuid: Option<String>, event: What) -> u64 {
        let sequence = self.next;
        self.next += 1;
        let event =
            NodeEvent { id: format!("{}-{sequence}", self.start), sequence, names, device_uuid, event };
        self.kept.insert(sequence, Arc::new(event));
        if self.kept.len() > IN_ALL {
            self.kept.pop_first();
        }
        sequence
    }

    /// All that are kept, the oldest first.
    pub fn all(&self) -> Vec<Arc<NodeEvent>> {
        self.kept.values().cloned().collect()
    }
}

/// After which event a stream goes on whose client has seen this id last; an id of an earlier agent, or nonsense, means
/// from the beginning.
pub fn resume(events: &[Arc<NodeEvent>], id: &str) -> u64 {
    let parts = id.split_once('-').and_then(|(start, number)| Some((start, number.parse::<u64>().ok()?)));
    let Some((start, number)) = parts else { return 0 };
    let same = events.last().and_then(|event| event.id.split_once('-')).is_none_or(|(own, _)| own == start);
    if same { number } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::super::looker::tests::{found, looker};
    use super::*;
    use crate::regions::{Event, EventKind};
    use std::time::{Duration, Instant};

    fn event(number: u64) -> Event {
        let kind = EventKind::Denied { requested: 1, used: 2, limit: 2 };
        Event { number, time: "2026-11-27T00:00:00.000Z".into(), pid: 7, device: Some(0), kind }
    }

    #[test]
    fn an_event_is_told_once_and_a_flood_of_one_container_leaves_those_of_others() {
        let mut looker = looker();
        let begun = Instant::now();
        let mut quiet = found("quiet", "GPU-1");
        quiet.region.events = vec![event(0)];
        looker.put_together(vec![quiet], begun);
        for look in 1..200u64 {
            let (mut quiet, mut loud) = (found("quiet", "GPU-1"), found("loud", "GPU-1"));
            quiet.region.events = vec![event(0)];
            loud.region.events = (0..256).map(|number| event(look * 256 + number)).collect();
            let snapshot = looker.put_together(vec![quiet, loud], begun + Duration::from_secs(look));
            let of =
                |name: &str| snapshot.events.iter().filter(|event| event.names.container == name).count();
            assert_eq!((of("quiet"), of("loud")), (1, OF_CONTAINER));
        }
    }

    #[test]
    fn a_stream_goes_on_behind_the_id_that_the_client_has_seen() {
        let mut looker = looker();
        let mut found = found("a", "GPU-1");
        found.region.events = vec![event(0), event(1)];
        let events = looker.put_together(vec![found], Instant::now()).events;
        assert_eq!(events[1].device_uuid.as_deref(), Some("GPU-1"));
        assert_eq!(resume(&events, &events[0].id), events[0].sequence);
        for other in ["", "-", "x-1", "12-9", "1", "99999999999999999999999-1"] {
            assert_eq!(resume(&events, other), 0, "{other}");
        }
    }
}
