//! What the check asks of the machine: secrets, certificates, the environment.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::TlsSettings;
use super::check::{Found, KeyPairError};
use super::read::SecretRef;
use crate::secret::{self, Secret};

/// Reads a file of text.
pub(super) fn read_text(path: &Path) -> Result<String, String> {
    let text = secret::load(path).map_err(|error| error.to_string())?;
    Ok(text.expose().clone())
}

/// The contents of a secret reference, and where it was read; the complaint names the place and never the
/// contents. The text may have many lines.
pub(super) fn read_secret(
    base: &Path,
    variable: impl Fn(&str) -> Option<String>,
    reference: &SecretRef,
) -> Result<Found, String> {
    match reference {
        SecretRef::File(file) => {
            let path = base.join(file);
            let place = format!("the secret file {}", path.display());
            let text = secret::load(&path).map_err(|error| format!("{place} {error}"))?;
            Ok(Found { text, place, file: Some(path) })
        }
        SecretRef::Env(name) => {
            let place = format!("the environment variable {name:?}");
            let text = variable(name).ok_or_else(|| format!("{place} is not set, or not UTF-8"))?;
            Ok(Found { text: Secret::new(text), place, file: None })
        }
    }
}

/// The value of an environment variable.
#[expect(clippy::disallowed_methods, reason = "config is where the environment is read")]
pub(super) fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// `$STATE_DIRECTORY`, as systemd sets it: the first of its directories.
pub(super) fn state_directory() -> Option<PathBuf> {
    let directories = variable("STATE_DIRECTORY")?;
    let first = directories.split(':').next().filter(|first| !first.is_empty())?;
    Some(PathBuf::from(first))
}

/// Processor cores that the process may use.
pub(super) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// Whether certificate and key are readable and belong together.
pub(super) fn check_key_pair(tls: &TlsSettings) -> Result<(), KeyPairError> {
    let chain = certificates(&tls.certificate).map_err(KeyPairError::Certificate)?;
    let key = PrivateKeyDer::from_pem_file(&tls.key)
        .map_err(|error| KeyPairError::Key(format!("is no usable PEM file with a private key: {error}")))?;
    let provider = Arc::new(aws_lc_rs::default_provider());
    match CertifiedKey::from_der(chain, key, &provider) {
        Ok(_) => Ok(()),
        Err(error) => Err(KeyPairError::Key(format!("does not fit the certificate: {error}"))),
    }
}

/// Whether a file holds at least one certificate.
pub(super) fn check_ca_file(path: &Path) -> Result<(), String> {
    certificates(path).map(|_| ())
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let unusable = |error| format!("is no usable PEM file with certificates: {error}");
    let chain = CertificateDer::pem_file_iter(path).map_err(unusable)?;
    let chain = chain.collect::<Result<Vec<_>, _>>().map_err(unusable)?;
    if chain.is_empty() { Err("holds no certificate".to_owned()) } else { Ok(chain) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from_file(contents: &[u8]) -> Result<Secret<String>, String> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("secret"), contents).unwrap();
        read_secret(dir.path(), |_| None, &SecretRef::File("secret".to_owned()))?.one_line()
    }

    #[test]
    fn a_secret_file_loses_one_newline_and_nothing_else() {
        let cases: &[(&str, &[u8], &str)] = &[
            ("no newline", b"hunter2", "hunter2"),
            ("a newline", b"hunter2\n", "hunter2"),
            ("a newline of Windows", b"hunter2\r\n", "hunter2"),
            ("spaces", b" hunter2 \n", " hunter2 "),
            ("UTF-8", "h\u{fc}nter2".as_bytes(), "h\u{fc}nter2"),
        ];
        for (name, contents, wanted) in cases {
            assert_eq!(from_file(contents), Ok(Secret::new((*wanted).to_owned())), "{name}");
        }
    }

    #[test]
    fn a_secret_that_can_be_none_is_refused_without_repeating_it() {
        let cases: &[(&str, &[u8], &str)] = &[
            ("empty", b"", "is empty"),
            ("only a newline", b"\n", "is empty"),
            ("two newlines", b"hunter2\n\n", "holds a line break"),
            ("two lines", b"hunter2\nhunter3", "holds a line break"),
            ("a NUL", b"hunter2\0", "holds a line break or another control character"),
            ("no UTF-8", b"hunter2\xff", "can't be read"),
        ];
        for (name, contents, wanted) in cases {
            let complaint = from_file(contents).unwrap_err();
            assert!(complaint.contains(wanted), "{name}: {complaint}");
            assert!(!complaint.contains("hunter"), "{name}: {complaint}");
        }
    }

    #[test]
    fn a_file_without_end_is_not_read_to_its_end() {
        let complaint = read_text(Path::new("/dev/zero")).unwrap_err();
        assert!(complaint.contains("larger than"), "{complaint}");
    }

    #[test]
    fn a_secret_of_the_environment_is_that_of_the_named_variable() {
        let variable = |name: &str| (name == "OURS").then(|| "hunter2".to_owned());
        let read =
            |name: &str| read_secret(Path::new(""), variable, &SecretRef::Env(name.to_owned()))?.one_line();
        assert_eq!(read("OURS"), Ok(Secret::new("hunter2".to_owned())));
        assert!(read("THEIRS").unwrap_err().contains("\"THEIRS\" is not set"));
    }
}
