//! Docker and Podman over their sockets: one question of HTTP, which both understand.

use super::facts::Fact;
use super::grpc::{runtime, within};
use super::source::Source;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::{Request, header};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::time::Duration;
use tokio::net::UnixStream;
use tokio::runtime::Runtime;

/// Bytes of an answer.
const LONGEST: usize = 16 << 20;
/// The running containers, in a version of the interface that every Docker and Podman in use knows.
const LIST: &str = "/v1.41/containers/json";

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Listed {
    id: String,
    #[serde(default)]
    names: Vec<String>,
    #[serde(default)]
    labels: Option<HashMap<String, String>>,
}

impl Listed {
    fn fact(self, engine: &'static str) -> Option<Fact> {
        let labels = self.labels.unwrap_or_default();
        let label = |name: &str| labels.get(&format!("io.kubernetes.{name}")).cloned();
        let name = self.names.first().map(|name| name.trim_start_matches('/').to_owned());
        let fact = Fact {
            container_id: Some(self.id),
            pod_uid: label("pod.uid"),
            namespace: label("pod.namespace").unwrap_or_default(),
            pod: label("pod.name").unwrap_or_default(),
            container: label("container.name").or(name).unwrap_or_default(),
            runtime: engine,
            ..Fact::default()
        };
        fact.checked()
    }
}

/// An engine that answers Docker's interface.
pub struct Engine {
    name: &'static str,
    sockets: Vec<PathBuf>,
    runtime: Runtime,
}

impl Engine {
    pub fn new(name: &'static str, sockets: Vec<PathBuf>) -> io::Result<Self> {
        Ok(Self { name, sockets, runtime: runtime()? })
    }

    async fn list(name: &'static str, socket: PathBuf) -> io::Result<Vec<Fact>> {
        let stream = TokioIo::new(UnixStream::connect(socket).await?);
        let (mut sender, connection) = http1::handshake(stream).await.map_err(io::Error::other)?;
        let request = Request::get(LIST).header(header::HOST, "localhost").body(Empty::<Bytes>::new());
        // It ends with the sender.
        tokio::spawn(connection);
        let response = sender.send_request(request.map_err(io::Error::other)?).await;
        let response = response.map_err(io::Error::other)?;
        if !response.status().is_success() {
            return Err(io::Error::other(format!("it answered {}", response.status())));
        }
        let body = Limited::new(response.into_body(), LONGEST).collect().await;
        let listed: Vec<Listed> = serde_json::from_slice(&body.map_err(io::Error::other)?.to_bytes())?;
        Ok(listed.into_iter().filter_map(|listed| listed.fact(name)).collect())
    }
}

impl Source for Engine {
    fn name(&self) -> &'static str {
        self.name
    }

    fn facts(&mut self) -> io::Result<Option<Vec<Fact>>> {
        within(&self.runtime, &self.sockets, |socket| Self::list(self.name, socket))
    }

    fn period(&self) -> Duration {
        Duration::from_secs(30)
    }
}
