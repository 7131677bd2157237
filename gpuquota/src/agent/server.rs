//! The agent's server: where it listens, who gets a seat, and for how long.

mod answer;
mod page;
mod routes;
mod seats;
mod secrets;
mod socket;
mod stream;
mod tls;
mod why;

use super::config::{Listen, Settings};
use super::node::Node;
use super::service;
use crate::error::Error;
use axum::Router;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rustix::net::sockopt::set_socket_send_buffer_size;
use seats::{Seat, Seats};
use secrets::Token;
use socket::Peer;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tls::Tls;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{sleep, timeout};
use tokio_io_timeout::TimeoutStream;
use tracing::{info, warn};

/// How long a client may take to say what it wants.
const HEAD_TIME: Duration = Duration::from_secs(1);
/// How long a client may leave an answer unread.
const WRITE_TIME: Duration = Duration::from_secs(10);
/// How long answers under way may take once the agent was asked to end.
const FAREWELL: Duration = Duration::from_secs(5);
/// How often files with secrets are looked at.
const SECRETS: Duration = Duration::from_secs(1);
/// Bytes that the kernel keeps of an answer that a client does not read.
const SEND_BUFFER: usize = 256 << 10;
/// Bytes of a request's head.
const HEAD: usize = 16 << 10;

enum Bound {
    Tcp(TcpListener),
    /// The name goes with the listener.
    Unix {
        listener: UnixListener,
        _name: socket::Name,
    },
}

struct Server {
    router: Router,
    seats: Arc<Seats>,
    tls: Option<Tls>,
}

/// Serves until SIGTERM or SIGINT. `begin` is called once it listens.
pub async fn serve(
    settings: &Settings,
    node: Arc<Node>,
    begin: impl FnOnce() -> Result<(), Error>,
) -> Result<(), Error> {
    let tls = match (&settings.tls_certificate, &settings.tls_key) {
        (Some(certificate), Some(key)) => Some(Tls::read(certificate, key)?),
        _ => None,
    };
    let token = settings.token_file.as_deref().map(Token::read).transpose()?.map(Arc::new);
    let mut bound = Vec::new();
    for listen in &settings.listen {
        bound.push(bind(listen, tls.is_some()).await?);
    }
    let mut terminate = listen_for(SignalKind::terminate())?;
    let mut interrupt = listen_for(SignalKind::interrupt())?;
    begin()?;
    let index = Arc::clone(node.index());
    service::ready(move || index.answers());
    let seats = Arc::new(Seats::new(room(settings.connections)));
    let router = routes::router(node, token.clone());
    let server = Arc::new(Server { router, seats, tls: tls.clone() });
    let accepting: Vec<_> =
        bound.into_iter().map(|bound| tokio::spawn(accept(bound, Arc::clone(&server)))).collect();
    let reload = async {
        loop {
            sleep(SECRETS).await;
            tls.iter().for_each(Tls::reload);
            token.iter().for_each(|token| token.reload());
        }
    };
    tokio::select! {
        never = reload => never,
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    service::stopping();
    for task in accepting {
        // What it listened on is closed when it has ended.
        task.abort();
        let _ = task.await;
    }
    let _ = timeout(FAREWELL, server.seats.empty()).await;
    Ok(())
}

fn listen_for(kind: SignalKind) -> Result<tokio::signal::unix::Signal, Error> {
    signal(kind).map_err(Error::system("listen for signals"))
}

async fn bind(listen: &Listen, secure: bool) -> Result<Bound, Error> {
    let told = |error: io::Error| Error::Asked(format!("cannot listen on {listen}: {error}"));
    match listen {
        Listen::Tcp(address) => {
            let listener = TcpListener::bind(address).await.map_err(told)?;
            let scheme = if secure { "https" } else { "http" };
            info!("serving {scheme}://{}/metrics", listener.local_addr().map_err(told)?);
            Ok(Bound::Tcp(listener))
        }
        Listen::Unix(path) => {
            let (listener, name) = socket::bind(path).map_err(told)?;
            info!("serving {listen}");
            Ok(Bound::Unix { listener, _name: name })
        }
    }
}

/// As many connections as were asked for and this process may have descriptors for, beside those that a look needs.
fn room(asked: usize) -> usize {
    use rustix::process::{Resource, getrlimit, setrlimit};
    const OF_LOOKS: u64 = 64;
    let mut limit = getrlimit(Resource::Nofile);
    let wanted = asked as u64 + 2 * OF_LOOKS;
    if limit.current.is_some_and(|current| current < wanted) {
        limit.current = Some(limit.maximum.map_or(wanted, |most| most.min(wanted)));
        let _ = setrlimit(Resource::Nofile, limit);
    }
    let have = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let room = have.saturating_sub(OF_LOOKS).max(8).min(asked as u64);
    if room < asked as u64 {
        warn!("{room} connections instead of {asked}: the limit of descriptors is {have}");
    }
    room as usize
}

async fn accept(bound: Bound, server: Arc<Server>) {
    loop {
        let taken = match &bound {
            Bound::Tcp(listener) => listener.accept().await.map(|(stream, _)| {
                let server = Arc::clone(&server);
                server.seats.clone().take(move |seat| async move {
                    let _ = stream.set_nodelay(true);
                    let _ = set_socket_send_buffer_size(&stream, SEND_BUFFER);
                    match &server.tls {
                        // A handshake is a part of the time in which a client has to say what it wants.
                        Some(tls) => {
                            if let Ok(Ok(stream)) = timeout(HEAD_TIME, tls.accept(stream)).await {
                                converse(stream, &server.router, Peer::Tcp, seat).await;
                            }
                        }
                        None => converse(stream, &server.router, Peer::Tcp, seat).await,
                    }
                });
            }),
            Bound::Unix { listener, .. } => listener.accept().await.map(|(stream, _)| {
                let server = Arc::clone(&server);
                server.seats.clone().take(move |seat| async move {
                    let peer = socket::peer(&stream);
                    converse(stream, &server.router, peer, seat).await;
                });
            }),
        };
        if taken.is_err() {
            // Out of descriptors or memory: what is under way will give some back.
            sleep(Duration::from_millis(100)).await;
        }
    }
}

/// One request and its answer. A peer that is slow or breaks off concerns nobody else.
async fn converse(stream: impl AsyncRead + AsyncWrite, router: &Router, peer: Peer, seat: Seat) {
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(WRITE_TIME));
    let stream = Box::pin(stream);
    let router = TowerToHyperService::new(router.clone());
    let answer = service_fn(|mut request: hyper::Request<Incoming>| {
        seat.has_asked();
        request.extensions_mut().insert(peer);
        hyper::service::Service::call(&router, request)
    });
    let conversation = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .max_buf_size(HEAD)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), answer);
    if let Err(error) = conversation.await {
        tracing::debug!("a connection ended early: {error}");
    }
}
