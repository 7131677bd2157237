//! Server-sent events: what happens on the node, and what the page shows of it.

use super::answer::{Shared, plain};
use crate::agent::events::resume;
use crate::agent::node::{FRESH, Node, Telling};
use crate::agent::snapshot::NodeEvent;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream::{Stream, unfold};
use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::sleep;

/// One client's place in the log.
struct Reader {
    node: Arc<Node>,
    /// The id that the client has seen last, until it is known what comes behind it.
    seen: Option<String>,
    after: u64,
    due: VecDeque<Arc<NodeEvent>>,
    _permit: OwnedSemaphorePermit,
}

/// All events that are kept and then each new one; with `Last-Event-ID`, those behind that one.
pub async fn events(State(shared): State<Shared>, headers: HeaderMap) -> Response {
    let permit = match permit(&shared) {
        Ok(permit) => permit,
        Err(refused) => return *refused,
    };
    let seen = headers.get("last-event-id").and_then(|id| id.to_str().ok()).map(str::to_owned);
    let reader = Reader { node: shared.node, seen, after: 0, due: VecDeque::new(), _permit: permit };
    Sse::new(stream(reader)).keep_alive(KeepAlive::default()).into_response()
}

/// What the page shows, at once and after each look.
pub async fn live(State(shared): State<Shared>) -> Response {
    let permit = match permit(&shared) {
        Ok(permit) => permit,
        Err(refused) => return *refused,
    };
    let watcher = Watcher { node: shared.node, seen: None, _permit: permit };
    Sse::new(pictures(watcher)).keep_alive(KeepAlive::default()).into_response()
}

fn permit(shared: &Shared) -> Result<OwnedSemaphorePermit, Box<Response>> {
    let taken = Arc::clone(&shared.streams).try_acquire_owned();
    taken.map_err(|_| Box::new(plain(StatusCode::SERVICE_UNAVAILABLE, "too many streams of events\n")))
}

/// One page that is open.
struct Watcher {
    node: Arc<Node>,
    /// When the look was that it has seen last.
    seen: Option<Instant>,
    _permit: OwnedSemaphorePermit,
}

fn pictures(watcher: Watcher) -> impl Stream<Item = Result<Event, Infallible>> {
    unfold(watcher, |mut watcher| async {
        if let Some(seen) = watcher.seen {
            sleep(FRESH.saturating_sub(seen.elapsed()) + Duration::from_millis(1)).await;
        }
        let view = watcher.node.view().await.ok()?;
        watcher.seen = Some(view.when);
        let text = watcher.node.tell_view(view, Telling::Picture).await.ok()?;
        let event = Event::default().event("node").data(String::from_utf8_lossy(&text).trim_end());
        Some((Ok(event), watcher))
    })
}

fn stream(reader: Reader) -> impl Stream<Item = Result<Event, Infallible>> {
    unfold(reader, |mut reader| async {
        loop {
            if let Some(event) = reader.due.pop_front() {
                return Some((Ok(written(&event)), reader));
            }
            if !reader.read().await {
                return None;
            }
            if reader.due.is_empty() {
                sleep(FRESH).await;
            }
        }
    })
}

impl Reader {
    /// Takes what is new. False if nothing can be told any more.
    async fn read(&mut self) -> bool {
        let Ok(view) = self.node.view().await else { return false };
        let events = &view.snapshot.events;
        if let Some(seen) = self.seen.take() {
            self.after = resume(events, &seen);
        }
        let new = events.partition_point(|event| event.sequence <= self.after);
        self.due.extend(events[new..].iter().cloned());
        self.after = events.last().map_or(self.after, |last| last.sequence.max(self.after));
        true
    }
}

fn written(event: &NodeEvent) -> Event {
    let data = serde_json::to_value(event).unwrap_or_default();
    let kind = data.get("event").and_then(|kind| kind.as_str()).unwrap_or("message").to_owned();
    Event::default().id(&event.id).event(kind).data(data.to_string())
}
