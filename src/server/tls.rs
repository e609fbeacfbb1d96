//! TLS towards clients: certificate and key are loaded and checked before a listener uses them, and
//! stand in an `ArcSwap`, so that new ones are a swap.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use pingora::tls::TlsAcceptor;
use rustls::ServerConfig;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::transport::HTTP2;
use crate::config::TlsSettings;

/// The present acceptor of a listener.
pub(super) type Acceptor = Arc<ArcSwap<TlsAcceptor>>;

/// Why certificate and key can't be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file can't be read as PEM.
    #[error("{}: {source}", file.display())]
    File {
        /// Which.
        file: PathBuf,
        /// Why.
        #[source]
        source: rustls_pki_types::pem::Error,
    },
    /// The chain is empty, or the key does not fit.
    #[error("{}: {source}", certificate.display())]
    Unusable {
        /// The certificate's file.
        certificate: PathBuf,
        /// Why.
        #[source]
        source: rustls::Error,
    },
}

/// Loads a certificate and its key. `http2` says whether clients may choose HTTP/2.
///
/// # Errors
/// [`TlsError`].
pub(super) fn load(settings: &TlsSettings, http2: bool) -> Result<Acceptor, TlsError> {
    let mut config = server_config(settings)?;
    if http2 {
        config.alpn_protocols.insert(0, HTTP2.to_vec());
    }
    Ok(Arc::new(ArcSwap::from_pointee(TlsAcceptor::from(Arc::new(config)))))
}

/// TLS 1.2 and 1.3 (TS-1), no early data, HTTP/1.1.
fn server_config(settings: &TlsSettings) -> Result<ServerConfig, TlsError> {
    let chain = load_certificates(&settings.certificate)?;
    let key = PrivateKeyDer::from_pem_file(&settings.key)
        .map_err(|source| TlsError::File { file: settings.key.clone(), source })?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
        .map_err(|source| TlsError::Unusable { certificate: settings.certificate.clone(), source })?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// All certificates of a PEM file, in its order.
///
/// # Errors
/// [`TlsError::File`].
pub(super) fn load_certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let failed = |source| TlsError::File { file: file.to_owned(), source };
    CertificateDer::pem_file_iter(file).map_err(failed)?.map(|item| item.map_err(failed)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (String, String) {
        let made = rcgen::generate_simple_self_signed(["app.test".to_owned()]).unwrap();
        (made.cert.pem(), made.signing_key.serialize_pem())
    }

    #[test]
    fn certificate_and_key_are_checked_before_they_are_used() {
        let ((certificate, key), (_, other_key)) = (pair(), pair());
        let cases = [
            ("both", certificate.as_str(), key.as_str(), true),
            ("a key of another certificate", &certificate, &other_key, false),
            ("no certificate", "", &key, false),
            ("no key", &certificate, "", false),
            ("key and certificate swapped", &key, &certificate, false),
            ("no PEM", "certificate", "key", false),
        ];
        for (name, certificate, key, expected) in cases {
            let folder = tempfile::tempdir().unwrap();
            let settings = TlsSettings {
                certificate: folder.path().join("tls.crt"),
                key: folder.path().join("tls.key"),
            };
            std::fs::write(&settings.certificate, certificate).unwrap();
            std::fs::write(&settings.key, key).unwrap();
            let loaded = load(&settings, true);
            assert_eq!(loaded.is_ok(), expected, "{name}");
            let told = loaded.err().map(|error| error.to_string()).unwrap_or_default();
            assert!(expected || told.contains("tls."), "{name}: the file is named: {told}");
        }
    }

    #[test]
    fn a_file_that_is_not_there_is_told() {
        let settings = TlsSettings { certificate: "/nowhere/tls.crt".into(), key: "/nowhere/tls.key".into() };
        let error = load(&settings, true).err().unwrap().to_string();
        assert!(error.contains("/nowhere/tls.crt"), "{error}");
    }
}
