//! Stubs of the sockets that the agent asks for names.

use crate::common::Scratch;
use http_body_util::{BodyExt, Full, combinators::BoxBody};
use hyper::body::{Body, Bytes, Frame, Incoming};
use hyper::header::{HeaderMap, HeaderValue};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::collections::VecDeque;
use std::convert::Infallible;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::mpsc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::net::UnixListener;

/// Looks until it is as wished for, at most ten seconds.
pub fn eventually<T>(look: impl Fn() -> T, is_right: impl Fn(&T) -> bool) -> T {
    let begun = Instant::now();
    loop {
        let seen = look();
        if is_right(&seen) || begun.elapsed() > Duration::from_secs(10) {
            return seen;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// What a stub answers.
#[derive(Clone)]
pub enum Answer {
    /// Nothing, ever.
    Nothing,
    /// By path of the request: the message of gRPC, or the body of HTTP.
    ByPath(Vec<(&'static str, Vec<u8>)>),
}

/// A server on a socket of its own, which lives as long as this value.
pub struct Stub {
    home: Scratch,
    _stop: mpsc::Sender<()>,
}

impl Stub {
    /// Of gRPC.
    pub fn grpc(answer: Answer) -> Self {
        Self::serve(answer, true)
    }

    /// Of HTTP.
    pub fn http(answer: Answer) -> Self {
        Self::serve(answer, false)
    }

    /// Its socket.
    pub fn socket(&self) -> PathBuf {
        self.home.join("stub.sock")
    }

    fn serve(answer: Answer, is_grpc: bool) -> Self {
        let home = Scratch::new();
        let path = home.join("stub.sock");
        let (stop, stopped) = mpsc::channel();
        let (ready, is_ready) = mpsc::channel();
        std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let listener = UnixListener::bind(path).expect("a socket");
                ready.send(()).expect("somebody waits");
                loop {
                    let accepted = tokio::time::timeout(Duration::from_millis(100), listener.accept()).await;
                    if stopped.try_recv() == Err(mpsc::TryRecvError::Disconnected) {
                        return;
                    }
                    let Ok(Ok((stream, _))) = accepted else { continue };
                    let answer = answer.clone();
                    let service = service_fn(move |request: Request<Incoming>| {
                        respond(answer.clone(), request, is_grpc)
                    });
                    tokio::spawn(async move {
                        let stream = TokioIo::new(stream);
                        if is_grpc {
                            let _ = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                                .serve_connection(stream, service)
                                .await;
                        } else {
                            let _ = hyper::server::conn::http1::Builder::new()
                                .serve_connection(stream, service)
                                .await;
                        }
                    });
                }
            });
        });
        is_ready.recv().expect("it listens");
        Self { home, _stop: stop }
    }
}

async fn respond(
    answer: Answer,
    request: Request<Incoming>,
    is_grpc: bool,
) -> Result<Response<BoxBody<Bytes, Infallible>>, Infallible> {
    let Answer::ByPath(answers) = answer else { return std::future::pending().await };
    let found = answers.into_iter().find(|(path, _)| *path == request.uri().path()).map(|(_, bytes)| bytes);
    let mut response = Response::new(match (is_grpc, found) {
        (true, found) => framed(found).boxed(),
        (false, found) => Full::new(Bytes::from(found.unwrap_or_default())).boxed(),
    });
    if is_grpc {
        response.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
    }
    Ok(response)
}

/// A message behind its head, and the status; without a message the method is not known.
struct Framed(VecDeque<Frame<Bytes>>);

fn framed(message: Option<Vec<u8>>) -> Framed {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static(if message.is_some() { "0" } else { "12" }));
    let data = message.map(|message| {
        let head = [&[0u8][..], &(message.len() as u32).to_be_bytes()].concat();
        Frame::data(Bytes::from([head, message].concat()))
    });
    Framed(data.into_iter().chain([Frame::trailers(trailers)]).collect())
}

impl Body for Framed {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.pop_front().map(Ok))
    }
}

/// A field of a message: its number and its bytes (a text, or a message).
pub fn field(number: u8, bytes: impl AsRef<[u8]>) -> Vec<u8> {
    let bytes = bytes.as_ref();
    let mut head = vec![number << 3 | 2];
    let mut length = bytes.len();
    while length > 127 {
        head.push((length & 127) as u8 | 128);
        length >>= 7;
    }
    head.push(length as u8);
    [head, bytes.to_vec()].concat()
}
