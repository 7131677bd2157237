//! The node's snapshot, made at most once a second and shared by all who ask.

use super::config::Settings;
use super::looker::Looker;
use super::metrics::{self, Choice, Format};
use super::snapshot::Snapshot;
use crate::regions::Places;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use tokio::sync::Mutex;
use tokio::task::spawn_blocking;

/// How long a look is told again.
pub const FRESH: Duration = Duration::from_secs(1);

/// A look at the node and how it is told, each way made once.
pub struct View {
    pub snapshot: Arc<Snapshot>,
    told: [OnceLock<Result<String, String>>; 2],
}

struct State {
    looker: Looker,
    latest: Option<(Instant, Arc<View>)>,
}

/// What every connection shares.
pub struct Node {
    places: Places,
    roots: Vec<PathBuf>,
    choice: Choice,
    state: Arc<Mutex<State>>,
}

impl Node {
    pub fn new(settings: &Settings, places: Places) -> Self {
        let looker = Looker::new(settings.grace, settings.max_devices);
        let (hami, dcgm) = (settings.hami_metrics, settings.dcgm_metrics);
        let choice = Choice { hami, dcgm, node: settings.node_name.clone() };
        let state = Arc::new(Mutex::new(State { looker, latest: None }));
        Self { places, roots: settings.roots.clone(), choice, state }
    }

    /// Where regions are looked for.
    pub fn places(&self) -> &Places {
        &self.places
    }

    /// The node, at most [`FRESH`] old. Whoever comes while a look is under way waits for it and shares it; who goes away
    /// in the meantime leaves it to the others.
    pub async fn view(self: &Arc<Self>) -> io::Result<Arc<View>> {
        let mut state = Arc::clone(&self.state).lock_owned().await;
        if let Some((when, view)) = &state.latest
            && when.elapsed() < FRESH
        {
            return Ok(Arc::clone(view));
        }
        let node = Arc::clone(self);
        let look = spawn_blocking(move || {
            let snapshot = Arc::new(state.looker.look(&node.places));
            let view = Arc::new(View { snapshot, told: Default::default() });
            state.latest = Some((Instant::now(), Arc::clone(&view)));
            view
        });
        look.await.map_err(io::Error::other)
    }

    /// The metrics.
    pub async fn metrics(self: &Arc<Self>, format: Format) -> io::Result<String> {
        let (view, node) = (self.view().await?, Arc::clone(self));
        let written = spawn_blocking(move || {
            let told = view.told[usize::from(format == Format::OpenMetrics)].get_or_init(|| {
                metrics::encode(&view.snapshot, &node.choice, format).map_err(|error| error.to_string())
            });
            told.clone()
        });
        written.await.map_err(io::Error::other)?.map_err(io::Error::other)
    }

    /// Why nothing can be told of the node, if so.
    pub async fn reasons(self: &Arc<Self>) -> Vec<String> {
        let mut reasons = Vec::new();
        if let Err(error) = self.view().await {
            reasons.push(format!("the node cannot be looked at: {error}"));
        }
        for root in &self.roots {
            if let Err(error) = std::fs::read_dir(root) {
                reasons.push(format!("{} cannot be read: {error}", root.display()));
            }
        }
        reasons
    }
}
