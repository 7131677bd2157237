//! The page at `/`, for people without Grafana. Its files lie in this program; it asks nobody but this agent.
//!
//! Everybody gets the files, since they tell nothing of the node. What the page asks for needs the token as ever, and it asks
//! its reader for that one.

use super::answer::Shared;
use axum::Router;
use axum::http::HeaderValue;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use axum::response::IntoResponse;
use axum::routing::get;

/// Its paths.
pub const PATHS: [&str; 5] = ["/", "/page.css", "/page.js", "/ask.js", "/show.js"];

const SCRIPT: &str = "text/javascript; charset=utf-8";
/// Path, kind and text of each file.
const FILES: [(&str, &str, &str); 5] = [
    (PATHS[0], "text/html; charset=utf-8", include_str!("page/page.html")),
    (PATHS[1], "text/css; charset=utf-8", include_str!("page/page.css")),
    (PATHS[2], SCRIPT, include_str!("page/page.js")),
    (PATHS[3], SCRIPT, include_str!("page/ask.js")),
    (PATHS[4], SCRIPT, include_str!("page/show.js")),
];

/// Nothing but these files and this agent; and a script can put nothing into the page but text.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
                      require-trusted-types-for 'script'; trusted-types 'none'";

/// All of them.
pub fn files() -> Router<Shared> {
    FILES.iter().fold(Router::new(), |router, (path, kind, text)| {
        router.route(path, get(move || async move { (headers(kind), *text).into_response() }))
    })
}

fn headers(kind: &'static str) -> [(HeaderName, HeaderValue); 5] {
    [
        (CONTENT_TYPE, kind),
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "no-referrer"),
        // The next agent may have another one.
        (CACHE_CONTROL, "no-cache"),
    ]
    .map(|(name, value)| (name, HeaderValue::from_static(value)))
}
