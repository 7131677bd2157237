//! Promises of the API server's client.

use super::*;
use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::Path;
use std::thread;

#[test]
fn an_address_is_read_whole_or_not_at_all() {
    assert_eq!(address("https://10.0.0.1:6443"), Some(("10.0.0.1".to_owned(), 6443, false)));
    assert_eq!(address("https://[fd00::1]:6443/"), Some(("fd00::1".to_owned(), 6443, false)));
    assert_eq!(address("http://127.0.0.1:8001"), Some(("127.0.0.1".to_owned(), 8001, true)));
    assert_eq!(address("https://api.example"), Some(("api.example".to_owned(), 443, false)));
    for wrong in ["", "10.0.0.1:6443", "ftp://x", "https://"] {
        assert_eq!(address(wrong), None, "{wrong}");
    }
}

/// An API server with a certificate of its own, which answers one request with what it was asked; its address.
fn serve(certificate: &rcgen::CertifiedKey<rcgen::KeyPair>) -> String {
    let key = PrivateKeyDer::try_from(certificate.signing_key.serialize_der()).expect("a key");
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![certificate.cert.der().clone()], key)
        .expect("a certificate");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = format!("https://{}", listener.local_addr().expect("an address"));
    thread::spawn(move || {
        let (stream, _) = listener.accept().expect("a client");
        let connection = ServerConnection::new(Arc::new(config)).expect("a connection");
        let mut reader = BufReader::new(StreamOwned::new(connection, stream));
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            // Who does not trust the certificate breaks off.
            if reader.read_line(&mut line).is_err() || line.trim().is_empty() {
                break;
            }
            lines.push(line.trim().to_lowercase());
        }
        let body = serde_json::json!(lines).to_string();
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        let _ = reader.get_mut().write_all(answer.as_bytes());
    });
    address
}

#[test]
fn the_server_is_asked_by_tls_with_the_token_and_only_if_its_authority_is_the_clusters() {
    let home = std::env::temp_dir().join(format!("gpuquota-api-{}", std::process::id()));
    fs::create_dir(&home).expect("a scratch directory");
    let certificate = || rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).expect("a certificate");
    let (own, other) = (certificate(), certificate());
    fs::write(home.join("ca.crt"), own.cert.pem()).expect("written");
    fs::write(home.join("token"), "secret\n").expect("written");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let ask = |address: String, authority: &Path| {
        let server =
            Server { api: Some(address), api_ca: authority.to_owned(), api_token: home.join("token") };
        Api::of(&server).map(|api| runtime.block_on(api.get("/api/v1/nodes/a")))
    };
    let told = ask(serve(&own), &home.join("ca.crt")).expect("an authority").expect("an answer");
    let told = told.as_array().expect("lines").clone();
    assert!(told.contains(&"get /api/v1/nodes/a http/1.1".into()), "{told:?}");
    assert!(told.contains(&"authorization: bearer secret".into()), "{told:?}");
    let refused =
        ask(serve(&other), &home.join("ca.crt")).expect("an authority").expect_err("another authority");
    assert!(matches!(refused, Refusal::Unreachable(_)), "{refused}");
    let why =
        ask("https://127.0.0.1:1".to_owned(), &home.join("none")).expect_err("no authority").to_string();
    assert!(why.contains("--api-ca") && why.contains("Name the cluster's ca.crt"), "{why}");
    fs::remove_dir_all(&home).expect("it is there");
}
