//! A stub of a runtime, written apart from the crate: it reads and writes as containerd does, and refuses what containerd would.

// Every test file uses its part of this.
#![allow(dead_code)]

use nri_plugin::api;
use prost::Message;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(20);
/// What containerd reads at once.
const BUFFER: usize = 4096;

#[derive(Clone, PartialEq, Message)]
struct Request {
    #[prost(string, tag = "1")]
    service: String,
    #[prost(string, tag = "2")]
    method: String,
    #[prost(bytes = "vec", tag = "3")]
    payload: Vec<u8>,
    #[prost(int64, tag = "4")]
    timeout_nano: i64,
}

#[derive(Clone, PartialEq, Message)]
struct Status {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
}

#[derive(Clone, PartialEq, Message)]
struct Response {
    #[prost(message, optional, tag = "1")]
    status: Option<Status>,
    #[prost(bytes = "vec", tag = "2")]
    payload: Vec<u8>,
}

/// A runtime's socket.
pub struct Runtime {
    listener: UnixListener,
    path: PathBuf,
}

impl Runtime {
    pub fn at(path: &Path) -> Self {
        let listener = UnixListener::bind(path).expect("a socket");
        listener.set_nonblocking(true).expect("a socket");
        Self { listener, path: path.to_owned() }
    }

    /// The next plugin that connects.
    pub fn accept(&self) -> Session {
        let until = Instant::now() + PATIENCE;
        let stream = loop {
            match self.listener.accept() {
                Ok((stream, _)) => break stream,
                Err(_) if Instant::now() < until => std::thread::sleep(Duration::from_millis(5)),
                Err(error) => panic!("no plugin came: {error}"),
            }
        };
        stream.set_nonblocking(false).expect("a socket");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        Session { stream, buffered: Vec::new(), next: 1 }
    }

    /// The next plugin, registered and configured; the events that it wants.
    pub fn take_in(&self) -> (Session, i32) {
        let mut session = self.accept();
        let registered = session.register();
        assert_eq!(registered.plugin_idx.len(), 2, "{registered:?}");
        let events = session.configure();
        (session, events)
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// A plugin at the other end.
pub struct Session {
    pub stream: UnixStream,
    buffered: Vec<u8>,
    next: u32,
}

/// A message in one frame.
pub fn framed(connection: u32, stream: u32, kind: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = connection.to_be_bytes().to_vec();
    bytes.extend((body.len() as u32 + 10).to_be_bytes());
    bytes.extend((body.len() as u32).to_be_bytes());
    bytes.extend(stream.to_be_bytes());
    bytes.extend([kind, 0]);
    [bytes, body.to_vec()].concat()
}

impl Session {
    fn frame(&mut self) -> (u32, Vec<u8>) {
        let mut head = [0; 8];
        self.stream.read_exact(&mut head).expect("the head of a frame");
        let connection = u32::from_be_bytes([head[0], head[1], head[2], head[3]]);
        let mut bytes = vec![0; u32::from_be_bytes([head[4], head[5], head[6], head[7]]) as usize];
        self.stream.read_exact(&mut bytes).expect("a frame");
        (connection, bytes)
    }

    /// Reads as containerd does, whose buffers have to hold a whole frame.
    fn read(&mut self, connection: u32, length: usize) -> Vec<u8> {
        let mut read = Vec::new();
        while read.len() < length {
            let wanted = length - read.len();
            if self.buffered.is_empty() {
                let (number, bytes) = self.frame();
                assert_eq!(number, connection, "a frame of the other connection");
                let room = if wanted >= BUFFER { wanted } else { BUFFER };
                assert!(bytes.len() <= room, "containerd has room for {room} bytes, not {}", bytes.len());
                self.buffered = bytes;
            }
            let part = wanted.min(self.buffered.len());
            read.extend(self.buffered.drain(..part));
        }
        read
    }

    /// Number, kind and body of the next message.
    fn message(&mut self, connection: u32) -> (u32, u8, Vec<u8>) {
        let head = self.read(connection, 10);
        let number = |at: usize| u32::from_be_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let body = self.read(connection, number(0) as usize);
        (number(4), head[8], body)
    }

    /// The call that the plugin makes next.
    pub fn called<M: Message + Default>(&mut self, method: &str) -> (u32, M) {
        let (stream, kind, body) = self.message(2);
        assert_eq!(kind, 1, "no request");
        assert_eq!(stream % 2, 1, "a client's calls have odd numbers");
        let request = Request::decode(body.as_slice()).expect("a request");
        assert_eq!(
            (request.service.as_str(), request.method.as_str()),
            ("nri.pkg.api.v1alpha1.Runtime", method)
        );
        (stream, M::decode(request.payload.as_slice()).expect("a message"))
    }

    /// Answers it.
    pub fn answer(&mut self, stream: u32, answer: &impl Message) {
        let body = Response { status: None, payload: answer.encode_to_vec() }.encode_to_vec();
        self.stream.write_all(&framed(2, stream, 2, &body)).expect("the plugin reads");
    }

    /// Refuses it.
    pub fn refuse(&mut self, stream: u32, code: i32, message: &str) {
        let status = Some(Status { code, message: message.into() });
        let body = Response { status, payload: vec![] }.encode_to_vec();
        self.stream.write_all(&framed(2, stream, 2, &body)).expect("the plugin reads");
    }

    pub fn register(&mut self) -> api::RegisterPluginRequest {
        let (stream, request) = self.called("RegisterPlugin");
        self.answer(stream, &api::Empty {});
        request
    }

    pub fn configure(&mut self) -> i32 {
        let request = api::ConfigureRequest {
            runtime_name: "stub".into(),
            runtime_version: "v0".into(),
            registration_timeout: 5000,
            request_timeout: 2000,
            ..Default::default()
        };
        self.call::<api::ConfigureResponse>("Configure", &request).expect("configured").events
    }

    /// Sends a call without waiting for its answer; its number.
    pub fn begin(&mut self, method: &str, message: &impl Message) -> u32 {
        let bytes = self.call_bytes("nri.pkg.api.v1alpha1.Plugin", method, message);
        self.stream.write_all(&bytes).expect("the plugin reads");
        self.next - 2
    }

    /// A call as it is sent.
    pub fn call_bytes(&mut self, service: &str, method: &str, message: &impl Message) -> Vec<u8> {
        let stream = self.next;
        self.next += 2;
        let request = Request {
            service: service.into(),
            method: method.into(),
            payload: message.encode_to_vec(),
            timeout_nano: 2_000_000_000,
        };
        framed(1, stream, 1, &request.encode_to_vec())
    }

    /// The next answer and the number of its call.
    pub fn answered<A: Message + Default>(&mut self) -> (u32, Result<A, (i32, String)>) {
        let (stream, kind, body) = self.message(1);
        assert_eq!(kind, 2, "no response");
        let response = Response::decode(body.as_slice()).expect("a response");
        let answer = match response.status.filter(|status| status.code != 0) {
            Some(status) => Err((status.code, status.message)),
            None => Ok(A::decode(response.payload.as_slice()).expect("an answer")),
        };
        (stream, answer)
    }

    /// Calls the plugin and waits for its answer.
    pub fn call<A: Message + Default>(
        &mut self,
        method: &str,
        message: &impl Message,
    ) -> Result<A, (i32, String)> {
        let stream = self.begin(method, message);
        let (answered, answer) = self.answered();
        assert_eq!(answered, stream, "the answer to another call");
        answer
    }

    /// Whether the plugin has closed the connection, or does so in time.
    pub fn is_closed(&mut self) -> bool {
        let mut rest = Vec::new();
        // A connection that is reset is closed too.
        !matches!(self.stream.read_to_end(&mut rest),
            Err(error) if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut))
    }
}
