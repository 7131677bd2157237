//! `gpuquota agent`: the node's regions, served as metrics; and leases for containers that share a device.
//!
//! One thread serves, another one gives leases; a search of the node runs beside it, at most one at a time and at most once
//! a second however many ask. Requests have no body, small heads and little time.

mod alone;
mod leases;
mod metrics;
mod service;

use crate::error::Error;
use crate::regions::{Index, Places};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use metrics::Metrics;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Mutex, Semaphore};
use tokio::time::{Instant, timeout};

/// How long a search's answer is given again.
const FRESH: Duration = Duration::from_secs(1);
/// How long one connection may take in all.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long answers under way may take once the agent was asked to end.
const FAREWELL: Duration = Duration::from_secs(5);
/// Connections at a time; more wait in the kernel's queue.
const CONNECTIONS: usize = 64;
/// Bytes of a request's head.
const HEAD: usize = 16 << 10;

/// Serve the quotas of this node: /metrics, /healthz, /readyz.
#[derive(clap::Args)]
pub struct Agent {
    /// Where to listen.
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:9394")]
    listen: SocketAddr,

    /// Look for regions in this directory instead of the known places. May be given several times.
    #[arg(long, value_name = "DIR")]
    root: Vec<PathBuf>,
}

/// The last answer and how it came about.
struct State {
    metrics: Metrics,
    answer: Option<(Instant, Bytes)>,
}

/// What every connection shares.
struct Node {
    index: Arc<Index>,
    state: Mutex<State>,
}

impl Agent {
    /// Serves until SIGTERM or SIGINT.
    pub fn run(self) -> Result<ExitCode, Error> {
        let _alone = alone::Alone::at(&self.root)?;
        service::raise_descriptors();
        let places = if self.root.is_empty() { Places::of_node() } else { Places::only(&self.root) };
        let state = State { metrics: Metrics::default(), answer: None };
        let index = Arc::new(Index::new(places));
        let node = Arc::new(Node { index: Arc::clone(&index), state: Mutex::new(state) });
        let thread = std::thread::Builder::new().name("guard".to_owned());
        thread.spawn(move || leases::watch(index)).map_err(Error::system("start a thread"))?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(Error::system("start"))?;
        runtime.block_on(self.serve(node))
    }

    async fn serve(&self, node: Arc<Node>) -> Result<ExitCode, Error> {
        let listening = TcpListener::bind(self.listen).await;
        let listener =
            listening.map_err(|error| Error::Asked(format!("cannot listen on {}: {error}", self.listen)))?;
        let doing = || "listen for signals";
        let mut terminate = signal(SignalKind::terminate()).map_err(Error::system(doing()))?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(Error::system(doing()))?;
        let address = listener.local_addr().map_err(Error::system("tell the address"))?;
        eprintln!("gpuquota: serving http://{address}/metrics");
        let index = Arc::clone(&node.index);
        service::ready(move || index.answers());
        let seats = Arc::new(Semaphore::new(CONNECTIONS));
        tokio::select! {
            never = accept(&listener, &node, &seats) => match never {},
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        service::stopping();
        drop(listener);
        // All seats free: every answer is given.
        let _ = timeout(FAREWELL, seats.acquire_many(CONNECTIONS as u32)).await;
        Ok(ExitCode::SUCCESS)
    }
}

async fn accept(listener: &TcpListener, node: &Arc<Node>, seats: &Arc<Semaphore>) -> Infallible {
    loop {
        let seat = Arc::clone(seats).acquire_owned().await;
        match listener.accept().await {
            Ok((stream, _)) => {
                let node = Arc::clone(node);
                tokio::spawn(async move {
                    // A peer that is slow or breaks off concerns nobody else.
                    let _ = timeout(PATIENCE, serve_one(stream, node)).await;
                    drop(seat);
                });
            }
            // Out of descriptors or memory: what is under way will give some back.
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

async fn serve_one(stream: TcpStream, node: Arc<Node>) -> Result<(), hyper::Error> {
    let answer = service_fn(|request: Request<Incoming>| {
        let node = Arc::clone(&node);
        async move { Ok::<_, Infallible>(answer(&request, &node).await) }
    });
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(PATIENCE)
        .max_buf_size(HEAD)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), answer)
        .await
}

async fn answer(request: &Request<Incoming>, node: &Arc<Node>) -> Response<Full<Bytes>> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut refused = plain(StatusCode::METHOD_NOT_ALLOWED, Bytes::from_static(b"GET only\n"));
        refused.headers_mut().insert(ALLOW, hyper::header::HeaderValue::from_static("GET, HEAD"));
        return refused;
    }
    match request.uri().path() {
        "/metrics" => match Node::metrics(node).await {
            Ok(text) => plain(StatusCode::OK, text),
            Err(error) => plain(StatusCode::INTERNAL_SERVER_ERROR, Bytes::from(format!("{error}\n"))),
        },
        "/healthz" => plain(StatusCode::OK, Bytes::from_static(b"ok\n")),
        // Ready is who can search the node.
        "/readyz" => match Node::metrics(node).await {
            Ok(_) => match node.index.missing() {
                None => plain(StatusCode::OK, Bytes::from_static(b"ready\n")),
                Some(why) => plain(StatusCode::SERVICE_UNAVAILABLE, Bytes::from(format!("{why}\n"))),
            },
            Err(error) => plain(StatusCode::SERVICE_UNAVAILABLE, Bytes::from(format!("{error}\n"))),
        },
        _ => plain(StatusCode::NOT_FOUND, Bytes::from_static(b"/metrics, /healthz or /readyz\n")),
    }
}

fn plain(status: StatusCode, body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    let kind = hyper::header::HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

impl Node {
    /// The metrics, at most [`FRESH`] old. Whoever comes while a search runs waits for it and shares its answer.
    async fn metrics(node: &Arc<Self>) -> io::Result<Bytes> {
        let node = Arc::clone(node);
        let search = tokio::task::spawn_blocking(move || {
            let mut state = node.state.blocking_lock();
            if let Some((when, text)) = &state.answer
                && when.elapsed() < FRESH
            {
                return text.clone();
            }
            let begun = Instant::now();
            let (found, mishaps) = node.index.search();
            state.metrics.count(&mishaps, begun.elapsed());
            let text = Bytes::from(state.metrics.text(&found));
            state.answer = Some((Instant::now(), text.clone()));
            text
        });
        search.await.map_err(io::Error::other)
    }
}
