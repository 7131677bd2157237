//! What is answered to whom.

use super::answer::{Shared, as_json, failed, plain};
use super::page;
use super::secrets::Token;
use super::socket::Peer;
use super::{stream, why};
use crate::agent::metrics::Format;
use crate::agent::node::{Node, Telling};
use axum::Router;
use axum::body::HttpBody;
use axum::extract::{Request, State};
use axum::http::header::{ACCEPT, ALLOW, AUTHORIZATION, CONTENT_TYPE, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get};
use gpuquota_region::layout::{ABI_MAJOR, ABI_MINOR};
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time::timeout;

/// How long an answer may take to begin.
const PATIENCE: Duration = Duration::from_secs(10);
/// Bytes of a request's body, which nobody reads.
const BODY: u64 = 16 << 10;
/// Streams of events at a time.
const STREAMS: usize = 64;
/// Answers to `why` that are worked out at a time: each reads all of two looks.
const WHYS: usize = 2;
/// What probes ask: it tells nothing of the containers, and needs no token.
const PROBES: [&str; 3] = ["/livez", "/healthz", "/readyz"];
/// What there is.
const PATHS: &str = "/, /metrics, /livez, /readyz, /healthz, /version, /events, /api/v1, /api/v1/containers, \
                     /api/v1/devices, /api/v1/events, /api/v1/agent, /api/v1/live, /api/v1/history or \
                     /api/v1/why\n";

/// Every path.
pub fn router(node: Arc<Node>, token: Option<Arc<Token>>) -> Router {
    let (streams, whys) = (Semaphore::new(STREAMS), Semaphore::new(WHYS));
    let shared = Shared { node, streams: Arc::new(streams), whys: Arc::new(whys) };
    Router::new()
        .route("/metrics", get(metrics))
        .route("/livez", get(alive))
        .route("/healthz", get(alive))
        .route("/readyz", get(ready))
        .route("/version", get(version))
        .route("/events", get(stream::events))
        .route("/api/v1", json_of(Telling::Everything))
        .route("/api/v1/containers", json_of(Telling::Containers))
        .route("/api/v1/devices", json_of(Telling::Devices))
        .route("/api/v1/events", json_of(Telling::Events))
        .route("/api/v1/agent", json_of(Telling::Agent))
        .route("/api/v1/live", get(stream::live))
        .route("/api/v1/history", get(history))
        .route("/api/v1/why", get(why::why))
        .merge(page::files())
        .fallback(|| async { plain(StatusCode::NOT_FOUND, PATHS) })
        .with_state(shared)
        .layer(middleware::from_fn_with_state(token, guard))
}

/// What holds for every request.
async fn guard(State(token): State<Option<Arc<Token>>>, request: Request, next: Next) -> Response {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let allow = [(ALLOW, HeaderValue::from_static("GET, HEAD"))];
        return (allow, plain(StatusCode::METHOD_NOT_ALLOWED, "GET only\n")).into_response();
    }
    if request.body().size_hint().lower() > BODY {
        return plain(StatusCode::PAYLOAD_TOO_LARGE, "no body is read here\n");
    }
    let peer = request.extensions().get().copied().unwrap_or(Peer::Stranger);
    let is_open = [&PROBES[..], &page::PATHS].concat().contains(&request.uri().path());
    let refused = match (peer, &token) {
        _ if is_open => None,
        (Peer::Stranger, _) => Some(plain(StatusCode::FORBIDDEN, "root or the agent's own user only\n")),
        (Peer::Tcp, Some(token)) if !may(token, request.headers()) => {
            let challenge = [(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))];
            Some((challenge, plain(StatusCode::UNAUTHORIZED, "a bearer token is needed\n")).into_response())
        }
        _ => None,
    };
    if let Some(refused) = refused {
        return refused;
    }
    let answer = timeout(PATIENCE, next.run(request)).await;
    answer.unwrap_or_else(|_| {
        plain(StatusCode::SERVICE_UNAVAILABLE, "the node could not be looked at in time\n")
    })
}

fn may(token: &Token, headers: &HeaderMap) -> bool {
    headers.get(AUTHORIZATION).is_some_and(|given| token.is_in(given.as_bytes()))
}

async fn alive() -> Response {
    plain(StatusCode::OK, "ok\n")
}

async fn ready(State(shared): State<Shared>) -> Response {
    let reasons = shared.node.reasons().await;
    if reasons.is_empty() {
        return plain(StatusCode::OK, "ready\n");
    }
    plain(StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {}\n", reasons.join("\nnot ready: ")))
}

async fn metrics(State(shared): State<Shared>, headers: HeaderMap) -> Response {
    let accepted = headers.get(ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or("");
    let open = accepted.split(',').any(|kind| {
        let mut parts = kind.split(';').map(str::trim);
        parts.next() == Some("application/openmetrics-text")
            && parts.all(|part| !matches!(part, "q=0" | "q=0.0") && !part.starts_with("version=0"))
    });
    let format = if open { Format::OpenMetrics } else { Format::Text };
    match shared.node.tell(Telling::Metrics(format)).await {
        Ok(text) => {
            let kind = HeaderValue::from_static(format.content_type());
            (StatusCode::OK, [(CONTENT_TYPE, kind)], text).into_response()
        }
        Err(error) => failed(&error),
    }
}

async fn version() -> Response {
    let told =
        json!({ "version": env!("CARGO_PKG_VERSION"), "region_abi": format!("{ABI_MAJOR}.{ABI_MINOR}") });
    as_json(Ok(format!("{told}\n").into()))
}

async fn history(State(shared): State<Shared>) -> Response {
    as_json(shared.node.history().await)
}

/// A path of JSON.
fn json_of(telling: Telling) -> MethodRouter<Shared> {
    get(move |State(shared): State<Shared>| async move { as_json(shared.node.tell(telling).await) })
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_path_stands_in_the_page_of_the_agent() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/agent.md");
        let page = std::fs::read_to_string(path).expect("docs/agent.md");
        let paths = super::PATHS.split([',', ' ', '\n']).filter(|word| word.starts_with('/'));
        let missing: Vec<_> = paths.filter(|path| !page.contains(&format!("`{path}`"))).collect();
        assert!(missing.is_empty(), "docs/agent.md has no {missing:?}");
    }
}
