//! What has happened in a region: the incidents that are still in its ring.

use super::KIND_NAMES;
use gpuquota_region::layout::{
    EVENT_BAD_LIMITS, EVENT_DENIED, EVENT_HOLDER, EVENT_KILLED, EVENT_REAPED, EVENT_STARTED_ANEW, EVENTS,
};
use gpuquota_region::{EventView, Snapshot};
use serde::Serialize;
use std::time::{Duration, SystemTime};

/// One incident.
#[derive(Clone, Debug, Serialize)]
pub struct Event {
    /// Its number in the life of the region.
    pub number: u64,
    /// When, UTC.
    pub time: String,
    /// Who wrote it, in its own PID namespace.
    pub pid: u32,
    /// Index of the device that it concerns.
    pub device: Option<u32>,
    /// What happened.
    #[serde(flatten)]
    pub what: What,
}

/// What happened.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum What {
    /// A request for memory was refused.
    Denied {
        /// Bytes asked for.
        requested: u64,
        /// Bytes in use.
        used: u64,
        /// The cap.
        limit: u64,
    },
    /// Who held most when the same process was refused just before.
    Holder {
        /// The holder's pid.
        holder: u64,
        /// Bytes that it held.
        bytes: u64,
        /// What most of it was.
        kind: &'static str,
    },
    /// A process of lower priority was killed to make room.
    Killed {
        /// Its pid.
        killed: u64,
        /// Bytes that it held.
        bytes: u64,
        /// Its priority.
        priority: u64,
    },
    /// Limits could not be understood.
    BadLimits {
        /// How many.
        problems: u64,
    },
    /// The bytes of dead processes were given back.
    Reaped {
        /// How many bytes.
        bytes: u64,
    },
    /// The file was of another boot.
    StartedAnew,
    /// Something that a later version writes.
    Unknown {
        /// Its code.
        code: u32,
    },
}

/// The name of a kind of bytes.
fn kind(code: u64) -> &'static str {
    usize::try_from(code).ok().and_then(|code| KIND_NAMES.get(code)).copied().unwrap_or("unknown")
}

impl From<EventView> for Event {
    fn from(view: EventView) -> Self {
        let EventView { number, code, pid, device, requested, used, limit, time_ns } = view;
        let what = match code {
            EVENT_DENIED => What::Denied { requested, used, limit },
            EVENT_HOLDER => What::Holder { holder: requested, bytes: used, kind: kind(limit) },
            EVENT_KILLED => What::Killed { killed: requested, bytes: used, priority: limit },
            EVENT_BAD_LIMITS => What::BadLimits { problems: requested },
            EVENT_REAPED => What::Reaped { bytes: used },
            EVENT_STARTED_ANEW => What::StartedAnew,
            code => What::Unknown { code },
        };
        let time = SystemTime::UNIX_EPOCH + Duration::from_nanos(time_ns);
        Self {
            number,
            time: humantime::format_rfc3339_millis(time).to_string(),
            pid,
            device: Some(device).filter(|device| *device != u32::MAX),
            what,
        }
    }
}

/// The events of a region, the oldest first.
pub fn read(snapshot: &Snapshot<'_>) -> Vec<Event> {
    let mut events: Vec<Event> = snapshot.events().take(EVENTS).map(Event::from).collect();
    events.sort_by_key(|event| event.number);
    events
}
