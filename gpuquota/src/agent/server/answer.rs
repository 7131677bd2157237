//! What all answers have in common.

use crate::agent::node::{Node, View};
use axum::body::Body;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};
use std::sync::Arc;
use tokio::sync::Semaphore;

/// What the answers are made from.
#[derive(Clone)]
pub struct Shared {
    pub node: Arc<Node>,
    pub streams: Arc<Semaphore>,
}

/// A line for people and scripts.
pub fn plain(status: StatusCode, text: impl Into<Body>) -> Response {
    let kind = HeaderValue::from_static("text/plain; charset=utf-8");
    (status, [(CONTENT_TYPE, kind)], text.into()).into_response()
}

/// The agent could not do it.
pub fn failed(error: &std::io::Error) -> Response {
    plain(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n"))
}

/// One part of a snapshot under its name, and when it was taken.
pub struct Part<'v, T>(pub &'v View, pub &'static str, pub &'v T);

impl<T: Serialize> Serialize for Part<'_, T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(2))?;
        map.serialize_entry("taken", &self.0.snapshot.taken)?;
        map.serialize_entry(self.1, self.2)?;
        map.end()
    }
}

/// An object.
pub fn as_json(content: &impl Serialize) -> Response {
    match serde_json::to_string(content) {
        Ok(text) => {
            let headers = [
                (CONTENT_TYPE, HeaderValue::from_static("application/json")),
                (CACHE_CONTROL, HeaderValue::from_static("no-store")),
            ];
            (headers, text + "\n").into_response()
        }
        Err(error) => failed(&error.into()),
    }
}
