//! The node's snapshot, made at most once a second and shared by all who ask.

use super::config::Settings;
use super::history::{EVERY, History};
use super::looker::Looker;
use super::metrics::{self, Choice, Format};
use super::picture;
use super::snapshot::Snapshot;
use super::who::Who;
use crate::regions::Index;
use hyper::body::Bytes;
use rustix::time::{ClockId, clock_gettime};
use serde::Serialize;
use serde::ser::SerializeMap;
use std::io;
use std::sync::{Arc, OnceLock, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Mutex;
use tokio::task::spawn_blocking;

/// How long a look is told again.
pub const FRESH: Duration = Duration::from_secs(1);

/// The history's looks take at most one part in so many of a processor's time.
const SPARE: u32 = 200;
/// But for this: they are so far apart at the most.
const RAREST: Duration = Duration::from_secs(60);

/// What is told of a look, and how.
#[derive(Clone, Copy, Debug)]
pub enum Telling {
    /// The metrics.
    Metrics(Format),
    /// All of it as JSON.
    Everything,
    /// What each container has.
    Containers,
    /// What each device has to do.
    Devices,
    /// What has happened.
    Events,
    /// What the agent counts of itself.
    Agent,
    /// What the page shows.
    Picture,
}

/// How many ways there are.
const TELLINGS: usize = 8;

impl Telling {
    fn place(self) -> usize {
        match self {
            Self::Metrics(Format::Text) => 0,
            Self::Metrics(Format::OpenMetrics) => 1,
            Self::Everything => 2,
            Self::Containers => 3,
            Self::Devices => 4,
            Self::Events => 5,
            Self::Agent => 6,
            Self::Picture => 7,
        }
    }

    fn tell(self, snapshot: &Arc<Snapshot>, choice: &Choice) -> Result<String, String> {
        let json = match self {
            Self::Metrics(format) => {
                return metrics::encode(snapshot, choice, format).map_err(|error| error.to_string());
            }
            Self::Everything => serde_json::to_string(&**snapshot),
            Self::Containers => part(snapshot, "containers", &snapshot.containers),
            Self::Devices => part(snapshot, "devices", &snapshot.devices()),
            Self::Events => part(snapshot, "events", &snapshot.events),
            Self::Agent => part(snapshot, "agent", &snapshot.own),
            Self::Picture => picture::of(snapshot),
        };
        json.map(|text| text + "\n").map_err(|error| error.to_string())
    }
}

/// One part of a snapshot under its name, and when it was taken.
fn part(snapshot: &Snapshot, name: &str, part: &impl Serialize) -> serde_json::Result<String> {
    let mut text = Vec::new();
    let mut writer = serde_json::Serializer::new(&mut text);
    let mut map = serde::Serializer::serialize_map(&mut writer, Some(2))?;
    map.serialize_entry("taken", &snapshot.taken)?;
    map.serialize_entry(name, part)?;
    SerializeMap::end(map)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// A look at the node. Each way of telling it is written once, and all who are told share the text.
pub struct View {
    pub snapshot: Arc<Snapshot>,
    /// When the look was.
    pub when: Instant,
    told: [OnceLock<Result<Bytes, String>>; TELLINGS],
}

struct State {
    looker: Looker,
    latest: Option<Arc<View>>,
}

/// What every connection shares.
pub struct Node {
    index: Arc<Index>,
    choice: Choice,
    state: Arc<Mutex<State>>,
    history: std::sync::Mutex<History>,
}

/// The processor time of this thread so far.
fn thread_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.try_into().unwrap_or(0), time.tv_nsec.try_into().unwrap_or(0))
}

impl Node {
    pub fn new(settings: &Settings, index: Arc<Index>, who: Who) -> Self {
        let looker = Looker::new(who, settings.grace, settings.max_devices);
        let (hami, dcgm) = (settings.hami_metrics, settings.dcgm_metrics);
        let choice = Choice { hami, dcgm, node: settings.node_name.clone() };
        let state = Arc::new(Mutex::new(State { looker, latest: None }));
        Self { index, choice, state, history: std::sync::Mutex::default() }
    }

    /// The regions of the node.
    pub fn index(&self) -> &Arc<Index> {
        &self.index
    }

    /// The node, at most [`FRESH`] old. Whoever comes while a look is under way waits for it and shares it; who goes away
    /// in the meantime leaves it to the others.
    pub async fn view(self: &Arc<Self>) -> io::Result<Arc<View>> {
        let mut state = Arc::clone(&self.state).lock_owned().await;
        if let Some(view) = &state.latest
            && view.when.elapsed() < FRESH
        {
            return Ok(Arc::clone(view));
        }
        let node = Arc::clone(self);
        let look = spawn_blocking(move || {
            let snapshot = Arc::new(state.looker.look(&node.index));
            let view = Arc::new(View { snapshot, when: Instant::now(), told: Default::default() });
            state.latest = Some(Arc::clone(&view));
            view
        });
        look.await.map_err(io::Error::other)
    }

    /// The node now, told so.
    pub async fn tell(self: &Arc<Self>, telling: Telling) -> io::Result<Bytes> {
        self.tell_view(self.view().await?, telling).await
    }

    /// A look, told so.
    pub async fn tell_view(self: &Arc<Self>, view: Arc<View>, telling: Telling) -> io::Result<Bytes> {
        let node = Arc::clone(self);
        // A node of many containers takes a while to write down, and others ask meanwhile.
        let written = spawn_blocking(move || {
            let told = view.told[telling.place()]
                .get_or_init(|| telling.tell(&view.snapshot, &node.choice).map(Bytes::from));
            told.clone()
        });
        written.await.map_err(io::Error::other)?.map_err(io::Error::other)
    }

    /// Looks at the node for its history, for ever; rarely where a look takes long. It has a thread of its own: looks that go
    /// from one thread to another leave memory with each.
    pub fn remember(&self) {
        loop {
            let before = thread_time();
            self.state.blocking_lock().looker.glance(&self.index, &self.history);
            let cost = thread_time().saturating_sub(before);
            std::thread::sleep((cost * SPARE).clamp(EVERY, RAREST));
        }
    }

    /// The last minutes.
    pub async fn history(self: &Arc<Self>) -> io::Result<Bytes> {
        let node = Arc::clone(self);
        let written = spawn_blocking(move || {
            let history = node.history.lock().unwrap_or_else(PoisonError::into_inner);
            serde_json::to_string(&history.told())
        });
        Ok((written.await.map_err(io::Error::other)?? + "\n").into())
    }

    /// Why nothing can be told of the node, if so.
    pub async fn reasons(self: &Arc<Self>) -> Vec<String> {
        let mut reasons = Vec::new();
        match self.view().await {
            Err(error) => reasons.push(format!("the node cannot be looked at: {error}")),
            Ok(view) => {
                let nri = view.snapshot.own.nri.as_ref().filter(|nri| !nri.connected);
                reasons.extend(nri.map(|nri| format!("no runtime is connected by NRI: {}", nri.why)));
            }
        }
        reasons.extend(self.index.missing());
        reasons
    }
}
