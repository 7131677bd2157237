//! The node's events as they happen, as server-sent events.

use super::answer::{Shared, plain};
use crate::agent::events::resume;
use crate::agent::node::{FRESH, Node};
use crate::agent::snapshot::NodeEvent;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream::{Stream, unfold};
use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
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
    let Ok(permit) = Arc::clone(&shared.streams).try_acquire_owned() else {
        return plain(StatusCode::SERVICE_UNAVAILABLE, "too many streams of events\n");
    };
    let seen = headers.get("last-event-id").and_then(|id| id.to_str().ok()).map(str::to_owned);
    let reader = Reader { node: shared.node, seen, after: 0, due: VecDeque::new(), _permit: permit };
    Sse::new(stream(reader)).keep_alive(KeepAlive::default()).into_response()
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
