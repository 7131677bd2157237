//! What has happened in a region: the incidents that are still in its ring.

use super::kinds::KIND_NAMES;
use gpuquota_region::layout::{
    EVENT_BAD_LIMITS, EVENT_CONTENTS_LOST, EVENT_DENIED, EVENT_HOLDER, EVENT_KILLED, EVENT_LIMIT_CHANGED,
    EVENT_LIMIT_DIFFERS, EVENT_NAME_RESTORED, EVENT_REAPED, EVENT_SHARED, EVENT_STARTED_ANEW,
    EVENT_TWO_REGIONS, EVENTS, NO_DEVICE,
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
    /// The process that wrote it, in its own PID namespace.
    pub pid: u32,
    /// Index of the device that it concerns.
    pub device: Option<u32>,
    /// What happened.
    #[serde(flatten)]
    pub kind: EventKind,
}

/// What happened.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum EventKind {
    /// A request for memory was refused.
    Denied {
        /// Bytes asked for.
        requested: u64,
        /// Bytes in use.
        used: u64,
        /// The cap.
        limit: u64,
    },
    /// A process that held much when the same process was refused just before.
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
    /// The file was of another boot, or its initialisation had been interrupted.
    StartedAnew,
    /// The process asked for another limit than the one that holds.
    LimitDiffers {
        /// Which limit, by the field that holds it.
        limit_of: &'static str,
        /// What it asked for, bytes or percent.
        asked: u64,
        /// What holds; 0: no limit.
        limit: u64,
    },
    /// The process changed the limit in force.
    LimitChanged {
        /// Which limit, by the field that holds it.
        limit_of: &'static str,
        /// What held before, bytes or percent; 0: no limit.
        before: u64,
        /// What holds from now on; 0: no limit.
        limit: u64,
    },
    /// The path had lost the region while processes held it; it names the region again.
    NameRestored {
        /// Whether the region has no name any more, and the process joined it all the same.
        nameless: bool,
        /// A process that held it; 0 if it cannot be told.
        holder: u64,
    },
    /// Living processes hold another region of this path, with a cap of its own.
    TwoRegions {
        /// One of them; 0 if it cannot be told.
        holder: u64,
    },
    /// The process shares the default region with another user or container.
    Shared {
        /// The user that made it.
        user: u64,
        /// Its mount namespace.
        mount_namespace: u64,
    },
    /// The file was truncated or overwritten while processes held the region; the process has put back what it holds.
    ContentsLost {
        /// Whether it made the contents anew. Those after it found them made.
        anew: bool,
        /// Bytes that it put back, of all devices.
        bytes: u64,
    },
    /// Something that a later version writes.
    Unknown {
        /// Its code.
        code: u32,
    },
}

/// The name of a kind of bytes.
fn kind_name(code: u64) -> &'static str {
    usize::try_from(code).ok().and_then(|code| KIND_NAMES.get(code)).copied().unwrap_or("unknown")
}

/// The field that holds a kind of limit.
fn limit_name(kind: u64) -> &'static str {
    const NAMES: [&str; 5] = ["memory_limit", "physical_limit", "core_limit", "request_percent", "policy"];
    usize::try_from(kind).ok().and_then(|kind| NAMES.get(kind)).copied().unwrap_or("unknown")
}

impl From<EventView> for Event {
    fn from(view: EventView) -> Self {
        let EventView { number, code, pid, device, requested, used, limit, time_ns } = view;
        let kind = match code {
            EVENT_DENIED => EventKind::Denied { requested, used, limit },
            EVENT_HOLDER => EventKind::Holder { holder: requested, bytes: used, kind: kind_name(limit) },
            EVENT_KILLED => EventKind::Killed { killed: requested, bytes: used, priority: limit },
            EVENT_BAD_LIMITS => EventKind::BadLimits { problems: requested },
            EVENT_REAPED => EventKind::Reaped { bytes: used },
            EVENT_STARTED_ANEW => EventKind::StartedAnew,
            EVENT_LIMIT_DIFFERS => {
                EventKind::LimitDiffers { limit_of: limit_name(used), asked: requested, limit }
            }
            EVENT_LIMIT_CHANGED => {
                EventKind::LimitChanged { limit_of: limit_name(used), before: requested, limit }
            }
            EVENT_NAME_RESTORED => EventKind::NameRestored { nameless: requested == 1, holder: used },
            EVENT_TWO_REGIONS => EventKind::TwoRegions { holder: used },
            EVENT_SHARED => EventKind::Shared { user: requested, mount_namespace: used },
            EVENT_CONTENTS_LOST => EventKind::ContentsLost { anew: requested == 1, bytes: used },
            code => EventKind::Unknown { code },
        };
        let time = SystemTime::UNIX_EPOCH + Duration::from_nanos(time_ns);
        Self {
            number,
            time: humantime::format_rfc3339_millis(time).to_string(),
            pid,
            device: Some(device).filter(|device| *device != NO_DEVICE),
            kind,
        }
    }
}

/// The events of a region, the oldest first.
pub fn read(snapshot: &Snapshot<'_>) -> Vec<Event> {
    let mut events: Vec<Event> = snapshot.events().take(EVENTS).map(Event::from).collect();
    events.sort_by_key(|event| event.number);
    events
}
