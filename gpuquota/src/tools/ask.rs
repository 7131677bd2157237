//! Questions to an agent: HTTP over a unix socket or a port.

use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::{Request, Response, body::Incoming, header};
use hyper_util::rt::TokioIo;
use std::fmt;
use std::future::Future;
use std::io;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;

/// Bytes of an answer: a node of the most containers takes a tenth of it.
const LONGEST: usize = 256 << 20;
/// An agent on this node takes a connection at once, or not at all.
const CONNECT: Duration = Duration::from_secs(1);
/// Longer than the agent itself waits for a look.
const ANSWER: Duration = Duration::from_secs(12);
/// The agent's stream says something every 15 s.
const SILENCE: Duration = Duration::from_secs(45);

/// Where an agent is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// Its socket.
    Unix(PathBuf),
    /// Its host and port.
    Tcp(String),
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            let path = PathBuf::from(path.strip_prefix("//").unwrap_or(path));
            return if path.is_absolute() {
                Ok(Self::Unix(path))
            } else {
                Err("its path begins with /".into())
            };
        }
        if text.starts_with("https://") {
            return Err("the tools do not speak TLS: name the agent's unix socket, as unix:/PATH".into());
        }
        let place = text.strip_prefix("http://").unwrap_or(text).trim_end_matches('/');
        match place.rsplit_once(':') {
            Some((host, port)) if !host.is_empty() && !host.contains('/') && port.parse::<u16>().is_ok() => {
                Ok(Self::Tcp(place.to_owned()))
            }
            _ => Err("unix:/PATH, HOST:PORT or none is wanted".into()),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Tcp(place) => write!(f, "http://{place}"),
        }
    }
}

/// Why an agent gave no answer.
#[derive(Debug)]
pub enum Silent {
    /// Nobody is there.
    Absent(io::Error),
    /// Somebody is, and does not do what was asked.
    Refuses(String),
}

impl fmt::Display for Silent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent(error) => write!(f, "no agent answers there: {error}"),
            Self::Refuses(why) => f.write_str(why),
        }
    }
}

impl<E: std::error::Error> From<E> for Silent {
    fn from(error: E) -> Self {
        Self::Refuses(format!("it does not answer as an agent: {error}"))
    }
}

/// Who asks one agent.
#[derive(Debug)]
pub struct Client {
    address: Address,
    runtime: Runtime,
}

impl Client {
    pub fn new(address: Address) -> io::Result<Self> {
        Ok(Self { address, runtime: Builder::new_current_thread().enable_all().build()? })
    }

    /// Where it is.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// The body of the answer to `GET path`.
    pub fn get(&self, path: &str) -> Result<Bytes, Silent> {
        self.runtime.block_on(async {
            let all = async {
                let response = self.ask(path, None).await?;
                let body = Limited::new(response.into_body(), LONGEST).collect().await;
                let body = body.map_err(|error| Silent::Refuses(format!("its answer broke off: {error}")))?;
                Ok(body.to_bytes())
            };
            within(ANSWER, all).await
        })
    }

    /// The data of the events of the stream at `path` from behind the event `after` on; each with its id. Comes back when
    /// `each` breaks, or with why the stream ended.
    pub fn follow(
        &self,
        path: &str,
        after: Option<&str>,
        mut each: impl FnMut(&str, &str) -> ControlFlow<()>,
    ) -> Result<(), Silent> {
        self.runtime.block_on(async {
            let mut body = within(ANSWER, self.ask(path, after)).await?.into_body();
            let mut rest = Vec::new();
            let mut id = String::new();
            loop {
                let frame = timeout(SILENCE, body.frame()).await;
                let frame = frame.map_err(|_| Silent::Refuses("its stream has fallen silent".into()))?;
                let Some(frame) = frame else {
                    return Err(Silent::Refuses("it has ended the stream".into()));
                };
                let Ok(data) = frame?.into_data() else { continue };
                rest.extend_from_slice(&data);
                while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
                    let line: Vec<u8> = rest.drain(..=end).collect();
                    let line = String::from_utf8_lossy(&line);
                    if let Some(told) = line.strip_prefix("id:") {
                        id = told.trim().to_owned();
                    } else if let Some(data) = line.strip_prefix("data:")
                        && each(&id, data.trim()).is_break()
                    {
                        return Ok(());
                    }
                }
            }
        })
    }

    async fn ask(&self, path: &str, after: Option<&str>) -> Result<Response<Incoming>, Silent> {
        match &self.address {
            Address::Unix(socket) => {
                let stream = connected(UnixStream::connect(socket)).await?;
                send(stream, path, after).await
            }
            Address::Tcp(place) => {
                let stream = connected(TcpStream::connect(place.as_str())).await?;
                send(stream, path, after).await
            }
        }
    }
}

async fn connected<S>(connecting: impl Future<Output = io::Result<S>>) -> Result<S, Silent> {
    match timeout(CONNECT, connecting).await {
        Ok(stream) => stream.map_err(Silent::Absent),
        Err(_) => Err(Silent::Absent(io::ErrorKind::TimedOut.into())),
    }
}

async fn within<T>(time: Duration, answer: impl Future<Output = Result<T, Silent>>) -> Result<T, Silent> {
    let late = || Silent::Refuses(format!("it did not answer within {} s", time.as_secs()));
    timeout(time, answer).await.unwrap_or_else(|_| Err(late()))
}

async fn send(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    path: &str,
    after: Option<&str>,
) -> Result<Response<Incoming>, Silent> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let mut request = Request::get(path).header(header::HOST, "localhost");
    if let Some(after) = after {
        request = request.header("last-event-id", after);
    }
    // It ends with the sender.
    tokio::spawn(connection);
    let response = sender.send_request(request.body(Empty::<Bytes>::new())?).await?;
    match response.status().as_u16() {
        200 => Ok(response),
        401 => Err(Silent::Refuses(
            "it wants a token: name its unix socket, as unix:/PATH, or run this as root".into(),
        )),
        403 => Err(Silent::Refuses("it answers root and its own user only".into())),
        404 => Err(Silent::Refuses(format!("it does not know {path}: it may be older than this program"))),
        _ => Err(Silent::Refuses(format!("it answered {}", response.status()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_is_named_by_socket_or_port() {
        let tcp = |place: &str| Ok(Address::Tcp(place.to_owned()));
        assert_eq!("unix:/run/a.sock".parse(), Ok(Address::Unix("/run/a.sock".into())));
        assert_eq!("unix:///run/a.sock".parse(), Ok(Address::Unix("/run/a.sock".into())));
        assert_eq!("http://127.0.0.1:9394/".parse(), tcp("127.0.0.1:9394"));
        assert_eq!("[::1]:9394".parse(), tcp("[::1]:9394"));
        assert_eq!("node-1:9394".parse(), tcp("node-1:9394"));
        for wrong in
            ["", "unix:run", "node-1", "https://node-1:9394", ":9394", "a:b", "a:99999", "ftp://a/b:1"]
        {
            assert!(wrong.parse::<Address>().is_err(), "{wrong}");
        }
    }
}
