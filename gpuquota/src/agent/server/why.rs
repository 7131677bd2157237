//! Why a container's requests are refused and why it is slow: the answers of `gpuquota why`, for the page.

use super::answer::{Shared, as_json, failed, plain};
use crate::agent::node::{FRESH, Node, Telling, View};
use crate::tools::node;
use crate::tools::why::answers::{Wanted, told};
use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::Response;
use percent_encoding::percent_decode_str;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::spawn_blocking;
use tokio::time::sleep;

/// `?container=NAME`, as the tools name it, or `?region=PATH`, as this agent tells it.
pub async fn why(State(shared): State<Shared>, uri: Uri) -> Response {
    let Some(wanted) = wanted(uri.query().unwrap_or("")) else {
        let says = "which container? /api/v1/why?container=NAME or ?region=PATH\n";
        return plain(StatusCode::BAD_REQUEST, says);
    };
    match answer(&shared, wanted).await {
        Ok(Ok(json)) => as_json(Ok(json.into())),
        Ok(Err(says)) => plain(StatusCode::NOT_FOUND, says),
        Err(error) => failed(&error),
    }
}

fn wanted(query: &str) -> Option<Wanted> {
    let of = |name: &str| {
        let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        let (_, value) = pairs.find(|(known, value)| *known == name && !value.is_empty())?;
        Some(percent_decode_str(value).decode_utf8_lossy().into_owned())
    };
    of("region").map(Wanted::Region).or_else(|| of("container").map(Wanted::Name))
}

/// The answers as JSON, or why there is no such container.
async fn answer(shared: &Shared, wanted: Wanted) -> io::Result<Result<String, String>> {
    let _permit = shared.whys.acquire().await.map_err(io::Error::other)?;
    let before = shared.node.view().await?;
    sleep(FRESH + Duration::from_millis(100)).await;
    let now = shared.node.view().await?;
    let over = now.when.duration_since(before.when);
    let (first, second) = (parsed(&shared.node, before).await?, parsed(&shared.node, now).await?);
    let told = told(&wanted, &first, &second, over, "agent".to_owned());
    Ok(match told {
        Ok(told) => Ok(serde_json::to_string(&told)? + "\n"),
        Err(error) => Err(format!("{error}\n")),
    })
}

/// A look as the tools know it.
async fn parsed(node: &Arc<Node>, view: Arc<View>) -> io::Result<node::Node> {
    let text = node.tell_view(view, Telling::Everything).await?;
    let parsed = spawn_blocking(move || node::Node::parse(&text));
    parsed.await.map_err(io::Error::other)?.map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_is_named_by_its_region_or_its_name() {
        let told = |query: &str| match wanted(query) {
            Some(Wanted::Region(path)) => format!("region {path}"),
            Some(Wanted::Name(name)) => format!("name {name}"),
            None => "nothing".to_owned(),
        };
        assert_eq!(told("container=team%2Fweb-0"), "name team/web-0");
        assert_eq!(told("container=a&region=%2Fa%20b%2B.cache"), "region /a b+.cache");
        for nothing in ["", "container", "container=", "other=a", "=&=", "%"] {
            assert_eq!(told(nothing), "nothing", "{nothing}");
        }
    }
}
