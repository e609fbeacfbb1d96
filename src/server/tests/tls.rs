//! Listeners with TLS of their own.

use std::io::{Read as _, Write as _};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use rustls_pki_types::ServerName;

use super::support::{Application, Client, Fixture, public, settings, start_settings, status};
use crate::config::TlsSettings;

/// Writes a self-signed certificate for `app.test`.
fn write_certificate(folder: &Path) -> (TlsSettings, RootCertStore) {
    let made = rcgen::generate_simple_self_signed(["app.test".to_owned()]).unwrap();
    let tls = TlsSettings { certificate: folder.join("tls.crt"), key: folder.join("tls.key") };
    std::fs::write(&tls.certificate, made.cert.pem()).unwrap();
    std::fs::write(&tls.key, made.signing_key.serialize_pem()).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    (tls, roots)
}

fn gateway(application: &Application, more: &str) -> (Fixture, RootCertStore) {
    let folder = tempfile::tempdir().unwrap();
    let (tls, roots) = write_certificate(folder.path());
    let mut settings = settings(&format!("{more}{}", public(application.address, "")));
    settings.listeners[0].tls = Some(tls);
    (start_settings(settings), roots)
}

#[test]
fn a_request_over_tls_is_answered() {
    let application = Application::echo();
    let (gateway, roots) = gateway(&application, "");
    let mut config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let connection =
        ClientConnection::new(Arc::new(config), ServerName::try_from("app.test").unwrap()).unwrap();
    let stream = std::net::TcpStream::connect(gateway.address).unwrap();
    let mut tls = StreamOwned::new(connection, stream);
    tls.write_all(b"GET /a HTTP/1.1\r\nHost: app.test\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    tls.read_to_string(&mut answer).unwrap();
    assert_eq!(status(&answer), 200, "{answer}");
    assert_eq!(tls.conn.alpn_protocol(), Some(b"http/1.1".as_slice()));
    assert!(answer.contains("GET /a HTTP/1.1\r\n"), "{answer}");
}

#[test]
fn a_handshake_that_is_never_finished_ends_at_its_deadline() {
    let application = Application::echo();
    let (gateway, _) = gateway(&application, "[server]\ntls_handshake_timeout = \"1s\"\n");
    let begun = Instant::now();
    assert_eq!(gateway.connect().read_all(), "");
    let taken = begun.elapsed();
    assert!(taken >= Duration::from_secs(1) && taken < Duration::from_secs(5), "{taken:?}");
}

#[test]
fn cleartext_to_a_tls_listener_gets_no_http() {
    let application = Application::echo();
    let (gateway, _) = gateway(&application, "");
    let mut client = Client::connect(gateway.address);
    client.send("GET / HTTP/1.1\r\nHost: app.test\r\n\r\n");
    assert_eq!(status(&client.read_all()), 0);
    assert_eq!(application.hits(), 0);
}
