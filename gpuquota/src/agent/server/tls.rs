//! TLS: a certificate chain and its key, read again when they change.

use super::secrets::Watched;
use crate::error::Error;
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::{Error as PemError, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tracing::{info, warn};

/// The certificate in use.
#[derive(Clone)]
pub struct Tls(Arc<Inner>);

struct Inner {
    certificate: PathBuf,
    key: PathBuf,
    watched: Watched,
    config: RwLock<Arc<ServerConfig>>,
}

impl Tls {
    pub fn read(certificate: &Path, key: &Path) -> Result<Self, Error> {
        let watched = Watched::new(&[certificate, key]);
        let config = RwLock::new(read(certificate, key).map_err(Error::Asked)?);
        Ok(Self(Arc::new(Inner {
            certificate: certificate.to_owned(),
            key: key.to_owned(),
            watched,
            config,
        })))
    }

    /// Reads the files again if one of them has changed.
    pub fn reload(&self) {
        if !self.0.watched.changed() {
            return;
        }
        match read(&self.0.certificate, &self.0.key) {
            Ok(config) => {
                *self.0.config.write().unwrap_or_else(PoisonError::into_inner) = config;
                info!("the certificate is read again");
            }
            // The second file may be on its way.
            Err(why) => warn!("the certificate of before is served: {why}"),
        }
    }

    pub async fn accept(&self, stream: TcpStream) -> std::io::Result<TlsStream<TcpStream>> {
        let config = Arc::clone(&self.0.config.read().unwrap_or_else(PoisonError::into_inner));
        TlsAcceptor::from(config).accept(stream).await
    }
}

fn read(certificate: &Path, key: &Path) -> Result<Arc<ServerConfig>, String> {
    let chain = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| told("tls-certificate", certificate, error, "certificate"))?;
    if chain.is_empty() {
        return Err(told("tls-certificate", certificate, PemError::NoItemsFound, "certificate"));
    }
    let secret =
        PrivateKeyDer::from_pem_file(key).map_err(|error| told("tls-key", key, error, "private key"))?;
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_no_client_auth()
        .with_single_cert(chain, secret)
        .map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => format!(
                "tls-key {} is not the key of tls-certificate {}",
                key.display(),
                certificate.display()
            ),
            other => format!("tls-certificate {}, tls-key {}: {other}", certificate.display(), key.display()),
        })?;
    Ok(Arc::new(config))
}

fn told(what: &str, path: &Path, error: PemError, item: &str) -> String {
    let why = match error {
        PemError::Io(error) => error.to_string(),
        PemError::NoItemsFound => format!("there is no {item} in it"),
        other => format!("{other:?}"),
    };
    format!("{what} {}: {why}", path.display())
}
