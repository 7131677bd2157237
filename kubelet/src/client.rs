//! Questions of gRPC over a socket of the node.

use hyper::http::uri::{PathAndQuery, Uri};
use hyper_util::rt::TokioIo;
use prost::Message;
use std::io;
use std::path::Path;
use tokio::net::UnixStream;
use tonic::Request;
use tonic::client::Grpc;

use tonic::transport::{Channel, Endpoint};
use tonic_prost::ProstCodec;
use tower::service_fn;

/// Bytes of an answer.
const LONGEST: usize = 16 << 20;

/// A connection.
pub type Client = Grpc<Channel>;

/// Connects to a socket.
pub async fn connect(path: &Path) -> io::Result<Client> {
    connect_as(path, "localhost").await
}

/// What the kubelet sends as the authority of a request over a socket of which it was told the path alone.
pub fn authority_of(path: &Path) -> String {
    path.to_string_lossy().replace('/', "%2F")
}

/// The same, with this authority.
pub async fn connect_as(path: &Path, authority: &str) -> io::Result<Client> {
    let origin: Uri = format!("http://{authority}").parse().map_err(io::Error::other)?;
    let path = path.to_path_buf();
    let connector = service_fn(move |_| {
        let path = path.clone();
        async move { UnixStream::connect(path).await.map(TokioIo::new) }
    });
    let channel = Endpoint::from(origin).connect_with_connector(connector).await;
    Ok(Grpc::new(channel.map_err(io::Error::other)?).max_decoding_message_size(LONGEST))
}

/// Calls one method.
pub async fn call<Q, A>(client: &mut Client, method: &'static str, question: Q) -> io::Result<A>
where
    Q: Message + Send + Sync + 'static,
    A: Message + Default + Send + Sync + 'static,
{
    client.ready().await.map_err(io::Error::other)?;
    let codec = ProstCodec::<Q, A>::default();
    let answer = client.unary(Request::new(question), PathAndQuery::from_static(method), codec).await;
    answer.map(tonic::Response::into_inner).map_err(|status| io::Error::other(status.to_string()))
}

/// The first message of a stream, which is broken off after it.
pub async fn first<Q, A>(client: &mut Client, method: &'static str, question: Q) -> io::Result<A>
where
    Q: Message + Send + Sync + 'static,
    A: Message + Default + Send + Sync + 'static,
{
    client.ready().await.map_err(io::Error::other)?;
    let codec = ProstCodec::<Q, A>::default();
    let path = PathAndQuery::from_static(method);
    let wrong = |status: tonic::Status| io::Error::other(status.to_string());
    let answer = client.server_streaming(Request::new(question), path, codec).await.map_err(wrong)?;
    answer.into_inner().message().await.map_err(wrong)?.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}
