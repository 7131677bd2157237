//! What all answers have in common.

use crate::agent::node::Node;
use axum::body::Body;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use hyper::body::Bytes;
use std::io;
use std::sync::Arc;
use tokio::sync::Semaphore;

/// What the answers are made from.
#[derive(Clone)]
pub struct Shared {
    pub node: Arc<Node>,
    pub streams: Arc<Semaphore>,
    pub whys: Arc<Semaphore>,
}

/// A line for people and scripts.
pub fn plain(status: StatusCode, text: impl Into<Body>) -> Response {
    let kind = HeaderValue::from_static("text/plain; charset=utf-8");
    (status, [(CONTENT_TYPE, kind)], text.into()).into_response()
}

/// The agent could not do it.
pub fn failed(error: &io::Error) -> Response {
    plain(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n"))
}

/// An object, or why there is none.
pub fn as_json(told: io::Result<Bytes>) -> Response {
    match told {
        Ok(text) => {
            let headers = [
                (CONTENT_TYPE, HeaderValue::from_static("application/json")),
                (CACHE_CONTROL, HeaderValue::from_static("no-store")),
            ];
            (headers, text).into_response()
        }
        Err(error) => failed(&error),
    }
}
