//! The API server: the few calls that a driver makes, over HTTP/1.1 with the service account's token.

use crate::error::Error;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

/// How long a call may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Bytes of an answer.
const LONGEST: usize = 16 << 20;
/// Where a pod has its service account.
const AUTHORITY: &str = "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt";
const TOKEN: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";

/// Where the API server is, and who asks.
#[derive(clap::Args, Clone, Debug)]
pub struct Server {
    /// The API server. Without it: that of the cluster whose pod this is.
    #[arg(long, value_name = "URL")]
    api: Option<String>,

    /// The file with the certificate of the API server's authority.
    #[arg(long, value_name = "FILE", default_value = AUTHORITY)]
    api_ca: PathBuf,

    /// The file with the token; it is read again for each call.
    #[arg(long, value_name = "FILE", default_value = TOKEN)]
    api_token: PathBuf,
}

/// Why a call has not done what it should.
#[derive(Debug)]
pub enum Refusal {
    /// The server says no, with this status.
    Status(u16, String),
    /// It is not reached, or says nothing that can be read.
    Unreachable(String),
}

impl Refusal {
    /// Whether there is no such object.
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Status(404, _))
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Status(status, message) => write!(f, "the API server answers {status}: {message}"),
            Self::Unreachable(why) => write!(f, "the API server is not reached: {why}"),
        }
    }
}

/// The API server.
pub struct Api {
    host: String,
    port: u16,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    token: PathBuf,
}

/// Host and port of `https://HOST[:PORT]`, and whether it is http.
fn address(url: &str) -> Option<(String, u16, bool)> {
    let uri: hyper::Uri = url.trim_end_matches('/').parse().ok()?;
    let is_plain = match uri.scheme_str()? {
        "https" => false,
        "http" => true,
        _ => return None,
    };
    let host = uri.host()?.trim_start_matches('[').trim_end_matches(']').to_owned();
    Some((host, uri.port_u16().unwrap_or(if is_plain { 80 } else { 443 }), is_plain))
}

impl Api {
    /// Finds the server and reads its authority's certificate.
    pub fn of(server: &Server) -> Result<Self, Error> {
        let (host, port, is_plain) = match &server.api {
            Some(url) => address(url).ok_or_else(|| {
                Error::Asked(format!(
                    "--api {url:?}: write https://HOST:PORT, as kubectl cluster-info has it"
                ))
            })?,
            None => {
                let of = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
                let (Some(host), Some(port)) = (of("KUBERNETES_SERVICE_HOST"), of("KUBERNETES_SERVICE_PORT"))
                else {
                    return Err(Error::Asked(
                        "this is no pod of a cluster (KUBERNETES_SERVICE_HOST is not set). Name the API server: --api https://HOST:PORT"
                            .to_owned(),
                    ));
                };
                let port = port.parse().map_err(|_| {
                    Error::Asked(format!(
                        "KUBERNETES_SERVICE_PORT={port:?} is no port; Kubernetes sets it in every pod"
                    ))
                })?;
                (host, port, false)
            }
        };
        let tls = if is_plain { None } else { Some(connector(&host, server)?) };
        Ok(Self { host, port, tls, token: server.api_token.clone() })
    }

    /// Reads an object.
    pub async fn get(&self, path: &str) -> Result<Value, Refusal> {
        self.call(Method::GET, path, None).await
    }

    /// Makes one.
    pub async fn create(&self, path: &str, object: &Value) -> Result<Value, Refusal> {
        self.call(Method::POST, path, Some(object)).await
    }

    /// Writes one anew.
    pub async fn update(&self, path: &str, object: &Value) -> Result<Value, Refusal> {
        self.call(Method::PUT, path, Some(object)).await
    }

    /// Removes one.
    pub async fn delete(&self, path: &str) -> Result<Value, Refusal> {
        self.call(Method::DELETE, path, None).await
    }

    async fn call(&self, method: Method, path: &str, object: Option<&Value>) -> Result<Value, Refusal> {
        let late = |_| Err(Refusal::Unreachable(format!("no answer within {} s", PATIENCE.as_secs())));
        timeout(PATIENCE, self.once(method, path, object)).await.unwrap_or_else(late)
    }

    async fn once(&self, method: Method, path: &str, object: Option<&Value>) -> Result<Value, Refusal> {
        let unreachable = |error: &dyn std::fmt::Display| Refusal::Unreachable(error.to_string());
        let stream =
            TcpStream::connect((self.host.as_str(), self.port)).await.map_err(|error| unreachable(&error))?;
        let body = object.map(Value::to_string).unwrap_or_default();
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, format!("{}:{}", self.host, self.port))
            .header(ACCEPT, "application/json");
        if object.is_some() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        if let Ok(token) = fs::read_to_string(&self.token) {
            request = request.header(AUTHORIZATION, format!("Bearer {}", token.trim()));
        }
        let request = request.body(Full::new(Bytes::from(body))).map_err(|error| unreachable(&error))?;
        match &self.tls {
            None => exchange(stream, request).await,
            Some((connector, name)) => {
                let stream =
                    connector.connect(name.clone(), stream).await.map_err(|error| unreachable(&error))?;
                exchange(stream, request).await
            }
        }
    }
}

fn connector(host: &str, server: &Server) -> Result<(TlsConnector, ServerName<'static>), Error> {
    let shown = server.api_ca.display();
    let refused = |why: String| Error::Asked(format!("--api-ca {shown}: {why}. Name the cluster's ca.crt"));
    let mut roots = RootCertStore::empty();
    let all = CertificateDer::pem_file_iter(&server.api_ca).map_err(|error| refused(error.to_string()))?;
    for certificate in all {
        let certificate = certificate.map_err(|error| refused(error.to_string()))?;
        roots.add(certificate).map_err(|error| refused(error.to_string()))?;
    }
    if roots.is_empty() {
        return Err(refused("there is no certificate in it".to_owned()));
    }
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| refused(error.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from(host.to_owned())
        .map_err(|_| Error::Asked(format!("{host:?} is no name of an API server")))?;
    Ok((TlsConnector::from(Arc::new(config)), name))
}

async fn exchange<S>(stream: S, request: Request<Full<Bytes>>) -> Result<Value, Refusal>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let unreachable = |error: &dyn std::fmt::Display| Refusal::Unreachable(error.to_string());
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| unreachable(&error))?;
    let connection = tokio::spawn(connection);
    let answer = sender.send_request(request).await.map_err(|error| unreachable(&error))?;
    let status = answer.status();
    let body = Limited::new(answer.into_body(), LONGEST).collect().await;
    connection.abort();
    let body = body.map_err(|error| unreachable(&error))?.to_bytes();
    let object: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
    if status.is_success() && !object.is_null() {
        return Ok(object);
    }
    let message =
        object["message"].as_str().map_or_else(|| String::from_utf8_lossy(&body).into_owned(), str::to_owned);
    Err(Refusal::Status(status.as_u16(), message.chars().take(512).collect()))
}

#[cfg(test)]
mod tests;
